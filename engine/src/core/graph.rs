//! The graph of tasks and files. It only grows; edges follow from paths.

mod check;
mod error;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::error::GraphError;
use super::lookup::{ByName, Lookup};
use crate::{Digest, FileId, Kind, Source, TaskId, TaskName, TaskSpec};

/// A task and its files.
#[derive(Debug)]
pub struct TaskNode {
    /// What it is.
    pub spec: TaskSpec,
    /// Files read, in the order of the inputs.
    pub inputs: Vec<FileId>,
    /// Files written, in the order of the outputs.
    pub outputs: Vec<FileId>,
    /// How many files and tasks it has to wait for.
    pub(crate) waits_for: u32,
    /// Tasks that come after it although no file passes.
    pub(crate) followers: Vec<TaskId>,
}

/// A file or directory and its tasks.
#[derive(Debug)]
pub struct FileNode {
    /// Where it comes from: its path, or its addresses.
    pub source: Source,
    /// The digest that it must have.
    pub sha256: Option<Digest>,
    /// File or directory.
    pub kind: Kind,
    /// The task that writes it, or the directory that it lies in.
    pub producer: Option<TaskId>,
    /// Whether it lies in a directory output, so that it must be looked at when that is there.
    pub inside_output: bool,
    /// The directory output that it lies in.
    pub(crate) outer: Option<FileId>,
    /// Files that tasks read inside of it.
    pub(crate) inner: Vec<FileId>,
    /// Its first and its last reader, as positions in [`Graph::links`].
    readers: Option<(u32, u32)>,
}

/// One input of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) task: TaskId,
    /// Which of its inputs.
    pub(crate) input: u32,
}

/// A reader of a file, and where the file's next reader is.
#[derive(Debug, Clone, Copy)]
struct Link {
    reader: Reader,
    next: Option<u32>,
}

/// All tasks and files.
#[derive(Debug, Default)]
pub struct Graph {
    tasks: Vec<TaskNode>,
    files: Vec<FileNode>,
    /// The readers of all files. Most files have one or two: lists of their own would take more
    /// room than what is in them.
    links: Vec<Link>,
    by_name: ByName,
    /// Outputs, and paths that are read without a declared digest.
    by_path: Lookup<Arc<str>, FileId>,
    /// What else is read.
    by_identity: Lookup<(Source, Option<Digest>), FileId>,
    /// Paths that are read with a declared digest, and the directories around all that are read;
    /// each with a file that is why.
    around_read: Lookup<Arc<str>, FileId>,
    /// Directories around outputs, each with an output in it.
    around_written: Lookup<Arc<str>, FileId>,
    directory_outputs: usize,
}

/// How each of these is called.
fn name_in<'a>(tasks: &'a [TaskNode]) -> impl Fn(TaskId) -> &'a str {
    |task| &tasks[task.index()].spec.name
}

impl Graph {
    /// The tasks in the order in which they were added; [`TaskId`] is the position.
    pub fn tasks(&self) -> &[TaskNode] {
        &self.tasks
    }

    /// One task.
    pub fn task(&self, task: TaskId) -> &TaskNode {
        &self.tasks[task.index()]
    }

    /// One file.
    pub fn file(&self, file: FileId) -> &FileNode {
        &self.files[file.index()]
    }

    /// How many files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The task with this name.
    pub fn find(&self, name: &str) -> Option<TaskId> {
        self.by_name.find(name, name_in(&self.tasks))
    }

    /// Who reads a file; a task that reads it twice is there twice.
    pub(crate) fn readers(&self, file: FileId) -> impl Iterator<Item = Reader> {
        let mut next = self.first_reader(file);
        std::iter::from_fn(move || {
            let (reader, after) = self.reader(next?);
            next = after;
            Some(reader)
        })
    }

    /// Where a file's first reader is: for whoever changes things between one and the next.
    pub(crate) fn first_reader(&self, file: FileId) -> Option<u32> {
        self.file(file).readers.map(|(first, _)| first)
    }

