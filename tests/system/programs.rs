//! The examples that are programs print what they say, and a second start reuses what it can.
//!
//! `cargo test` builds them, and so does `cargo build --examples`.

use std::path::{Path, PathBuf};

use crate::project::{Project, Run};
use crate::server::Server;

/// An example, beside the directory of this test's own program.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's program");
    let profile = test.parent().and_then(Path::parent).expect("target/debug");
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "{}: build it by `cargo build --examples`", program.display());
    program
}

fn start(project: &Project, name: &str, arguments: &[&str]) -> Run {
    let mut command = project.shell(r#"exec "$@""#);
    command.arg("sh").arg(program(name)).args(arguments);
    project.start(command).wait()
}

/// What it prints when it succeeds.
fn print(project: &Project, name: &str, arguments: &[&str]) -> String {
    let run = start(project, name, arguments);
    run.assert_code(0);
    run.stdout
}

/// The lines that it prints when it is started twice in one directory.
fn print_twice(name: &str, arguments: &[&str]) -> [Vec<String>; 2] {
    let project = Project::new("");
    [1, 2].map(|_| {
        let printed = print(&project, name, arguments);
        let directory = arguments.last().unwrap_or(&".");
        assert!(project.exists(format!("{directory}/.keelboat")), "{name} works elsewhere");
        printed.lines().map(ToOwned::to_owned).collect()
    })
}

#[test]
fn the_quick_start_goes_on_where_it_was() {
    let [first, second] = print_twice("quickstart", &[]);
    let said = r#"12 words, the longest is "business""#;
    assert_eq!(first, [said, "4 tasks ran, 0 were remembered"]);
    assert_eq!(second, [said, "0 tasks ran, 4 were remembered"]);
}

#[test]
fn a_list_known_only_at_run_time_is_mapped_and_reduced() {
    let [printed, _] = print_twice("map_reduce", &["there"]);
    assert_eq!(printed.len(), 8, "{printed:?}");
    assert_eq!(printed[0], "host0  8 failures");
    assert_eq!(printed[6], "host6  9 failures");
    assert_eq!(printed[7], "11 tasks");
}

#[test]
fn a_loop_converges_and_its_steps_are_remembered() {
    let [first, second] = print_twice("convergence", &["there"]);
    assert_eq!(first[..3], second[..3]);
    assert_eq!(first[0], "5 points: 100 75 50 25 0");
    assert_eq!(first[2], "9 points: 100 87 75 62 50 37 25 12 0");
    assert_eq!(first[3], "331 tasks ran, 0 were remembered");
    assert_eq!(second[3], "164 tasks ran, 167 were remembered", "the joins look again");
}

#[test]
fn functions_recurse() {
    let [printed, _] = print_twice("recursion", &["there"]);
    assert_eq!(printed[0], "the 12th Fibonacci number is 144");
    assert_eq!(printed[1], "sorted: 0 1 2 … 100");
}

#[test]
fn darts_find_pi_once() {
    let [first, second] = print_twice("pi", &["there"]);
    assert_eq!(first, ["pi is about 3.140", "21 tasks ran, 0 were remembered"]);
    assert_eq!(second, ["pi is about 3.140", "0 tasks ran, 21 were remembered"]);
}

#[test]
fn a_long_function_is_killed_and_goes_on() {
    let project = Project::new("");
    for (begins_at, dies_at) in [(1, 45_000), (40_001, 123_456), (120_001, 290_001)] {
        let run = start(&project, "checkpointed", &[".", &dies_at.to_string()]);
        assert!(!run.status.success(), "{}", run.said());
        assert!(run.stdout.ends_with(&format!("begins at {begins_at}\n")), "{}", run.said());
    }
    let said = "76778008 is the top of the way from 230631, which has 442 steps\n";
    let first = print(&project, "checkpointed", &["."]);
    let tasks = "2 tasks ran, 0 were remembered\n";
    assert_eq!(first, format!("try 4 begins at 290001\n{said}{tasks}"));
    let second = print(&project, "checkpointed", &["."]);
    assert_eq!(second, format!("{said}0 tasks ran, 2 were remembered\n"));
    assert_eq!(project.read("chain.txt").lines().count(), 443);
}

#[test]
fn a_remote_file_comes_once_for_functions_and_commands() {
    let server = Server::start(0, 0);
    server.put("/tide.txt", "the tide comes in\nthe tide goes out\nand the rest is sand\n");
    let project = Project::new("");
    let address = format!("{}/tide.txt", server.base());
    let said = r#"3 lines, and the most frequent word is "the""#;
    let first = print(&project, "remote", &[&address, "there"]);
    assert_eq!(first, format!("{said}\n57 bytes came over the network\n"));
    let second = print(&project, "remote", &[&address, "there"]);
    assert_eq!(second, format!("{said}\n0 bytes came over the network\n"));
    let missing = start(&project, "remote", &[&format!("{}/ebb.txt", server.base()), "there"]);
    missing.assert_code(1);
    assert!(missing.stderr.contains("404"), "{}", missing.stderr);
}

#[test]
fn failures_are_tried_again_and_tell_their_causes() {
    let [printed, _] = print_twice("retries", &["there"]);
    assert_eq!(printed[0], "come in, after 3 knocks");
    assert!(printed[1].ends_with("failed: nobody is there"), "{printed:?}");
    assert!(printed[2].starts_with("asleep failed: timed out"), "{printed:?}");
    let begins = ["parse[", "  double[", "    report["];
    for (line, begin) in printed[3..6].iter().zip(begins) {
        assert!(line.starts_with(begin), "{printed:?}");
    }
    assert!(printed[3].contains("invalid digit"), "{printed:?}");
    assert_eq!(printed[6], "2 done, 3 failed, 2 not run");
}

#[test]
fn a_sweep_ends_with_a_table() {
    let [first, second] = print_twice("parameters", &["there"]);
    assert_eq!(first[..4], second[..4]);
    assert_eq!(first[3].split_whitespace().last(), Some("30"), "{first:?}");
    assert_eq!(first[4], "12 tasks ran, 0 were remembered");
    assert_eq!(second[4], "0 tasks ran, 12 were remembered");
}

#[test]
fn what_waits_and_what_computes_have_executors_of_their_own() {
    let [first, second] = print_twice("executors", &["there"]);
    assert_eq!(first[..3], second[..3]);
    assert_eq!(first[2], "Corvo     104.20");
    assert_eq!(first[3], "at most 1 computed at one time");
    assert_eq!(first[4], "radio silent");
    assert_eq!(first[5], "7 tasks ran, 0 were remembered");
    assert_eq!(second[5], "0 tasks ran, 7 were remembered");
}

#[test]
fn status_tells_of_the_run_of_a_program() {
    let project = Project::new("");
    print(&project, "retries", &["."]);
    let status = project.start(project.command(&["status"])).wait();
    status.assert_code(0);
    let said = &status.stdout;
    assert!(said.contains("2 completed, 3 failed, 2 skipped of 7"), "{said}");
    let next = "when the cause is mended, the program, started again, does the rest\n";
    assert!(said.contains(next), "{said}");
    let why = project.start(project.command(&["why", "double"])).wait();
    assert!(why.stdout.contains("parse["), "{}", why.said());
}
