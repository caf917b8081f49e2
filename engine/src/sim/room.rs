//! What may go from the engine's own machine when transfers lack room there.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::source_name;
use super::world::World;
use crate::core::{Action, Core, Event};
use crate::{FileId, SiteId, Source, TaskId};

/// Remote files that came to the engine's own machine in one life of it, with their bytes, and
/// have not gone: all of them count against the bound.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<FileId, u64>);

impl Shelf {
    /// Takes in what came with an event and went with an action; then the core's books are right.
    pub(super) fn check(&mut self, event: &Event, actions: &[Action], core: &Core) {
        if let Event::Staged { file, site: SiteId::HOME, content } = event
            && matches!(core.graph().file(*file).source, Source::Urls(_))
            && core.content(*file) == Some(*content)
        {
            self.0.insert(*file, content.bytes);
        }
        for action in actions {
            if let Action::Evict { file } = action {
                assert!(self.0.remove(file).is_some(), "{file} was here, to go");
            }
        }
        let bytes: u64 = self.0.values().sum();
        assert_eq!(core.kept().bytes, bytes, "what is here counts until it goes");
    }
}

/// The files that nobody reads when room is wanted. What is wanted first in the very step that
/// gives a file up (since a lost result turns out to be needed) is brought again: that is promised.
#[derive(Debug)]
pub(super) struct Unread {
    files: BTreeSet<FileId>,
    /// Bytes that are to go.
    wanted: u64,
}

impl Unread {
    pub(super) fn before(event: &Event, core: &Core) -> Self {
        let Event::RoomWanted { bytes } = event else {
            return Self { files: BTreeSet::new(), wanted: 0 };
        };
        let mut files: BTreeSet<FileId> = (0..core.graph().file_count())
            .map(|at| FileId(u32::try_from(at).unwrap()))
            .filter(|file| matches!(core.graph().file(*file).source, Source::Urls(_)))
            .collect();
        for (at, reader) in core.graph().tasks().iter().enumerate() {
            if !core.phase(TaskId(u32::try_from(at).unwrap())).is_final() {
                files.retain(|file| !reader.inputs.contains(file));
            }
        }
        Self { files, wanted: *bytes }
    }

    /// Only what nobody read went, what can be had again, no more than had to, and no less than
    /// could.
    pub(super) fn check(&self, actions: &[Action], shelf: &Shelf, world: &World<'_>, core: &Core) {
        let mut freed = 0;
        for action in actions {
            let Action::Evict { file } = action else { continue };
            let node = core.graph().file(*file);
            let path = source_name(&node.source);
            assert!(self.files.contains(file), "{path} goes, and somebody reads it");
            let running = world.attempts.values().filter(|attempt| attempt.site == SiteId::HOME);
            let mut read = running.flat_map(|attempt| &attempt.spec.inputs);
            let reads = read.any(|i| i.source == node.source && i.sha256 == node.sha256);
            assert!(!reads, "an attempt reads {path}, which goes");
            assert!(freed < self.wanted, "{path} goes, and there was room without it");
            freed += shelf.0.get(file).copied().unwrap_or(0);
        }
        let is_left = |file: &&FileId| {
            let goes =
                |action: &Action| matches!(action, Action::Evict { file: gone } if gone == *file);
            shelf.0.contains_key(file) && !actions.iter().any(goes)
        };
        let left = self.files.iter().find(is_left);
        assert!(freed >= self.wanted || left.is_none(), "{left:?} stays, and room is wanted");
    }
}
