//! What attempts leave in the directories that they run in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keelboat::flow::{Context, KeepScratch, OnClose, TaskState};
use libtest_mimic::Trial;

use super::{Case, trial, wait_until};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("scratch::what_a_failed_one_left_is_kept", what_a_failed_one_left),
        trial("scratch::the_last_one_of_a_task_is_kept", the_last_one_is_kept),
        trial("scratch::what_functions_leave_is_kept", what_functions_leave),
        trial("scratch::with_a_checkpoint_both_are_kept", with_a_checkpoint),
        trial("scratch::nothing_is_kept_of_what_was_cancelled", nothing_of_what_was_cancelled),
    ]
}

fn kept(root: &Path, task: &str) -> PathBuf {
    root.join(".keelboat/kept").join(task)
}

fn read(place: &Path) -> String {
    std::fs::read_to_string(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()))
}

fn what_a_failed_one_left() {
    let case = Case::with(|config| config.keep_scratch(KeepScratch::Failed));
    case.write("in.txt", "in\n");
    let solve = || {
        let task =
            case.flow.command("cp {{ inputs.i }} seen; echo $KEELBOAT_ATTEMPT > try; exit 3");
        task.input("i", "in.txt").retries(1).backoff(Duration::ZERO, Duration::ZERO).name("solve")
    };
    let error = solve().output("o", "out.txt").submit().done().wait().unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains("what it left is in .keelboat/kept/solve"), "{hint}");
    let place = kept(case.path(), "solve");
    // It is there as soon as the error is.
    assert_eq!(
        (read(&place.join("seen")), read(&place.join("try"))),
        ("in\n".into(), "2\n".into())
    );
    assert!(place.join("in.txt").exists());

    // Outputs that were not written are a failure like others.
    let without = case.flow.command("echo x > other").output("o", "o.txt").name("without").submit();
    let hint = without.done().wait().unwrap_err().hint().unwrap();
    assert!(hint.ends_with("; what it left is in .keelboat/kept/without"), "{hint}");
    assert_eq!(read(&kept(case.path(), "without").join("other")), "x\n");

    let silent = solve().keep_scratch(KeepScratch::Never).name("silent").submit();
    assert_eq!(silent.done().wait().unwrap_err().hint(), None);
    let root = case.path().to_owned();
    case.flow.close().unwrap();
    assert!(!kept(&root, "silent").exists());
    assert_eq!(std::fs::read_dir(root.join(".keelboat/scratch")).unwrap().count(), 0);
}

fn the_last_one_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let run = |keep, says: &str| {
        let config = keelboat::flow::Config::new(directory.path()).cores(2);
        let flow = keelboat::flow::Flow::open(config).unwrap();
        let task = flow.command("echo {{ says }} > said; test {{ says }} != no");
        let task = task.arg("says", says).name("task").keep_scratch(keep).submit();
        let ended = task.done().wait();
        flow.close().unwrap();
        let place = kept(directory.path(), "task");
        assert_eq!(
            std::fs::read_dir(directory.path().join(".keelboat/scratch")).unwrap().count(),
            0
        );
        (ended.is_ok(), place.exists().then(|| read(&place.join("said"))))
    };
    assert_eq!(run(KeepScratch::Always, "a"), (true, Some("a\n".into())));
    assert_eq!(run(KeepScratch::Always, "b"), (true, Some("b\n".into())));
    assert_eq!(run(KeepScratch::Never, "c"), (true, Some("b\n".into())));
    assert_eq!(run(KeepScratch::Failed, "no"), (false, Some("no\n".into())));
    assert_eq!(run(KeepScratch::Failed, "d"), (true, None));
}

fn what_functions_leave() {
    let case = Case::new();
    let writes = |context: Context| -> std::io::Result<()> {
        std::fs::write(context.scratch().join("note"), "so far")?;
        Err(std::io::Error::other("no further"))
    };
    let task = case.flow.function(writes).name("writes").keep_scratch(KeepScratch::Failed);
    let error = task.try_call(()).wait().unwrap_err();
    let hint = error.hint().unwrap();
    let place = case.path().join(hint.strip_prefix("what it left is in ").unwrap());
    assert_eq!(read(&place.join("note")), "so far");
}

fn with_a_checkpoint() {
    let case = Case::new();
    let script =
        "echo $KEELBOAT_ATTEMPT >> state/tries; echo x > seen; [ $KEELBOAT_ATTEMPT -ge 2 ]";
    let task = case.flow.command(script).checkpoint("state/").name("task").retries(1);
    let task = task.backoff(Duration::ZERO, Duration::ZERO).keep_scratch(KeepScratch::Always);
    task.submit().done().wait().unwrap();
    let place = kept(case.path(), "task");
    // What the first attempt saved is not in what it left.
    wait_until("the second one is kept", || place.join("state/tries").exists());
    assert_eq!(read(&place.join("state/tries")), "1\n2\n");
    let lacks = case.flow.command(
        "echo x >> state/tries; [ $KEELBOAT_ATTEMPT -lt 2 ] || \
        cp state/tries {{ outputs.o }}",
    );
    let lacks = lacks.checkpoint("state/").output("o", "o.txt").name("lacks").retries(1);
    let lacks = lacks.backoff(Duration::ZERO, Duration::ZERO).keep_scratch(KeepScratch::Failed);
    // The first attempt ends well and leaves no output, which is no failure that is tried again.
    let on = keelboat::flow::FailureKind::Class(keelboat::flow::FailureClass::Permanent);
    let lacks = lacks.on(on, keelboat::flow::Response::Retry { cost: 1000 }).submit();
    lacks.done().wait().unwrap();
    assert_eq!(case.read("o.txt"), "x\nx\n", "what it had saved was put back");
}

fn nothing_of_what_was_cancelled() {
    let case = Case::with(|config| config.keep_scratch(KeepScratch::Failed));
    let waits = case.flow.command("touch {{ begun }}; sleep 1000");
    let begun = case.path().join("begun");
    let waits = waits.arg("begun", begun.to_str()).name("waits").submit();
    wait_until("it runs", || begun.exists());
    assert_eq!(waits.done().state(), TaskState::Running);
    let root = case.path().to_owned();
    let (flow, _directory) = (case.flow, case.directory);
    flow.close_by(OnClose::Cancel).unwrap();
    waits.done().wait().unwrap_err();
    assert!(!kept(&root, "waits").exists());
}
