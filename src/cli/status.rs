//! `keelboat status`: how a run stands, also while it is at work and after its engine has died.

use keelboat_engine::{CheckpointOrigin, Failure, RunOutcome, TaskName, Timestamp};
use serde::Serialize;

use super::args::StatusArgs;
use super::exit::Exit;
use super::past::{
    AttemptEnd, Life, Past, PastError, Picture, Run, Standing, TaskPicture, checkpoint, moment,
    now, print_json, quoted, rfc3339,
};
use super::terminal::{Colour, Terminal, bytes, plain, span};

/// Tasks that are listed one by one; of more than these, the number is told.
const LISTED_MAX: usize = 20;

pub(super) fn status(args: &StatusArgs, terminal: &mut Terminal) -> Exit {
    let told = Past::open(&args.past).and_then(|past| {
        if args.all {
            tell_all(&past, args.json, terminal);
            return Ok(());
        }
        tell_one(&past, args.json, terminal)
    });
    match told {
        Ok(()) => Exit::Success,
        Err(error) => error.tell(terminal),
    }
}

fn tell_one(past: &Past, json: bool, terminal: &Terminal) -> Result<(), PastError> {
    let run = past.chosen()?;
    let report = Report::of(past, &run);
    if json {
        print_json(&report, terminal);
    } else {
        report.print(&run, terminal);
    }
    Ok(())
}

