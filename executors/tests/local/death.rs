//! Engine and warden die; nothing is left over.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::AttemptId;
use keelboat_executors::{
    Executor as _, LaunchSpec, LocalConfig, LocalExecutor, WardenCommand, kill_leftovers,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Bench, Outcomes, failure, fresh_token, is_warden, marked, pid_in, read, runs, shell, spec,
    start, until, warden,
};

const DIRECTORY: &str = "TEST_ENGINE_DIRECTORY";
const BUSY: &str = "TEST_ENGINE_BUSY";
const TOKEN: &str = "TEST_ENGINE_TOKEN";

/// A leader, a child, a grandchild, a daemon, a daemon without a mark, a process that ignores SIGTERM.
const FAMILY: &str = "
    trap '' TERM
    sh -c 'echo $$ > child; sh -c \"echo \\$\\$ > grandchild; while :; do sleep 0.1; done\" & wait' &
    (setsid sh -c 'echo $$ > daemon; exec sleep 1000' &)
    (env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > hidden; exec sleep 1000' &)
    (setsid env -i PATH=\"$PATH\" sh -c 'echo $$ > background; sleep 1000' & wait) &
    echo $$ > leader
    while :; do sleep 0.1; done";
const MEMBERS: [&str; 6] = ["leader", "child", "grandchild", "daemon", "hidden", "background"];

fn family(directory: &Path) -> Vec<i32> {
    MEMBERS.iter().map(|name| pid_in(&directory.join(name))).collect()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// Not a test: the engine that the tests below kill. They run this very program for it.
#[test]
#[ignore = "run by other tests"]
fn acts_as_engine() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let token = std::env::var(TOKEN).unwrap();
    let executor = start(&token, Arc::new(Outcomes::default()));
    if std::env::var_os(BUSY).is_some() {
        begin_without_end(&executor, &directory);
    }
    for (task, name) in (0..).zip(["one", "two"]) {
        let mut spec = spec(task, shell(FAMILY), &directory.join(name), &directory);
        let removed =
            format!("sleep 0.1; echo {name} >> '{}'", directory.join("removed").display());
        spec.cleanup = ["sh", "-c", &removed].map(str::to_owned).to_vec();
        executor.begin(spec);
    }
    loop {
        std::thread::park();
    }
}

const BUSY_TASKS: u32 = 500;

/// Starts short attempts that leave daemons, for as long as it is not killed.
fn begin_without_end(executor: &LocalExecutor, directory: &Path) {
    let daemons = "(setsid sh -c 'sleep 0.05; setsid sleep 1000' &) ; (sleep 1000 &) ; sleep 0.02";
    for task in 0..BUSY_TASKS {
        executor.begin(spec(task, shell(daemons), directory, directory));
        fs::write(directory.join("begun"), format!("{task}\n")).expect("a file");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Engine {
    fn drop(&mut self) {
        // Errors: it was killed and reaped by the test.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

struct Engine {
    process: Child,
    token: String,
    directory: tempfile::TempDir,
}

impl Engine {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let token = fresh_token();
        for name in ["one", "two"] {
            fs::create_dir(directory.path().join(name)).expect("a directory for the attempt");
        }
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "death::acts_as_engine", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(TOKEN, &token)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the engine starts");
        Self { process, token, directory }
    }

    fn families(&self) -> Vec<i32> {
        let path = self.directory.path();
        [family(&path.join("one")), family(&path.join("two"))].concat()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("a process id")
    }
}

#[test]
fn when_the_engine_is_killed_all_its_processes_die() {
    let mut engine = Engine::start();
    let pids = engine.families();
    let warden = warden(&engine.token);
    signal(engine.pid(), Signal::SIGKILL);
    engine.process.wait().unwrap();
    until("the warden cleans up and goes", || !runs(warden));
    let left: Vec<_> = pids.iter().filter(|&&pid| runs(pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} are left");
    assert_eq!(marked(&engine.token), []);
    let removed = read(&engine.directory.path().join("removed"));
    assert_eq!(removed.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["one", "two"]));
}

#[test]
fn whenever_the_engine_is_killed_all_its_processes_die() {
    for round in 0..8 {
        let mut engine = Engine::start_with(&[(BUSY, "1")]);
        let begun = engine.directory.path().join("begun");
        until("attempts begin", || {
            let last = fs::read_to_string(&begun).unwrap_or_default();
            last.trim().parse().is_ok_and(|task: u32| task >= round * 7)
        });
        let warden = warden(&engine.token);
        signal(engine.pid(), Signal::SIGKILL);
        engine.process.wait().unwrap();
        until("the warden cleans up and goes", || !runs(warden));
        assert_eq!(marked(&engine.token), [], "round {round}");
    }
}

#[test]
fn signals_of_the_terminal_do_not_reach_the_warden() {
    let mut engine = Engine::start();
    let pids = engine.families();
    let warden = warden(&engine.token);
    assert_eq!(read(Path::new(&format!("/proc/{warden}/cmdline"))), "kb-warden\0");
    for each in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal(warden, each);
    }
    // To the whole group, as a terminal does.
    signal(-engine.pid(), Signal::SIGHUP);
    engine.process.wait().unwrap();
    until("the warden cleans up and goes", || !runs(warden));
    assert!(!pids.into_iter().any(runs));
}

#[test]
fn when_both_are_killed_the_next_engine_finds_what_is_left() {
    let mut engine = Engine::start();
    engine.families();
    let warden = warden(&engine.token);
    // Stopped first, so that neither sees the other die.
    signal(warden, Signal::SIGSTOP);
    signal(engine.pid(), Signal::SIGKILL);
    signal(warden, Signal::SIGKILL);
    engine.process.wait().unwrap();
    until("the warden dies", || !runs(warden));
    let directory = engine.directory.path();
    let plain = ["one/leader", "one/child", "one/grandchild", "one/daemon", "two/leader"];
    let pids: Vec<_> = plain.iter().map(|name| pid_in(&directory.join(name))).collect();
    assert!(pids.iter().all(|&pid| runs(pid)), "they were to be left over");

    assert_eq!(kill_leftovers("another-token").unwrap(), 0);
    let found = kill_leftovers(&engine.token).unwrap();
    assert!(found > 0, "none was found");
    assert!(!pids.into_iter().any(runs));
    assert_eq!(kill_leftovers(&engine.token).unwrap(), 0);
    // These two hid their mark, which is the documented limit.
    for name in ["hidden", "background"] {
        for task in ["one", "two"] {
            signal(-pid_in(&directory.join(task).join(name)), Signal::SIGKILL);
        }
    }
}

fn begin_family(bench: &Bench) -> (AttemptId, PathBuf) {
    let LaunchSpec { attempt, directory, .. } = {
        let spec = bench.spec(shell(FAMILY));
        bench.begin(spec.clone());
        spec
    };
    (attempt, directory)
}

#[test]
fn when_the_warden_is_killed_attempts_are_lost_and_work_goes_on() {
    let bench = Bench::new();
    for round in 0..3 {
        let (attempt, directory) = begin_family(&bench);
        let pids = family(&directory);
        let before = warden(&bench.token);
        signal(before, Signal::SIGKILL);
        let outcome = bench.outcomes.of(attempt);
        let found = failure(&outcome);
        assert!(found.starts_with("infrastructure lost | "), "round {round}: {found}");
        // All but the one that hid everything: no mark, no group, no parent that is known.
        let known = MEMBERS
            .iter()
            .zip(&pids)
            .filter(|(name, _)| **name != "hidden" && **name != "background");
        for (name, &pid) in known {
            assert!(!runs(pid), "round {round}: {name} is left");
        }
        let (spec, outcome) = bench.run("echo again");
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(read(&spec.stdout), "again\n");
        assert_ne!(warden(&bench.token), before);
        for name in ["hidden", "background"] {
            signal(-pid_in(&directory.join(name)), Signal::SIGKILL);
        }
    }
}

#[test]
fn wardens_that_die_too_often_are_given_up() {
    let bench = Bench::new();
    let mut killed = BTreeSet::new();
    loop {
        let attempt = bench.begin(bench.spec(shell("sleep 1000")));
        until("the attempt is lost", || {
            for pid in marked(&bench.token).into_iter().filter(|&pid| is_warden(pid)) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                killed.insert(pid);
            }
            bench.outcomes.all().iter().any(|outcome| outcome.attempt == attempt)
        });
        let found = failure(&bench.outcomes.of(attempt));
        if found.starts_with("permanent | ") {
            break;
        }
        assert!(found.starts_with("infrastructure lost | "), "{found}");
    }
    // A task that was just being started when its warden died may be among them.
    assert!(killed.len() >= 11, "given up before one warden and ten more died: {killed:?}");
    bench.executor.shutdown();
    assert_eq!(marked(&bench.token), []);
}

#[test]
fn what_is_no_warden_is_refused() {
    let refused = |program: &str, token: &str| {
        let warden = WardenCommand { program: program.into(), args: Vec::new() };
        let config = LocalConfig { warden, token: token.to_owned() };
        LocalExecutor::start(config, Arc::new(Outcomes::default())).unwrap_err().to_string()
    };
    let found = refused("/no/such/program", "t");
    assert!(found.starts_with("cannot start the warden \"/no/such/program\": "), "{found}");
    let found = refused("/bin/true", "t");
    assert!(found.starts_with("the warden \"/bin/true\" does not answer: "), "{found}");
    assert!(refused("/bin/true", "a b").starts_with("token \"a b\" cannot be used"));
}

#[test]
fn a_leader_without_a_mark_dies_too_when_the_warden_is_killed() {
    let bench = Bench::new();
    let words = ["env", "-i", "/bin/sh", "-c", "echo $$ > pid; exec /bin/sleep 1000"];
    let spec = bench.spec(crate::support::argv(&words));
    let pid_file = spec.directory.join("pid");
    let attempt = bench.begin(spec);
    let pid = pid_in(&pid_file);
    signal(warden(&bench.token), Signal::SIGKILL);
    let found = failure(&bench.outcomes.of(attempt));
    assert!(found.starts_with("infrastructure lost | "), "{found}");
    assert!(!runs(pid));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "not reaped");
}
