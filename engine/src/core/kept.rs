//! What is kept on the engine's own machine of remote files. Those that some task still reads are
//! kept; the rest is spare, and goes when transfers lack room. Both count against the bound on room.

use std::collections::BTreeMap;

use super::task::Counted;
use super::{Action, Core};
use crate::queue::Elsewhere;
use crate::{Content, FileId, Kind, SiteId, Source, TaskId};

#[derive(Debug, Default)]
pub(super) struct Kept {
    files: BTreeMap<FileId, File>,
    /// Files that no task reads any more.
    spare: BTreeMap<FileId, Spare>,
    /// The spare files by when they became so.
    oldest: BTreeMap<u64, FileId>,
    next: u64,
    /// Of both.
    bytes: u64,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    /// Inputs of tasks that have not ended. A task that reads it twice is there twice. None: only
    /// tasks read it that are done again.
    readers: u32,
}

#[derive(Debug)]
struct Spare {
    bytes: u64,
    since: u64,
}

impl Kept {
    fn keep(&mut self, file: FileId, bytes: u64, readers: u32) {
        self.forget(file);
        self.files.insert(file, File { bytes, readers });
        self.bytes += bytes;
    }

    fn spare(&mut self, file: FileId, bytes: u64) {
        self.forget(file);
        self.spare.insert(file, Spare { bytes, since: self.next });
        self.oldest.insert(self.next, file);
        self.next += 1;
        self.bytes += bytes;
    }

    fn forget(&mut self, file: FileId) {
        let kept = self.files.remove(&file).map(|kept| kept.bytes);
        let spare = self.spare.remove(&file).map(|spare| {
            self.oldest.remove(&spare.since);
            spare.bytes
        });
        self.bytes -= kept.or(spare).unwrap_or(0);
    }

    fn one_reader_less(&mut self, file: FileId) {
        if let Some(kept) = self.files.get_mut(&file) {
            kept.readers -= 1;
        }
    }

    fn bytes_of(&self, file: FileId) -> Option<u64> {
        let kept = self.files.get(&file).map(|kept| kept.bytes);
        kept.or_else(|| self.spare.get(&file).map(|spare| spare.bytes))
    }
}

impl Core {
    /// The bytes of fetched files that are here, and whether anything goes on that may free some:
    /// for [`TransferQueue::set_elsewhere`](crate::queue::TransferQueue::set_elsewhere).
    pub fn kept(&self) -> Elsewhere {
        let is_moving = self.counts.running > 0
            || self.sites.any_moving()
            || !self.recalling.is_empty()
            || !self.timers.is_empty()
            || self.has_spare();
        Elsewhere { bytes: self.kept.bytes, is_moving }
    }

    /// Whether a file is here that no task reads any more, so that [`Event::RoomWanted`] would be
    /// answered.
    ///
    /// [`Event::RoomWanted`]: super::Event::RoomWanted
    pub fn has_spare(&self) -> bool {
        !self.kept.spare.is_empty()
    }

    /// What the object cache must keep: files that tasks wrote, and remote ones that some task
    /// still reads.
    pub fn needed(&self) -> impl Iterator<Item = Content> {
        let files = (0..super::number(self.files.len())).map(FileId);
        let needed = files.filter(|file| {
            let node = self.graph.file(*file);
            match node.source {
                Source::Path(_) => node.producer.is_some() && node.kind == Kind::File,
                Source::Urls(_) => {
                    self.kept.files.contains_key(file) || self.transfers.is_wanted(*file)
                }
            }
        });
        needed.filter_map(|file| self.content(file))
    }

    /// Transfers lack room: what nobody reads any more goes, the longest unread first.
    pub(super) fn on_room_wanted(&mut self, bytes: u64, actions: &mut Vec<Action>) {
        let mut freed = 0;
        while freed < bytes {
            let Some((_, file)) = self.kept.oldest.first_key_value() else { return };
            let file = *file;
            freed += self.kept.spare.get(&file).map_or(0, |spare| spare.bytes);
            self.kept.forget(file);
            self.files[file.index()].replicas.retain(|replica| *replica != SiteId::HOME);
            actions.push(Action::Evict { file });
        }
    }

