//! Tasks that have been expanded, as others refer to them.

use std::collections::HashMap;
use std::sync::Arc;

use keelboat_engine::{Kind, TaskName, TaskSpec};

use super::declaration::Declaration;

/// One output of one instance.
#[derive(Debug, Clone)]
pub(super) struct MadeFile {
    pub(super) path: Arc<str>,
    pub(super) kind: Kind,
    pub(super) optional: bool,
    /// Which instance makes it.
    instance: u32,
}

/// The instances of a task and what they make.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) names: Vec<TaskName>,
    index: HashMap<TaskName, u32>,
    /// By label, in the order of the declaration; each in the order of the instances.
    files: Vec<Vec<MadeFile>>,
}

impl Family {
    pub(super) fn new(declaration: &Declaration, tasks: &[TaskSpec]) -> Self {
        let mut family = Self {
            names: Vec::with_capacity(tasks.len()),
            index: HashMap::with_capacity(tasks.len()),
            files: declaration.outputs.iter().map(|_| Vec::with_capacity(tasks.len())).collect(),
        };
        for task in tasks {
            let instance = u32::try_from(family.names.len()).unwrap_or(u32::MAX);
            family.names.push(task.name.clone());
            family.index.insert(task.name.clone(), instance);
            let mut made = task.outputs.iter();
            for (named, files) in declaration.outputs.iter().zip(&mut family.files) {
                for output in made.by_ref().take(named.items.len()) {
                    files.push(MadeFile {
                        path: output.path.clone(),
                        kind: output.kind,
                        optional: output.optional,
                        instance,
                    });
                }
            }
        }
        family
    }

    /// All files of one label.
    pub(super) fn files(&self, label: usize) -> &[MadeFile] {
        self.files.get(label).map_or(&[], Vec::as_slice)
    }

    /// The files of one label that one instance makes; `None`: there is no such instance.
    pub(super) fn files_of(&self, instance: &str, label: usize) -> Option<&[MadeFile]> {
        let instance = *self.index.get(instance)?;
        let files = self.files(label);
        let start = files.partition_point(|file| file.instance < instance);
        let end = files.partition_point(|file| file.instance <= instance);
        files.get(start..end)
    }

    pub(super) fn has(&self, instance: &str) -> bool {
        self.index.contains_key(instance)
    }
}
