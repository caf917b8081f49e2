//! A workflow as a model that knows what its tasks write and what their keys are made of, without
//! the code that is attacked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keelboat_engine::Digest;

use crate::bout::Bout;

/// A file that is not made by a task.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Where it lies.
    pub(crate) path: String,
    /// What it is called in a task's directory.
    pub(crate) called: String,
    pub(crate) lines: Vec<String>,
}

/// What a task does with its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Puts them together.
    Join,
    /// Counts their lines: many inputs give the same.
    Count,
}

/// What a task reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Source(usize),
    /// Of a task before it.
    Task(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) inputs: Vec<From>,
    pub(crate) output: String,
    pub(crate) salt: u64,
    pub(crate) takes_parameter: bool,
    pub(crate) env: Option<String>,
    pub(crate) version: Option<String>,
    /// What counts for nothing.
    pub(crate) options: String,
}

/// A workflow with its files.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) sources: Vec<Source>,
    pub(crate) tasks: Vec<Task>,
    /// In which order tasks stand in the file.
    pub(crate) order: Vec<usize>,
    pub(crate) parameter: u64,
    pub(crate) comment: u64,
    /// Makes names that were never used.
    pub(crate) fresh: u64,
}

/// What a task should do: what it is made of, and what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) parts: BTreeMap<String, String>,
    pub(crate) output: String,
}

impl Model {
    /// Some sources, and tasks that read them and one another.
    pub(crate) fn random(bout: &mut Bout, sources: usize, tasks: usize) -> Self {
        let sources = (0..sources).map(|at| {
            let path = format!("src/{at}.txt");
            let lines = (0..=bout.one_of(5)).map(|line| format!("{at} {line}")).collect();
            Source { called: path.clone(), path, lines }
        });
        let sources = sources.collect();
        let order = (0..tasks).collect();
        let mut model =
            Self { sources, tasks: Vec::new(), order, parameter: 1, comment: 0, fresh: 0 };
        for _ in 0..tasks {
            let task = model.random_task(bout);
            model.tasks.push(task);
        }
        model
    }

    /// A number that no other name of this model has.
    pub(crate) fn next_fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// A task that may come next.
    pub(crate) fn random_task(&mut self, bout: &mut Bout) -> Task {
        let number = self.next_fresh();
        let mut inputs = vec![From::Source(bout.one_of(self.sources.len()))];
        for _ in 0..bout.one_of(3) {
            let one = self.random_input(bout, self.tasks.len());
            if !inputs.contains(&one) {
                inputs.push(one);
            }
        }
        let work = if bout.one_of(3) == 0 { Work::Count } else { Work::Join };
        Task {
            name: format!("t{number}"),
            work,
            inputs,
            output: format!("out/{number}.txt"),
            salt: bout.chance.below(1000),
            takes_parameter: bout.one_of(3) == 0,
            env: None,
            version: None,
            options: String::new(),
        }
    }

    /// Something that the task with this index may read.
    pub(crate) fn random_input(&self, bout: &mut Bout, task: usize) -> From {
        match bout.one_of(self.sources.len() + 2 * task) {
            at if at < self.sources.len() => From::Source(at),
            at => From::Task((at - self.sources.len()) / 2),
        }
    }

    /// The workflow file.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = format!(
            "# {}\n[workflow]\nname = \"model\"\nparams = {{ p = {} }}\n",
            self.comment, self.parameter
        );
        for task in self.order.iter().map(|at| &self.tasks[*at]) {
            let inputs: Vec<String> = task.inputs.iter().map(|from| self.input(*from)).collect();
            let env = task.env.as_ref().map(|value| format!("env = {{ ATTACK = {value:?} }}\n"));
            let version = task.version.as_ref().map(|version| format!("version = {version:?}\n"));
            let parameter = if task.takes_parameter { "{{ p }}" } else { "-" };
            let command = command(task, "{{ inputs.all }}", "{{ outputs.out }}", parameter);
            write!(
                text,
                "[task.{}]\ninputs = {{ all = [{}] }}\noutputs = {{ out = {:?} }}\n{}{}{}run = '''{command}'''\n",
                task.name,
                inputs.join(", "),
                task.output,
                env.unwrap_or_default(),
                version.unwrap_or_default(),
                task.options,
            )
            .expect("text");
        }
        text
    }

    fn input(&self, from: From) -> String {
        match from {
            From::Task(at) => format!("{:?}", self.tasks[at].output),
            From::Source(at) => {
                let Source { path, called, .. } = &self.sources[at];
                format!("{{ path = {path:?}, as = {called:?} }}")
            }
        }
    }

    /// What each task should be made of and write, in the order of `tasks`.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let mut all: Vec<Expected> = Vec::new();
        for task in &self.tasks {
            let one = self.expect(task, &all);
            all.push(one);
        }
        all
    }

    fn expect(&self, task: &Task, before: &[Expected]) -> Expected {
        let read = |from: &From| match *from {
            From::Source(at) => {
                let Source { called, lines, .. } = &self.sources[at];
                (called.clone(), text_of(lines))
            }
            From::Task(at) => (self.tasks[at].output.clone(), before[at].output.clone()),
        };
        let inputs: Vec<(String, String)> = task.inputs.iter().map(read).collect();
        let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
        let parameter =
            if task.takes_parameter { self.parameter.to_string() } else { "-".to_owned() };
        let mut parts = BTreeMap::from([
            ("shell".to_owned(), "/bin/sh -e -c".to_owned()),
            ("command".to_owned(), command(task, &names.join(" "), &task.output, &parameter)),
            (format!("output {}", task.output), "file".to_owned()),
        ]);
        parts.extend(task.version.iter().map(|version| ("version".to_owned(), version.clone())));
        parts.extend(task.env.iter().map(|value| ("env ATTACK".to_owned(), value.clone())));
        for (name, text) in &inputs {
            parts.insert(format!("input {name}"), Digest::of(text.as_bytes()).to_hex());
        }
        let all: String = inputs.iter().map(|(_, text)| text.as_str()).collect();
        let done = match task.work {
            Work::Join => all,
            Work::Count => format!("{}\n", all.lines().count()),
        };
        let env = task.env.as_deref().unwrap_or_default();
        Expected { parts, output: format!("{done}{} {parameter} {env}\n", task.salt) }
    }
}

/// The lines as a file.
pub(crate) fn text_of(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

fn command(task: &Task, inputs: &str, output: &str, parameter: &str) -> String {
    let work = match task.work {
        Work::Join => "cat",
        Work::Count => "awk 'END { print NR }'",
    };
    let salt = task.salt;
    format!("{work} {inputs} > {output}; echo {salt} {parameter} \"$ATTACK\" >> {output}")
}
