//! The workflow file: from TOML to tasks.
//!
//! A file is read ([`Workflow::load`]), its includes and parameters are put together, and what is
//! declared is expanded into [`TaskSpec`]s. Tasks whose number depends on what another task writes
//! stay *dormant* until [`Workflow::grow`] is told that it is done. Everything that is wrong is
//! reported at once, each with its place and what to write instead.
//!
//! Deliberately absent: edges between tasks and cycles of paths, which the engine's graph finds;
//! and running anything.

mod addresses;
mod build;
mod circle;
mod collisions;
mod declaration;
mod dormant;
mod expand;
mod explain;
mod family;
mod foreach;
pub(crate) mod free;
mod grow;
pub(crate) mod image;
mod link;
mod lint;
mod load;
mod mask;
pub(crate) mod near;
mod own_files;
mod paths;
mod pattern;
mod prepare;
pub(crate) mod problem;
mod producers;
mod read_checkpoint;
mod read_files;
mod read_foreach;
mod read_mpi;
mod read_retry;
mod read_task;
pub(crate) mod reader;
pub(crate) mod record;
mod schema;
mod scope;
mod shell;
pub(crate) mod syntax;
mod template;
mod units;
mod values;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelboat_engine::{Digest, TaskName, TaskSpec};
use minijinja::value::Value;

use declaration::{Declaration, Text};
use family::Family;
use link::{Directory, Link, Reference};
use load::Loader;
use own_files::OwnFiles;
use paths::Project;
use problem::Sources;
use producers::Producers;

pub use dormant::Dormant;
pub use problem::{Problem, WorkflowErrors};
pub use schema::schema;

/// How a workflow file is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Parameters that are given other values than in the file: name and text.
    pub set: Vec<(String, String)>,
    /// The directory that paths of tasks, tables and globs are relative to.
    pub project_dir: PathBuf,
    /// Names of the executors that tasks may ask for; `local` alone when empty.
    pub executors: Vec<String>,
}

/// Reads what an output holds, by its path as in [`keelboat_engine::OutputSpec::path`].
pub type ReadOutput<'a> = dyn FnMut(&str) -> io::Result<Vec<u8>> + 'a;

/// A workflow, as far as it is known.
#[derive(Debug)]
pub struct Workflow {
    file: PathBuf,
    name: Arc<str>,
    sources: Sources,
    params: Arc<BTreeMap<Arc<str>, Value>>,
    params_value: Value,
    declarations: Vec<Declaration>,
    by_name: HashMap<Arc<str>, usize>,
    links: Vec<Link>,
    /// Declarations so that each comes after those that it needs.
    order: Vec<usize>,
    project: Project,
    project_dir: PathBuf,
    /// For each declaration, once it is expanded.
    families: Vec<Option<Family>>,
    counts: Vec<usize>,
    /// Tasks that are done, of those that others are made from.
    done: HashSet<TaskName>,
    /// How many tasks of each declaration are among them.
    done_counts: Vec<usize>,
    producers: Producers,
    own_files: OwnFiles,
    tasks: Vec<TaskSpec>,
    warnings: Vec<Problem>,
    identity: Digest,
}

/// One `[task.NAME]`, whether its tasks are known yet or not.
#[derive(Debug, Clone, Copy)]
pub struct FamilyInfo<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// What it is for, as the file says.
    pub description: Option<&'a str>,
    /// Whether it has `foreach`: its tasks are called `name[…]`.
    pub foreach: bool,
    /// How many tasks it has; `None`: that depends on what another task will write.
    pub tasks: Option<usize>,
    /// The labels of its outputs.
    pub outputs: &'a [Arc<str>],
}

