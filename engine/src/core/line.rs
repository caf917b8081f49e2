//! The line of transfers that are wanted and not asked for yet: the most useful first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{FileId, SiteId};

pub(super) type Key = (FileId, SiteId);

/// What a transfer is good for; the greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Use {
    /// Tasks that lack nothing else.
    pub(super) unblocks: u32,
    /// Tasks that lack it.
    pub(super) waiting: u32,
}

impl Use {
    /// The same as one number, for those who order what is asked for.
    pub(super) fn priority(self) -> u8 {
        let few = |count: u32| u8::try_from(count.min(15)).unwrap_or(15);
        few(self.unblocks) * 16 + few(self.waiting)
    }
}

/// The greatest use first; among equals, what was wanted first.
type Rank = (Reverse<Use>, u64);

#[derive(Debug, Default)]
pub(super) struct Line {
    ordered: BTreeMap<Rank, Key>,
    ranks: BTreeMap<Key, Rank>,
    /// Those whose use nobody has looked at yet, in their order.
    fresh: BTreeMap<u64, Key>,
    next: u64,
}

impl Line {
    /// At the end, until its use is known.
    pub(super) fn push(&mut self, key: Key) {
        self.fresh.insert(self.next, key);
        self.next += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ordered.is_empty() && self.fresh.is_empty()
    }

    /// One whose use is not known, to be put back by [`Line::rank`].
    pub(super) fn pop_fresh(&mut self) -> Option<(u64, Key)> {
        self.fresh.pop_first()
    }

    pub(super) fn rank(&mut self, number: u64, key: Key, its_use: Use) {
        let rank = (Reverse(its_use), number);
        self.ordered.insert(rank, key);
        self.ranks.insert(key, rank);
    }

    /// It is of more use than it was.
    pub(super) fn raise(&mut self, key: Key, more: Use) {
        let Some(rank) = self.ranks.get_mut(&key) else { return };
        self.ordered.remove(rank);
        rank.0.0.unblocks += more.unblocks;
        rank.0.0.waiting += more.waiting;
        self.ordered.insert(*rank, key);
    }

    pub(super) fn pop(&mut self) -> Option<(Key, Use)> {
        let ((Reverse(its_use), _), key) = self.ordered.pop_first()?;
        self.ranks.remove(&key);
        Some((key, its_use))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(Key) -> bool) {
        self.fresh.retain(|_, key| keep(*key));
        self.ordered.retain(|_, key| keep(*key));
        self.ranks.retain(|key, _| keep(*key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ordered.len() + self.fresh.len()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.ordered.len(), self.ranks.len(), "each has one rank");
        for (rank, key) in &self.ordered {
            assert_eq!(self.ranks.get(key), Some(rank), "it is where its rank says");
        }
    }

    /// Those whose use is known.
    #[cfg(test)]
    pub(super) fn ranked(&self) -> impl Iterator<Item = (Key, Use)> {
        self.ordered.iter().map(|((Reverse(its_use), _), key)| (*key, *its_use))
    }
}