/// A run as programs are told of it.
#[derive(Debug, Serialize)]
struct Report {
    run: String,
    workflow: String,
    file: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<EngineReport>,
    started: Option<String>,
    elapsed_ms: u64,
    tasks: Counts,
    fetched_files: u64,
    fetched_bytes: u64,
    running: Vec<Running>,
    failures: Vec<FailureReport>,
    /// Outputs that are not at the addresses that they are to be sent to.
    to_send: Vec<ToSend>,
    /// Damaged stretches of the journal, in words.
    damaged: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Running,
    Interrupted,
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Debug, Serialize)]
struct EngineReport {
    pid: u32,
    host: String,
    version: String,
    /// How many engines took up the run so far.
    engines: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Counts {
    total: u64,
    completed: u64,
    reused: u64,
    failed: u64,
    skipped: u64,
    running: u64,
    waiting: u64,
}

#[derive(Debug, Serialize)]
struct Running {
    task: TaskName,
    attempt: u32,
    since: String,
    elapsed_ms: u64,
    /// The checkpoint that it goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_checkpoint: Option<FromCheckpoint>,
    /// When what it has in its checkpoint directory was saved last.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
    #[serde(skip)]
    saved_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct FromCheckpoint {
    /// Absent: this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    attempt: u32,
    saved: String,
    bytes: u64,
    #[serde(skip)]
    text: String,
}

impl From<&CheckpointOrigin> for FromCheckpoint {
    fn from(origin: &CheckpointOrigin) -> Self {
        Self {
            run: origin.run.as_ref().map(ToString::to_string),
            attempt: origin.ordinal,
            saved: rfc3339(origin.saved),
            bytes: origin.bytes,
            text: checkpoint(origin),
        }
    }
}

#[derive(Debug, Serialize)]
struct FailureReport {
    task: TaskName,
    class: &'static str,
    cause: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    attempts: usize,
    /// Whether an attempt wrote a log.
    #[serde(skip)]
    logged: bool,
}

#[derive(Debug, Serialize)]
struct ToSend {
    task: TaskName,
    path: String,
    to: String,
    /// Why it was given up; absent: its turn has not come, or it is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl State {
    fn of(run: &Run) -> Self {
        match (run.picture.outcome, run.life) {
            (Some(RunOutcome::Succeeded), _) => Self::Succeeded,
            (Some(RunOutcome::Failed), _) => Self::Failed,
            (Some(RunOutcome::Cancelled), _) => Self::Cancelled,
            (None, Life::Live) => Self::Running,
            (None, _) => Self::Interrupted,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    const fn colour(self) -> Colour {
        match self {
            Self::Running => Colour::Blue,
            Self::Interrupted | Self::Cancelled => Colour::Yellow,
            Self::Succeeded => Colour::Green,
            Self::Failed => Colour::Red,
        }
    }
}

impl Counts {
    fn of(picture: &Picture, life: Life) -> Self {
        // A program says nothing beforehand of how many tasks it will have.
        let total =
            if picture.is_of_program() { picture.tasks.len() as u64 } else { picture.total };
        let mut counts = Self { total, ..Self::default() };
        for task in picture.tasks.values() {
            match task.standing() {
                Standing::Completed => counts.completed += 1,
                Standing::Reused => counts.reused += 1,
                Standing::Failed => counts.failed += 1,
                Standing::Skipped => counts.skipped += 1,
                Standing::Running if life == Life::Live => counts.running += 1,
                Standing::Running | Standing::Waiting => {}
            }
        }
        let known = counts.completed + counts.reused + counts.failed + counts.skipped;
        counts.waiting = counts.total.saturating_sub(known + counts.running);
        counts
    }

    /// `60 completed, 30 reused, 1 failed of 100 tasks`.
    fn in_words(&self, terminal: &Terminal) -> String {
        let kinds = [
            (self.completed, "completed", Some(Colour::Green)),
            (self.reused, "reused", Some(Colour::Green)),
            (self.failed, "failed", Some(Colour::Red)),
            (self.skipped, "skipped", Some(Colour::Yellow)),
            (self.running, "running", Some(Colour::Blue)),
            (self.waiting, "waiting", None),
        ];
        let kinds = kinds.into_iter().filter(|(count, ..)| *count > 0);
        let words = kinds.map(|(count, word, colour)| {
            let text = format!("{count} {word}");
            colour.map_or_else(|| text.clone(), |colour| terminal.paint(colour, &text))
        });
        let words = words.collect::<Vec<_>>().join(", ");
        match (words.as_str(), self.total) {
            ("", total) => format!("{total}"),
            (words, total) => format!("{words} of {total}"),
        }
    }
}

impl Report {
    fn of(past: &Past, run: &Run) -> Self {
        let Run { dir, picture, life } = run;
        let now = (*life == Life::Live).then(now);
        let engine = picture.engine.as_ref();
        let state = State::of(run);
        let running = |(name, task): (&TaskName, &TaskPicture)| {
            let open = task.open()?;
            Some(Running {
                task: name.clone(),
                attempt: open.ordinal,
                since: rfc3339(open.started),
                elapsed_ms: milliseconds(now?.since(open.started)),
                from_checkpoint: open.from.as_ref().map(Into::into),
                saved: open.saved.map(|(saved, _)| rfc3339(saved)),
                saved_at: open.saved.map(|(saved, _)| saved),
            })
        };
        Self {
            run: dir.id().to_owned(),
            workflow: engine.map(|engine| engine.workflow.clone()).unwrap_or_default(),
            file: engine.map(|engine| engine.file.clone()).unwrap_or_default(),
            state,
            engine: engine.map(|engine| EngineReport {
                pid: engine.pid,
                host: engine.host.clone(),
                version: engine.version.clone(),
                engines: picture.engines,
            }),
            started: picture.started.map(rfc3339),
            elapsed_ms: milliseconds(picture.span(now)),
            tasks: Counts::of(picture, *life),
            fetched_files: picture.fetched,
            fetched_bytes: picture.transferred,
            running: picture.tasks.iter().filter_map(running).collect(),
            failures: failures(picture),
            to_send: to_send(picture),
            damaged: picture.damaged.iter().map(ToString::to_string).collect(),
            next: match state {
                State::Running | State::Succeeded => None,
                State::Interrupted | State::Failed | State::Cancelled => past.command(run),
            },
        }
    }

    fn print(&self, run: &Run, terminal: &Terminal) {
        let state = terminal.paint(self.state.colour(), self.state.word());
        let workflow = terminal.paint(Colour::Bold, plain(&self.workflow));
        terminal.line(format_args!(
            "run {} of {workflow}: {state}{}",
            self.run,
            self.engine_in_words()
        ));
        self.print_times(run, terminal);
        terminal.line(format_args!("tasks    {}", self.tasks.in_words(terminal)));
        if self.fetched_files > 0 {
            let files = counted(self.fetched_files, "remote file");
            terminal.line(format_args!("fetched  {files}, {}", bytes(self.fetched_bytes)));
        }
        for damage in &self.damaged {
            terminal.line(format_args!("journal  has a {damage}; what it said is not counted"));
        }
        self.print_running(terminal);
        self.print_failures(terminal);
        self.print_to_send(terminal);
        self.print_next(run, terminal);
    }

    fn engine_in_words(&self) -> String {
        match (&self.engine, self.state) {
            (Some(EngineReport { pid, host, .. }), State::Running) => {
                format!(" as process {pid} on {host}")
            }
            (Some(EngineReport { pid, host, .. }), State::Interrupted) => {
                format!(": its engine, process {pid} on {host}, is gone")
            }
            _ => String::new(),
        }
    }

    fn print_times(&self, run: &Run, terminal: &Terminal) {
        let Some(started) = run.picture.started else { return };
        let elapsed = span(std::time::Duration::from_millis(self.elapsed_ms));
        let after = match self.state {
            State::Running => format!("{elapsed} ago"),
            State::Interrupted => format!("last heard of {elapsed} later"),
            State::Succeeded | State::Failed | State::Cancelled => format!("took {elapsed}"),
        };
        let again = match self.engine.as_ref().map_or(1, |engine| engine.engines) {
            0 | 1 => String::new(),
            2 => ", resumed once".to_owned(),
            engines => format!(", resumed {} times", engines - 1),
        };
        terminal.line(format_args!("started  {}, {after}{again}", moment(started)));
    }

    fn print_running(&self, terminal: &Terminal) {
        for running in self.running.iter().take(LISTED_MAX) {
            let Running { task, attempt, elapsed_ms, from_checkpoint, saved_at, .. } = running;
            let since = span(std::time::Duration::from_millis(*elapsed_ms));
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            terminal.line(format_args!("running  {} for {since}{again}", plain(task)));
            if let Some(from) = from_checkpoint {
                terminal.line(format_args!("         it went on from {}", from.text));
            }
            if let Some(saved) = saved_at {
                let saved = moment(*saved);
                terminal.line(format_args!("         it saved its last checkpoint at {saved}"));
            }
        }
        print_rest(self.running.len(), terminal);
    }

    fn print_failures(&self, terminal: &Terminal) {
        for failure in self.failures.iter().take(LISTED_MAX) {
            let label = terminal.paint(Colour::Red, "failed ");
            terminal.line(format_args!("{label}  {}: {}", plain(&failure.task), failure.cause));
            if let Some(hint) = &failure.hint {
                let label = terminal.paint(Colour::Blue, "hint");
                terminal.line(format_args!("         {label}: {hint}"));
            }
            if failure.logged {
                let attempts = counted(failure.attempts as u64, "attempt");
                let task = quoted(&failure.task);
                let log = format!("after {attempts}; what it wrote: keelboat log {}", plain(&task));
                terminal.line(format_args!("         {log}"));
            }
        }
        print_rest(self.failures.len(), terminal);
    }

    fn print_to_send(&self, terminal: &Terminal) {
        for ToSend { path, to, cause, hint, .. } in self.to_send.iter().take(LISTED_MAX) {
            let (path, to) = (plain(path), plain(to));
            let Some(cause) = cause else {
                terminal.line(format_args!("to send  {path} to {to}"));
                continue;
            };
            let label = terminal.paint(Colour::Red, "not sent");
            terminal.line(format_args!("{label} {path}: {}", plain(cause)));
            if let Some(hint) = hint {
                let label = terminal.paint(Colour::Blue, "hint");
                terminal.line(format_args!("         {label}: {}", plain(hint)));
            }
        }
        print_rest(self.to_send.len(), terminal);
    }

    fn print_next(&self, run: &Run, terminal: &Terminal) {
        let (again, command) = match &self.next {
            Some(command) => {
                ("the same command", format!(": {}", terminal.paint(Colour::Bold, command)))
            }
            None if run.picture.is_of_program() => ("the program, started again,", String::new()),
            None => return,
        };
        let text = match self.state {
            State::Running | State::Succeeded => return,
            State::Interrupted => format!("{again} goes on"),
            State::Cancelled => format!("{again} does the rest"),
            State::Failed => format!("when the cause is mended, {again} does the rest"),
        };
        terminal.line(format_args!("next     {text}{command}"));
    }
}

fn print_rest(count: usize, terminal: &Terminal) {
    if count > LISTED_MAX {
        terminal.line(format_args!("         and {} more; `--json` has all", count - LISTED_MAX));
    }
}

/// Failures, also those that came after a task was done.
fn failures(picture: &Picture) -> Vec<FailureReport> {
    let failed = |(name, task): (&TaskName, &TaskPicture)| {
        let Failure { class, cause, hint, .. } = task.failure.as_ref()?;
        Some(FailureReport {
            task: name.clone(),
            class: class.as_str(),
            cause: cause.clone(),
            hint: hint.clone(),
            attempts: task.attempts.len(),
            logged: !task.attempts.is_empty()
                && !matches!(task.attempts.last(), Some(last) if matches!(last.end, AttemptEnd::Lost)),
        })
    };
    picture.tasks.iter().filter_map(failed).collect()
}

/// Outputs that are not at their addresses yet.
fn to_send(picture: &Picture) -> Vec<ToSend> {
    let of_task = |(name, task): (&TaskName, &TaskPicture)| {
        let (name, owed) = (name.clone(), task.owed.clone());
        owed.into_iter().map(move |(path, owed)| {
            let (cause, hint) = owed
                .failure
                .map_or((None, None), |Failure { cause, hint, .. }| (Some(cause), hint));
            ToSend { task: name.clone(), path: path.to_string(), to: owed.to, cause, hint }
        })
    };
    picture.tasks.iter().flat_map(of_task).collect()
}

pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn milliseconds(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One line of the list of runs.
#[derive(Debug, Serialize)]
struct Line {
    run: String,
    workflow: String,
    /// `None`: its journal cannot be read.
    state: Option<State>,
    started: Option<String>,
    elapsed_ms: u64,
    tasks: Counts,
    fetched_bytes: u64,
    #[serde(skip)]
    moment: Option<Timestamp>,
}

fn tell_all(past: &Past, json: bool, terminal: &Terminal) {
    let lines: Vec<Line> =
        past.all().map(|(dir, run)| Line::of(dir.id(), run.as_ref().ok())).collect();
    if json {
        return print_json(&lines, terminal);
    }
    let widest = |text: fn(&Line) -> &str, least: usize| {
        lines.iter().map(|line| plain(text(line)).chars().count()).max().unwrap_or(0).max(least)
    };
    let (runs, workflows) = (widest(|line| &line.run, 3), widest(|line| &line.workflow, 8));
    let head = format!(
        "{:runs$}  {:workflows$}  {:19}  {:12}  {:11}  TASKS",
        "RUN", "WORKFLOW", "STARTED", "TOOK", "STATE"
    );
    terminal.line(format_args!("{}", terminal.paint(Colour::Bold, head)));
    for line in &lines {
        let started = line.moment.map(moment).unwrap_or_default();
        let took = span(std::time::Duration::from_millis(line.elapsed_ms));
        let word = line.state.map_or("unreadable", State::word);
        let state = format!("{word:11}");
        let state = match line.state {
            Some(state_of_run) => terminal.paint(state_of_run.colour(), state),
            None => terminal.paint(Colour::Red, state),
        };
        terminal.line(format_args!(
            "{:runs$}  {:workflows$}  {started:19}  {took:12}  {state}  {}",
            line.run,
            plain(&line.workflow),
            line.tasks.in_words(terminal),
        ));
    }
}

impl Line {
    fn of(id: &str, run: Option<&Run>) -> Self {
        let picture = run.map(|run| &run.picture);
        let life = run.map_or(Life::Over, |run| run.life);
        let engine = picture.and_then(|picture| picture.engine.as_ref());
        let now = (life == Life::Live).then(now);
        Self {
            run: id.to_owned(),
            workflow: engine.map(|engine| engine.workflow.clone()).unwrap_or_default(),
            state: run.map(State::of),
            started: picture.and_then(|picture| picture.started).map(rfc3339),
            elapsed_ms: picture.map_or(0, |picture| milliseconds(picture.span(now))),
            tasks: picture.map(|picture| Counts::of(picture, life)).unwrap_or_default(),
            fetched_bytes: picture.map_or(0, |picture| picture.transferred),
            moment: picture.and_then(|picture| picture.started),
        }
    }
}
