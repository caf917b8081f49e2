//! Group commit, what it makes durable and in which order, and disks that fail.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use keelboat_engine::{Fact, Stamped, Timestamp};

use super::durable::{Disk, FILES_ONE_BY_ONE_MAX};
use super::{FlushStats, Journal, JournalError, Position, read_journal};

/// What was asked of the disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Data(u64),
    Folder(u64),
    Filesystem,
}

/// Notes what is asked, waits for a word before each answer when there is a gate, and fails on
/// one inode.
#[derive(Debug, Default)]
struct Trial {
    asked: Arc<Mutex<Vec<Asked>>>,
    gate: Option<Mutex<Receiver<()>>>,
    failing_inode: Arc<Mutex<Option<u64>>>,
}

impl Disk for Trial {
    fn sync_data(&self, file: &File) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.lock().unwrap().recv().unwrap();
        }
        let inode = file.metadata()?.ino();
        self.asked.lock().unwrap().push(Asked::Data(inode));
        if *self.failing_inode.lock().unwrap() == Some(inode) {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &File) -> io::Result<()> {
        self.asked.lock().unwrap().push(Asked::Folder(folder.metadata()?.ino()));
        Ok(())
    }

    fn sync_filesystem(&self, _file: &File) -> io::Result<()> {
        self.asked.lock().unwrap().push(Asked::Filesystem);
        Ok(())
    }
}

fn fact(tasks: u64) -> Stamped {
    Stamped { at: Timestamp(tasks), fact: Fact::Planned { tasks } }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn new_file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, name).unwrap();
    path
}

type Answers = (Sender<Result<(), JournalError>>, Receiver<Result<(), JournalError>>);

fn flush(journal: &Journal, position: Position, files: Vec<PathBuf>) -> Result<(), JournalError> {
    let (sender, receiver): Answers = mpsc::channel();
    journal.flush_to(position, files, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap()
}

#[test]
fn many_who_wait_share_one_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (open_gate, gate) = mpsc::channel();
    let disk = Trial { gate: Some(Mutex::new(gate)), ..Trial::default() };
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::open_with(&path, Box::new(disk)).unwrap();
    let (sender, receiver): Answers = mpsc::channel();
    let mut ask = |number| {
        let position = journal.append(&[fact(number)]).unwrap();
        let sender = sender.clone();
        journal.flush_to(position, Vec::new(), move |result| sender.send(result).unwrap());
    };
    ask(0);
    // The thread has the first request, and only that, once it waits at the gate: all others wait
    // for the next sync, however they are timed.
    (1..64).for_each(&mut ask);
    open_gate.send(()).unwrap();
    open_gate.send(()).unwrap();
    assert!((0..64).all(|_| receiver.recv().unwrap().is_ok()));
    let stats = journal.flush_stats();
    assert_eq!(stats.requests, 64);
    assert!(stats.journal_syncs <= 2, "{stats:?}");
    let before = journal.flush_stats();
    flush(&journal, Position(1), Vec::new()).unwrap();
    let after = FlushStats { requests: before.requests + 1, ..before };
    assert_eq!(journal.flush_stats(), after, "what is durable needs no sync");
}

#[test]
fn what_facts_speak_of_is_durable_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Trial::default();
    let asked = Arc::clone(&disk.asked);
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::open_with(&path, Box::new(disk)).unwrap();
    let (a, b) = (new_file(folder.path(), "a"), new_file(folder.path(), "b"));
    let gone = folder.path().join("gone/file");
    let position = journal.append(&[fact(1)]).unwrap();
    flush(&journal, position, vec![b.clone(), a.clone(), a.clone(), gone]).unwrap();
    let expected = [
        Asked::Data(inode(&a)),
        Asked::Data(inode(&b)),
        Asked::Folder(inode(folder.path())),
        Asked::Data(inode(&path)),
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[test]
fn many_files_are_made_durable_with_their_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Trial::default();
    let asked = Arc::clone(&disk.asked);
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::open_with(&path, Box::new(disk)).unwrap();
    let name = |number: usize| new_file(folder.path(), &number.to_string());
    let files: Vec<_> = (0..=FILES_ONE_BY_ONE_MAX).map(name).collect();
    let position = journal.append(&[fact(1)]).unwrap();
    flush(&journal, position, files).unwrap();
    assert_eq!(*asked.lock().unwrap(), [Asked::Filesystem, Asked::Data(inode(&path))]);
    let subfolder = folder.path().join("tree");
    fs::create_dir(&subfolder).unwrap();
    flush(&journal, position, vec![subfolder]).unwrap();
    assert_eq!(asked.lock().unwrap().last(), Some(&Asked::Filesystem));
}

#[test]
fn the_kernel_does_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::create_or_open(&folder.path().join("journal")).unwrap();
    let files: Vec<_> = (0..20).map(|n| new_file(folder.path(), &n.to_string())).collect();
    let position = journal.append(&[fact(1)]).unwrap();
    flush(&journal, position, files[..2].to_vec()).unwrap();
    flush(&journal, position, files).unwrap();
    let stats = journal.flush_stats();
    let expected = FlushStats { requests: 2, journal_syncs: 1, file_syncs: 3, filesystem_syncs: 1 };
    assert_eq!(stats, expected);
    journal.sync().unwrap();
}

#[test]
fn a_failed_sync_is_the_end_of_trust() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let output = new_file(folder.path(), "output");
    for failing in [&path, &output] {
        let disk = Trial::default();
        let failing_inode = Arc::clone(&disk.failing_inode);
        let (mut journal, _) = Journal::open_with(&path, Box::new(disk)).unwrap();
        *failing_inode.lock().unwrap() = Some(inode(failing));
        let position = journal.append(&[fact(1)]).unwrap();
        let error = flush(&journal, position, vec![output.clone()]).unwrap_err();
        assert!(matches!(&error, JournalError::Poisoned { .. }) && error.hint().is_some());
        assert!(error.to_string().contains(&failing.display().to_string()), "{error}");
        *failing_inode.lock().unwrap() = None;
        assert!(flush(&journal, position, Vec::new()).is_err(), "a later sync proves nothing");
        assert!(journal.append(&[fact(2)]).is_err() && journal.sync().is_err());
    }
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::create_or_open(&folder.path().join("journal")).unwrap();
    let position = journal.append(&[fact(1)]).unwrap();
    journal.flush_to(position, Vec::new(), |_| panic!("a test's own"));
    journal.sync().unwrap();
}

#[test]
fn closing_answers_all_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::create_or_open(&folder.path().join("journal")).unwrap();
    let (sender, receiver): Answers = mpsc::channel();
    let position = journal.append(&[fact(1), fact(2)]).unwrap();
    for _ in 0..10 {
        let sender = sender.clone();
        journal.flush_to(position, Vec::new(), move |result| sender.send(result).unwrap());
    }
    drop((journal, sender));
    assert_eq!(receiver.iter().flatten().count(), 10);
}

#[test]
fn a_failed_write_that_cannot_be_taken_back_is_the_end_of_trust() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::create_or_open(&path).unwrap();
    journal.append(&[fact(1)]).unwrap();
    // A disk that is always full, and cannot be truncated.
    let full = File::options().append(true).open("/dev/full").unwrap();
    let real = std::mem::replace(&mut journal.file, full);
    let error = journal.append(&[fact(2)]).unwrap_err();
    assert!(matches!(&error, JournalError::Poisoned { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("disk is full")));
    journal.file = real;
    assert!(journal.append(&[fact(3)]).is_err());
    let kept = read_journal(&path).unwrap();
    assert_eq!((kept.facts, kept.torn), (vec![fact(1)], None));
}
