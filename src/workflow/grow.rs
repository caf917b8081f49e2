//! Expanding what can be expanded: at the beginning, and whenever a generator is done.

use std::collections::HashMap;

use keelboat_engine::{Digester, Source, TaskName, TaskSpec};

use super::declaration::{Declaration, Item, OutputItem, Values, Variable};
use super::expand::{Context, Expander};
use super::explain::explain;
use super::family::{Family, MadeFile};
use super::foreach::{Column, Group, INSTANCES_MAX, Product};
use super::link::{self, Directory};
use super::pattern::Pattern;
use super::problem::{Place, Problem, Problems};
use super::template::{Mode, Templates};
use super::{ReadOutput, Text, Workflow, WorkflowErrors, prepare, values};

use crate::recent::Recent;
use minijinja::value::Value;

/// A declaration that has been expanded in this round.
struct Batch {
    tasks: Vec<TaskSpec>,
    family: Family,
    count: usize,
}

impl Workflow {
    /// Expands as long as tasks that are done make more.
    pub(super) fn ripen(
        &mut self,
        read_output: &mut ReadOutput<'_>,
    ) -> Result<Vec<TaskSpec>, WorkflowErrors> {
        let mut tasks = Vec::new();
        let mut known = None;
        loop {
            let now = self.families.iter().flatten().count();
            let ripe = (0..self.families.len()).any(|at| {
                self.families[at].is_none()
                    && !self.links[at].generators.is_empty()
                    && self.generated(at)
            });
            if !ripe || known == Some(now) {
                return Ok(tasks);
            }
            known = Some(now);
            let more =
                self.advance(Problems::default(), &mut Digester::new(), Some(&mut *read_output))?;
            tasks.extend(more);
        }
    }

    /// Whether all tasks that make values for this declaration are done.
    fn generated(&self, at: usize) -> bool {
        self.links[at].generators.iter().all(|generator| {
            let family = self.families[*generator].as_ref();
            family.is_some_and(|family| family.names.len() == self.done_counts[*generator])
        })
    }

    /// Expands all that can be expanded now.
    pub(super) fn advance(
        &mut self,
        mut problems: Problems,
        identity: &mut Digester,
        mut read_output: Option<&mut ReadOutput<'_>>,
    ) -> Result<Vec<TaskSpec>, WorkflowErrors> {
        let mut batches: Vec<Option<Batch>> = self.declarations.iter().map(|_| None).collect();
        let mut round = Round {
            workflow: self,
            templates: Templates::new(),
            problems: &mut problems,
            identity,
        };
        // With a mistake somewhere, the rest is still looked at, to report all there is.
        let mut failed = vec![false; batches.len()];
        for &at in &self.order {
            let ready = self.families[at].is_none()
                && self.links[at].needs.iter().all(|(need, _)| {
                    !failed[*need] && (self.families[*need].is_some() || batches[*need].is_some())
                });
            if !ready || !self.generated(at) {
                // Mistakes are to be seen when the file is loaded, not in the middle of a run.
                if self.families[at].is_none() && read_output.is_none() {
                    round.check(at);
                }
                continue;
            }
            let known = round.problems.len();
            batches[at] = round.expand(at, &batches, read_output.as_deref_mut());
            failed[at] = batches[at].is_none();
            if failed[at] && read_output.is_none() {
                round.check_rest(at, known);
            }
        }
        if problems.is_empty() {
            let waits = self.hold_back(&mut batches);
            self.check_dormant(&batches, &waits, &mut problems);
        }
        self.commit(batches, problems)
    }

    /// Takes back what may read outputs of tasks that are not known yet; tells who waits for whom.
    fn hold_back(&self, batches: &mut [Option<Batch>]) -> Vec<Vec<(usize, Place)>> {
        let mut waits = vec![Vec::new(); batches.len()];
        let unknown = |batches: &[Option<Batch>], at: usize| {
            self.families[at].is_none() && batches[at].is_none()
        };
        if (0..batches.len()).all(|at| !unknown(batches, at)) {
            return waits;
        }
        let patterns: Vec<Vec<Pattern>> = self.declarations.iter().map(patterns_of).collect();
        let depends = self.dependents();
        loop {
            let mut changed = false;
            // Taking one back makes one more unknown, which the next pass sees.
            let unknowns: Vec<usize> =
                (0..batches.len()).filter(|at| unknown(batches, *at)).collect();
            for at in 0..batches.len() {
                let Some(batch) = &batches[at] else { continue };
                let needed = self.links[at].needs.iter().find(|(need, _)| unknown(batches, *need));
                let read = unknowns.iter().copied().find_map(|other| {
                    let circular = depends[other].contains(&at);
                    Some((other, self.reads(at, batch, &patterns[other], circular)?))
                });
                if let Some(wait) = needed.copied().or(read) {
                    waits[at].push(wait);
                    batches[at] = None;
                    changed = true;
                }
            }
            if !changed {
                return waits;
            }
        }
    }

