//! A place to run attempts in, and what the tests ask of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use keelboat_engine::{AttemptId, AttemptOutcome, Command, TaskId};
use keelboat_executors::{
    Executor, LaunchSpec, LocalConfig, LocalExecutor, MARK_VARIABLE, Sink, WardenCommand,
};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps all outcomes.
#[derive(Default)]
pub(crate) struct Outcomes {
    seen: Mutex<Vec<AttemptOutcome>>,
    changed: Condvar,
}

impl Sink for Outcomes {
    fn ended(&self, outcome: AttemptOutcome) {
        self.seen.lock().expect("no test panics in here").push(outcome);
        self.changed.notify_all();
    }
}

impl Outcomes {
    /// Waits for the outcome of this attempt.
    pub(crate) fn of(&self, attempt: AttemptId) -> AttemptOutcome {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock().expect("no test panics in here");
        loop {
            if let Some(outcome) = seen.iter().find(|outcome| outcome.attempt == attempt) {
                return outcome.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{attempt} does not end; ended: {:?}", *seen);
            seen = self.changed.wait_timeout(seen, left).expect("no test panics in here").0;
        }
    }

    pub(crate) fn all(&self) -> Vec<AttemptOutcome> {
        self.seen.lock().expect("no test panics in here").clone()
    }
}

/// An executor with a directory of its own.
pub(crate) struct Bench {
    pub(crate) executor: LocalExecutor,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) token: String,
    pub(crate) directory: tempfile::TempDir,
    next: AtomicU32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let outcomes = Arc::new(Outcomes::default());
        let token = fresh_token();
        let executor = start(&token, Arc::clone(&outcomes) as Arc<dyn Sink>);
        Self { executor, outcomes, token, directory, next: AtomicU32::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An attempt of a new task, in a new directory below the bench's.
    pub(crate) fn spec(&self, command: Command) -> LaunchSpec {
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = self.path(&format!("scratch {task}"));
        fs::create_dir(&directory).expect("a directory for the attempt");
        spec(task, command, &directory, self.directory.path())
    }

    pub(crate) fn begin(&self, spec: LaunchSpec) -> AttemptId {
        let attempt = spec.attempt;
        self.executor.begin(spec);
        attempt
    }

    /// Runs a script to its end.
    pub(crate) fn run(&self, script: &str) -> (LaunchSpec, AttemptOutcome) {
        let spec = self.spec(shell(script));
        let outcome = self.outcomes.of(self.begin(spec.clone()));
        (spec, outcome)
    }
}

static TOKENS: AtomicU32 = AtomicU32::new(0);

pub(crate) fn fresh_token() -> String {
    format!("test-{}-{}", std::process::id(), TOKENS.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn start(token: &str, sink: Arc<dyn Sink>) -> LocalExecutor {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_keelboat-warden"));
    let warden = WardenCommand { program, args: Vec::new() };
    LocalExecutor::start(LocalConfig { warden, token: token.to_owned() }, sink)
        .expect("the executor starts")
}

pub(crate) fn spec(task: u32, command: Command, directory: &Path, logs: &Path) -> LaunchSpec {
    LaunchSpec {
        attempt: AttemptId { task: TaskId(task), ordinal: 1 },
        command,
        directory: directory.to_path_buf(),
        env: BTreeMap::new(),
        stdout: logs.join(format!("{task}.out")),
        stderr: logs.join(format!("{task}.err")),
        timeout: None,
        memory: None,
        grace: PATIENCE,
        cleanup: Vec::new(),
    }
}

pub(crate) fn shell(script: &str) -> Command {
    let shell = ["/bin/sh", "-e", "-c"].map(str::to_owned);
    Command::Shell { shell: Arc::new(shell), script: script.into() }
}

pub(crate) fn argv(words: &[&str]) -> Command {
    Command::Argv(words.iter().map(|&word| word.to_owned()).collect())
}

/// Class, cause and hint of a failure, in one line.
pub(crate) fn failure(outcome: &AttemptOutcome) -> String {
    let failure = outcome.result.as_ref().expect_err("a failure");
    let hint = failure.hint.as_deref().unwrap_or("-");
    format!("{} | {} | {hint}", failure.class, failure.cause)
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a file holds a process id.
pub(crate) fn pid_in(path: &Path) -> i32 {
    let mut pid = None;
    until("a process writes its id", || {
        let text = fs::read_to_string(path).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        pid.is_some()
    });
    pid.expect("waited for")
}

/// Whether a process runs (one that has ended and is not reaped does not).
pub(crate) fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// Running processes whose environment carries the mark of this token, the warden among them.
pub(crate) fn marked(token: &str) -> Vec<i32> {
    let mark = format!("{MARK_VARIABLE}={token}:");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|line| line.starts_with(mark.as_bytes())) {
            found.push(pid);
        }
    }
    found
}

/// Whether a process is a warden that has set itself up. A task that is just being started has its
/// name too, but a warden as its parent.
pub(crate) fn is_warden(pid: i32) -> bool {
    let named = |pid: &str| read(Path::new(&format!("/proc/{pid}/comm"))) == "kb-warden\n";
    let status = read(Path::new(&format!("/proc/{pid}/status")));
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    named(&pid.to_string()) && parent.is_some_and(|parent| !named(parent))
}

/// The id of the warden of this token.
pub(crate) fn warden(token: &str) -> i32 {
    let mut wardens = marked(token);
    wardens.retain(|&pid| is_warden(pid));
    assert_eq!(wardens.len(), 1, "one warden expected: {wardens:?}");
    wardens[0]
}
