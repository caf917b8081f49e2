//! The memo store: fast from memory, rebuilt from journals whatever happens to its index.

use std::fs;
use std::path::{Path, PathBuf};

use keelboat_checkpoint::{Journal, MemoNotice, MemoStore};
use keelboat_engine::{Digest, Exit, Fact, Failure, FailureClass, Stamped, Timestamp};

use super::common::{
    completed, fetched, folder, key, long_fact, next_random, open, parts, read, record, reused,
    run_journal, task, write, write_journal,
};

/// So many results are in an old journal, which is not read into memory.
const RESULTS: usize = 60;

/// A project whose newest journal is long and teaches nothing, so that the index has to answer.
fn project() -> tempfile::TempDir {
    let folder = folder();
    let mut facts: Vec<Stamped> = (0..RESULTS).map(completed).collect();
    facts.push(fetched(0));
    write_journal(&run_journal(folder.path(), "1"), &facts);
    write_journal(&run_journal(folder.path(), "2"), &[long_fact()]);
    folder
}

fn open_store(state: &Path) -> MemoStore {
    MemoStore::open(state).expect("the memo store opens")
}

fn assert_knows_all(store: &MemoStore) {
    for number in 0..RESULTS {
        let found = store.lookup(&key(number)).expect("it answers");
        assert_eq!(found, Some(record(number)), "result {number}");
    }
    let last = store.last_parts(&task(5)).expect("it answers");
    assert_eq!(last, Some((key(5), parts(5))));
    let source = store.source(&Digest::of(b"url 0")).expect("it answers").expect("it is known");
    assert_eq!(source.etag.as_deref(), Some("\"0\""));
    assert_eq!(store.lookup(&key(RESULTS)).expect("it answers"), None);
}

#[test]
fn a_small_project_never_touches_the_index() {
    let folder = folder();
    let state = folder.path();
    let old: Vec<_> = (0..10).map(completed).collect();
    write_journal(&run_journal(state, "1"), &old);
    let again: Vec<_> = (0..10).map(reused).collect();
    write_journal(&run_journal(state, "2"), &again);
    let store = open_store(state);
    for number in 0..10 {
        assert_eq!(store.lookup(&key(number)).unwrap(), Some(record(number)));
    }
    assert_eq!(store.lookup(&key(10)).unwrap(), None);
    assert_eq!(store.last_parts(&task(3)).unwrap(), Some((key(3), parts(3))));
    store.apply(&completed(11));
    assert_eq!(store.lookup(&key(11)).unwrap(), Some(record(11)));
    store.close().unwrap();
    assert!(!state.join("memo").exists());
}

#[test]
fn what_memory_has_not_the_index_has() {
    let folder = project();
    let store = open_store(folder.path());
    assert!(!folder.path().join("memo").exists());
    assert_knows_all(&store);
    store.flush().unwrap();
    let report = store.check().unwrap();
    assert_eq!((report.missing, report.damaged), (0, vec![]));
    assert!(report.entries > 2 * RESULTS as u64);
    store.close().unwrap();
    assert_knows_all(&open_store(folder.path()));
}

