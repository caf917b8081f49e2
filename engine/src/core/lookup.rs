//! Tables that are only looked up.
//!
//! Hash order must decide nothing in this crate, so hash maps are banned from it but for this one:
//! it cannot be walked over, and its hasher is the same in every run. By text it is several times
//! as fast as an ordered map, whose every step compares the long beginnings that paths share.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::TaskId;

#[expect(clippy::disallowed_types, reason = "it is never walked over, so its order is not seen")]
type Table<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Folding>>;

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

/// Tasks by name, where the names stand elsewhere: very many tasks may be waiting.
#[derive(Default)]
pub(super) struct ByName(hashbrown::HashTable<TaskId>);

impl ByName {
    /// `of` says how a task is called.
    pub(super) fn find<'a>(&self, name: &str, of: impl Fn(TaskId) -> &'a str) -> Option<TaskId> {
        self.0.find(hash(name), |task| of(*task) == name).copied()
    }

    /// Adds a task whose name is not there yet.
    pub(super) fn insert<'a>(&mut self, task: TaskId, of: impl Fn(TaskId) -> &'a str) {
        self.0.insert_unique(hash(of(task)), task, |task| hash(of(*task)));
    }

    pub(super) fn reserve<'a>(&mut self, additional: usize, of: impl Fn(TaskId) -> &'a str) {
        self.0.reserve(additional, |task| hash(of(*task)));
    }
}

fn hash(name: &str) -> u64 {
    let mut state = Folding::default();
    name.hash(&mut state);
    state.finish()
}

/// Its size only: the rest would be in hash order.
impl std::fmt::Debug for ByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ByName({} entries)", self.0.len())
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

/// Two of wyhash's constants: odd, half of their bits set.
const SALT: u64 = 0xa076_1d64_78bd_642f;
const FACTOR: u64 = 0xe703_7ed1_a0b4_28db;

/// Multiplies each eight bytes into the state and folds the product's halves together, as wyhash
/// (Wang Yi) does. Without a secret: texts made to collide slow down only their own workflow.
#[derive(Default)]
struct Folding(u64);

impl Folding {
    fn take_in(&mut self, word: u64) {
        let (low, high) = (self.0 ^ word ^ SALT).carrying_mul(FACTOR, 0);
        self.0 = low ^ high;
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.take_in(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.take_in(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, byte: u8) {
        self.take_in(byte.into());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<Folding>::default().hash_one(key)
    }

    #[test]
    fn names_that_differ_in_little_are_spread_over_all_bits() {
        let hashes = (0..4_096).map(|at| hash(format!("convert[sample=sample_{at:06}]")));
        let hashes: Vec<u64> = hashes.collect();
        for shift in [0, 20, 52] {
            let parts: BTreeSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 0xfff).collect();
            // Of 4,096 balls in as many boxes, 63 % of the boxes get one.
            assert!((2_450..2_730).contains(&parts.len()), "{} from bit {shift}", parts.len());
        }
    }

    #[test]
    fn zeros_and_lengths_count() {
        let texts = ["", "\0", "\0\0", "\0\0\0\0\0\0\0\0", "a", "a\0", "aaaaaaaa", "aaaaaaaaa"];
        let hashes: BTreeSet<u64> = texts.iter().map(hash).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_ne!(hash(("a", "b")), hash(("ab", "")));
    }

    #[test]
    fn what_is_put_in_is_found() {
        let mut lookup = Lookup::default();
        assert!(lookup.is_empty());
        assert_eq!(lookup.insert("a", 1), None);
        assert_eq!(lookup.insert("a", 2), Some(1));
        *lookup.get_or_default("b") += 3;
        assert_eq!((lookup.get("a"), lookup.get("b"), lookup.get("c")), (Some(&2), Some(&3), None));
        assert_eq!(format!("{lookup:?}"), "Lookup(2 entries)");
    }
}
