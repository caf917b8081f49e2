//! Room on the disk for what is under way.

use std::collections::BTreeMap;

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
    elsewhere: Elsewhere,
}

impl Room {
    pub(super) fn new(max: Option<u64>) -> Self {
        let max = max.unwrap_or(u64::MAX);
        Self { max, used: 0, by_id: BTreeMap::new(), elsewhere: Elsewhere::default() }
    }

    pub(super) fn set_elsewhere(&mut self, elsewhere: Elsewhere) {
        self.elsewhere = elsewhere;
    }

    /// Whether somebody may have so many bytes in all; beyond the bound only when it is alone.
    pub(super) fn offer(&self, id: RoomId, bytes: u64, is_alone: bool) -> Reserved {
        let own = self.own(id);
        let others = self.used - own;
        let all = others.saturating_add(self.elsewhere.bytes).saturating_add(bytes);
        let alone = is_alone && !self.elsewhere.is_moving;
        if bytes > self.max {
            Reserved::Never
        } else if bytes <= own || all <= self.max || alone {
            Reserved::Yes
        } else {
            Reserved::Later
        }
    }

    pub(super) fn has_some(&self, id: RoomId) -> bool {
        self.own(id) > 0
    }

    fn own(&self, id: RoomId) -> u64 {
        self.by_id.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn take(&mut self, id: RoomId, bytes: u64) {
        let own = self.by_id.entry(id).or_default();
        let more = bytes.saturating_sub(*own);
        *own += more;
        self.used = self.used.saturating_add(more);
    }

    pub(super) fn release(&mut self, id: RoomId) {
        self.used -= self.by_id.remove(&id).unwrap_or(0);
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_id.values().sum::<u64>(), self.used, "room in use adds up");
    }
}
