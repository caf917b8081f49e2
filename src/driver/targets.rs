//! Targets: which tasks of a workflow are asked for, and what they need.

use std::collections::BTreeMap;

use keelboat_engine::{Kind, Memoize, Source, TaskSpec};

/// Whether a name (of a task, of all instances of a declaration, or of an output) means a task.
pub fn means(target: &str, task: &TaskSpec) -> bool {
    let declaration = task.name.split('[').next().unwrap_or_default();
    let path = target.trim_start_matches("./").trim_end_matches('/');
    *task.name == *target
        || declaration == target
        || task.outputs.iter().any(|output| *output.path == *path)
}

/// Marks the tasks that are forced.
pub(super) fn force(tasks: &mut [TaskSpec], forced: &[String]) {
    for task in tasks.iter_mut() {
        if forced.iter().any(|target| means(target, task)) {
            task.options_mut().memoize = match task.options.memoize {
                Memoize::On | Memoize::Failures => Memoize::Refresh,
                // Nothing of it is to be remembered.
                Memoize::ReadOnly => Memoize::Off,
                other => other,
            };
        }
    }
}

/// Keeps what is asked for, and what that needs. With `generators`, also all tasks that more
/// tasks may come from, since what is asked for may be among those.
pub(super) fn select(tasks: Vec<TaskSpec>, targets: &[String], generators: bool) -> Vec<TaskSpec> {
    if targets.is_empty() {
        return tasks;
    }
    let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut directories = false;
    for (at, task) in tasks.iter().enumerate() {
        names.insert(&task.name, at);
        for output in &task.outputs {
            writers.insert(&output.path, at);
            directories |= output.kind == Kind::Directory;
        }
    }
    let mut keep = vec![false; tasks.len()];
    let asked = |task: &TaskSpec| {
        targets.iter().any(|target| means(target, task)) || (generators && task.options.generates)
    };
    let mut open: Vec<usize> = (0..tasks.len()).filter(|at| asked(&tasks[*at])).collect();
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut keep[at], true) {
            continue;
        }
        for input in &tasks[at].inputs {
            let Source::Path(path) = &input.source else { continue };
            open.extend(writers.get(path.as_ref()));
            let around = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
            open.extend(around.filter(|_| directories).filter_map(|path| writers.get(path)));
        }
        open.extend(tasks[at].after.iter().filter_map(|name| names.get(name.as_ref())));
    }
    let mut keep = keep.into_iter();
    let mut tasks = tasks;
    tasks.retain(|_| keep.next().unwrap_or(true));
    tasks
}
