//! Random edits of a workflow and its files: exactly the right tasks run, and `why` says the reason.
//! And the same plan under other circumstances: the same keys and digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::bout::{Bout, attack};
use crate::model::{Expected, Model, text_of};
use crate::project::{Project, Run};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("edits::exactly_the_right_tasks_run", exactly_the_right_tasks_run),
        attack("edits::the_same_plan_has_the_same_keys", the_same_plan_has_the_same_keys),
    ]
}

const SOURCES: usize = 4;
const TASKS: usize = 9;

/// Edits of one project. Then another one begins.
const EDITS_EACH: usize = 50;

/// What a project should know, beside the project.
struct Oracle {
    project: Project,
    /// All that was ever computed, by what it was made of.
    remembered: BTreeSet<BTreeMap<String, String>>,
    /// What the last result of each name was made of.
    last: BTreeMap<String, BTreeMap<String, String>>,
    ran: usize,
    reused: usize,
}

fn write_all(project: &Project, model: &Model) {
    project.set_workflow(&model.to_toml());
    for source in &model.sources {
        let text = text_of(&source.lines);
        if project.read(&source.path) != text {
            // As an editor does it.
            project.write(format!("{}~", source.path), text);
            std::fs::rename(project.path(format!("{}~", source.path)), project.path(&source.path))
                .unwrap();
        }
    }
}

impl Oracle {
    fn new(model: &Model) -> Self {
        let project = Project::new("");
        write_all(&project, model);
        let (remembered, last) = (BTreeSet::new(), BTreeMap::new());
        Self { project, remembered, last, ran: 0, reused: 0 }
    }

    /// Runs, and compares what ran, what was written, and what `why` says.
    fn check(&mut self, model: &Model, edits: &str) {
        let expected = model.expected();
        let tasks = || model.tasks.iter().map(|task| task.name.clone()).zip(&expected);
        let must = |parts| !self.remembered.contains(parts);
        let run = tasks().filter(|(_, one)| must(&one.parts)).map(|(name, _)| name);
        let run: BTreeSet<String> = run.collect();
        let done = self.project.run(&[]);
        let said = || format!("{edits}: {}\n{}", done.said(), self.project.read("flow.toml"));
        assert_eq!(done.code(), Some(0), "{}", said());
        assert_eq!(set(done.tasks("completed")), run, "ran after {}", said());
        let rest = tasks().map(|(name, _)| name).filter(|name| !run.contains(name));
        assert_eq!(set(done.tasks("reused")), rest.collect(), "reused after {}", said());
        for (task, one) in model.tasks.iter().zip(&expected) {
            assert_eq!(self.project.read(&task.output), one.output, "{}: {}", task.name, said());
        }
        for (name, one) in tasks() {
            let reasons = run.contains(&name).then(|| self.reasons(&name, one));
            self.check_why(&name, reasons, edits);
        }
        (self.ran, self.reused) = (self.ran + run.len(), self.reused + expected.len() - run.len());
        for (name, one) in model.tasks.iter().map(|task| task.name.clone()).zip(expected) {
            self.remembered.insert(one.parts.clone());
            self.last.insert(name, one.parts);
        }
    }

    /// Why a task has to run.
    fn reasons(&self, name: &str, now: &Expected) -> BTreeSet<String> {
        let Some(last) = self.last.get(name) else {
            return BTreeSet::from([json!({ "kind": "first_run" }).to_string()]);
        };
        let parts: BTreeSet<&String> = last.keys().chain(now.parts.keys()).collect();
        let changed = parts.into_iter().map(|part| (part, last.get(part), now.parts.get(part)));
        let changed = changed.filter(|(_, old, new)| old != new).map(|(part, old, new)| {
            json!({ "kind": "changed", "part": part, "old": old, "new": new }).to_string()
        });
        changed.collect()
    }

    /// `None`: it did not run.
    fn check_why(&self, name: &str, reasons: Option<BTreeSet<String>>, edits: &str) {
        let why = self.project.command(&["why", name, "--json"]).output().unwrap();
        let why: Value = serde_json::from_slice(&why.stdout).unwrap();
        let state = if reasons.is_some() { "completed" } else { "reused" };
        assert_eq!(why["state"], state, "{name} after {edits}: {why}");
        let found = why["reasons"].as_array().into_iter().flatten().map(Value::to_string);
        let found: BTreeSet<String> = found.collect();
        assert_eq!(found, reasons.unwrap_or_default(), "why {name} after {edits}");
    }
}

