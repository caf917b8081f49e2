//! Room on the disk for what is under way.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes that belong together, of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomId(pub u64);

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// It is there.
    Yes,
    /// Others have to give up theirs first.
    Later,
    /// There will never be as much.
    Never,
}

/// What else counts against the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elsewhere {
    /// Bytes kept there.
    pub bytes: u64,
    /// Whether something goes on there that may free some of them. While nothing does, one
    /// transfer at a time goes beyond the bound, since nothing would ever happen otherwise.
    pub is_moving: bool,
}

#[derive(Debug)]
pub(super) struct Room {
    max: u64,
    used: u64,
    by_id: BTreeMap<RoomId, u64>,
    /// Those whose bytes are here, and are about to be somebody else's matter.
    full: BTreeSet<RoomId>,
    elsewhere: Elsewhere,
}

impl Room {
    pub(super) fn new(max: Option<u64>) -> Self {
        let max = max.unwrap_or(u64::MAX);
        let (by_id, full, elsewhere) = Default::default();
        Self { max, used: 0, by_id, full, elsewhere }
    }

    pub(super) fn set_elsewhere(&mut self, elsewhere: Elsewhere) {
        self.elsewhere = elsewhere;
    }

    /// Whether somebody may have so many bytes in all; beyond the bound only when it is alone.
    pub(super) fn offer(&self, id: RoomId, bytes: u64, is_alone: bool) -> Reserved {
        let own = self.own(id);
        let others = self.used - own;
        let all = others.saturating_add(self.elsewhere.bytes).saturating_add(bytes);
        let alone = is_alone && !self.elsewhere.is_moving && self.full.is_empty();
        if bytes > self.max {
            Reserved::Never
        } else if bytes <= own || all <= self.max || alone {
            Reserved::Yes
        } else {
            Reserved::Later
        }
    }

    /// How many bytes of others have to go before somebody can have so many in all.
    pub(super) fn lack(&self, id: RoomId, bytes: u64) -> u64 {
        let all = (self.used - self.own(id)).saturating_add(self.elsewhere.bytes);
        all.saturating_add(bytes).saturating_sub(self.max)
    }

    /// All of its bytes are here.
    pub(super) fn fill(&mut self, id: RoomId) {
        if self.by_id.contains_key(&id) {
            self.full.insert(id);
        }
    }

    pub(super) fn has_some(&self, id: RoomId) -> bool {
        self.own(id) > 0
    }

    pub(super) fn own(&self, id: RoomId) -> u64 {
        self.by_id.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn take(&mut self, id: RoomId, bytes: u64) {
        // They have to come again after all.
        self.full.remove(&id);
        let own = self.by_id.entry(id).or_default();
        let more = bytes.saturating_sub(*own);
        *own += more;
        self.used = self.used.saturating_add(more);
    }

    pub(super) fn release(&mut self, id: RoomId) {
        self.full.remove(&id);
        self.used -= self.by_id.remove(&id).unwrap_or(0);
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert!(self.full.iter().all(|id| self.by_id.contains_key(id)), "what is full has room");
        assert_eq!(self.by_id.values().sum::<u64>(), self.used, "room in use adds up");
    }
}
