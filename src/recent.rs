//! Values that are equal to one of the last few take room once: what very many tasks have alike.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;

/// A program submits a few kinds of tasks by turns.
const RECENT_MAX: usize = 8;

/// The last few values.
#[derive(Debug)]
pub(crate) struct Recent<T: ?Sized>(VecDeque<Arc<T>>);

impl<T: ?Sized> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: ?Sized + PartialEq> Recent<T> {
    /// The one that is equal, if there is one; this one, if not.
    pub(crate) fn shared(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.0.iter().find(|known| ***known == *value.borrow()) {
            return Arc::clone(known);
        }
        let new = value.into();
        self.0.truncate(RECENT_MAX - 1);
        self.0.push_front(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_as_long_as_they_are_recent() {
        let mut recent = Recent::<str>::default();
        let first = recent.shared("a".to_owned());
        for other in ["b", "c", "d", "e", "f", "g", "h"] {
            recent.shared(other.to_owned());
        }
        assert!(Arc::ptr_eq(&first, &recent.shared("a".to_owned())));
        recent.shared("i".to_owned());
        assert!(!Arc::ptr_eq(&first, &recent.shared("a".to_owned())));
    }
}
