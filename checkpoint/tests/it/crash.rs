//! Processes killed by SIGKILL while they write, hold the lock or feed the index.
//!
//! The victim is this test program itself, told by an environment variable what to do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;

use keelboat_checkpoint::{LockError, MemoStore, ProjectLock, read_journal};

use super::common::{completed, folder, key, long_fact, next_random, open, record, run_journal};

const VICTIM: &str = "KEELBOAT_TEST_VICTIM";
const KILLS: usize = 24;

/// Not a test by itself: what the victim does.
#[test]
fn victim() {
    let Some(state) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let _lock = ProjectLock::acquire(&state, "victim", "victim's token").unwrap();
    let path = run_journal(&state, "1");
    let (mut journal, recovered) = open(&path);
    let store = MemoStore::open_with(&state, "1", &recovered.facts).unwrap();
    let (sender, receiver) = mpsc::channel();
    for first in (recovered.facts.len()..).step_by(10) {
        let facts: Vec<_> = (first..first + 10).map(completed).collect();
        let position = journal.append(&facts).unwrap();
        for fact in &facts {
            store.apply(fact);
        }
        let sender = sender.clone();
        journal.flush_to(position, Vec::new(), move |result| {
            sender.send(result.map(|()| first + 10)).unwrap();
        });
        while let Ok(durable) = receiver.try_recv() {
            let mut out = std::io::stdout().lock();
            writeln!(out, "durable {}", durable.unwrap()).unwrap();
        }
    }
}

fn start_victim(state: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "crash::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the victim starts");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    (child, out)
}

/// Lets the victim acknowledge so many times, kills it; returns what it had acknowledged.
fn kill_after(state: &Path, acknowledgements: usize) -> usize {
    let (mut child, mut out) = start_victim(state);
    let mut durable = 0;
    let mut read = 0;
    let mut line = String::new();
    while read < acknowledgements && out.read_line(&mut line).expect("it speaks") > 0 {
        if let Some(number) = line.trim().strip_prefix("durable ") {
            durable = number.parse().expect("a number");
            read += 1;
        }
        line.clear();
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    assert_eq!(read, acknowledgements, "the victim ended by itself");
    durable
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let folder = folder();
    let path = run_journal(folder.path(), "1");
    let mut seed = 11;
    let mut before = 0;
    for kill in 0..KILLS {
        let durable = kill_after(folder.path(), 1 + next_random(&mut seed) % 8);
        let recovered = read_journal(&path).unwrap();
        let known = recovered.facts.len();
        assert!(known >= durable && known > before, "kill {kill}: {known} of {durable}");
        assert_eq!(recovered.damaged, vec![], "kill {kill}");
        let expected: Vec<_> = (before..known).map(completed).collect();
        assert_eq!(recovered.facts[before..], expected, "kill {kill}");
        before = known;
    }
    // The index was fed meanwhile and killed as often; it must agree with the journal.
    let (mut newest, _) = open(&run_journal(folder.path(), "2"));
    newest.append(&[long_fact()]).unwrap();
    let store = MemoStore::open(folder.path()).unwrap();
    assert!((0..before).all(|n| store.lookup(&key(n)).unwrap() == Some(record(n))));
    store.flush().unwrap();
    let report = store.check().unwrap();
    assert_eq!((report.missing, report.damaged), (0, vec![]));
}

#[test]
fn the_lock_is_taken_over_from_the_dead() {
    let folder = folder();
    let (mut child, mut out) = start_victim(folder.path());
    let mut line = String::new();
    while !line.starts_with("durable") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the victim ended by itself");
    }
    let held = ProjectLock::acquire(folder.path(), "second", "second's token");
    assert!(matches!(held, Err(LockError::Held { pid, .. }) if pid == child.id()), "{held:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let lock = ProjectLock::acquire(folder.path(), "second", "second's token").unwrap();
    let previous = lock.previous().unwrap();
    assert_eq!((previous.token.as_str(), previous.ended), ("victim's token", false));
}
