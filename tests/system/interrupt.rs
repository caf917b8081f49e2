//! Engines and wardens that are killed, interrupted and doubled at moments that matter.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::processes::{marked, send, wait_until, wait_until_none, wardens};
use crate::project::{Project, Run, Running};

/// The second task waits for a gate, with a process in the background, and in a session of its own.
const WORKFLOW: &str = r#"
[workflow]
name = "waiting"

[task.quick]
outputs = { out = "quick.txt" }
run = "@count quick; echo quick > {{ outputs.out }}"

[task.waits]
inputs = { quick = "quick.txt" }
outputs = { out = "waits.txt" }
run = '''
sleep 1000 &
setsid sleep 1000 &
@count waits
while [ ! -e @outside/gate ]; do sleep 0.02; done
cat {{ inputs.quick }} > {{ outputs.out }}
'''

[task.last]
inputs = { waits = "waits.txt" }
outputs = { out = "last.txt" }
run = "@count last; cat {{ inputs.waits }} > {{ outputs.out }}"
"#;

/// How soon an engine must have gone that was told to stop at once.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A run whose second task waits for the gate.
fn start_waiting() -> (Project, Running) {
    start_waiting_in(WORKFLOW)
}

fn start_waiting_in(workflow: &str) -> (Project, Running) {
    let project = Project::new(workflow);
    let mut engine = project.start_run(&["-j", "2"]);
    engine.wait_for_count(&project, "waits");
    (project, engine)
}

fn open_gate(project: &Project) {
    std::fs::write(project.outside("gate"), "").expect("a gate");
}

/// Fails unless the same command finishes the run, and each task has run so often.
fn finish(project: &Project, waits: usize) -> Run {
    open_gate(project);
    let run = project.run_well(&["-j", "2"]);
    assert_eq!(project.read("last.txt"), "quick\n", "{}", run.said());
    let counts = ["quick", "waits", "last"].map(|task| project.count(task));
    assert_eq!(counts, [1, waits, 1], "{}", run.said());
    wait_until_none(&project.mark());
    run
}

#[test]
fn all_processes_die_with_an_engine_that_is_killed() {
    let (project, engine) = start_waiting();
    let killed = engine.kill();
    wait_until_none(&project.mark());
    let run = finish(&project, 2);
    // It is the same run, and numbers of attempts are not used again.
    let (first, second) = (killed.events(), run.events());
    assert_eq!(first[0]["run"], second[0]["run"]);
    assert_eq!([&first[0]["resumed"], &second[0]["resumed"]], [false, true]);
    let started = |event: &&Value| event["event"] == "attempt_started" && event["task"] == "waits";
    assert_eq!(second.iter().find(started).unwrap()["attempt"], 2);
}

#[test]
fn a_kill_loses_nothing_that_was_done_whenever_the_journal_is_flushed() {
    for durability in ["at-close", "each-task", "1h"] {
        let project = Project::new(WORKFLOW);
        let settings = format!("[journal]\ndurability = \"{durability}\"\n");
        project.write("keelboat.toml", &settings);
        let mut engine = project.start_run(&["-j", "2"]);
        engine.wait_for_count(&project, "waits");
        let killed = engine.kill();
        wait_until_none(&project.mark());
        // What was flushed before the kill was told of.
        let done = |event: &Value| event["event"] == "completed" && event["task"] == "quick";
        assert_eq!(
            killed.events().iter().any(done),
            durability == "each-task",
            "{}",
            killed.said()
        );
        finish(&project, 2);
    }
}

#[test]
fn a_warden_that_is_killed_costs_no_retry() {
    let (project, mut engine) = start_waiting();
    let before = marked(&project.mark());
    let [warden] = wardens(&project.mark())[..] else { panic!("one warden: {before:?}") };
    send(warden, Signal::SIGKILL);
    wait_until("the task runs again", Duration::from_secs(20), || {
        assert!(!engine.has_ended(), "{}", engine.said());
        (project.count("waits") == 2).then_some(())
    });
    open_gate(&project);
    engine.wait().assert_code(0);
    assert_eq!(project.read("last.txt"), "quick\n");
    wait_until_none(&project.mark());
    assert!(before.len() >= 4, "an engine, a warden, a task and its children: {before:?}");
}

