//! One engine a project directory.

use std::fs;

use keelboat_checkpoint::{LockError, ProjectLock};

use super::common::{folder, write};

#[test]
fn the_second_one_is_told_who_has_it() {
    let folder = folder();
    let first = ProjectLock::acquire(folder.path(), "keelboat run a.toml", "token-1").unwrap();
    assert_eq!(first.previous(), None);
    match ProjectLock::acquire(folder.path(), "keelboat run", "token-2") {
        Err(LockError::Held { pid, host, since, command, .. }) => {
            assert_eq!((pid, command.as_str()), (std::process::id(), "keelboat run a.toml"));
            assert!(!host.is_empty() && since.0 > 1_700_000_000_000);
        }
        other => panic!("{other:?}"),
    }
    let holder = ProjectLock::current(folder.path()).unwrap().unwrap();
    assert_eq!(holder.token, "token-1");
}

#[test]
fn a_clean_end_is_noted() {
    let folder = folder();
    drop(ProjectLock::acquire(folder.path(), "a much longer command than the next", "1").unwrap());
    assert_eq!(ProjectLock::current(folder.path()).unwrap(), None);
    let second = ProjectLock::acquire(folder.path(), "b", "2").unwrap();
    let previous = second.previous().unwrap().clone();
    assert_eq!((previous.token.as_str(), previous.ended), ("1", true));
    drop(second);
    let third = ProjectLock::acquire(folder.path(), "c", "3").unwrap();
    assert_eq!(third.previous().unwrap().command, "b");
}

/// Who takes over may die before it has ended what the one before it left.
#[test]
fn tokens_of_the_dead_are_handed_on_until_their_processes_are_ended() {
    let folder = folder();
    for token in ["1", "2"] {
        // As by `kill -9`.
        let lock = ProjectLock::acquire(folder.path(), "run", token).unwrap();
        let held = fs::read(folder.path().join("lock")).unwrap();
        drop(lock);
        write(&folder.path().join("lock"), &held);
    }
    let mut lock = ProjectLock::acquire(folder.path(), "run", "3").unwrap();
    assert_eq!(lock.left_behind(), ["1", "2"]);
    lock.settle().unwrap();
    drop(lock);
    let lock = ProjectLock::acquire(folder.path(), "run", "4").unwrap();
    assert!(lock.left_behind().is_empty());
}

#[test]
fn rubbish_in_the_lock_file_locks_nobody_out() {
    let folder = folder();
    let long = "x".repeat(40_000);
    for rubbish in [&b""[..], b"{", b"\xff\xfe", long.as_bytes()] {
        write(&folder.path().join("lock"), rubbish);
        let lock = ProjectLock::acquire(folder.path(), "run", "t").unwrap();
        assert_eq!(lock.previous(), None);
    }
    assert!(fs::read_to_string(folder.path().join("lock")).unwrap().lines().count() >= 1);
}
