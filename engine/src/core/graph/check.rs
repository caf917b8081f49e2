//! What is checked before tasks are added to a graph, so that all are added or none.

use super::{Graph, GraphError, Lookup, ancestors};
use crate::{FileId, Kind, Source, TaskName, TaskSpec};

/// The writer (its position among the new tasks) and the kind of each new output.
type NewOutputs<'a> = Lookup<&'a str, (u32, Kind)>;

impl Graph {
    pub(in crate::core) fn check(&self, specs: &[TaskSpec]) -> Result<(), GraphError> {
        let names = self.check_names(specs)?;
        let outputs = self.check_outputs(specs)?;
        check_circles(specs, &names, &outputs)
    }

    /// The positions of the new tasks by name.
    fn check_names<'a>(&self, specs: &'a [TaskSpec]) -> Result<Lookup<&'a str, u32>, GraphError> {
        let mut new = Lookup::with_capacity(specs.len());
        for (at, spec) in (0..).zip(specs) {
            let again = new.insert(spec.name.as_ref(), at).is_some();
            if again || self.find(&spec.name).is_some() {
                return Err(GraphError::DuplicateTask { name: spec.name.clone() });
            }
        }
        for spec in specs {
            let unknown =
                |name: &&TaskName| self.find(name).is_none() && new.get(name.as_ref()).is_none();
            if let Some(name) = spec.before().find(unknown) {
                let (task, name) = (spec.name.clone(), name.clone());
                return Err(GraphError::UnknownTask { task, name });
            }
        }
        Ok(new)
    }

    fn check_outputs<'a>(&self, specs: &'a [TaskSpec]) -> Result<NewOutputs<'a>, GraphError> {
        let mut new: NewOutputs<'_> = Lookup::with_capacity(specs.len());
        let mut directories = self.directory_outputs > 0;
        for (at, spec) in (0..).zip(specs) {
            for output in &spec.outputs {
                let path = output.path.as_ref();
                directories |= output.kind == Kind::Directory;
                let before = new.insert(path, (at, output.kind));
                let before = before.map(|(first, _)| &specs[first as usize].name);
                let before = before.or_else(|| Some(self.writer(self.output_at(path)?)));
                if let Some(first) = before {
                    return Err(GraphError::DuplicateOutput {
                        path: output.path.clone(),
                        first: first.clone(),
                        second: spec.name.clone(),
                    });
                }
                self.check_not_read_yet(path, output.kind, spec)?;
            }
        }
        if directories {
            self.check_nesting(specs, &new)?;
        }
        Ok(new)
    }

    /// The name of the task that writes an output.
    fn writer(&self, output: FileId) -> &TaskName {
        let producer = self.file(output).producer.expect("outputs have a task");
        &self.task(producer).spec.name
    }

    /// A path that is read as a source file cannot become an output later, nor lie in one.
    fn check_not_read_yet(
        &self,
        path: &str,
        kind: Kind,
        writer: &TaskSpec,
    ) -> Result<(), GraphError> {
        let around = || {
            let read = self.around_read.get(path)?;
            (kind == Kind::Directory || self.path(*read) == Some(path)).then_some(read)
        };
        let Some(read) = self.by_path.get(path).or_else(around) else { return Ok(()) };
        let reader = self.readers(*read).next().expect("what is no output is there for a reader");
        Err(GraphError::LateWriter {
            path: self.path(*read).unwrap_or(path).into(),
            writer: writer.name.clone(),
            reader: self.task(reader.task).spec.name.clone(),
        })
    }

    fn path(&self, file: FileId) -> Option<&str> {
        match &self.file(file).source {
            Source::Path(path) => Some(path),
            Source::Urls(_) => None,
        }
    }

    /// New outputs may lie in no directory output, and no output in new directories.
    fn check_nesting(&self, specs: &[TaskSpec], new: &NewOutputs<'_>) -> Result<(), GraphError> {
        let directory = |path: &str| {
            if let Some((at, kind)) = new.get(path) {
                return (*kind == Kind::Directory).then(|| &specs[*at as usize].name);
            }
            let output = self.output_at(path)?;
            (self.file(output).kind == Kind::Directory).then(|| self.writer(output))
        };
        for spec in specs {
            for output in &spec.outputs {
                let path = output.path.as_ref();
                let outer = ancestors(path).find_map(|outer| Some((outer, directory(outer)?)));
                if let Some((outer, outer_task)) = outer {
                    return Err(nested((path, &spec.name), (outer, outer_task)));
                }
                let inner = self.around_written.get(path);
                let inner = inner.filter(|_| output.kind == Kind::Directory);
                if let Some((inner, inside)) =
                    inner.and_then(|file| Some((file, self.path(*file)?)))
                {
                    return Err(nested((inside, self.writer(*inner)), (path, &spec.name)));
                }
            }
        }
        Ok(())
    }
}

fn nested(inner: (&str, &TaskName), outer: (&str, &TaskName)) -> GraphError {
    GraphError::NestedOutput {
        inner: inner.0.into(),
        inner_task: inner.1.clone(),
        outer: outer.0.into(),
        outer_task: outer.1.clone(),
    }
}

/// Only new tasks can be in a circle: older ones do not wait for them.
fn check_circles(
    specs: &[TaskSpec],
    names: &Lookup<&str, u32>,
    outputs: &NewOutputs<'_>,
) -> Result<(), GraphError> {
    let mut all = specs.iter().flat_map(|spec| &spec.outputs);
    let directories = all.any(|output| output.kind == Kind::Directory);
    let writer = |path: &str| {
        let inside = || {
            let mut around = ancestors(path).filter(|_| directories);
            around.find_map(|outer| outputs.get(outer).filter(|new| new.1 == Kind::Directory))
        };
        outputs.get(path).or_else(inside).map(|(at, _)| *at)
    };
    let mut edges = Edges::default();
    for spec in specs {
        let files = spec.inputs.iter().filter_map(|input| match &input.source {
            Source::Path(path) => writer(path),
            Source::Urls(_) => None,
        });
        let tasks = spec.before().filter_map(|name| names.get(name.as_ref()).copied());
        edges.targets.extend(files.chain(tasks));
        edges.ends.push(edges.targets.len());
    }
    match edges.find_circle() {
        None => Ok(()),
        Some(circle) => {
            let tasks = circle.into_iter().map(|at| specs[at].name.clone()).collect();
            Err(GraphError::Cycle { tasks })
        }
    }
}

/// For each new task those that it waits for, one list behind the other.
#[derive(Default)]
struct Edges {
    targets: Vec<u32>,
    /// Where each task's list ends.
    ends: Vec<usize>,
}

impl Edges {
    fn of(&self, task: usize) -> &[u32] {
        let start = if task == 0 { 0 } else { self.ends[task - 1] };
        &self.targets[start..self.ends[task]]
    }

    /// A circle, by a depth-first walk without recursion.
    fn find_circle(&self) -> Option<Vec<usize>> {
        const NEW: u8 = 0;
        const OPEN: u8 = 1;
        const CLOSED: u8 = 2;
        let mut state = vec![NEW; self.ends.len()];
        let mut path: Vec<(usize, usize)> = Vec::new();
        for root in 0..state.len() {
            if state[root] != NEW {
                continue;
            }
            state[root] = OPEN;
            path.push((root, 0));
            while let Some((at, next)) = path.last_mut() {
                let Some(&to) = self.of(*at).get(*next) else {
                    state[*at] = CLOSED;
                    path.pop();
                    continue;
                };
                let to = to as usize;
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
}
