//! Tasks that come after others although nothing passes between them.

use std::time::Duration;

use keelboat::flow::{Config, Flow, Future};
use libtest_mimic::Trial;

use super::{Case, SOON, trial, wait_until};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("order::what_comes_after_waits", what_comes_after_waits),
        trial("order::what_comes_after_is_skipped_with_it", what_comes_after_is_skipped),
        trial("order::it_is_no_part_of_the_key", it_is_no_part_of_the_key),
        trial("order::what_is_no_task_of_the_flow_is_refused", what_is_no_task),
        trial("order::a_file_is_waited_for_so_long", a_file_is_waited_for),
    ]
}

fn what_comes_after_waits() {
    let case = Case::new();
    let (flow, root) = (&case.flow, case.path().to_owned());
    let begin = root.join("begin");
    let slow = flow.call(move || wait_until("it may end", || begin.exists()), ());
    let made = flow.command("echo made > {{ outputs.x }}").output("x", "x.txt").after(&slow);
    let made = made.submit();
    // Neither is an argument of what follows.
    let place = root.join("x.txt");
    let sees = move || std::fs::read_to_string(&place).ok();
    let by_file = flow.function(sees.clone()).after(&made.output("x")).call(());
    let by_command = flow.function(sees).after(&made).after(&slow).call(());
    let many: Vec<Future<Option<String>>> = vec![by_file, by_command];
    let last = flow.function(|| 7).after(&many).call(());
    assert!(last.wait_for(Duration::from_millis(100)).is_none());
    case.write("begin", "");
    for seen in many {
        assert_eq!(seen.wait().unwrap().as_deref(), Some("made\n"));
    }
    assert_eq!(last.wait().unwrap(), 7);
}

fn what_comes_after_is_skipped() {
    let case = Case::new();
    let fails = case.flow.function(|| Err::<u64, _>("no wind")).name("fails").try_call(());
    let next = case.flow.command("touch {{ outputs.x }}").output("x", "x.txt").after(&fails);
    let next = next.submit();
    let last = case.flow.function(|| 1).after(&next).call(());
    let error = last.wait().unwrap_err();
    assert!(error.root().task().starts_with("fails["), "{error:?}");
    assert!(error.root().to_string().contains("no wind"), "{error:?}");
    assert!(!case.path().join("x.txt").exists());
    // Also when it has failed long ago.
    let late = case.flow.function(|| 1).after(&fails).call(());
    assert!(late.wait().unwrap_err().root().to_string().contains("no wind"));
    let report = case.flow.close().unwrap();
    assert_eq!((report.counts.failed, report.counts.skipped), (1, 3));
}

fn it_is_no_part_of_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let run = |earlier: Option<&str>| {
        let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
        let one = flow.function(|| 1).name("one");
        let one = match earlier {
            Some(text) => one.after(&flow.function(|text: String| text).call((text.to_owned(),))),
            None => one,
        };
        assert_eq!(one.call(()).wait().unwrap(), 1);
        flow.close().unwrap().counts
    };
    assert_eq!(run(Some("a")).reused, 0);
    assert_eq!(run(Some("b")).reused, 1);
    assert_eq!((run(None).reused, run(None).completed), (1, 0));
}

fn what_is_no_task() {
    let (one, other) = (Case::new(), Case::new());
    let elsewhere = other.flow.call(|| 1, ());
    let error = one.flow.function(|| 1).after(&elsewhere).call(()).wait().unwrap_err();
    assert!(error.to_string().contains("another flow"), "{error}");
    let command = one.flow.command("true").after(&elsewhere).submit();
    assert!(command.done().wait().unwrap_err().to_string().contains("another flow"));
    let kept = one.flow.checkpoint();
    let error = one.flow.function(|| 1).after(&kept).call(()).wait().unwrap_err();
    assert!(error.to_string().contains("checkpoint of the flow"), "{error}");
}

fn a_file_is_waited_for() {
    let case = Case::new();
    let waits = "until [ -e {{ go }} ]; do sleep 0.01; done; echo made > {{ outputs.x }}";
    let made = case.flow.command(waits).arg("go", case.path().join("go").to_str());
    let made = made.output("x", "x.txt").submit().output("x");
    assert!(made.wait_for(Duration::from_millis(20)).is_none());
    case.write("go", "");
    let place = made.wait_for(SOON).expect("it is soon there").unwrap();
    assert_eq!(std::fs::read_to_string(place).unwrap(), "made\n");
    let fails = case.flow.command("exit 3").output("y", "y.txt").submit().output("y");
    fails.wait_for(SOON).expect("it fails soon").unwrap_err();
}
