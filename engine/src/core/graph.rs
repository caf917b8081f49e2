//! The graph of tasks and files. It only grows; edges follow from paths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{Digest, FileId, Kind, Source, TaskId, TaskName, TaskSpec};

/// Why tasks cannot be added to a graph. Nothing was added then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two tasks with one name.
    #[error("two tasks are named {name}: expected each name once")]
    DuplicateTask {
        /// The name.
        name: TaskName,
    },
    /// Two outputs with one path.
    #[error("{path} is written by {first} and by {second}: expected one writer for each path")]
    DuplicateOutput {
        /// The path.
        path: Arc<str>,
        /// The task that had it first.
        first: TaskName,
        /// The other one.
        second: TaskName,
    },
    /// An output inside another task's directory output, or around it.
    #[error(
        "{inner} (written by {inner_task}) lies in the directory {outer} (written by {outer_task}): \
             expected outputs apart from each other"
    )]
    NestedOutput {
        /// The output inside.
        inner: Arc<str>,
        /// Its task.
        inner_task: TaskName,
        /// The directory.
        outer: Arc<str>,
        /// Its task.
        outer_task: TaskName,
    },
    /// A new task writes what an older one already reads as a source file.
    #[error("{path} is written by {writer}, but {reader} was already reading it as a source file")]
    LateWriter {
        /// The path.
        path: Arc<str>,
        /// The new task.
        writer: TaskName,
        /// The older task.
        reader: TaskName,
    },
    /// A task waits for itself.
    #[error("tasks wait for each other in a circle: {}", circle(.tasks))]
    Cycle {
        /// The tasks, each waiting for the next, and the last one for the first.
        tasks: Vec<TaskName>,
    },
    /// `after` names a task that there is not.
    #[error("{task} is to come after {name}, which is no task")]
    UnknownTask {
        /// The task that says `after`.
        task: TaskName,
        /// The name that it says.
        name: TaskName,
    },
}

fn circle(tasks: &[TaskName]) -> String {
    let names = tasks.iter().chain(tasks.first()).map(AsRef::as_ref);
    names.collect::<Vec<_>>().join(" -> ")
}

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
    /// Who reads it; a task that reads it twice is there twice.
    pub(crate) readers: Vec<Reader>,
}

/// One input of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) task: TaskId,
    /// Which of its inputs.
    pub(crate) input: u32,
}