fn set(names: Vec<String>) -> BTreeSet<String> {
    let count = names.len();
    let set: BTreeSet<String> = names.into_iter().collect();
    assert_eq!(set.len(), count, "one was told of twice: {set:?}");
    set
}

fn exactly_the_right_tasks_run(bout: &mut Bout) -> String {
    let edits = bout.times(60, 10_000);
    let (mut done, mut ran, mut reused) = (0, 0, 0);
    while done < edits {
        let mut model = Model::random(bout, SOURCES, TASKS);
        let mut oracle = Oracle::new(&model);
        oracle.check(&model, "nothing");
        let mut before = vec![model.clone()];
        for _ in 0..EDITS_EACH.min(edits - done) {
            let count = 1 + bout.one_of(3);
            let what: Vec<String> =
                (0..count).map(|_| edit(bout, &mut model, &oracle.project, &before)).collect();
            write_all(&oracle.project, &model);
            oracle.check(&model, &what.join(", "));
            before.push(model.clone());
            done += 1;
        }
        (ran, reused) = (ran + oracle.ran, reused + oracle.reused);
    }
    format!(
        "{edits} edits: {ran} tasks ran and {reused} did not, as they had to; `why` was right of each"
    )
}

/// Changes the model or the files of the project; says what it did.
fn edit(bout: &mut Bout, model: &mut Model, project: &Project, before: &[Model]) -> String {
    match bout.one_of(3) {
        0 => edit_source(bout, model, project),
        1 => edit_task(bout, model),
        _ => edit_whole(bout, model, project, before),
    }
}

fn edit_source(bout: &mut Bout, model: &mut Model, project: &Project) -> String {
    let number = model.next_fresh();
    let at = bout.one_of(model.sources.len());
    let source = &mut model.sources[at];
    let path = source.path.clone();
    match bout.one_of(6) {
        0 => {
            let line = bout.one_of(source.lines.len());
            source.lines[line] = format!("changed {number}");
            format!("{path} has another line")
        }
        1 => {
            source.lines.push(format!("added {number}"));
            format!("{path} is longer")
        }
        2 => {
            touch(bout, project, &path);
            format!("{path} has another time")
        }
        3 => {
            remove(&project.path(&path));
            format!("{path} is another file with the same bytes")
        }
        4 => {
            // Its name in the tasks' directories stays.
            source.path = format!("moved/{number}.txt");
            remove(&project.path(&path));
            format!("{path} lies elsewhere")
        }
        _ => {
            source.called = format!("src/name-{number}.txt");
            format!("{path} has another name")
        }
    }
}

fn edit_task(bout: &mut Bout, model: &mut Model) -> String {
    let number = model.next_fresh();
    let at = bout.one_of(model.tasks.len());
    let input = model.random_input(bout, at);
    let task = &mut model.tasks[at];
    let name = task.name.clone();
    match bout.one_of(9) {
        0 => {
            task.salt = number;
            format!("{name} has another command")
        }
        1 => {
            task.env = (bout.one_of(2) == 0).then(|| format!("value {number}"));
            format!("{name} has another environment")
        }
        2 => {
            task.version = (bout.one_of(2) == 0).then(|| number.to_string());
            format!("{name} has another version")
        }
        3 => {
            task.name = format!("t{number}");
            format!("{name} is called {}", task.name)
        }
        4 => {
            task.output = format!("out/{number}.txt");
            format!("{name} writes elsewhere")
        }
        5 => {
            task.takes_parameter = !task.takes_parameter;
            format!("{name} takes the parameter or does not")
        }
        6 if !task.inputs.contains(&input) => {
            task.inputs.push(input);
            format!("{name} reads one more")
        }
        7 if task.inputs.len() > 1 => {
            task.inputs.pop();
            format!("{name} reads one fewer")
        }
        _ => {
            let options = [
                "retries = 2\n",
                "priority = 7\n",
                "timeout = \"1h\"\n",
                "description = \"x\"\n",
                "backoff = \"1ms\"\n",
                "memory = \"2GiB\"\n",
            ];
            task.options = options[bout.one_of(options.len())].into();
            format!("{name} has {}", task.options.trim())
        }
    }
}

