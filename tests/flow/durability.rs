//! What the death of the program and a loss of power can take, for each policy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use keelboat::flow::{Config, Durability, Events, Fact, Flow};
use libtest_mimic::Trial;

use super::{SOON, trial};

/// Names the directory in which this program is to be the child of a test, and what is remembered when.
const CHILD: &str = "KEELBOAT_TEST_DURABILITY";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("durability::grouped", || check("grouped", 5)),
        trial("durability::every_task", || check("task", 0)),
        trial("durability::periodic", || check("periodic", 5)),
        trial("durability::at_close", || check("close", 5)),
        trial("durability::manual", || check("manual", 3)),
    ]
}

fn policy(name: &str) -> Durability {
    match name {
        "grouped" => Durability::Grouped,
        "task" => Durability::EachTask,
        "periodic" => Durability::Every(Duration::from_millis(60)),
        _ => Durability::AtClose,
    }
}

fn of_child() -> Option<(String, PathBuf)> {
    let child = std::env::var(CHILD).ok()?;
    let (policy, directory) = child.split_once(':').expect("a policy and a directory");
    Some((policy.to_owned(), directory.into()))
}

/// Notes that it ran, slowly enough for a flush to come between two of them.
fn step(before: u64) -> u64 {
    let (_, directory) = of_child().expect("a child");
    let file = directory.join("ran");
    let ran = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(file, format!("{ran}{before}\n")).expect("a note");
    std::thread::sleep(Duration::from_millis(30));
    before + 1
}

/// Completions that were told of since, which are durable; up to this one they are waited for.
fn told(events: &Events, completed: &mut u32, awaited: u32) -> u32 {
    loop {
        let event = if *completed < awaited {
            Some(events.wait_next_for(SOON).expect("it is told"))
        } else {
            events.try_next()
        };
        let Some(event) = event else { return *completed };
        *completed += u32::from(matches!(event.expect("few").fact, Fact::Completed { .. }));
    }
}

/// Ten steps. Notes how much of the journal is durable for certain after some of them, and waits to be
/// killed at the end, unless it finds that it was before.
pub(super) fn run_if_child() -> Option<ExitCode> {
    let (name, directory) = of_child()?;
    let was_killed = directory.join("ready").exists();
    let config = Config::new(&directory).name("steps").durability(policy(&name));
    let flow = Flow::open(config).expect("a flow");
    let (events, mut completed) = (flow.events(), 0);
    let step = flow.function(step).version("1");
    let mut last = 0;
    for number in 1..=10 {
        last = step.call((last,)).wait().expect("a value");
        if was_killed {
            continue;
        }
        match &*name {
            "task" => assert_eq!(told(&events, &mut completed, 0), number, "before its future"),
            "grouped" | "periodic" if number == 5 => {
                told(&events, &mut completed, 5);
            }
            "close" | "manual" => {
                let flushed = match number {
                    0..=5 => 0,
                    8.. if name == "manual" => 7,
                    _ => 5,
                };
                assert_eq!(told(&events, &mut completed, 0), flushed, "nobody asked for it");
            }
            _ => {}
        }
        if number == 5 && matches!(&*name, "close" | "manual") {
            flow.checkpoint().wait().expect("it is durable");
            assert_eq!(told(&events, &mut completed, 0), 5);
        }
        if number == 7 && name == "manual" {
            flow.checkpoint().wait().expect("it is durable");
        }
        let is_durable = match &*name {
            "task" => true,
            "manual" => number == 7,
            _ => number == 5,
        };
        if is_durable {
            let length = journal(&directory).metadata().expect("a journal").len();
            std::fs::write(directory.join("durable"), length.to_string()).expect("a note");
        }
    }
    if !was_killed {
        std::fs::write(directory.join("ready"), "").expect("a note");
        std::thread::sleep(SOON * 10);
    }
    flow.close().expect("the end");
    Some(ExitCode::from(u8::from(last != 10)))
}

fn journal(directory: &Path) -> PathBuf {
    let mut runs = std::fs::read_dir(directory.join(".keelboat/runs")).expect("runs");
    runs.next().expect("a run").expect("a run").path().join("journal")
}

fn start(policy: &str, directory: &Path) -> Child {
    let own = std::env::current_exe().expect("this program");
    let child = format!("{policy}:{}", directory.display());
    let mut command = Command::new(own);
    command.env(CHILD, child).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("a child")
}

/// How many steps ran when the program is started again.
fn finish(policy: &str, directory: &Path) -> usize {
    assert!(start(policy, directory).wait().unwrap().success());
    std::fs::read_to_string(directory.join("ran")).unwrap().lines().count()
}

/// Kills the program, and counts what runs again after that, and after a loss of power at the worst moment.
fn check(policy: &str, lost_by_power: usize) {
    let directory = tempfile::tempdir().unwrap();
    let (killed, unpowered) = (directory.path().join("killed"), directory.path().join("unpowered"));
    std::fs::create_dir(&killed).unwrap();
    let mut child = start(policy, &killed);
    let deadline = Instant::now() + SOON;
    while !killed.join("ready").exists() {
        assert!(Instant::now() < deadline, "it does not go on");
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let copied = Command::new("cp").arg("-R").arg(&killed).arg(&unpowered).status().unwrap();
    assert!(copied.success());
    assert_eq!(finish(policy, &killed), 10, "what was done is not done again");
    // What the disk was not told to keep is gone, and so is the index of results.
    let durable = std::fs::read_to_string(unpowered.join("durable")).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(journal(&unpowered)).unwrap();
    file.set_len(durable.parse().unwrap()).unwrap();
    let index = unpowered.join(".keelboat/memo");
    if index.exists() {
        std::fs::remove_dir_all(index).unwrap();
    }
    assert_eq!(finish(policy, &unpowered), 10 + lost_by_power, "the rest runs again");
}
