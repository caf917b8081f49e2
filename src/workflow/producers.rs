//! Who writes which path, and who sends what where: no two outputs to one place, nothing below
//! another output.

use std::collections::HashMap;
use std::sync::Arc;

use keelboat_engine::{Kind, OutputSpec, Source, TaskName, TaskSpec};

use super::addresses;
use super::declaration::{Declaration, InputSource, OutputItem};
use super::paths::{Project, ancestors};
use super::problem::{Place, Problem, Problems, Sources};

/// How an output comes to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is its path.
    Written,
    /// It is sent there.
    Sent,
}

#[derive(Debug, Clone)]
struct Owner {
    task: TaskName,
    kind: Kind,
    place: Place,
    role: Role,
}

impl Owner {
    fn does(&self) -> String {
        match self.role {
            Role::Written => format!("`{}` writes it", self.task),
            Role::Sent => format!("`{}` sends an output there", self.task),
        }
    }
}

/// All outputs so far, by path and by where they are sent.
#[derive(Debug, Default)]
pub(super) struct Producers {
    owners: HashMap<Arc<str>, Owner>,
    directories: bool,
}

/// A declaration and the tasks that were made of it.
pub(super) type Made<'a> = (&'a Declaration, &'a [TaskSpec]);

impl Producers {
    /// Adds the outputs of a declaration's tasks. A place that is taken is a problem.
    pub(super) fn add(
        &mut self,
        (declaration, tasks): Made<'_>,
        project: &Project,
        sources: &Sources,
        problems: &mut Problems,
    ) {
        self.owners.reserve(tasks.len() * declaration.outputs.len());
        let items: Vec<&OutputItem> =
            declaration.outputs.iter().flat_map(|named| &named.items).collect();
        for task in tasks {
            for (output, item) in task.outputs.iter().zip(&items) {
                self.directories |= output.kind == Kind::Directory;
                let owner =
                    |place, role| Owner { task: task.name.clone(), kind: output.kind, place, role };
                let written = owner(item.path.place, Role::Written);
                let mut taken = self.take(&output.path, written, &output.path, sources);
                if let Some((to, text)) = output.deliver_to.as_ref().zip(item.to.as_ref()) {
                    let sent = owner(text.place, Role::Sent);
                    let shown = keelboat_staging::redact(to);
                    let place = addresses::place_of(to, project);
                    taken = taken.or_else(|| self.take(&place, sent, &shown, sources));
                }
                if let Some(problem) = taken {
                    problems.push(problem);
                    // One report for each declaration is enough.
                    return;
                }
            }
        }
    }

    /// Gives a place to an output; a problem when it has an owner.
    fn take(
        &mut self,
        place: &Arc<str>,
        owner: Owner,
        shown: &str,
        sources: &Sources,
    ) -> Option<Problem> {
        let Some(first) = self.owners.get(place) else {
            self.owners.insert(Arc::clone(place), owner);
            return None;
        };
        if first.task == owner.task && first.place == owner.place {
            return None;
        }
        let same_place = first.place == owner.place;
        let (message, help) = match (first.role, owner.role) {
            (Role::Written, Role::Written) if same_place => (
                format!("two tasks write {shown:?}"),
                "put the variables of foreach into the path, such as out/{{ x }}.txt",
            ),
            (Role::Written, Role::Written) => {
                (format!("two tasks write {shown:?}"), "give each output a path of its own")
            }
            (Role::Sent, Role::Sent) if same_place => (
                format!("two tasks send an output to {shown:?}"),
                "put the variables of foreach into the address, such as s3://bucket/{{ x }}.txt",
            ),
            (Role::Sent, Role::Sent) => (
                format!("two outputs are sent to {shown:?}"),
                "send each output to an address of its own",
            ),
            (Role::Written, Role::Sent) | (Role::Sent, Role::Written) => (
                format!("one output is written to {shown:?}, and one is sent there"),
                "an output is at its path without `to`; send it to another place",
            ),
        };
        let problem = sources.problem(owner.place, message).labelled(&owner.does()).help(help);
        let too = if first.role == owner.role { " too" } else { "" };
        Some(sources.also(problem, first.place, &format!("{}{too}", first.does())))
    }

    /// Outputs that are below another output, and inputs that are inside one.
    pub(super) fn check(
        &self,
        (declaration, tasks): Made<'_>,
        project: &Project,
        sources: &Sources,
        problems: &mut Problems,
    ) {
        for task in tasks {
            for output in &task.outputs {
                let below = self.below(output, project).or_else(|| {
                    let above = ancestors(&output.path).find_map(|path| self.owners.get(path))?;
                    Some((self.owners.get(&output.path)?, above, output.path.to_string()))
                });
                let Some((own, above, shown)) = below else { continue };
                let problem = sources
                    .problem(own.place, format!("{shown:?} is below another output"))
                    .labelled(&own.does())
                    .help("write it elsewhere, or let one task write the whole directory");
                let also = match above.role {
                    Role::Written => format!("`{}` writes this one", above.task),
                    Role::Sent => format!("`{}` sends this one", above.task),
                };
                problems.push(sources.also(problem, above.place, &also));
                return;
            }
            if self.directories && self.inside(declaration, task, sources, problems) {
                return;
            }
        }
    }

    /// Who sends this output to below what would replace it, or what it would change.
    fn below(&self, output: &OutputSpec, project: &Project) -> Option<(&Owner, &Owner, String)> {
        let to = output.deliver_to.as_ref()?;
        let place = addresses::place_of(to, project);
        let scheme = addresses::scheme_of(&place);
        // Elsewhere the files of a directory are sent one by one, and what else is there stays.
        if !matches!(scheme, None | Some("ftp" | "ftps" | "sftp")) {
            return None;
        }
        let above = ancestors(&place).find_map(|path| self.owners.get(path))?;
        Some((self.owners.get(&place)?, above, keelboat_staging::redact(to)))
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
            let writes = |path| self.owners.get(path).filter(|owner| owner.role == Role::Written);
            let Some(owner) = ancestors(path).find_map(writes) else { continue };
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
                && let Some(owner) = self.owners.get(path)
                && (owner.kind, owner.role) == (Kind::Directory, Role::Written)
            {
                input.kind = Kind::Directory;
            }
        }
    }
}
