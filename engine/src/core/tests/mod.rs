//! Scenarios: a plan and a script as text, each line an event and the actions that follow from it.

mod ahead;
mod attempts;
mod checkpoints;
mod directories;
mod files;
mod growth;
mod pools;
mod programs;
mod remembering;
mod resuming;
mod retrying;
mod size;
mod stopping;

use super::{Action, Admission, Core, Event, History, Options, Pool, Recall, StageFrom, Urgency};
use crate::testing::tasks;
use crate::{
    AttemptId, AttemptOutcome, CheckpointOrigin, Content, Digest, Exit, Fact, Failure,
    FailureClass, FileId, Kind, MemoRecord, OutputRecord, Reason, Resources, Reuse, Shortage,
    SiteId, Source, TaskId, TaskSpec, Timestamp, Usage, Work,
};

/// Runs a script under the default options (fail-fast, no retries of transfers).
fn check(plan: &str, script: &str) {
    Script::new(plan, History::default(), Options::default()).run(script);
}

fn check_keep_going(plan: &str, script: &str) {
    let options = Options { keep_going: true, ..Options::default() };
    Script::new(plan, History::default(), options).run(script);
}

struct Script {
    core: Core,
    now: Timestamp,
    facts: Vec<Fact>,
}

impl Script {
    fn new(plan: &str, history: History, options: Options) -> Self {
        Self::of(tasks(plan), history, options)
    }

    fn of(tasks: Vec<TaskSpec>, history: History, options: Options) -> Self {
        let core = Core::new(tasks, history, options).expect("a good plan");
        Self { core, now: Timestamp(0), facts: Vec::new() }
    }

