//! The journal of version 1, as it was written when that version was made.

use std::sync::Arc;

use keelboat_checkpoint::read_journal;
use keelboat_engine::{
    CheckpointOrigin, Digest, Exit, Fact, Failure, FailureClass, MemoKey, MemoRecord, Reuse,
    Shortage, Stamped, Timestamp, Usage,
};

use super::common::{all_kinds, folder, read, write_journal};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal-v1.bin");

#[test]
fn version_1_is_read() {
    let recovered = read_journal(GOLDEN.as_ref()).unwrap();
    assert_eq!(recovered.facts, all_kinds());
    assert_eq!((recovered.torn, recovered.damaged), (None, vec![]));
}

/// When this fails, the format has changed: that needs a new version and a new golden file.
#[test]
fn version_1_is_written_to_the_byte() {
    let folder = folder();
    let path = folder.path().join("journal");
    write_journal(&path, &all_kinds());
    assert_eq!(read(&path), read(GOLDEN.as_ref()));
}

/// Facts that were appended since: journals without them are still those of version 1.
#[test]
fn what_was_added_later_comes_back() {
    let (task, path): (keelboat_engine::TaskName, Arc<str>) = ("t".into(), "out/x".into());
    let display = "s3://bucket/x".to_owned();
    let failure = Failure::new(FailureClass::Transient, "no answer").with_hint("wait");
    let facts = [
        Fact::Owed { task: task.clone(), path: path.clone(), display: display.clone() },
        Fact::Undelivered { task: task.clone(), path, display, failure: failure.clone() },
        bad_end(failure.clone().with_exit(Exit::Code(75)), 500),
        bad_end(failure.clone().with_exit(Exit::Signal(9)).with_shortage(Shortage::Memory), 0),
        bad_end(failure.clone().with_shortage(Shortage::Time), 1_000),
        bad_end(failure.with_shortage(Shortage::Disk), 1_000),
        Fact::Value { bytes: Arc::from(*b"\0value") },
        Fact::Reused {
            task: task.clone(),
            key: MemoKey(Digest::of(b"key")),
            record: MemoRecord { outputs: Vec::new(), value: Some(Digest::of(b"\0value")) },
            reuse: Reuse::InPlace,
            memoized: true,
        },
        Fact::CheckpointSaved { task: task.clone(), ordinal: 2, bytes: 5 << 30 },
        Fact::CheckpointRestored {
            task: task.clone(),
            ordinal: 3,
            from: CheckpointOrigin { run: None, ordinal: 2, saved: Timestamp(6), bytes: 0 },
        },
        Fact::FailureKept {
            task: task.clone(),
            key: MemoKey(Digest::of(b"key")),
            failure: Failure::new(FailureClass::Permanent, "exit code 3").with_exit(Exit::Code(3)),
        },
        Fact::CheckpointRestored {
            task,
            ordinal: 1,
            from: CheckpointOrigin {
                run: Some("20261122-100000-000-17".into()),
                ordinal: 4,
                saved: Timestamp(5),
                bytes: u64::MAX,
            },
        },
    ];
    let facts = facts.map(|fact| Stamped { at: Timestamp(7), fact });
    let folder = folder();
    let file = folder.path().join("journal");
    write_journal(&file, &facts);
    assert_eq!(read_journal(&file).unwrap().facts, facts);
}

fn bad_end(failure: Failure, cost: u32) -> Fact {
    let usage = Usage { memory_max: 9, ..Usage::default() };
    Fact::AttemptFailed { task: "t".into(), ordinal: 3, failure, usage, cost }
}

/// The facts above as they were written when they were added: the third one and those after it.
#[test]
fn what_was_added_later_is_written_to_the_byte() {
    let folder = folder();
    let file = folder.path().join("journal");
    let failure = Failure::new(FailureClass::OutOfResources, "x")
        .with_exit(Exit::Signal(9))
        .with_shortage(Shortage::Memory);
    write_journal(&file, &[Stamped { at: Timestamp(7), fact: bad_end(failure, 500) }]);
    let written = read(&file).escape_ascii().to_string();
    let fact = r"\x07\r\x01t\x03\x02\x01x\x00\x00\x00\x00\x00\x00\x00\t\x00\x00\xf4\x03\x01\x01\x12\x01\x00";
    assert!(written.contains(fact), "{written}");
    let failure = Failure::new(FailureClass::Transient, "x").with_exit(Exit::Code(3));
    let key = MemoKey(Digest::from_bytes([b'k'; 32]));
    let fact = Fact::FailureKept { task: "t".into(), key, failure };
    write_journal(&file, &[Stamped { at: Timestamp(7), fact }]);
    let written = read(&file).escape_ascii().to_string();
    let fact = format!(r"\x07\x11\x01t{}\x00\x01x\x00\x01\x00\x06", "k".repeat(32));
    assert!(written.contains(&fact), "{written}");
}

#[test]
#[ignore = "writes the golden file of a new version"]
fn write_golden() {
    let path = std::path::Path::new(GOLDEN);
    assert!(!path.exists(), "a golden file is never replaced");
    write_journal(path, &all_kinds());
}