    /// Where a task of this batch reads a path that one of these patterns may become.
    ///
    /// `circular`: the owner of the patterns itself waits for this batch. Then a file that is there
    /// already counts as a source, since patterns match more than will ever be written.
    fn reads(
        &self,
        at: usize,
        batch: &Batch,
        patterns: &[Pattern],
        circular: bool,
    ) -> Option<Place> {
        let mut inputs = batch.tasks.iter().flat_map(|task| &task.inputs);
        let read = inputs.find(|input| match &input.source {
            Source::Path(path) => {
                patterns.iter().any(|pattern| pattern.matches(path))
                    && !(circular && self.project_dir.join(path.as_ref()).exists())
            }
            Source::Urls(_) => false,
        })?;
        let declaration = &self.declarations[at];
        let named = declaration.inputs.iter().find(|named| named.label == read.label);
        Some(named.map_or(declaration.place, |named| named.place))
    }

    /// For each declaration, all that it needs, directly or not.
    fn dependents(&self) -> Vec<std::collections::BTreeSet<usize>> {
        let mut all: Vec<std::collections::BTreeSet<usize>> =
            vec![std::collections::BTreeSet::new(); self.declarations.len()];
        for &at in &self.order {
            let mut needs = std::collections::BTreeSet::new();
            // Only dormant declarations matter here, and these are few.
            if self.families[at].is_none() {
                for (need, _) in &self.links[at].needs {
                    needs.insert(*need);
                    needs.extend(all[*need].iter().copied());
                }
            }
            all[at] = needs;
        }
        all
    }

    /// What waits for itself will never be known.
    fn check_dormant(
        &self,
        batches: &[Option<Batch>],
        waits: &[Vec<(usize, Place)>],
        problems: &mut Problems,
    ) {
        let needs: Vec<Vec<_>> = (0..batches.len())
            .map(|at| {
                if self.families[at].is_some() || batches[at].is_some() {
                    return Vec::new();
                }
                self.links[at].needs.iter().chain(&waits[at]).copied().collect()
            })
            .collect();
        let (_, cycle) = link::sorted(&needs);
        // A cycle of references has been reported when the file was loaded.
        if let Some(cycle) = cycle {
            problems.push(link::cycle_problem(self.directory(), &cycle));
        }
    }

    fn commit(
        &mut self,
        mut batches: Vec<Option<Batch>>,
        mut problems: Problems,
    ) -> Result<Vec<TaskSpec>, WorkflowErrors> {
        for (at, batch) in batches.iter().enumerate() {
            if let Some(batch) = batch {
                let declaration = &self.declarations[at];
                let made = (declaration, batch.tasks.as_slice());
                self.producers.add(made, &self.project, &self.sources, &mut problems);
                let project = (&self.project, self.project_dir.as_path());
                self.own_files.check(made, project, &self.sources, &mut problems);
            }
        }
        for (at, batch) in batches.iter_mut().enumerate() {
            if let Some(batch) = batch {
                let declaration = &self.declarations[at];
                let made = (declaration, batch.tasks.as_slice());
                self.producers.check(made, &self.project, &self.sources, &mut problems);
                self.producers.mark_directories(&mut batch.tasks);
            }
        }
        self.warnings.extend(problems.take_warnings());
        if !problems.is_empty() {
            return Err(WorkflowErrors::new(&self.file, problems));
        }
        let mut tasks = Vec::with_capacity(batches.iter().flatten().map(|batch| batch.count).sum());
        for (at, batch) in batches.into_iter().enumerate() {
            if let Some(batch) = batch {
                self.counts[at] = batch.count;
                let done = |name: &&TaskName| self.done.contains(*name);
                self.done_counts[at] = batch.family.names.iter().filter(done).count();
                self.families[at] = Some(batch.family);
                tasks.extend(batch.tasks);
            }
        }
        Ok(tasks)
    }

    fn directory(&self) -> Directory<'_> {
        Directory {
            declarations: &self.declarations,
            by_name: &self.by_name,
            sources: &self.sources,
        }
    }
}

