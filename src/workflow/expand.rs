//! From a declaration and the values of its variables to tasks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use keelboat_engine::{Env, Ranks, Resources, TaskOptions, TaskSpec};
use minijinja::value::Value;

use super::build::Builder;
use super::collisions;
use super::declaration::Declaration;
use super::family::Family;
use super::foreach::Product;
use super::link::Directory;
use super::paths::Project;
use super::prepare::{Prepared, prepare};
use super::problem::{Problem, Problems};
use super::scope::{Base, Files, Scope};
use super::template::Templates;
use crate::recent::Recent;

/// The most files that the tasks of one declaration may name together.
const FILES_MAX: usize = 20_000_000;

/// What all declarations share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) directory: Directory<'a>,
    pub(super) project: &'a Project,
    pub(super) params: &'a Arc<BTreeMap<Arc<str>, Value>>,
    pub(super) params_value: &'a Value,
}

impl Context<'_> {
    /// What all instances of a declaration see.
    pub(super) fn base(&self, declaration: &Declaration, variables: Vec<Arc<str>>) -> Arc<Base> {
        Arc::new(Base {
            variables,
            params: self.params.clone(),
            params_value: self.params_value.clone(),
            cores: declaration.options.cores.unwrap_or(1),
            memory_mib: declaration.options.memory.map_or(0, |memory| memory.first) >> 20,
        })
    }
}

/// What all ranks take together.
fn resources_of(declaration: &Declaration) -> Resources {
    let options = &declaration.options;
    let ranks = declaration.ranks.map_or(1, Ranks::total);
    Resources {
        cores: options.cores.unwrap_or(1).saturating_mul(ranks),
        memory: options.memory.map_or(0, |memory| memory.first),
        gpus: options.gpus.unwrap_or_default(),
        disk: options.disk.unwrap_or_default(),
    }
}

/// Expands one declaration.
pub(super) struct Expander<'a, 'e, 't> {
    pub(super) context: Context<'a>,
    pub(super) templates: &'e Templates<'t>,
    pub(super) problems: &'a mut Problems,
    pub(super) recent: Recent<TaskOptions>,
}

impl<'t> Expander<'_, '_, 't> {
    /// The tasks of a declaration. `None`: at least one problem was found.
    pub(super) fn expand<'f>(
        &mut self,
        declaration: &'t Declaration,
        product: &Product,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> Option<Vec<TaskSpec>> {
        let base = self.context.base(declaration, product.variables());
        let prepared = prepare(self.context, self.templates, self.problems, declaration, &base)?;
        let mut tasks = Vec::with_capacity(product.len());
        let mut names = HashSet::with_capacity(product.len());
        let mut files = 0;
        for index in 0..product.len() {
            let (name, values) = product.instance(declaration, index);
            if !names.insert(name.clone()) {
                self.problems.push(self.duplicate(declaration, &name));
                return None;
            }
            let scope = Scope { base: base.clone(), values, name, files: None };
            let task = self.instance(declaration, &prepared, scope, family)?;
            files += task.inputs.len() + task.after.len();
            if files > FILES_MAX {
                let message = format!("the tasks of `{}` name too many files", declaration.name);
                let problem = self.context.directory.sources.problem(declaration.place, message);
                self.problems.push(problem.help(
                    "each of its tasks takes all outputs of another one; take one of them: \
                     from = \"task[x={{ x }}].output\"",
                ));
                return None;
            }
            tasks.push(task);
        }
        Some(tasks)
    }

    fn duplicate(&self, declaration: &Declaration, name: &str) -> Problem {
        let place = declaration.foreach.first().and_then(|dimension| dimension.variables.first());
        let place = place.map_or(declaration.place, |variable| variable.place);
        self.context
            .directory
            .sources
            .problem(place, format!("two tasks would be called `{name}`"))
            .labelled("two of its values are the same")
            .help("each combination of values may be there once; remove the repeated one")
    }

    /// One task. All its problems are reported before it is given up.
    fn instance<'f>(
        &mut self,
        declaration: &Declaration,
        prepared: &Prepared<'_, '_>,
        mut scope: Scope,
        family: &dyn Fn(usize) -> Option<&'f Family>,
    ) -> Option<TaskSpec> {
        let name = scope.name.clone();
        let early = Value::from_object(Scope {
            base: scope.base.clone(),
            values: scope.values.clone(),
            name: name.clone(),
            files: None,
        });
        let mut builder = Builder {
            context: self.context,
            problems: self.problems,
            scope: &early,
            failed: false,
        };
        let (inputs, input_values) = builder.inputs(prepared, family);
        let (outputs, output_values) = builder.outputs(prepared);
        let after = builder.after(prepared, family);
        let version = prepared.version.as_ref().and_then(|text| builder.render(text));
        let container = builder.container(prepared);
        if builder.failed || declaration.files_unread {
            return None;
        }
        let files = |labels: &Arc<[Arc<str>]>, values| {
            Value::from_object(Files { labels: labels.clone(), values })
        };
        scope.files = Some((
            files(&prepared.input_labels, input_values),
            files(&prepared.output_labels, output_values),
        ));
        let late = Value::from_object(scope);
        builder.scope = &late;
        let command = builder.command(&prepared.command);
        let env = builder.env(prepared);
        if builder.failed {
            return None;
        }
        let task = TaskSpec {
            name,
            command: command?,
            inputs,
            outputs,
            after,
            takes: Vec::new(),
            options: self.options(declaration, env, (version, container)),
        };
        let collision = collisions::find(self.context.directory.sources, declaration, &task);
        match collision {
            Some(problem) => {
                self.problems.push(problem);
                None
            }
            None => Some(task),
        }
    }

    /// What else is said of it.
    fn options(
        &mut self,
        declaration: &Declaration,
        env: Env,
        (version, container): (Option<Arc<str>>, Option<Arc<str>>),
    ) -> Arc<TaskOptions> {
        let options = &declaration.options;
        let checkpoint = declaration.checkpoint.as_ref();
        self.recent.shared(TaskOptions {
            env,
            version,
            container,
            ranks: declaration.ranks,
            executors: options.executors.clone().unwrap_or_default(),
            priority: options.priority.unwrap_or_default(),
            resources: resources_of(declaration),
            memory_growth: options.memory.and_then(|memory| memory.growth),
            timeout: options.timeout,
            retry: options.retry(),
            memoize: options.cache.unwrap_or_default(),
            uncounted: options.uncounted(),
            checkpoint: checkpoint.map(|checkpoint| checkpoint.spec.clone()),
            keep_scratch: options.keep_scratch.unwrap_or_default(),
            ..TaskOptions::default()
        })
    }
}
