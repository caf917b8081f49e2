//! Who writes which path: no two tasks one path, nothing below another task's output.

use std::collections::HashMap;
use std::sync::Arc;

use keelboat_engine::{Kind, Source, TaskName, TaskSpec};

use super::declaration::{Declaration, InputSource};
use super::paths::ancestors;
use super::problem::{Place, Problems, Sources};

#[derive(Debug, Clone)]
struct Owner {
    task: TaskName,
    kind: Kind,
    place: Place,
}

/// All outputs so far, by path.
#[derive(Debug, Default)]
pub(super) struct Producers {
    owners: HashMap<Arc<str>, Owner>,
    directories: bool,
}

impl Producers {
    /// Adds the outputs of a declaration's tasks. A path that is taken is a problem.
    pub(super) fn add(
        &mut self,
        declaration: &Declaration,
        tasks: &[TaskSpec],
        sources: &Sources,
        problems: &mut Problems,
    ) {
        self.owners.reserve(tasks.len() * declaration.outputs.len());
        let places: Vec<Place> = declaration
            .outputs
            .iter()
            .flat_map(|named| &named.items)
            .map(|item| item.path.place)
            .collect();
        for task in tasks {
            for (output, place) in task.outputs.iter().zip(&places) {
                self.directories |= output.kind == Kind::Directory;
                let owner = Owner { task: task.name.clone(), kind: output.kind, place: *place };
                let Some(first) = self.owners.insert(output.path.clone(), owner) else { continue };
                let path = &output.path;
                if first.task == task.name && first.place == *place {
                    continue;
                }
                let same_place = first.place == *place;
                let problem = sources
                    .problem(*place, format!("two tasks write {path:?}"))
                    .labelled(&format!("`{}` writes it", task.name))
                    .help(if same_place {
                        "put the variables of foreach into the path, such as out/{{ x }}.txt"
                    } else {
                        "give each output a path of its own"
                    });
                let also = format!("`{}` writes it too", first.task);
                problems.push(sources.also(problem, first.place, &also));
                // One report for each declaration is enough.
                return;
            }
        }
    }

    /// Outputs that are below another output, and inputs that are inside one.
    pub(super) fn check(
        &self,
        declaration: &Declaration,
        tasks: &[TaskSpec],
        sources: &Sources,
        problems: &mut Problems,
    ) {
        for task in tasks {
            for output in &task.outputs {
                let Some(owner) = ancestors(&output.path).find_map(|path| self.owners.get(path))
                else {
                    continue;
                };
                let Some(own) = self.owners.get(&output.path) else { continue };
                let problem = sources
                    .problem(own.place, format!("{:?} is below another output", output.path))
                    .labelled(&format!("`{}` writes it", own.task))
                    .help("write it elsewhere, or let one task write the whole directory");
                let also = format!("`{}` writes this one", owner.task);
                problems.push(sources.also(problem, owner.place, &also));
                return;
            }
            if self.directories && self.inside(declaration, task, sources, problems) {
                return;
            }
        }
    }

    /// Reports an input that is a part of a directory that another task writes.
    fn inside(
        &self,
        declaration: &Declaration,
        task: &TaskSpec,
        sources: &Sources,
        problems: &mut Problems,
    ) -> bool {
        for input in &task.inputs {
            let Source::Path(path) = &input.source else { continue };
            let owner = ancestors(path).find_map(|path| self.owners.get(path));
            let Some(owner) = owner else { continue };
            let named = declaration.inputs.iter().find(|named| named.label == input.label);
            let place = named.and_then(|named| match &named.items.first()?.source {
                InputSource::Path(text) => Some(text.place),
                _ => None,
            });
            let problem = sources
                .problem(
                    place.unwrap_or(declaration.place),
                    format!("{path:?} is a part of what task `{}` writes", owner.task),
                )
                .labelled(&format!("`{}` reads it", task.name))
                .help("take the whole directory as input, or declare this file as an output too of a task of its own");
            problems.push(sources.also(problem, owner.place, "written here as a whole"));
            return true;
        }
        false
    }

    /// Inputs from paths that are directories of other tasks are directories, said or not.
    pub(super) fn mark_directories(&self, tasks: &mut [TaskSpec]) {
        if !self.directories {
            return;
        }
        for input in tasks.iter_mut().flat_map(|task| &mut task.inputs) {
            if let Source::Path(path) = &input.source
                && self.owners.get(path).is_some_and(|owner| owner.kind == Kind::Directory)
            {
                input.kind = Kind::Directory;
            }
        }
    }
}