    /// Lines of `event => actions`; what is not written does not happen.
    fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (event, expected) = line.split_once("=>").expect("an arrow");
            let mut actions = Vec::new();
            if event.trim() == "start" {
                self.core.resume(self.now, &mut actions);
            } else if let Some(plan) = event.trim().strip_prefix("submit ") {
                self.core.submit(self.now, tasks(plan), &mut actions).expect("a good plan");
            } else {
                let event = self.event(event.trim());
                self.core.step(self.now, event, &mut actions);
            }
            self.core.check_invariants();
            let found: Vec<String> = actions.iter().filter_map(|a| self.describe(a)).collect();
            assert_eq!(found.join(", "), expected.trim(), "after {event}");
            self.facts.extend(actions.into_iter().filter_map(|action| match action {
                Action::Record(fact) => Some(fact),
                _ => None,
            }));
        }
    }

    fn task(&self, name: &str) -> TaskId {
        self.core.graph().find(name).unwrap_or_else(|| panic!("no task {name}"))
    }

    fn file(&self, name: &str) -> FileId {
        let files = (0..self.core.graph().file_count()).map(|at| FileId(at.try_into().unwrap()));
        files.into_iter().find(|file| self.name(*file) == name).expect("a file of the plan")
    }

    fn name(&self, file: FileId) -> String {
        match &self.core.graph().file(file).source {
            Source::Path(path) => path.to_string(),
            Source::Urls(urls) => urls[0].replace("http://host/", "").replace("http://", ""),
        }
    }

    /// `a` is its latest attempt, `a.1` its first one.
    fn attempt(&self, text: &str) -> AttemptId {
        let (name, ordinal) = text.split_once('.').unwrap_or((text, ""));
        let task = self.task(name);
        let latest = self.core.tasks[task.index()].ordinal;
        AttemptId { task, ordinal: ordinal.parse().unwrap_or(latest) }
    }

    fn record(&self, task: TaskId, text: &str) -> MemoRecord {
        let outputs = &self.core.spec(task).outputs;
        let outputs = outputs.iter().map(|output| {
            let written = !text.contains(&format!("without {}", output.path));
            let new = text.contains("new");
            let bytes = if new { "other bytes" } else { output.path.as_ref() };
            let content = written.then(|| content(bytes, output.kind));
            let executable = text.contains("executable");
            OutputRecord { path: output.path.clone(), content, executable }
        });
        let spec = self.core.spec(task);
        let which = if text.contains("new") { "another" } else { "the" };
        let value = || Digest::of(format!("{which} value of {}", spec.name).as_bytes());
        let value = spec.command.leaves_value().then(value);
        MemoRecord { outputs: outputs.collect(), value }
    }

    fn event(&mut self, text: &str) -> Event {
        let (verb, rest) = text.split_once(' ').expect("a verb and an object");
        let (what, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let at = |place: &str| SiteId(place.parse().expect("a site"));
        match verb {
            "time" => {
                self.now = Timestamp(what.parse().expect("milliseconds"));
                Event::TimePassed
            }
            "join" => {
                let pools = more.split('+').map(|text| pool(text.trim()));
                Event::SiteJoined { site: at(what), pools: pools.collect() }
            }
            "lost" => Event::SiteLost { site: at(what), cause: "power".to_owned() },
            "staged" | "unstaged" => {
                let (name, place) = what.split_once('@').expect("a site");
                let (file, site) = (self.file(name), at(place));
                if verb == "unstaged" {
                    return Event::StageFailed { file, site, failure: failure(more) };
                }
                let kind = self.core.graph().file(file).kind;
                let bytes = if more.is_empty() { name } else { more };
                Event::Staged { file, site, content: content(bytes, kind) }
            }
            "hit" | "miss" => {
                let task = self.task(what);
                let key = self.core.key(task).expect("a key");
                let record = self.record(task, more);
                let verdict = match verb {
                    "hit" => Recall::Hit { record, reuse: Reuse::InPlace },
                    _ => Recall::Miss { reasons: vec![Reason::FirstRun] },
                };
                Event::Recalled { task, key, verdict }
            }
            "ended" => Event::AttemptEnded(self.outcome(what, more)),
            "published" => {
                let attempt = self.attempt(what);
                Event::Published { attempt, record: self.record(attempt.task, more) }
            }
            "unpublished" => {
                Event::PublishFailed { attempt: self.attempt(what), failure: failure(more) }
            }
            "joins" => Event::JoinBegan { attempt: self.attempt(what) },
            "closed" => Event::Closed,
            "grown" => Event::Grown { by: self.task(what), tasks: tasks(more) },
            "ungrown" => Event::GrowFailed { by: self.task(what), failure: failure(more) },
            "delivered" => Event::Delivered { task: self.task(what), output: 0 },
            "undelivered" => {
                let task = self.task(what);
                Event::DeliverFailed { task, output: 0, failure: failure(more) }
            }
            "room" => Event::RoomWanted { bytes: what.parse().expect("bytes") },
            "stop" if what == "drain" => Event::StopRequested { urgency: Urgency::Drain },
            "stop" => Event::StopRequested { urgency: Urgency::Now },
            "saved" => {
                let (attempt, number) = (self.attempt(what), more.parse().expect("a number"));
                Event::CheckpointSaved { attempt, number, bytes: 7 }
            }
            "unsaved" => Event::CheckpointNotSaved { attempt: self.attempt(what) },
            "restored" => {
                let ordinal = more.parse().expect("an attempt");
                let from = CheckpointOrigin { run: None, ordinal, saved: Timestamp(1), bytes: 7 };
                Event::CheckpointRestored { attempt: self.attempt(what), from }
            }
            "cancel" => Event::TaskCancelled { task: self.task(what) },
            other => panic!("no event {other}"),
        }
    }

    /// `permanent` is a failure, `after 2` a success after so many milliseconds.
    fn outcome(&self, attempt: &str, more: &str) -> AttemptOutcome {
        let attempt = self.attempt(attempt);
        let wall = more.strip_prefix("after ").map(|ms| ms.parse().expect("a number"));
        let ended_well = more.is_empty() || wall.is_some();
        let result = if ended_well { Ok(()) } else { Err(failure(more)) };
        let wall = std::time::Duration::from_millis(wall.unwrap_or(0));
        AttemptOutcome { attempt, result, usage: Usage { wall, ..Usage::default() } }
    }

    /// An action as text; of facts only those about failures that are final.
    fn describe(&self, action: &Action) -> Option<String> {
        let attempt = |id: &AttemptId| format!("{}.{}", self.core.spec(id.task).name, id.ordinal);
        let task = |task: &TaskId| self.core.spec(*task).name.clone();
        Some(match action {
            Action::Stage { file, site, from, .. } => {
                let from = match from {
                    StageFrom::Origin => String::new(),
                    StageFrom::Site(site) => format!(" from {}", site.0),
                };
                format!("stage {}@{}{from}", self.name(*file), site.0)
            }
            Action::Evict { file } => format!("evict {}", self.name(*file)),
            Action::Recall { task: id, known, .. } => {
                let executable = |record: &MemoRecord| record.outputs.iter().any(|o| o.executable);
                let known = match known {
                    Some(record) if executable(record) => " known executable",
                    Some(_) => " known",
                    None => "",
                };
                format!("recall {}{known}", task(id))
            }
            Action::Launch { attempt: id, site } => format!("launch {}@{}", attempt(id), site.0),
            Action::Kill { attempt: id } => format!("kill {}", attempt(id)),
            Action::Publish { attempt: id } => format!("publish {}", attempt(id)),
            Action::Expand { task: id } => format!("expand {}", task(id)),
            Action::Deliver { task: id, output, .. } => format!("deliver {}.{output}", task(id)),
            Action::Finish { outcome } => format!("finish {outcome:?}").to_lowercase(),
            Action::Snapshot { attempt: id } => format!("snapshot {}", attempt(id)),
            Action::ForgetCheckpoints { task: id } => format!("forget {}", task(id)),
            Action::Record(Fact::CheckpointSaved { task, ordinal, .. }) => {
                format!("{task}.{ordinal} is saved")
            }
            Action::Record(Fact::CheckpointRestored { task, ordinal, from }) => {
                format!("{task}.{ordinal} goes on from {}", from.ordinal)
            }
            Action::Record(Fact::Failed { task, failure }) => {
                format!("failed {task} ({})", failure.class)
            }
            Action::Record(Fact::Undelivered { task, path, failure, .. }) => {
                format!("undelivered {task}.{path} ({})", failure.class)
            }
            Action::Record(Fact::Skipped { task, because }) => {
                format!("skipped {task} ({because})")
            }
            Action::Record(_) => return None,
        })
    }
}

