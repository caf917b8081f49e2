//! Tables that are only looked up.
//!
//! Hash order must decide nothing in this crate, so hash maps are banned from it but for this one:
//! it cannot be walked over, and its hasher is the same in every run. By text it is several times
//! as fast as an ordered map, whose every step compares the long beginnings that paths share.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

#[expect(clippy::disallowed_types, reason = "it is never walked over, so its order is not seen")]
type Table<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Values by key, without an order.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Lookup<K: Eq + Hash, V>(Table<K, V>);

impl<K: Eq + Hash, V> Lookup<K, V> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Table::with_capacity_and_hasher(capacity, BuildHasherDefault::default()))
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.0.reserve(additional);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// Returns what was there before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(super) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }
}

impl<K: Eq + Hash, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(Table::default())
    }
}

/// Its size only: the rest would be in hash order.
impl<K: Eq + Hash, V> std::fmt::Debug for Lookup<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lookup({} entries)", self.0.len())
    }
}