    /// A file is here now, and counts until it goes.
    pub(super) fn keep(&mut self, file: FileId, content: Content, site: SiteId) {
        if site == SiteId::HOME && matches!(self.graph.file(file).source, Source::Urls(_)) {
            self.keep_for_readers(file, content.bytes);
        }
    }

    fn keep_for_readers(&mut self, file: FileId, bytes: u64) {
        let readers = self.graph.readers(file).filter(|reader| !self.has_ended(reader.task));
        let readers = super::number(readers.count());
        if readers == 0 && !self.is_read_again(file) {
            self.kept.spare(file, bytes);
        } else {
            self.kept.keep(file, bytes, readers);
        }
    }

    /// A task has ended: what only it still read can go.
    pub(super) fn give_up_inputs(&mut self, task: TaskId) {
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            self.kept.one_reader_less(file);
            self.spare_if_unread(file);
        }
    }

    /// A task that was done again to bring back lost bytes has ended again.
    pub(super) fn give_up_inputs_again(&mut self, task: TaskId) {
        for at in 0..self.graph.task(task).inputs.len() {
            self.spare_if_unread(self.graph.task(task).inputs[at]);
        }
    }

    /// A task that has ended is to be done again: nothing that it reads may go.
    pub(super) fn hold_inputs(&mut self, task: TaskId) {
        for file in &self.graph.task(task).inputs {
            if let Some(bytes) = self.kept.spare.get(file).map(|spare| spare.bytes) {
                self.kept.keep(*file, bytes, 0);
            }
        }
    }

    fn spare_if_unread(&mut self, file: FileId) {
        if let Some(File { bytes, readers: 0 }) = self.kept.files.get(&file)
            && !self.is_read_again(file)
        {
            self.kept.spare(file, *bytes);
        }
    }

    fn is_read_again(&self, file: FileId) -> bool {
        self.graph.readers(file).any(|reader| !self.phase(reader.task).is_final())
    }

    /// Tasks that came later read what is here already, even if it is doubted at the moment.
    pub(super) fn keep_for(&mut self, task: TaskId) {
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            if let Some(bytes) = self.kept.bytes_of(file) {
                self.keep_for_readers(file, bytes);
            }
        }
    }

    /// What is done again only to bring back lost bytes has ended before.
    fn has_ended(&self, task: TaskId) -> bool {
        self.tasks[task.index()].counted != Counted::No
    }

    #[cfg(test)]
    pub(super) fn check_kept(&self) {
        let kept: u64 = self.kept.files.values().map(|file| file.bytes).sum();
        let spare: u64 = self.kept.spare.values().map(|file| file.bytes).sum();
        assert_eq!(kept + spare, self.kept.bytes, "kept bytes add up");
        for (file, kept) in &self.kept.files {
            let readers = self.graph.readers(*file).filter(|reader| !self.has_ended(reader.task));
            assert_eq!(readers.count(), kept.readers as usize, "{file} is kept for its readers");
            assert!(kept.readers > 0 || self.is_read_again(*file), "{file} is kept for somebody");
        }
        assert_eq!(self.kept.oldest.len(), self.kept.spare.len(), "what is spare has an age");
        for (file, spare) in &self.kept.spare {
            assert_eq!(self.kept.oldest.get(&spare.since), Some(file), "{file} has its age");
            assert!(!self.is_read_again(*file), "{file} is spare, and nobody reads it");
        }
        for task in (0..self.counts.total).map(TaskId) {
            let is_recalling = self.phase(task) == super::Phase::Recalling;
            assert_eq!(is_recalling, self.recalling.contains(&task), "{task} is being recalled");
        }
    }
}