fn content(bytes: &str, kind: Kind) -> Content {
    Content { digest: Digest::of(bytes.as_bytes()), bytes: bytes.len() as u64, kind }
}

/// `cores gib gpus disk` for everybody, `label: cores …` for those who ask, `label! cores …` for
/// functions; `>3` behind them: so many are launched ahead.
fn pool(text: &str) -> Pool {
    let (text, ahead) = text.split_once('>').unwrap_or((text, "0"));
    let (label, numbers) = text.split_once([':', '!']).unwrap_or(("local", text));
    let mut numbers =
        numbers.split_whitespace().map(|number| number.parse::<u64>().expect("slots"));
    let mut next = |usual: u64| numbers.next().unwrap_or(usual);
    let capacity = Resources {
        cores: next(0).try_into().expect("cores"),
        memory: next(8) << 30,
        gpus: next(0).try_into().expect("gpus"),
        disk: next(0) << 30,
    };
    let mut pool = Pool::new(label, capacity);
    pool.ahead = ahead.trim().parse().expect("a number");
    if text.contains(':') {
        pool.admission = Admission::WhoAsks;
    }
    if text.contains('!') {
        pool.only = Some(Work::Functions);
    }
    pool
}

/// The failure of a class, or of an exit code (`code 75`).
fn failure(class: &str) -> Failure {
    if let Some(code) = class.strip_prefix("code ") {
        let exit = Exit::Code(code.parse().expect("an exit code"));
        return Failure::new(FailureClass::Transient, "as the script says").with_exit(exit);
    }
    let class = match class {
        "transient" => FailureClass::Transient,
        "permanent" => FailureClass::Permanent,
        "resources" => FailureClass::OutOfResources,
        "memory" => {
            return failure("resources").with_shortage(Shortage::Memory);
        }
        "infrastructure" => FailureClass::InfrastructureLost,
        "missing" => FailureClass::InputMissing,
        other => panic!("no class {other}"),
    };
    Failure::new(class, "as the script says")
}
