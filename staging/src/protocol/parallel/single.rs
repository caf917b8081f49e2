//! Files that are not to be had in parts.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use keelboat_engine::Digest;

use crate::address::address_digest;

/// Addresses that are remembered. A forgotten one costs a part that is refused.
const ADDRESSES_MAX: usize = 4096;

/// Addresses of which a part was refused; the oldest ones are forgotten.
#[derive(Debug, Default)]
pub(super) struct Singles(Mutex<VecDeque<Digest>>);

impl Singles {
    pub(super) fn add(&self, address: &str) {
        let digest = address_digest(address);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&digest) {
            return;
        }
        if known.len() == ADDRESSES_MAX {
            known.pop_front();
        }
        known.push_back(digest);
    }

    pub(super) fn has(&self, address: &str) -> bool {
        let digest = address_digest(address);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_remembered_as_may_be() {
        let singles = Singles::default();
        for number in 0..=ADDRESSES_MAX {
            singles.add(&number.to_string());
            singles.add(&number.to_string());
        }
        assert!(!singles.has("0") && singles.has("1") && singles.has(&ADDRESSES_MAX.to_string()));
        assert_eq!(singles.0.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