#[test]
fn the_index_has_failures_too() {
    let folder = folder();
    let state = folder.path();
    let failure = Failure::new(FailureClass::Transient, "exit code 3").with_exit(Exit::Code(3));
    let kept = Fact::FailureKept { task: task(5), key: key(5), failure: failure.clone() };
    let kept = Stamped { at: Timestamp(77), fact: kept };
    write_journal(&run_journal(state, "1"), &[completed(4), kept]);
    write_journal(&run_journal(state, "2"), &[long_fact()]);
    for _ in 0..2 {
        let store = open_store(state);
        let found = store.failure(&key(5)).unwrap().expect("it is known");
        assert_eq!((found.failure, found.failed_at), (failure.clone(), Timestamp(77)));
        assert_eq!(store.failure(&key(4)).unwrap(), None);
        assert_eq!(store.lookup(&key(5)).unwrap(), None, "it is no result");
        assert_eq!(store.last_parts(&task(5)).unwrap(), None);
        assert_eq!(store.check().unwrap().damaged, Vec::<String>::new());
        store.rebuild().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_reused_result_moves_the_name_but_keeps_the_parts() {
    let folder = project();
    let state = folder.path();
    let mut other = completed(100);
    if let Fact::Completed { task: name, .. } = &mut other.fact {
        *name = task(5);
    }
    write_journal(&run_journal(state, "3"), &[long_fact(), other]);
    assert_eq!(open_store(state).last_parts(&task(5)).unwrap(), Some((key(100), parts(100))));
    write_journal(&run_journal(state, "4"), &[long_fact(), reused(5)]);
    write_journal(&run_journal(state, "5"), &[long_fact()]);
    assert_eq!(open_store(state).last_parts(&task(5)).unwrap(), Some((key(5), parts(5))));
}

#[test]
fn a_result_that_is_not_memoized_is_not_learned_when_its_run_goes_on() {
    let folder = folder();
    let state = folder.path();
    let (mut made, mut found) = (completed(7), reused(7));
    if let Fact::Completed { memoized, .. } = &mut made.fact {
        *memoized = false;
    }
    if let Fact::Reused { memoized, .. } = &mut found.fact {
        *memoized = false;
    }
    write_journal(&run_journal(state, "1"), &[made, found.clone(), completed(8)]);
    let assert_only_8 = |store: &MemoStore| {
        assert_eq!(store.lookup(&key(7)).unwrap(), None);
        assert_eq!(store.last_parts(&task(7)).unwrap(), None);
        assert_eq!(store.lookup(&key(8)).unwrap(), Some(record(8)));
    };
    let store = open_store(state);
    store.apply(&found);
    assert_only_8(&store);
    store.rebuild().unwrap();
    drop(store);
    // The newest journal teaches nothing, so that the index has to answer.
    write_journal(&run_journal(state, "2"), &[long_fact()]);
    assert_only_8(&open_store(state));
}

#[test]
fn results_outlive_the_journals_they_came_from() {
    let folder = project();
    assert_knows_all(&open_store(folder.path()));
    fs::remove_dir_all(folder.path().join("runs/1")).unwrap();
    assert_knows_all(&open_store(folder.path()));
}

#[test]
fn a_journal_that_was_cut_and_written_on_is_read_again() {
    let folder = project();
    let path = run_journal(folder.path(), "1");
    assert_knows_all(&open_store(folder.path()));
    for cut in [10, 2000] {
        let mut bytes = read(&path);
        bytes.truncate(bytes.len() - cut);
        write(&path, &bytes);
        let (mut journal, recovered) = open(&path);
        assert!(recovered.torn.is_some());
        let new: Vec<_> = (500..520).map(completed).collect();
        journal.append(&new).unwrap();
        let store = open_store(folder.path());
        assert!((500..520).all(|n| store.lookup(&key(n)).unwrap() == Some(record(n))));
        assert!(store.notices().is_empty());
        assert_eq!(store.check().unwrap().missing, 0);
    }
}

#[test]
fn looking_only_works_beside_a_live_store() {
    let folder = project();
    let live = open_store(folder.path());
    assert_knows_all(&live);
    let looking = MemoStore::open_read_only(folder.path()).unwrap();
    assert_knows_all(&looking);
    let rival = open_store(folder.path());
    assert_knows_all(&rival);
    let notices = rival.notices();
    assert!(matches!(notices[..], [MemoNotice::InMemory { .. }]), "{notices:?}");
    assert_knows_all(&live);
}

#[test]
fn many_new_results_reach_the_index_by_themselves() {
    let folder = project();
    let state = folder.path();
    let store = open_store(state);
    let (mut journal, _): (Journal, _) = open(&run_journal(state, "3"));
    for number in 1000..1600 {
        journal.append(&[completed(number)]).unwrap();
        store.apply(&completed(number));
    }
    store.flush().unwrap();
    assert!(state.join("memo/db").exists());
    drop(store);
    write_journal(&run_journal(state, "4"), &[long_fact()]);
    let store = open_store(state);
    fs::remove_dir_all(state.join("runs")).unwrap();
    assert_eq!(store.lookup(&key(1599)).unwrap(), Some(record(1599)));
}

/// One way to spoil the index.
fn spoil(memo: &Path, seed: &mut u64) -> String {
    let mut inside: Vec<PathBuf> = fs::read_dir(memo)
        .expect("the index is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    inside.sort();
    let file = &inside[next_random(seed) % inside.len()];
    let mut bytes = read(file);
    let what = match next_random(seed) % 6 {
        0 => {
            fs::remove_dir_all(memo).expect("it is removed");
            return "folder removed".into();
        }
        1 => {
            fs::remove_file(file).expect("it is removed");
            return format!("{} removed", file.display());
        }
        2 => {
            write(&memo.join("snap.0000000000000000.generating"), b"half");
            return "left-over of a kill at opening".into();
        }
        3 => {
            bytes.truncate(next_random(seed) % (bytes.len() + 1));
            "truncated"
        }
        4 => {
            bytes.fill(0xA5);
            "overwritten"
        }
        _ => {
            for _ in 0..8 {
                let length = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(next_random(seed) % length) {
                    *byte ^= 1 << (next_random(seed) % 8);
                }
            }
            "bits flipped"
        }
    };
    write(file, &bytes);
    format!("{} {what}", file.display())
}

#[test]
fn a_spoiled_index_is_rebuilt() {
    let folder = project();
    assert_knows_all(&open_store(folder.path()));
    let mut seed = 7;
    for _ in 0..24 {
        let what = spoil(&folder.path().join("memo"), &mut seed);
        let store = open_store(folder.path());
        let found: Vec<_> = (0..RESULTS).map(|n| store.lookup(&key(n))).collect();
        for (number, found) in found.into_iter().enumerate() {
            let found = found.unwrap();
            // A value whose own checksum fails counts as absent, and is named.
            let lost = found.is_none() && !store.notices().is_empty();
            assert!(found == Some(record(number)) || lost, "{what}: result {number}");
        }
        let report = store.rebuild().unwrap();
        assert_eq!((report.journals, report.facts), (2, RESULTS as u64 + 2), "{what}");
        assert_knows_all(&store);
    }
}

/// sled opens without a word with what stands before a damaged place in its log.
#[test]
fn entries_that_sled_loses_in_silence_are_missed() {
    let folder = project();
    assert_knows_all(&open_store(folder.path()));
    let db = folder.path().join("memo/db");
    let mut bytes = read(&db);
    bytes[200..260].fill(0);
    write(&db, &bytes);
    let store = open_store(folder.path());
    assert_knows_all(&store);
    let notices = store.notices();
    assert!(matches!(notices[..], [MemoNotice::Lost { journals: 2 }]), "{notices:?}");
    drop(store);
    let store = open_store(folder.path());
    assert_knows_all(&store);
    assert!(store.notices().is_empty(), "it is told once");
}

#[test]
fn entries_that_nobody_knows_any_more_are_missed_once() {
    let folder = project();
    assert_knows_all(&open_store(folder.path()));
    fs::remove_dir_all(folder.path().join("runs")).unwrap();
    let db = folder.path().join("memo/db");
    let mut bytes = read(&db);
    bytes[200..260].fill(0);
    write(&db, &bytes);
    for notices in [1, 0] {
        let store = open_store(folder.path());
        assert_eq!(store.lookup(&key(0)).unwrap(), None);
        assert_eq!(store.notices().len(), notices);
        store.close().unwrap();
    }
}

#[test]
fn the_files_of_the_index_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = project();
    assert_knows_all(&open_store(folder.path()));
    for entry in fs::read_dir(folder.path().join("memo")).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{}", entry.path().display());
    }
}

#[test]
fn a_file_where_the_index_should_be_is_replaced() {
    let folder = project();
    write(&folder.path().join("memo"), b"not a folder");
    let store = open_store(folder.path());
    assert_knows_all(&store);
    assert!(matches!(store.notices()[..], [MemoNotice::Rebuilt { journals: 2, .. }]));
    assert!(folder.path().join("memo/db").exists());
}

#[test]
fn a_damaged_journal_costs_one_result_and_is_named() {
    let folder = project();
    let path = run_journal(folder.path(), "1");
    let mut bytes = read(&path);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&path, &bytes);
    let store = open_store(folder.path());
    let known = (0..RESULTS).filter(|n| store.lookup(&key(*n)).unwrap().is_some()).count();
    assert_eq!(known, RESULTS - 1);
    let notices = store.notices();
    let named = |notice: &MemoNotice| {
        matches!(notice, MemoNotice::JournalDamaged { run, damage }
        if run == "1" && (damage.offset..damage.offset + damage.bytes).contains(&(middle as u64)))
    };
    assert!(notices.iter().any(named), "{notices:?}");
}
