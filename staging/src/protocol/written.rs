//! What was written here last, for protocols that tell versions of a file apart by the second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Files written last that are remembered.
const WRITTEN_MAX: usize = 1024;

/// The last files that were written here, each with its version: reading them back need not wait for
/// anybody else's writing, since only we know of them yet.
#[derive(Debug)]
pub(super) struct Written<P, V>(Mutex<VecDeque<(P, V)>>);

impl<P, V> Default for Written<P, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: PartialEq, V: PartialEq> Written<P, V> {
    pub(super) fn add(&self, place: P, version: V) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(known, _)| *known != place);
        if files.len() == WRITTEN_MAX {
            files.pop_front();
        }
        files.push_back((place, version));
    }

    pub(super) fn has(&self, place: &P, version: &V) -> bool {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().any(|(known, written)| known == place && written == version)
    }

    pub(super) fn rename(&self, from: &P, to: P) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(known, _)| *known != to);
        if let Some((place, _)) = files.iter_mut().find(|(known, _)| known == from) {
            *place = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known_by_their_present_name() {
        let written = Written::default();
        for number in 0..=WRITTEN_MAX {
            written.add(number, "one");
        }
        assert!(!written.has(&0, &"one") && written.has(&1, &"one"));
        assert!(!written.has(&1, &"another"));
        written.add(2, "two");
        written.rename(&1, 2);
        assert!(written.has(&2, &"one") && !written.has(&2, &"two") && !written.has(&1, &"one"));
    }
}