impl Workflow {
    /// Reads a workflow file and all that it includes, and expands what can be known before
    /// anything runs.
    ///
    /// # Errors
    /// Everything that is wrong with the files, the parameters and the tables that they name.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, WorkflowErrors> {
        let loader = Loader::load(path, options);
        let Loader { sources, mut problems, name, params, declarations, by_name, .. } = loader;
        let Loader { mut identity, own_files, .. } = loader;
        let directory =
            Directory { declarations: &declarations, by_name: &by_name, sources: &sources };
        let links = link::links(directory, &mut problems);
        let order = link::order(directory, &links, &mut problems);
        let params_value: BTreeMap<Arc<str>, Value> = params.clone();
        let mut workflow = Self {
            file: path.to_owned(),
            name: name.unwrap_or_else(|| "workflow".into()),
            params_value: Value::from(params_value),
            params: Arc::new(params),
            families: declarations.iter().map(|_| None).collect(),
            counts: vec![0; declarations.len()],
            done_counts: vec![0; declarations.len()],
            by_name,
            links,
            order,
            project: Project::new(&options.project_dir),
            project_dir: options.project_dir.clone(),
            sources,
            declarations,
            done: HashSet::new(),
            producers: Producers::default(),
            own_files,
            tasks: Vec::new(),
            warnings: Vec::new(),
            identity: Digest::of(b""),
        };
        workflow.tasks = workflow.advance(problems, &mut identity, None)?;
        // Only generators without any task are done by now, and they wrote nothing.
        let more = workflow.ripen(&mut |_| Err(io::ErrorKind::NotFound.into()))?;
        workflow.tasks.extend(more);
        workflow.identity = identity.finish();
        Ok(workflow)
    }

    /// The name of the workflow: what the file says, or the file's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tasks that are known before anything runs, in the order of the file; empty after
    /// [`Self::take_tasks`].
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }

    /// Gives the tasks away.
    pub fn take_tasks(&mut self) -> Vec<TaskSpec> {
        std::mem::take(&mut self.tasks)
    }

    /// The digest of all that the plan is made from: the texts of all files, the parameters, tables
    /// and matches of globs. Equal identities, equal tasks.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// What is probably not meant, but no mistake.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Whether tasks may still come from [`Self::grow`].
    pub fn is_complete(&self) -> bool {
        self.families.iter().all(Option::is_some)
    }

    /// Tells that a task with [`TaskOptions::generates`](keelboat_engine::TaskOptions::generates) is done, and gives the tasks that are known
    /// now because of that. The order in which tasks are reported does not matter, nor does
    /// reporting one twice.
    ///
    /// # Errors
    /// What its output makes wrong: an output that cannot be read, values that cannot be used.
    pub fn grow(
        &mut self,
        generator: &str,
        read_output: &mut ReadOutput<'_>,
    ) -> Result<Vec<TaskSpec>, WorkflowErrors> {
        if !self.done.insert(generator.into()) {
            return Ok(Vec::new());
        }
        let task = Reference::parse(generator).task;
        if let Some(at) = self.by_name.get(task).copied()
            && self.families[at].as_ref().is_some_and(|family| family.has(generator))
        {
            self.done_counts[at] += 1;
        }
        self.ripen(read_output).map_err(|errors| errors.of_growth(generator))
    }

    /// The names of all that the file declares, in its order, whether their tasks are known yet or
    /// not.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.declarations.iter().map(|declaration| declaration.name.as_ref())
    }

    /// What the file declares, in its order.
    pub fn declarations(&self) -> impl Iterator<Item = FamilyInfo<'_>> {
        self.declarations.iter().enumerate().map(|(at, declaration)| FamilyInfo {
            name: &declaration.name,
            description: declaration.description.as_deref(),
            foreach: !declaration.foreach.is_empty(),
            tasks: self.families[at].as_ref().map(|_| self.counts[at]),
            outputs: &declaration.output_labels,
        })
    }

    /// The name of a declared task, or of a known single task, that is near to `name`.
    pub fn nearest(&self, name: &str) -> Option<String> {
        let single = self.tasks.iter().map(|task| task.name.as_ref());
        near::nearest(name, self.families().chain(single)).map(ToOwned::to_owned)
    }
}