fn edit_whole(bout: &mut Bout, model: &mut Model, project: &Project, before: &[Model]) -> String {
    let number = model.next_fresh();
    let at = bout.one_of(model.tasks.len());
    let output = project.path(&model.tasks[at].output);
    match bout.one_of(10) {
        0 => {
            model.parameter = number;
            "the parameter has another value".to_owned()
        }
        1 => {
            shuffle(bout, &mut model.order);
            model.comment = number;
            "tasks stand in another order".to_owned()
        }
        2 => {
            *model = Model { fresh: model.fresh, ..before[bout.one_of(before.len())].clone() };
            "all is as it was once".to_owned()
        }
        3 => {
            let task = model.random_task(bout);
            model.order.push(model.tasks.len());
            model.tasks.push(task);
            "one task more".to_owned()
        }
        4 if model.tasks.len() > 3 => {
            let last = model.tasks.len() - 1;
            model.tasks.pop();
            model.order.retain(|at| *at != last);
            "one task fewer".to_owned()
        }
        5 => {
            remove(&output);
            format!("{} is gone", output.display())
        }
        6 => {
            remove(&output);
            project.write(&output, format!("somebody's own {number}\n"));
            format!("{} holds something else", output.display())
        }
        7 => {
            drop(std::fs::remove_dir_all(project.path("out")));
            "all outputs are gone".to_owned()
        }
        8 => {
            remove(&project.path(".keelboat/digests"));
            "no digests are known".to_owned()
        }
        _ => {
            if output.exists() {
                touch(bout, project, &model.tasks[at].output);
            }
            format!("{} has another time", output.display())
        }
    }
}

/// Removes a file, unless an edit before this one has.
fn remove(path: &Path) {
    drop(std::fs::remove_file(path));
}

/// Gives a file a time that may be long ago or to come.
fn touch(bout: &mut Bout, project: &Project, path: &str) {
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(bout.chance.below(4_000_000_000));
    // An earlier edit of the same step may have moved it.
    if let Ok(file) = File::open(project.path(path)) {
        file.set_times(FileTimes::new().set_modified(moment)).unwrap();
    }
}

fn shuffle(bout: &mut Bout, order: &mut [usize]) {
    for at in (1..order.len()).rev() {
        order.swap(at, bout.one_of(at + 1));
    }
}

/// Of each task the key, and the digests of its outputs.
fn results(run: &Run) -> BTreeMap<String, (String, String)> {
    let completed = run.events().into_iter().filter(|event| event["event"] == "completed");
    let results = completed.map(|event| {
        let text = |field: &str| event[field].to_string();
        (text("task"), (text("key"), text("outputs")))
    });
    results.collect()
}

fn the_same_plan_has_the_same_keys(bout: &mut Bout) -> String {
    let plans = bout.times(4, 400);
    let mut runs = 0;
    for _ in 0..plans {
        let tasks = 10 + bout.one_of(15);
        let mut model = Model::random(bout, SOURCES, tasks);
        let mut known: Option<BTreeMap<String, (String, String)>> = None;
        for slots in ["1", "2", "8"] {
            for moved in [false, true] {
                shuffle(bout, &mut model.order);
                let mut project = Project::new("");
                if moved {
                    project.move_to("a directory with another, longer name");
                }
                write_all(&project, &model);
                let run = project.run_well(&["-j", slots]);
                let found = results(&run);
                assert_eq!(found.len(), tasks, "{}", run.said());
                for (task, one) in model.tasks.iter().zip(model.expected()) {
                    assert_eq!(project.read(&task.output), one.output);
                }
                let known = known.get_or_insert_with(|| found.clone());
                assert_eq!(*known, found, "with {slots} slots\n{}", model.to_toml());
                runs += 1;
            }
        }
    }
    format!(
        "{plans} plans, {runs} runs: the same keys and digests with 1, 2 and 8 slots, in any order, in two places"
    )
}