#[test]
fn what_engine_and_warden_left_when_killed_together_is_killed_by_the_next_engine() {
    let (project, engine) = start_waiting();
    // A stopped engine cannot notice that its warden is gone.
    engine.signal(Signal::SIGSTOP);
    for warden in wardens(&project.mark()) {
        send(warden, Signal::SIGKILL);
    }
    engine.kill();
    assert!(!marked(&project.mark()).is_empty(), "there is nothing that could be left over");
    open_gate(&project);
    let run = project.run_well(&["-j", "2"]);
    wait_until_none(&project.mark());
    assert_eq!(project.read("last.txt"), "quick\n", "{}", run.said());
    assert_eq!([project.count("quick"), project.count("last")], [1, 1]);
}

#[test]
fn an_interrupt_lets_running_tasks_end_and_begins_no_other() {
    let (project, mut engine) = start_waiting();
    engine.signal(Signal::SIGINT);
    wait_until("it says what it waits for", STOP_MAX, || {
        assert!(!engine.has_ended(), "{}", engine.said());
        engine.said().contains("interrupt again").then_some(())
    });
    open_gate(&project);
    let run = engine.wait();
    run.assert_code(130);
    assert_eq!(run.tasks("completed"), ["quick", "waits"], "{}", run.said());
    wait_until_none(&project.mark());
    finish(&project, 1);
}

#[test]
fn a_second_interrupt_stops_running_tasks() {
    let (project, mut engine) = start_waiting();
    engine.signal(Signal::SIGINT);
    wait_until("it says what it waits for", STOP_MAX, || {
        assert!(!engine.has_ended(), "{}", engine.said());
        engine.said().contains("interrupt again").then_some(())
    });
    engine.signal(Signal::SIGINT);
    engine.wait_at_most(STOP_MAX).assert_code(130);
    wait_until_none(&project.mark());
    finish(&project, 2);
}

#[test]
fn a_run_that_was_stopped_goes_on_also_with_what_is_not_remembered() {
    let uncached = "outputs = { out = \"quick.txt\" }\ncache = false";
    let workflow = WORKFLOW.replace("outputs = { out = \"quick.txt\" }", uncached);
    let (project, engine) = start_waiting_in(&workflow);
    engine.signal(Signal::SIGTERM);
    let stopped = engine.wait_at_most(STOP_MAX);
    stopped.assert_code(130);
    // `quick` does not run again.
    let run = finish(&project, 2);
    assert_eq!(stopped.events()[0]["run"], run.events()[0]["run"]);
    // The run is over now: the next one is another run, in which it does.
    project.run_well(&["-j", "2"]);
    assert_eq!(project.count("quick"), 2);
}

#[test]
fn a_termination_stops_at_once() {
    let (project, engine) = start_waiting();
    engine.signal(Signal::SIGTERM);
    engine.wait_at_most(STOP_MAX).assert_code(130);
    wait_until_none(&project.mark());
    finish(&project, 2);
}

#[test]
fn a_second_engine_says_who_is_at_work_and_takes_over_when_that_is_dead() {
    let (project, engine) = start_waiting();
    let second = project.start_run(&["-j", "2"]).wait_at_most(Duration::from_secs(10));
    second.assert_code(3);
    second.assert_said(&[&format!("process {}", engine.pid()), "another engine is at work"]);
    engine.kill();
    finish(&project, 2);
}

#[test]
fn engines_that_start_together_run_no_task_twice() {
    let project = Project::new(WORKFLOW);
    open_gate(&project);
    let engines: Vec<Running> = (0..6).map(|_| project.start_run(&["-j", "2"])).collect();
    let runs: Vec<Run> = engines.into_iter().map(Running::wait).collect();
    let codes: Vec<Option<i32>> = runs.iter().map(Run::code).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 3))), "{codes:?}");
    finish(&project, 1);
}
