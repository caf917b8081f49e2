//! What is kept on the engine's own machine for tasks to come: remote files that were fetched, and
//! that some task still reads. It counts against the bound on room for transfers.

use std::collections::BTreeMap;

use super::Core;
use super::task::Counted;
use crate::queue::Elsewhere;
use crate::{Content, FileId, SiteId, Source, TaskId};

#[derive(Debug, Default)]
pub(super) struct Kept {
    files: BTreeMap<FileId, File>,
    bytes: u64,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    /// Inputs of tasks that have not ended. A task that reads it twice is there twice.
    readers: u32,
}

impl Kept {
    fn keep(&mut self, file: FileId, bytes: u64, readers: u32) {
        self.forget(file);
        if readers > 0 {
            self.files.insert(file, File { bytes, readers });
            self.bytes += bytes;
        }
    }

    fn forget(&mut self, file: FileId) {
        if let Some(before) = self.files.remove(&file) {
            self.bytes -= before.bytes;
        }
    }

    fn one_reader_less(&mut self, file: FileId) {
        if let Some(kept) = self.files.get_mut(&file) {
            kept.readers -= 1;
            if kept.readers == 0 {
                self.forget(file);
            }
        }
    }
}

impl Core {
    /// The bytes of fetched files that tasks still need, and whether anything goes on that may end
    /// one of those: for [`TransferQueue::set_elsewhere`](crate::queue::TransferQueue::set_elsewhere).
    pub fn kept(&self) -> Elsewhere {
        let is_moving = self.counts.running > 0 || self.sites.any_publishing();
        Elsewhere { bytes: self.kept.bytes, is_moving: is_moving || !self.timers.is_empty() }
    }

    /// A file is here now.
    pub(super) fn keep(&mut self, file: FileId, content: Content, site: SiteId) {
        if site != SiteId::HOME || !matches!(self.graph.file(file).source, Source::Urls(_)) {
            return;
        }
        let readers = self.graph.readers(file).filter(|reader| !self.has_ended(reader.task));
        let readers = super::number(readers.count());
        self.kept.keep(file, content.bytes, readers);
    }

    /// A task has ended: what only it still read is kept no longer.
    pub(super) fn give_up_inputs(&mut self, task: TaskId) {
        for file in &self.graph.task(task).inputs {
            self.kept.one_reader_less(*file);
        }
    }

    /// Tasks that came later read what is here already.
    pub(super) fn keep_for(&mut self, task: TaskId) {
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            // What is doubted at the moment is kept all the same, until it comes again.
            let is_here = self.files[file.index()].replicas.contains(&SiteId::HOME)
                || self.kept.files.contains_key(&file);
            if let Some(content) = self.content(file).filter(|_| is_here) {
                self.keep(file, content, SiteId::HOME);
            }
        }
    }

    /// What is done again only to bring back lost bytes has ended before.
    fn has_ended(&self, task: TaskId) -> bool {
        self.tasks[task.index()].counted != Counted::No
    }

    #[cfg(test)]
    pub(super) fn check_kept(&self) {
        let bytes: u64 = self.kept.files.values().map(|file| file.bytes).sum();
        assert_eq!(bytes, self.kept.bytes, "kept bytes add up");
        for (file, kept) in &self.kept.files {
            let readers = self.graph.readers(*file).filter(|reader| !self.has_ended(reader.task));
            assert_eq!(readers.count(), kept.readers as usize, "{file} is kept for its readers");
        }
    }
}
