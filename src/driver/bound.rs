//! The bound on the disk that fetched files may take: the stager is told what the core keeps, and
//! what no task reads any more goes when transfers lack room.

use std::time::Duration;

use keelboat_engine::FileId;
use keelboat_engine::core::{Action, Event};
use keelboat_staging::{Elsewhere, Room};

use super::{Driver, RunError};

/// How often it is looked whether transfers lack room, while there is something that can go.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Bound {
    /// What the stager was told last.
    told: Option<Elsewhere>,
    /// Of files that came, and of which the stager was not told yet that the core has them.
    pub(super) rooms: Vec<Room>,
}

impl Driver<'_> {
    /// Tells what is kept, and gives up what is not needed as long as transfers lack room.
    pub(super) fn make_room(&mut self, actions: &mut Vec<Action>) -> Result<(), RunError> {
        let Some(stager) = self.edges.late.bounded_stager() else {
            self.bound.rooms.clear();
            return Ok(());
        };
        loop {
            let kept = self.core.kept();
            if self.bound.told.replace(kept) != Some(kept) {
                stager.set_elsewhere(kept);
            }
            self.bound.rooms.clear();
            if !self.core.has_spare() {
                return Ok(());
            }
            let Some(bytes) = stager.room_lacking() else { return Ok(()) };
            self.feed(Event::RoomWanted { bytes }, actions);
            self.carry_out(actions)?;
        }
    }

    /// How soon room has to be looked after, if it has.
    pub(super) fn room_period(&self) -> Option<Duration> {
        let may_help = self.core.has_spare() && self.edges.late.bounded_stager().is_some();
        may_help.then_some(LOOK_PERIOD)
    }

    /// Removes what the core gave up, unless something else that is needed has the same bytes.
    pub(super) fn evict(&mut self, files: &[FileId]) {
        let gone: Vec<_> = files.iter().filter_map(|file| self.core.content(*file)).collect();
        if let Err(error) = self.edges.objects.evict(&gone, self.core.needed()) {
            self.observer.warning(&format!("no room could be made for transfers: {error}"));
        }
    }
}