    /// The reader at a position, and the position of the next one.
    pub(crate) fn reader(&self, at: u32) -> (Reader, Option<u32>) {
        let link = self.links[at as usize];
        (link.reader, link.next)
    }

    /// The tasks that wait for this one, through a file or without; some may be there twice.
    pub(crate) fn dependents(&self, task: TaskId) -> Vec<TaskId> {
        let node = self.task(task);
        let mut found = node.followers.clone();
        for output in &node.outputs {
            for file in std::iter::once(output).chain(&self.file(*output).inner) {
                found.extend(self.readers(*file).map(|reader| reader.task));
            }
        }
        found
    }

    /// The files that are there when this task is done: its outputs, and what is read inside.
    pub(crate) fn files_of(&self, task: TaskId) -> Vec<FileId> {
        let outputs = &self.task(task).outputs;
        let inner = outputs.iter().flat_map(|output| &self.file(*output).inner);
        outputs.iter().chain(inner).copied().collect()
    }

    /// The files that are gone when this one is: the directory output that it is or lies in, with
    /// what is read inside.
    pub(crate) fn stands_with(&self, file: FileId) -> impl Iterator<Item = FileId> {
        let whole = self.file(file).outer.unwrap_or(file);
        std::iter::once(whole).chain(self.file(whole).inner.iter().copied())
    }

    /// Adds tasks, all or none, and returns the first new number.
    pub fn add(&mut self, specs: Vec<TaskSpec>) -> Result<TaskId, GraphError> {
        self.check(&specs)?;
        Ok(self.add_checked(specs))
    }

    /// Adds tasks that [`check`](Self::check) found nothing wrong with.
    pub(super) fn add_checked(&mut self, specs: Vec<TaskSpec>) -> TaskId {
        let first = TaskId(number(self.tasks.len()));
        self.make_room(&specs);
        for (task, spec) in (first.0..).map(TaskId).zip(specs) {
            let outputs = spec.outputs.iter().map(|output| {
                let source = Source::Path(output.path.clone());
                let file = self.new_file(FileNode::new(source, None, output.kind, Some(task)));
                self.directory_outputs += usize::from(output.kind == Kind::Directory);
                self.by_path.insert(output.path.clone(), file);
                note_around(&mut self.around_written, &output.path, file);
                file
            });
            let outputs = outputs.collect();
            self.tasks.push(TaskNode {
                spec,
                inputs: Vec::new(),
                outputs,
                waits_for: 0,
                followers: Vec::new(),
            });
            self.by_name.insert(task, name_in(&self.tasks));
        }
        for task in (first.0..number(self.tasks.len())).map(TaskId) {
            self.connect(task);
        }
        first
    }

    /// Large workflows come at once, and growing step by step would cost as much as adding.
    fn make_room(&mut self, specs: &[TaskSpec]) {
        let outputs: usize = specs.iter().map(|spec| spec.outputs.len()).sum();
        self.tasks.reserve(specs.len());
        self.by_name.reserve(specs.len(), name_in(&self.tasks));
        self.files.reserve(outputs);
        self.by_path.reserve(outputs);
        self.links.reserve(specs.iter().map(|spec| spec.inputs.len()).sum());
    }

    fn new_file(&mut self, node: FileNode) -> FileId {
        let file = FileId(number(self.files.len()));
        self.files.push(node);
        file
    }

    fn connect(&mut self, task: TaskId) {
        let count = self.tasks[task.index()].spec.inputs.len();
        let mut inputs = Vec::with_capacity(count);
        for at in 0..count {
            let file = self.intern(task, at);
            self.link(file, Reader { task, input: number(at) });
            inputs.push(file);
        }
        let find =
            |name: &TaskName| self.find(name).expect("names of tasks before others were checked");
        let before: Vec<TaskId> = self.task(task).spec.before().map(find).collect();
        for before in &before {
            self.tasks[before.index()].followers.push(task);
        }
        let node = &mut self.tasks[task.index()];
        node.waits_for = number(inputs.len() + before.len());
        node.inputs = inputs;
    }