/// All tasks and files.
#[derive(Debug, Default)]
pub struct Graph {
    tasks: Vec<TaskNode>,
    files: Vec<FileNode>,
    by_name: BTreeMap<TaskName, TaskId>,
    by_source: BTreeMap<(Source, Option<Digest>), FileId>,
    by_output: BTreeMap<Arc<str>, FileId>,
    directory_outputs: usize,
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
        self.by_name.get(name).copied()
    }

    /// The tasks that wait for this one, through a file or without; some may be there twice.
    pub(crate) fn dependents(&self, task: TaskId) -> Vec<TaskId> {
        let node = self.task(task);
        let mut found = node.followers.clone();
        for output in &node.outputs {
            let output = self.file(*output);
            found.extend(output.readers.iter().map(|reader| reader.task));
            for inner in &output.inner {
                found.extend(self.file(*inner).readers.iter().map(|reader| reader.task));
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
        self.check_names(&specs)?;
        let outputs = self.check_outputs(&specs)?;
        check_circles(&specs, &outputs)?;
        let first = TaskId(number(self.tasks.len()));
        for (task, spec) in (first.0..).map(TaskId).zip(specs) {
            self.by_name.insert(spec.name.clone(), task);
            let outputs = spec.outputs.iter().map(|output| {
                self.directory_outputs += usize::from(output.kind == Kind::Directory);
                let file = FileId(number(self.files.len()));
                self.files.push(FileNode {
                    source: Source::Path(output.path.clone()),
                    sha256: None,
                    kind: output.kind,
                    producer: Some(task),
                    inside_output: false,
                    outer: None,
                    inner: Vec::new(),
                    readers: Vec::new(),
                });
                self.by_output.insert(output.path.clone(), file);
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
        }
        for task in (first.0..number(self.tasks.len())).map(TaskId) {
            self.connect(task);
        }
        Ok(first)
    }

    fn connect(&mut self, task: TaskId) {
        let count = self.tasks[task.index()].spec.inputs.len();
        let mut inputs = Vec::with_capacity(count);
        for at in 0..count {
            let file = self.intern(task, at);
            self.files[file.index()].readers.push(Reader { task, input: number(at) });
            inputs.push(file);
        }
        let after = std::mem::take(&mut self.tasks[task.index()].spec.after);
        for name in &after {
            let before = self.by_name[name];
            self.tasks[before.index()].followers.push(task);
        }
        let node = &mut self.tasks[task.index()];
        node.waits_for = number(inputs.len() + after.len());
        node.inputs = inputs;
        node.spec.after = after;
    }

    /// The file that input number `at` of a task reads.
    fn intern(&mut self, task: TaskId, at: usize) -> FileId {
        let input = &self.tasks[task.index()].spec.inputs[at];
        if let Source::Path(path) = &input.source
            && let Some(file) = self.by_output.get(path)
        {
            return *file;
        }
        let identity = (input.source.clone(), input.sha256);
        if let Some(file) = self.by_source.get(&identity) {
            return *file;
        }
        let around = self.directory_around(&input.source);
        let file = FileId(number(self.files.len()));
        self.files.push(FileNode {
            source: input.source.clone(),
            sha256: input.sha256,
            kind: input.kind,
            producer: around.and_then(|outer| self.files[outer.index()].producer),
            inside_output: around.is_some(),
            outer: around,
            inner: Vec::new(),
            readers: Vec::new(),
        });
        if let Some(outer) = around {
            self.files[outer.index()].inner.push(file);
        }
        self.by_source.insert(identity, file);
        file
    }

    /// The directory output that this path lies in.
    fn directory_around(&self, source: &Source) -> Option<FileId> {
        let Source::Path(path) = source else { return None };
        if self.directory_outputs == 0 {
            return None;
        }
        ancestors(path).find_map(|outer| {
            let file = *self.by_output.get(outer)?;
            (self.files[file.index()].kind == Kind::Directory).then_some(file)
        })
    }

    fn check_names(&self, specs: &[TaskSpec]) -> Result<(), GraphError> {
        let mut new = BTreeSet::new();
        for spec in specs {
            let again = !new.insert(spec.name.as_ref());
            if again || self.by_name.contains_key(&spec.name) {
                return Err(GraphError::DuplicateTask { name: spec.name.clone() });
            }
        }
        for spec in specs {
            let unknown = |name: &&TaskName| {
                !self.by_name.contains_key(*name) && !new.contains(name.as_ref())
            };
            if let Some(name) = spec.after.iter().find(unknown) {
                let (task, name) = (spec.name.clone(), name.clone());
                return Err(GraphError::UnknownTask { task, name });
            }
        }
        Ok(())
    }

    /// The writer (its position among the new tasks) of each new output path.
    fn check_outputs<'a>(
        &self,
        specs: &'a [TaskSpec],
    ) -> Result<BTreeMap<&'a str, (usize, Kind)>, GraphError> {
        let mut new: BTreeMap<&str, (usize, Kind)> = BTreeMap::new();
        let mut directories = self.directory_outputs > 0;
        for (at, spec) in specs.iter().enumerate() {
            for output in &spec.outputs {
                let path = output.path.as_ref();
                directories |= output.kind == Kind::Directory;
                let before = new.insert(path, (at, output.kind)).map(|(first, _)| &specs[first]);
                let before = before.or_else(|| self.writer(path));
                if let Some(first) = before {
                    return Err(GraphError::DuplicateOutput {
                        path: output.path.clone(),
                        first: first.name.clone(),
                        second: spec.name.clone(),
                    });
                }
                self.check_not_read_yet(&output.path, output.kind, spec)?;
            }
        }
        if directories {
            self.check_nesting(specs, &new)?;
        }
        Ok(new)
    }

    fn writer(&self, path: &str) -> Option<&TaskSpec> {
        let file = self.by_output.get(path)?;
        self.files[file.index()].producer.map(|task| &self.task(task).spec)
    }

    /// A path that is read as a source file cannot become an output later, nor lie in one.
    fn check_not_read_yet(
        &self,
        path: &Arc<str>,
        kind: Kind,
        writer: &TaskSpec,
    ) -> Result<(), GraphError> {
        let inside: Arc<str> = format!("{path}/").into();
        let first = |from: &Arc<str>| {
            let found = self.by_source.range((Source::Path(from.clone()), None)..).next();
            found.and_then(|((source, _), file)| match source {
                Source::Path(read) => Some((read, *file)),
                Source::Urls(_) => None,
            })
        };
        let itself = first(path).filter(|(read, _)| *read == path);
        let below = || first(&inside).filter(|(read, _)| read.starts_with(inside.as_ref()));
        let read = match kind {
            Kind::File => itself,
            Kind::Directory => itself.or_else(below),
        };
        let Some((read, file)) = read else { return Ok(()) };
        Err(GraphError::LateWriter {
            path: read.clone(),
            writer: writer.name.clone(),
            reader: self.task(self.files[file.index()].readers[0].task).spec.name.clone(),
        })
    }

    /// New outputs may lie in no directory output, and no output in new directories.
    fn check_nesting(
        &self,
        specs: &[TaskSpec],
        new: &BTreeMap<&str, (usize, Kind)>,
    ) -> Result<(), GraphError> {
        let old = |path: &str| {
            let file = &self.files[self.by_output.get(path)?.index()];
            Some((&self.task(file.producer?).spec.name, file.kind))
        };
        let any = |path: &str| {
            new.get(path).map(|(at, kind)| (&specs[*at].name, *kind)).or_else(|| old(path))
        };
        let nested = |inner: &str, outer: &str| {
            let (inner_task, outer_task) = (any(inner)?.0.clone(), any(outer)?.0.clone());
            let (inner, outer) = (inner.into(), outer.into());
            Some(GraphError::NestedOutput { inner, inner_task, outer, outer_task })
        };
        for (path, (_, kind)) in new {
            let is_directory =
                |outer: &&str| any(outer).is_some_and(|(_, kind)| kind == Kind::Directory);
            let around = ancestors(path).find(is_directory);
            let below = || {
                let prefix = format!("{path}/");
                let (inner, _) = self.by_output.range(Arc::from(prefix.as_str())..).next()?;
                (*kind == Kind::Directory && inner.starts_with(prefix.as_str()))
                    .then_some(inner.as_ref())
            };
            let error = match around {
                Some(outer) => nested(path, outer),
                None => below().and_then(|inner| nested(inner, path)),
            };
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Only new tasks can be in a circle: older ones do not wait for them.
fn check_circles(
    specs: &[TaskSpec],
    outputs: &BTreeMap<&str, (usize, Kind)>,
) -> Result<(), GraphError> {
    let names: BTreeMap<&str, usize> =
        specs.iter().enumerate().map(|(at, spec)| (spec.name.as_ref(), at)).collect();
    let writer = |path: &str| {
        let inside = || {
            let mut around = ancestors(path).filter_map(|outer| outputs.get(outer));
            around.find(|(_, kind)| *kind == Kind::Directory)
        };
        outputs.get(path).or_else(inside).map(|(at, _)| *at)
    };
    let edges: Vec<Vec<usize>> = specs
        .iter()
        .map(|spec| {
            let files = spec.inputs.iter().filter_map(|input| match &input.source {
                Source::Path(path) => writer(path),
                Source::Urls(_) => None,
            });
            let tasks = spec.after.iter().filter_map(|name| names.get(name.as_ref()).copied());
            files.chain(tasks).collect()
        })
        .collect();
    match find_circle(&edges) {
        None => Ok(()),
        Some(circle) => {
            let tasks = circle.into_iter().map(|at| specs[at].name.clone()).collect();
            Err(GraphError::Cycle { tasks })
        }
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

/// A circle in a graph given as "waits for" lists, by a depth-first walk without recursion.
fn find_circle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    const NEW: u8 = 0;
    const OPEN: u8 = 1;
    const CLOSED: u8 = 2;
    let mut state = vec![NEW; edges.len()];
    let mut path: Vec<(usize, usize)> = Vec::new();
    for root in 0..edges.len() {
        if state[root] != NEW {
            continue;
        }
        state[root] = OPEN;
        path.push((root, 0));
        while let Some((at, next)) = path.last_mut() {
            let Some(&to) = edges[*at].get(*next) else {
                state[*at] = CLOSED;
                path.pop();
                continue;
            };
            *next += 1;
            if state[to] == OPEN {
                let start = path.iter().position(|(on_path, _)| *on_path == to).unwrap_or(0);
                return Some(path[start..].iter().map(|(on_path, _)| *on_path).collect());
            }
            if state[to] == NEW {
                state[to] = OPEN;
                path.push((to, 0));
            }
        }
    }
    None
}

/// Numbers of tasks, files and edges fit in 32 bits; more would not fit in memory either.
pub(crate) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32 tasks, files and edges")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tasks;

    fn add(text: &str) -> Result<Graph, GraphError> {
        let mut graph = Graph::default();
        graph.add(tasks(text)).map(|_| graph)
    }

    fn error(text: &str) -> String {
        add(text).map_or_else(|error| error.to_string(), |_| "no error".to_owned())
    }

    #[test]
    fn paths_make_edges() {
        let graph = add("a: x -> y; b: y z -> w; c: y -> v").expect("a good graph");
        let y = graph.task(TaskId(0)).outputs[0];
        assert_eq!(graph.task(TaskId(1)).inputs[0], y);
        let reader = |task| Reader { task: TaskId(task), input: 0 };
        assert_eq!(graph.file(y).readers, [reader(1), reader(2)]);
        assert_eq!(graph.file(y).producer, Some(TaskId(0)));
        assert_eq!(graph.file_count(), 5);
    }

    #[test]
    fn circles_are_named() {
        assert_eq!(
            error("a: z -> x; b: x -> y; c: y -> z; d: z -> q"),
            "tasks wait for each other in a circle: a -> c -> b -> a"
        );
        assert_eq!(error("a: x -> x"), "tasks wait for each other in a circle: a -> a");
    }

    #[test]
    fn two_writers_are_named() {
        assert_eq!(
            error("a: -> x; b: -> x"),
            "x is written by a and by b: expected one writer for each path"
        );
    }

    #[test]
    fn two_tasks_of_one_name_are_named() {
        assert_eq!(error("a: -> x; a: -> y"), "two tasks are named a: expected each name once");
    }

    #[test]
    fn a_file_in_a_directory_output_waits_for_it() {
        let graph = add("a: -> d/; b: d/f/g -> x").expect("a good graph");
        let inner = graph.file(graph.task(TaskId(1)).inputs[0]);
        assert_eq!((inner.producer, inner.inside_output), (Some(TaskId(0)), true));
        assert!(error("a: -> d/; b: -> d/x").contains("lies in the directory d"));
        assert!(error("a: d/x -> d/").contains("circle"));
    }

    #[test]
    fn growth_is_all_or_none() {
        let mut graph = add("a: s -> x").expect("a good graph");
        assert!(graph.add(tasks("b: -> y; c: -> x")).is_err());
        assert!(graph.add(tasks("b: -> s")).is_err(), "s is a source file already");
        assert_eq!(graph.tasks().len(), 1);
        assert_eq!(graph.add(tasks("b: x -> y")), Ok(TaskId(1)));
    }
}
