//! Facts and files to test with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelboat_checkpoint::{Journal, Recovered};
use keelboat_engine::{
    Content, Digest, Fact, Failure, FailureClass, KeyChange, KeyPart, Kind, MemoKey, MemoRecord,
    OutputRecord, Reason, Reuse, RunOutcome, Stamped, Timestamp, Usage,
};

pub(crate) fn content(text: &str) -> Content {
    let bytes = text.len() as u64;
    Content { digest: Digest::of(text.as_bytes()), bytes, kind: Kind::File }
}

pub(crate) fn key(number: usize) -> MemoKey {
    MemoKey(Digest::of(format!("key {number}").as_bytes()))
}

pub(crate) fn record(number: usize) -> MemoRecord {
    let path = Arc::from(format!("out/{number}.txt"));
    let content = Some(content(&format!("result {number}")));
    MemoRecord { outputs: vec![OutputRecord { path, content, executable: false }], value: None }
}

pub(crate) fn parts(number: usize) -> Vec<KeyPart> {
    vec![KeyPart { name: "command".into(), value: format!("echo {number}") }]
}

pub(crate) fn task(number: usize) -> Arc<str> {
    format!("task[i={number}]").into()
}

fn stamped(at: usize, fact: Fact) -> Stamped {
    Stamped { at: Timestamp(1_700_000_000_000 + at as u64), fact }
}

pub(crate) fn completed(number: usize) -> Stamped {
    let fact = Fact::Completed {
        task: task(number),
        ordinal: 1,
        key: key(number),
        parts: parts(number),
        record: record(number),
        usage: Usage { wall: Duration::new(1, 500), memory_max: 1 << 20, ..Usage::default() },
        memoized: true,
    };
    stamped(number, fact)
}

pub(crate) fn reused(number: usize) -> Stamped {
    let (task, key, record) = (task(number), key(number), record(number));
    stamped(number, Fact::Reused { task, key, record, reuse: Reuse::InPlace, memoized: true })
}

pub(crate) fn fetched(number: usize) -> Stamped {
    let fact = Fact::Fetched {
        source: Digest::of(format!("url {number}").as_bytes()),
        display: format!("https://host/{number}"),
        content: content(&format!("remote {number}")),
        transferred: 100,
        etag: Some(format!("\"{number}\"")),
        last_modified: None,
    };
    stamped(number, fact)
}

/// A fact as long as it has to be to keep older journals out of memory.
pub(crate) fn long_fact() -> Stamped {
    let failure = Failure::new(FailureClass::Transient, "x".repeat(1 << 20));
    let (task, usage) = (task(0), Usage::default());
    stamped(0, Fact::AttemptFailed { task, ordinal: 1, failure, usage, cost: 1_000 })
}

/// One of each kind.
fn reasons() -> Vec<Reason> {
    let change =
        KeyChange { part: "env THREADS".into(), old: Some("1".into()), new: Some("2".into()) };
    let path = || Arc::from("out/a.txt");
    vec![
        Reason::FirstRun,
        Reason::Changed(change),
        Reason::Forced,
        Reason::CacheOff,
        Reason::OutputMissing { path: path() },
        Reason::OutputChanged { path: path() },
        Reason::RecordLost,
        Reason::ResultLost,
    ]
}

/// A file, an executable one, one that was left out, and a directory.
fn four_outputs() -> MemoRecord {
    let directory = Content { kind: Kind::Directory, ..content("tree") };
    let mut four_outputs = record(1);
    for (path, content, executable) in [
        ("tool", Some(content("tool")), true),
        ("opt", None, false),
        ("dir", Some(directory), false),
    ] {
        four_outputs.outputs.push(OutputRecord { path: path.into(), content, executable });
    }
    four_outputs
}

/// One fact of each kind, with every variant of what they hold.
pub(crate) fn all_kinds() -> Vec<Stamped> {
    let usage = Usage {
        wall: Duration::new(12, 345_678_901),
        cpu_user: Duration::from_millis(7),
        cpu_system: Duration::ZERO,
        memory_max: 123_456,
        read: 1,
        written: u64::MAX,
    };
    let classes = [
        FailureClass::Transient,
        FailureClass::Permanent,
        FailureClass::OutOfResources,
        FailureClass::InfrastructureLost,
        FailureClass::InputMissing,
    ];
    let started = Fact::EngineStarted {
        pid: 4242,
        host: "node\u{e9}".into(),
        version: "0.1.0".into(),
        workflow: "variants".into(),
        plan: Digest::of(b"plan"),
        file: "keelboat.toml".into(),
    };
    let (task_1, key_1) = (task(1), key(1));
    let mut facts = vec![
        started,
        Fact::Planned { tasks: 100_000 },
        fetched(1).fact,
        Fact::AttemptStarted { task: task(1), ordinal: 1, reasons: reasons() },
        completed(1).fact,
        Fact::Reused {
            task: task_1,
            key: key_1,
            record: four_outputs(),
            reuse: Reuse::Restored,
            memoized: false,
        },
        reused(2).fact,
        Fact::Delivered {
            task: task(1),
            path: "out/a.txt".into(),
            display: "s3://bucket/a".into(),
            content: content("a"),
        },
        Fact::Skipped { task: task(2), because: task(1) },
    ];
    for class in classes {
        let failure = Failure::new(class, "went wrong").with_hint("mend it");
        let (task, cost) = (task(3), 1_000);
        facts.push(Fact::AttemptFailed { task, ordinal: 2, failure, usage, cost });
    }
    facts.push(Fact::Failed {
        task: task(3),
        failure: Failure::new(FailureClass::Permanent, "exit status 1"),
    });
    for outcome in [RunOutcome::Succeeded, RunOutcome::Failed, RunOutcome::Cancelled] {
        facts.push(Fact::RunEnded { outcome });
    }
    facts.into_iter().enumerate().map(|(at, fact)| stamped(at, fact)).collect()
}

/// Opens a journal for writing.
pub(crate) fn open(path: &Path) -> (Journal, Recovered) {
    Journal::create_or_open(path).expect("the journal opens")
}

/// Writes a journal with these facts; returns where each of them ends.
pub(crate) fn write_journal(path: &Path, facts: &[Stamped]) -> Vec<u64> {
    let (mut journal, _) = open(path);
    let append = |fact| journal.append(std::slice::from_ref(fact)).expect("it appends").0;
    facts.iter().map(append).collect()
}

pub(crate) fn run_journal(state: &Path, run: &str) -> PathBuf {
    state.join("runs").join(run).join("journal")
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the file is written");
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the file is read")
}

/// The next number of a sequence that looks random and is the same each time.
pub(crate) fn next_random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits fit")
}