    fn link(&mut self, file: FileId, reader: Reader) {
        let at = number(self.links.len());
        self.links.push(Link { reader, next: None });
        let readers = &mut self.files[file.index()].readers;
        if let Some((_, last)) = *readers {
            self.links[last as usize].next = Some(at);
        }
        *readers = Some((readers.map_or(at, |(first, _)| first), at));
    }

    /// The file that input number `at` of a task reads.
    fn intern(&mut self, task: TaskId, at: usize) -> FileId {
        let input = &self.tasks[task.index()].spec.inputs[at];
        let (source, sha256, kind) = (input.source.clone(), input.sha256, input.kind);
        if let Source::Path(path) = &source {
            let known = self.by_path.get(path.as_ref()).copied();
            if let Some(file) = known.filter(|file| sha256.is_none() || self.is_output(*file)) {
                return file;
            }
            if sha256.is_none() {
                let file = self.new_source(path, None, kind);
                self.by_path.insert(path.clone(), file);
                return file;
            }
        }
        let identity = (source, sha256);
        if let Some(file) = self.by_identity.get(&identity) {
            return *file;
        }
        let file = match &identity.0 {
            Source::Urls(_) => self.new_file(FileNode::new(identity.0.clone(), sha256, kind, None)),
            Source::Path(path) => {
                let file = self.new_source(path, sha256, kind);
                self.around_read.insert(path.clone(), file);
                file
            }
        };
        self.by_identity.insert(identity, file);
        file
    }

    /// A path that no task writes, though it may lie in a directory that one writes.
    fn new_source(&mut self, path: &Arc<str>, sha256: Option<Digest>, kind: Kind) -> FileId {
        let outer = self.directory_around(path);
        let producer = outer.and_then(|outer| self.file(outer).producer);
        let node = FileNode::new(Source::Path(path.clone()), sha256, kind, producer);
        let file = self.new_file(FileNode { inside_output: outer.is_some(), outer, ..node });
        if let Some(outer) = outer {
            self.files[outer.index()].inner.push(file);
        }
        note_around(&mut self.around_read, path, file);
        file
    }

    /// Whether a task declares this very file or directory as its output.
    fn is_output(&self, file: FileId) -> bool {
        let node = self.file(file);
        node.producer.is_some() && !node.inside_output
    }

    fn output_at(&self, path: &str) -> Option<FileId> {
        self.by_path.get(path).copied().filter(|file| self.is_output(*file))
    }

    /// The directory output that this path lies in.
    fn directory_around(&self, path: &str) -> Option<FileId> {
        if self.directory_outputs == 0 {
            return None;
        }
        let mut outputs = ancestors(path).filter_map(|outer| self.output_at(outer));
        outputs.find(|outer| self.file(*outer).kind == Kind::Directory)
    }
}

impl FileNode {
    fn new(source: Source, sha256: Option<Digest>, kind: Kind, producer: Option<TaskId>) -> Self {
        Self {
            source,
            sha256,
            kind,
            producer,
            inside_output: false,
            outer: None,
            inner: Vec::new(),
            readers: None,
        }
    }
}

/// Notes the directories around a path. Where one is known, those around it are known too.
fn note_around(around: &mut Lookup<Arc<str>, FileId>, path: &str, file: FileId) {
    for directory in ancestors(path) {
        if around.get(directory).is_some() {
            return;
        }
        around.insert(directory.into(), file);
    }
}

/// The directories around a path, from the nearest: `a/b/c` gives `a/b`, `a`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.rsplit_once('/')?.0;
        (!rest.is_empty()).then_some(rest)
    })
}

/// Numbers of tasks, files and edges fit in 32 bits; more would not fit in memory either.
pub(crate) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32 tasks, files and edges")
}
