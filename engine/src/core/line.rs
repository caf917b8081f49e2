//! The line of transfers that are wanted and not asked for yet: the most useful first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{FileId, SiteId};

pub(super) type Key = (FileId, SiteId);

/// What a transfer is good for; the greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Use {
    /// The highest priority of the tasks that lack it.
    pub(super) urgency: Option<i32>,
    /// Tasks that lack nothing else.
    pub(super) unblocks: u32,
    /// Tasks that lack it.
    pub(super) waiting: u32,
}

impl Use {
    /// The same as one number, for those who order what is asked for. What is more urgent than
    /// usual is in the upper half, what is less so in the lower one.
    pub(super) fn priority(self) -> u8 {
        let few = |count: u32| u8::try_from(count.min(15)).unwrap_or(15);
        let usual = few(self.unblocks) * 16 + few(self.waiting);
        match self.urgency.unwrap_or_default() {
            1.. => 128 + usual / 2,
            0 => usual,
            _ => usual / 2,
        }
    }
}

/// The greatest use first; among equals, what was wanted first.
type Rank = (Reverse<Use>, u64);

/// A host that files are taken from; `None`: from the disk, or from another site.
pub(super) type From = Option<HostId>;

/// A place in the list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u32);

/// One whose use nobody has looked at yet, to be put back by [`Line::rank`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    number: u64,
    pub(super) key: Key,
    from: From,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    /// By host, since each of them has only a share of those that are under way.
    ordered: BTreeMap<From, BTreeMap<Rank, Key>>,
    ranks: BTreeMap<Key, (Rank, From)>,
    /// In the order in which they came.
    fresh: BTreeMap<u64, Fresh>,
    next: u64,
}

impl Line {
    /// At the end, until its use is known.
    pub(super) fn push(&mut self, key: Key, from: From) {
        self.fresh.insert(self.next, Fresh { number: self.next, key, from });
        self.next += 1;
    }

    /// Whether there is one whose host may have more, or of which that is not known yet.
    pub(super) fn can_start(&self, may_start: impl Fn(From) -> bool) -> bool {
        !self.fresh.is_empty() || self.ordered.keys().any(|from| may_start(*from))
    }

    pub(super) fn pop_fresh(&mut self) -> Option<Fresh> {
        self.fresh.pop_first().map(|(_, fresh)| fresh)
    }

    pub(super) fn rank(&mut self, fresh: Fresh, its_use: Use) {
        let Fresh { number, key, from } = fresh;
        let rank = (Reverse(its_use), number);
        self.ordered.entry(from).or_default().insert(rank, key);
        self.ranks.insert(key, (rank, from));
    }

    /// It is of more use than it was.
    pub(super) fn raise(&mut self, key: Key, more: Use) {
        let Some((rank, from)) = self.ranks.get_mut(&key) else { return };
        let ordered = self.ordered.entry(*from).or_default();
        ordered.remove(rank);
        rank.0.0.urgency = rank.0.0.urgency.max(more.urgency);
        rank.0.0.unblocks += more.unblocks;
        rank.0.0.waiting += more.waiting;
        ordered.insert(*rank, key);
    }

    /// The most useful one of those whose host may have more.
    pub(super) fn pop(&mut self, may_start: impl Fn(From) -> bool) -> Option<(Key, Use)> {
        let able = self.ordered.iter().filter(|(from, _)| may_start(**from));
        let firsts = able.filter_map(|(from, ordered)| Some((*ordered.keys().next()?, *from)));
        let (rank, from) = firsts.min()?;
        let ordered = self.ordered.get_mut(&from)?;
        let key = ordered.remove(&rank)?;
        if ordered.is_empty() {
            self.ordered.remove(&from);
        }
        self.ranks.remove(&key);
        Some((key, rank.0.0))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(Key) -> bool) {
        self.fresh.retain(|_, fresh| keep(fresh.key));
        self.ordered.retain(|_, ordered| {
            ordered.retain(|_, key| keep(*key));
            !ordered.is_empty()
        });
        self.ranks.retain(|key, _| keep(*key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ranks.len() + self.fresh.len()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let ordered: usize = self.ordered.values().map(BTreeMap::len).sum();
        assert_eq!(ordered, self.ranks.len(), "each has one rank");
        for (from, ordered) in &self.ordered {
            assert!(!ordered.is_empty(), "a host that nothing waits for is not in line");
            for (rank, key) in ordered {
                let place = Some(&(*rank, *from));
                assert_eq!(self.ranks.get(key), place, "it is where its rank says");
            }
        }
    }

    /// Those whose use is known.
    #[cfg(test)]
    pub(super) fn ranked(&self) -> impl Iterator<Item = (Key, Use)> {
        self.ranks.iter().map(|(key, ((Reverse(its_use), _), _))| (*key, *its_use))
    }
}