/// The paths that a declaration's tasks may write.
fn patterns_of(declaration: &Declaration) -> Vec<Pattern> {
    let items = declaration.outputs.iter().flat_map(|named| &named.items);
    items.map(|item: &OutputItem| Pattern::of(&item.path.value)).collect()
}

/// One pass over the declarations.
struct Round<'w, 'p> {
    workflow: &'w Workflow,
    templates: Templates<'w>,
    problems: &'p mut Problems,
    identity: &'p mut Digester,
}

impl<'w> Round<'w, '_> {
    fn expand(
        &mut self,
        at: usize,
        batches: &[Option<Batch>],
        read_output: Option<&mut ReadOutput<'_>>,
    ) -> Option<Batch> {
        let declaration = &self.workflow.declarations[at];
        let product = self.product(declaration, read_output)?;
        let family_of = |at: usize| {
            self.workflow.families[at]
                .as_ref()
                .or_else(|| batches[at].as_ref().map(|batch| &batch.family))
        };
        let context = self.context();
        let mut expander = Expander {
            context,
            templates: &self.templates,
            problems: self.problems,
            recent: Recent::default(),
        };
        let mut tasks = expander.expand(declaration, &product, &family_of)?;
        let link = &self.workflow.links[at];
        if link.generates {
            for task in &mut tasks {
                task.options_mut().generates = true;
            }
        }
        let family =
            if link.referenced { Family::new(declaration, &tasks) } else { Family::default() };
        Some(Batch { count: tasks.len(), tasks, family })
    }

    fn context(&self) -> Context<'w> {
        Context {
            directory: self.workflow.directory(),
            project: &self.workflow.project,
            params: &self.workflow.params,
            params_value: &self.workflow.params_value,
        }
    }

    /// Looks for mistakes in a declaration that cannot be expanded yet.
    fn check(&mut self, at: usize) {
        let declaration = &self.workflow.declarations[at];
        let variables = declaration.foreach.iter().flat_map(|dimension| &dimension.variables);
        for variable in variables.clone() {
            self.check_names(declaration, variable);
        }
        let names = variables.map(|variable| variable.name.clone()).collect();
        let context = self.context();
        let base = context.base(declaration, names);
        prepare::check(context, &self.templates, self.problems, declaration, &base);
    }

    /// Looks for mistakes in what was not come to, after others were found (`known` before them).
    fn check_rest(&mut self, at: usize, known: usize) {
        let found = std::mem::take(self.problems);
        self.check(at);
        let rest = std::mem::replace(self.problems, found);
        self.problems.add_new(rest, known);
    }

    /// The combinations of values that a declaration runs over.
    fn product(
        &mut self,
        declaration: &'w Declaration,
        mut read_output: Option<&mut ReadOutput<'_>>,
    ) -> Option<Product> {
        let mut groups: Vec<Group> = Vec::new();
        for dimension in &declaration.foreach {
            let mut group = Group::new();
            for variable in &dimension.variables {
                let items = self.items(variable, read_output.as_deref_mut())?;
                self.check_names(declaration, variable);
                if items.is_empty() && !matches!(variable.values, Values::Output { .. }) {
                    let message =
                        format!("`{}` has no values: there will be no task", variable.name);
                    let problem = self.workflow.sources.problem(variable.place, message);
                    self.problems.push(problem.help("check the list, table or pattern").warning());
                }
                group.push(Column::new(variable.name.clone(), items));
            }
            let first = group.first().map_or(0, |column| column.items.len());
            if let Some(at) = group.iter().position(|column| column.items.len() != first) {
                let (one, other) = (&dimension.variables[0], &dimension.variables[at]);
                let count = group[at].items.len();
                let message =
                    format!("`{}` has {first} values, `{}` has {count}", one.name, other.name);
                let problem = self
                    .workflow
                    .sources
                    .problem(other.place, message)
                    .help("variables that are zipped need equally many values");
                self.problems.push(self.workflow.sources.also(problem, one.place, "and here"));
                return None;
            }
            groups.push(group);
        }
        let product = Product::new(groups);
        if product.is_none() {
            let message =
                format!("`{}` would have more than {INSTANCES_MAX} tasks", declaration.name);
            let problem = self.workflow.sources.problem(declaration.place, message);
            self.problems.push(problem.help(
                "variables of foreach are combined each with each; \
                                             foreach = { zip = { … } } lets them advance together",
            ));
        }
        product
    }

    fn check_names(&mut self, declaration: &Declaration, variable: &Variable) {
        let name = &variable.name;
        let sources = &self.workflow.sources;
        if self.workflow.params.contains_key(name) {
            let message = format!("`{name}` is the name of a parameter, too");
            let help = "choose another name for this variable";
            self.problems.push(sources.problem(variable.place, message).help(help));
        }
        let all = declaration.foreach.iter().flat_map(|dimension| &dimension.variables);
        let first = all.into_iter().find(|other| other.name == *name);
        if let Some(first) = first.filter(|first| first.place != variable.place) {
            let problem = sources
                .problem(variable.place, format!("there are two variables `{name}`"))
                .help("rename one of them");
            self.problems.push(sources.also(problem, first.place, "first here"));
        }
    }

    /// The values of one variable.
    fn items(
        &mut self,
        variable: &'w Variable,
        read_output: Option<&mut ReadOutput<'_>>,
    ) -> Option<Vec<Item>> {
        let project_dir = &self.workflow.project_dir;
        let problem = |message: String| self.workflow.sources.problem(variable.place, message);
        match &variable.values {
            Values::List(items) => Some(items.clone()),
            Values::Range { start, end, step } => values::range(*start, *end, *step)
                .map_err(|message| self.problems.push(problem(message)))
                .ok(),
            Values::Table { path, delimiter } => {
                let name = self.render(path)?;
                let bytes = std::fs::read(project_dir.join(&name)).map_err(|error| {
                    let problem = self.at(path, format!("cannot read {name}: {error}"));
                    self.problems
                        .push(problem.help("tables are looked for in the project directory"));
                });
                let bytes = bytes.ok()?;
                self.note(&bytes);
                values::table(&bytes, *delimiter)
                    .map_err(|message| {
                        let problem = self.at(path, format!("cannot use {name}: {message}"));
                        self.problems.push(problem.help(
                            "the first line names the columns; each \
                                                         line after it has one field for each",
                        ));
                    })
                    .ok()
            }
            Values::Glob(pattern) => {
                let text = self.render(pattern)?;
                let items = values::glob(project_dir, &text).map_err(|message| {
                    let problem =
                        self.at(pattern, format!("cannot use the pattern {text:?}: {message}"));
                    self.problems.push(problem);
                });
                let items = items.ok()?;
                for item in &items {
                    if let Item::Path(path) = item {
                        self.note(path.as_bytes());
                    }
                }
                Some(items)
            }
            Values::Output { output, json } => self.generated_items(output, *json, read_output?),
        }
    }

    /// What the generators of a variable have written.
    fn generated_items(
        &mut self,
        output: &Text,
        json: bool,
        read_output: &mut ReadOutput<'_>,
    ) -> Option<Vec<Item>> {
        let (task, label) = self.workflow.directory().resolve(output).ok()?;
        let family = self.workflow.families[task].as_ref()?;
        let mut items = Vec::new();
        for MadeFile { path, optional, .. } in family.files(label) {
            let bytes = match read_output(path) {
                Err(error) if *optional && error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other,
            };
            let read = bytes
                .map_err(|error| error.to_string())
                .and_then(|bytes| if json { values::json(&bytes) } else { values::lines(&bytes) });
            match read {
                Ok(more) => items.extend(more),
                Err(message) => {
                    let help = if json {
                        "the task must write a JSON array of strings, numbers or flat objects"
                    } else {
                        "the task must write one value a line, as UTF-8 text"
                    };
                    let problem =
                        self.at(output, format!("cannot take values from {path}: {message}"));
                    self.problems.push(problem.help(help));
                    return None;
                }
            }
        }
        Some(items)
    }

    fn at(&self, text: &Text, message: String) -> Problem {
        self.workflow.sources.problem(text.place, message)
    }

    fn note(&mut self, bytes: &[u8]) {
        self.identity.update(&(bytes.len() as u64).to_le_bytes());
        self.identity.update(bytes);
    }

    /// A text that may use parameters only.
    fn render(&mut self, text: &'w Text) -> Option<String> {
        let mut scope: HashMap<String, Value> = HashMap::new();
        scope.extend(
            self.workflow.params.iter().map(|(name, value)| (name.to_string(), value.clone())),
        );
        scope.insert("params".to_owned(), self.workflow.params_value.clone());
        let scope = Value::from(scope);
        self.templates
            .compile(text, Mode::Plain)
            .and_then(|compiled| compiled.render(&scope))
            .map(|text| text.as_ref().to_owned())
            .map_err(|fault| {
                self.problems.push(explain(&self.workflow.sources, text, &fault, &scope));
            })
            .ok()
    }
}
