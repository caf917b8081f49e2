//! Journals that are cut, and journals with flipped bits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keelboat_checkpoint::{DamageKind, Journal, Recovered, read_journal};
use keelboat_engine::{Fact, Stamped};
use libtest_mimic::Trial;

use crate::bout::{Bout, attack};
use crate::project::{Project, Run};
use crate::saved::Saved;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("journal::cut_at_every_length", cut_at_every_length),
        attack("journal::every_bit_flipped", every_bit_flipped),
        attack("journal::cut_under_the_program", cut_under_the_program),
        attack("journal::flipped_under_the_program", flipped_under_the_program),
    ]
}

/// Records of the journal that is attacked, at least.
const RECORDS_MIN: usize = 200;
/// Bytes before the first record, and of a record before its payload.
const HEADER_BYTES: usize = 16;
const FRAME_BYTES: usize = 12;

const TASKS: usize = 96;

/// Each has two records; five of them fail at first, and have four.
const WORKFLOW: &str = r#"
[workflow]
name = "journal"
[defaults]
retries = 1
backoff = "1ms"
[task.plain]
foreach = { at = { range = [0, 90] } }
outputs = { out = "out/{{ at }}.txt" }
run = "echo {{ at }} > {{ outputs.out }}"
[task.moody]
foreach = { at = { range = [0, 5] } }
outputs = { out = "out/moody-{{ at }}.txt" }
run = 'echo {{ at }} > {{ outputs.out }}; [ "$KEELBOAT_ATTEMPT" -gt 1 ]'
[task.all]
inputs = { plain = { from = "plain.out" }, moody = { from = "moody.out" } }
outputs = { all = "out/all.txt" }
run = "cat {{ inputs.plain }} {{ inputs.moody }} > {{ outputs.all }}"
"#;

/// A project that has run, and its journal.
struct Subject {
    project: Project,
    journal: PathBuf,
    bytes: Vec<u8>,
    facts: Vec<Stamped>,
    /// Where each record ends, as its own length says.
    ends: Vec<usize>,
}

impl Subject {
    fn new() -> Self {
        let project = Project::new(WORKFLOW);
        let run = project.run_well(&[]);
        assert_eq!(run.tasks("completed").len(), TASKS);
        let runs = std::fs::read_dir(project.path(".keelboat/runs")).unwrap().flatten();
        let journal = runs.map(|run| run.path()).max().expect("a run").join("journal");
        let bytes = std::fs::read(&journal).unwrap();
        let facts = read_journal(&journal).unwrap().facts;
        let ends = ends(&bytes);
        assert_eq!((facts.len(), ends.last()), (ends.len(), Some(&bytes.len())));
        assert!(facts.len() >= RECORDS_MIN, "{} records", facts.len());
        Self { project, journal, bytes, facts, ends }
    }

    /// Which record holds this byte; `None`: the header of the file.
    fn record_of(&self, byte: usize) -> Option<usize> {
        (byte >= HEADER_BYTES).then(|| self.ends.partition_point(|end| *end <= byte))
    }

    /// How many records end before this byte.
    fn whole_before(&self, length: usize) -> usize {
        self.ends.partition_point(|end| *end <= length)
    }
}

fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(length) = bytes.get(at + 4..at + 8) {
        at += FRAME_BYTES + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        ends.push(at);
    }
    ends
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Whether a stretch that is named holds this byte.
fn names(recovered: &Recovered, byte: usize) -> bool {
    let damaged = recovered.damaged.iter().map(|damage| (damage.offset, damage.bytes));
    let torn = recovered.torn.iter().map(|torn| (torn.offset, torn.bytes));
    damaged.chain(torn).any(|(offset, bytes)| (offset..offset + bytes).contains(&(byte as u64)))
}

fn cut_at_every_length(bout: &mut Bout) -> String {
    let subject = Subject::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let lengths = bout.sample(2000, subject.bytes.len() + 1);
    for length in &lengths {
        check_cut(&subject, *length, &path);
    }
    format!("{} of {} lengths: what was whole was kept", lengths.len(), subject.bytes.len() + 1)
}

