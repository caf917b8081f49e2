//! Commands, their files, and functions beside them.

use std::path::PathBuf;

use keelboat::flow::{Exit, OnClose};
use libtest_mimic::Trial;

use super::{Case, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("commands::files_go_from_one_to_the_next", files_go_from_one_to_the_next),
        trial("commands::an_output_is_sent_before_its_future_is_there", an_output_is_sent),
        trial("commands::arguments_are_quoted", arguments_are_quoted),
        trial("commands::mistakes_are_errors_of_the_task", mistakes_are_errors_of_the_task),
        trial("commands::a_flow_that_is_cancelled_kills", a_flow_that_is_cancelled_kills),
    ]
}

fn count_lines(path: PathBuf) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn files_go_from_one_to_the_next() {
    let case = Case::new();
    case.write("words.txt", "b\na\nc\na\n");
    let flow = &case.flow;
    let sorted = flow
        .command("sort {{ inputs.words }} > {{ outputs.sorted }}")
        .input("words", "words.txt")
        .output("sorted", "out/sorted.txt")
        .submit();
    let unique = flow
        .program(["sh", "-c", "uniq \"$1\" > \"$2\"", "sh", "{{ inputs.x }}", "{{ outputs.y }}"])
        .input("x", sorted.output("sorted"))
        .output("y", "out/unique.txt")
        .submit();
    let lines = flow.call(count_lines, (unique.output("y"),));
    assert_eq!(lines.wait().unwrap(), 3);
    assert_eq!(case.read("out/unique.txt"), "a\nb\nc\n");
    assert_eq!(sorted.output("sorted").wait().unwrap(), case.path().join("out/sorted.txt"));
    unique.done().wait().unwrap();
}

fn an_output_is_sent() {
    let case = Case::new();
    let place = case.path().join("elsewhere/copy.txt");
    let made = case
        .flow
        .command("echo made > {{ outputs.out }}")
        .output("out", "out.txt")
        .to(place.to_str().unwrap())
        .submit();
    made.output("out").wait().unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "made\n");
    std::fs::write(case.path().join("file"), "").unwrap();
    let below = case.path().join("file/below.txt");
    let stuck = case
        .flow
        .command("echo made > {{ outputs.out }}")
        .output("out", "out2.txt")
        .to(below.to_str().unwrap())
        .submit();
    stuck.done().wait().unwrap();
    stuck.output("out").wait().unwrap_err();
}

fn arguments_are_quoted() {
    let case = Case::new();
    let said = case
        .flow
        .command("printf '%s\\n' {{ words }} {{ n }} > {{ outputs.out }}")
        .arg("words", ["it's", "a b"])
        .arg("n", 3)
        .output("out", "out.txt")
        .submit();
    said.output("out").wait().unwrap();
    assert_eq!(case.read("out.txt"), "it's\na b\n3\n");
}

fn mistakes_are_errors_of_the_task() {
    let case = Case::new();
    let flow = &case.flow;
    let wrong = flow.command("exit 3").output("x", "never.txt").submit();
    let next = flow.call(|_: PathBuf| 1u8, (wrong.output("x"),));
    let error = next.wait().unwrap_err();
    assert_eq!(error.exit(), Some(Exit::Code(3)), "{error:?}");
    let unknown = flow.command("cat {{ inputs.x }}").submit();
    let error = unknown.done().wait().unwrap_err();
    assert!(error.to_string().contains("undefined"), "{error}");
    let outside = flow.command("true").output("x", "../x").submit();
    let error = outside.output("x").wait().unwrap_err();
    assert!(error.to_string().contains(".."), "{error}");
    let first = flow.command("echo 1 > {{ outputs.x }}").output("x", "x.txt").submit();
    let second = flow.command("echo 2 > {{ outputs.x }}").output("x", "x.txt").submit();
    let error = second.output("x").wait().unwrap_err();
    assert!(error.to_string().contains("x.txt"), "{error}");
    first.output("x").wait().unwrap();
    let error = first.output("y").wait().unwrap_err();
    assert!(error.to_string().contains("no output \"y\", only x"), "{error}");
}

fn a_flow_that_is_cancelled_kills() {
    let case = Case::new();
    let sleeps = case.flow.command("touch begun; sleep 600").submit();
    let after = case.flow.call(|_: PathBuf| 1u8, (sleeps.output("none"),));
    let deadline = std::time::Instant::now() + super::SOON;
    while sleeps.done().state() != keelboat::flow::TaskState::Running {
        assert!(std::time::Instant::now() < deadline, "it never began");
        std::thread::yield_now();
    }
    case.flow.close_by(OnClose::Cancel).unwrap();
    let error = sleeps.done().wait().unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    after.wait().unwrap_err();
}
