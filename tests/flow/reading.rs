//! What functions read: files that change, files that are lost, GPUs that they have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use keelboat::flow::{Config, Context, Flow, Future};
use libtest_mimic::Trial;

use super::{Case, SOON, trial, wait_until};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("reading::an_edit_while_it_runs_is_not_recorded", an_edit_while_it_runs),
        trial("reading::an_edit_while_it_waits_is_read", an_edit_while_it_waits),
        trial("reading::a_file_that_it_removes_is_named", a_file_that_it_removes),
        trial("reading::async_functions_are_no_exception", async_functions),
        trial("reading::what_is_lost_is_made_again", what_is_lost),
        trial(
            "reading::what_is_lost_of_a_late_command_is_made_again",
            what_is_lost_of_a_late_command,
        ),
    ]
}

/// Reads its file, which the first call of all changes before.
fn edits(file: PathBuf, calls: &AtomicU32) -> io::Result<String> {
    if calls.fetch_add(1, Ordering::SeqCst) == 0 {
        fs::write(&file, "edited")?;
    }
    fs::read_to_string(file)
}

fn an_edit_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.txt");
    let calls = Arc::new(AtomicU32::new(0));
    let start = || {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let calls = Arc::clone(&calls);
        let read = move |file: PathBuf| edits(file, &calls);
        let text = flow.function(read).name("read").version("1").try_call((flow.file("x.txt"),));
        let text: String = text.wait().unwrap();
        flow.close().unwrap();
        text
    };
    fs::write(&file, "old").unwrap();
    assert_eq!(start(), "edited");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "what the first call read is nobody's result");
    fs::write(&file, "old").unwrap();
    assert_eq!(start(), "old");
    assert_eq!(calls.load(Ordering::SeqCst), 3, "nothing was recorded of the old file");
    fs::write(&file, "edited").unwrap();
    assert_eq!(start(), "edited");
    assert_eq!(calls.load(Ordering::SeqCst), 3, "and of the edited one it was");
}

fn an_edit_while_it_waits() {
    let case = Case::with(|config| config.cores(1));
    let flow = &case.flow;
    case.write("x.txt", "old");
    let (open, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let blocks = flow.call(move || gate.lock().unwrap().recv_timeout(SOON).is_ok(), ());
    wait_until("the blocker runs", || flow.counts().running == 1);
    let read = |file: PathBuf| fs::read_to_string(file).unwrap();
    let text = flow.call(read, (flow.file("x.txt"),));
    wait_until("the reader waits for its slot", || flow.counts().ready == 1);
    case.write("x.txt", "edited");
    open.send(()).unwrap();
    assert!(blocks.wait().unwrap());
    assert_eq!(text.wait().unwrap(), "edited");
    case.write("x.txt", "old");
    let again: Future<String> = flow.call(read, (flow.file("x.txt"),));
    assert_eq!(again.wait().unwrap(), "old", "the result of the edited file is not its");
}

fn a_file_that_it_removes() {
    let case = Case::new();
    case.write("x.txt", "old");
    let flow = &case.flow;
    let removed = flow.call(|file: PathBuf| fs::remove_file(file).is_ok(), (flow.file("x.txt"),));
    let error = removed.wait().unwrap_err().to_string();
    assert!(error.contains("x.txt"), "{error}");
}

fn async_functions() {
    let case = Case::new();
    case.write("x.txt", "old");
    let calls = Arc::new(AtomicU32::new(0));
    let of_it = Arc::clone(&calls);
    let read = move |file: PathBuf| {
        let calls = Arc::clone(&of_it);
        async move { edits(file, &calls).unwrap() }
    };
    let text: Future<String> = case.flow.call(read, (case.flow.file("x.txt"),));
    assert_eq!(text.wait().unwrap(), "edited");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// Neither the store nor the project has it any more.
fn lose(root: &Path, output: &str) {
    fs::remove_file(root.join(output)).unwrap();
    fs::remove_dir_all(root.join(".keelboat/objects")).unwrap();
}

fn what_is_lost() {
    let case = Case::new();
    let flow = &case.flow;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let write = move |context: Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        fs::write(context.output("x")?, "made")?;
        Ok::<_, io::Error>(7)
    };
    let made: Future<i32> = flow.function(write).output("x", "x.txt").try_call(());
    assert_eq!(made.wait().unwrap(), 7);
    lose(case.path(), "x.txt");
    let copied = flow
        .command("cat {{ inputs.x }} > {{ outputs.y }}")
        .input("x", made.output("x"))
        .output("y", "y.txt")
        .submit();
    copied.output("y").wait().unwrap();
    assert_eq!(case.read("y.txt"), "made");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(made.wait().unwrap(), 7);
}

fn what_is_lost_of_a_late_command() {
    let case = Case::new();
    let flow = &case.flow;
    let made = flow
        .command("echo {{ word }} > {{ outputs.x }}; echo . >> {{ note }}")
        .arg("word", flow.call(|| "late".to_owned(), ()))
        .arg("note", case.path().join("note").display().to_string())
        .output("x", "x.txt")
        .submit();
    made.output("x").wait().unwrap();
    lose(case.path(), "x.txt");
    let text = flow.call(|x: PathBuf| fs::read_to_string(x).unwrap(), (made.output("x"),));
    assert_eq!(text.wait().unwrap(), "late\n");
    assert_eq!(case.read("note"), ".\n.\n");
}