fn check_cut(subject: &Subject, length: usize, path: &Path) {
    std::fs::write(path, &subject.bytes[..length]).unwrap();
    let whole = subject.whole_before(length);
    let start = subject.ends[..whole].last().copied().unwrap_or(HEADER_BYTES);
    let (mut journal, recovered) = Journal::create_or_open(path).unwrap();
    assert_eq!(recovered.facts, subject.facts[..whole], "cut at {length}");
    assert_eq!(recovered.damaged, [], "cut at {length}");
    match recovered.torn {
        None => assert!(length == start || length == 0, "cut at {length}: not named"),
        Some(torn) => {
            let begins = if length < HEADER_BYTES { 0 } else { start };
            assert_eq!((torn.offset, torn.bytes), (begins as u64, (length - begins) as u64));
        }
    }
    // It is written on, and what was torn is nothing that is read.
    journal.append(&subject.facts[..1]).unwrap();
    drop(journal);
    let again = read_journal(path).unwrap();
    assert_eq!(again.facts[..whole], subject.facts[..whole], "cut at {length}");
    assert_eq!(again.facts[whole..], subject.facts[..1], "cut at {length}");
    assert_eq!((again.torn, again.damaged), (None, vec![]), "cut at {length}");
}

fn every_bit_flipped(bout: &mut Bout) -> String {
    let subject = Subject::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let bits = subject.bytes.len() * 8;
    // The header of the file, and that of the first record, are always among them.
    let mut chosen: BTreeSet<usize> = bout.sample(2000, bits).into_iter().collect();
    chosen.extend(0..(HEADER_BYTES + FRAME_BYTES) * 8);
    for bit in &chosen {
        check_flip(&subject, *bit, &path);
    }
    format!(
        "{} of {bits} bits of {} records: each was named with its place, the other records kept",
        chosen.len(),
        subject.facts.len()
    )
}

fn check_flip(subject: &Subject, bit: usize, path: &Path) {
    std::fs::write(path, flipped(&subject.bytes, bit)).unwrap();
    let recovered = read_journal(path).unwrap();
    let mut expected = subject.facts.clone();
    match subject.record_of(bit / 8) {
        Some(record) => drop(expected.remove(record)),
        None => assert_eq!(recovered.damaged[0].kind, DamageKind::Header, "bit {bit}"),
    }
    assert!(recovered.facts == expected, "bit {bit}: {:?}", recovered.damaged);
    assert!(names(&recovered, bit / 8), "bit {bit}: {:?}", recovered.damaged);
}

/// Runs on a journal that was changed, and checks that only these tasks were made again.
fn check_run(subject: &Subject, saved: &Saved, changed: &[u8], what: &str) -> Run {
    saved.put_back(&subject.project);
    std::fs::write(&subject.journal, changed).unwrap();
    let status = subject.project.start(subject.project.command(&["status"])).wait();
    status.assert_code(0);
    let before = read_journal(&subject.journal).unwrap();
    let known = before.facts.iter().filter_map(|stamped| match &stamped.fact {
        Fact::Completed { task, .. } => Some(task.to_string()),
        _ => None,
    });
    let known: BTreeSet<String> = known.collect();
    let run = subject.project.run(&[]);
    assert_eq!(run.code(), Some(0), "{what}: {}", run.said());
    let again = run.tasks("completed");
    assert_eq!(again.len(), TASKS - known.len(), "{what}: {}", run.said());
    assert!(again.iter().all(|task| !known.contains(task)), "{what}: {again:?}");
    assert_eq!(subject.project.files("out"), saved.files("out"), "{what}");
    run
}

fn cut_under_the_program(bout: &mut Bout) -> String {
    let subject = Subject::new();
    let saved = Saved::of(&subject.project);
    let cuts = bout.times(12, 1000);
    for _ in 0..cuts {
        let length = bout.one_of(subject.bytes.len());
        let what = format!("cut at {length}");
        check_run(&subject, &saved, &subject.bytes[..length], &what);
    }
    format!("{cuts} cuts: the same command made again what was not recorded, and no more")
}

fn flipped_under_the_program(bout: &mut Bout) -> String {
    let subject = Subject::new();
    let saved = Saved::of(&subject.project);
    let flips = bout.times(12, 1000);
    for _ in 0..flips {
        let bit = bout.one_of(subject.bytes.len() * 8);
        let what = format!("bit {bit} flipped");
        let bytes = flipped(&subject.bytes, bit);
        let run = check_run(&subject, &saved, &bytes, &what);
        let start = subject.record_of(bit / 8).map_or(0, |record| {
            record.checked_sub(1).map_or(HEADER_BYTES, |before| subject.ends[before])
        });
        let named = format!("at offset {start}");
        assert!(run.said().contains(&named), "{what}: {named:?} in {}", run.said());
    }
    format!("{flips} flips: each named by `run`, which made at most one task again")
}
