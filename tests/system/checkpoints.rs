//! What tasks save for their next attempts: kept whenever one dies, put back before the next one,
//! never torn, never somebody else's, and gone when they are done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::processes::{send, wait_until, wait_until_none, wardens};
use crate::project::{Project, Run, Running};

/// Counts to 6,000 and dies, or waits to be killed, at each thousand. A line is written at once, so
/// what it saved is whole whenever it dies. What it does is also told outside.
const COUNT: &str = r#"
[workflow]
name = "count"
params = { salt = 0 }

[task.count]
outputs = { all = "all.txt" }
checkpoint = "state/deep/"
@options
run = '''
@count count
touch state/deep/counted
at=$(wc -l < state/deep/counted)
echo "$KEELBOAT_ATTEMPT from $at" >> @outside/began
[ "$KEELBOAT_CHECKPOINT_DIR" = "$PWD/state/deep" ]
exec 3>> state/deep/counted 4>> @outside/work
while [ $at -lt 6000 ]; do
  at=$((at + 1))
  echo $at >&3
  echo $at >&4
  if [ $KEELBOAT_ATTEMPT -le 5 ] && [ $at = $((KEELBOAT_ATTEMPT * 1000)) ]; then
    : > @outside/reached-$KEELBOAT_ATTEMPT
    @death
  fi
done
: {{ salt }}
cat state/deep/counted > {{ outputs.all }}
'''
"#;

fn counting(options: &str, death: &str) -> Project {
    Project::new(&COUNT.replace("@options", options).replace("@death", death))
}

/// Each number is there once, and hardly any was counted in vain: when a death comes between the two
/// lines of a number, that one.
fn check_counted(project: &Project, deaths: usize) {
    let numbers = |text: String| -> Vec<u32> {
        text.lines().map(|line| line.parse().expect("a number")).collect()
    };
    assert!(numbers(project.read("all.txt")).into_iter().eq(1..=6000));
    let work = std::fs::read_to_string(project.outside("work")).expect("what it did");
    let work = numbers(work).len();
    assert!((6000..=6000 + deaths).contains(&work), "{work} numbers were counted");
    assert_eq!(project.count("count"), deaths + 1);
}

/// All that is kept: nothing.
fn check_nothing_kept(project: &Project) {
    wait_until_none(&project.mark());
    assert_eq!(project.files(".keelboat/checkpoints"), BTreeMap::new());
    assert_eq!(project.files(".keelboat/scratch"), BTreeMap::new());
}

fn wait_for(project: &Project, engine: &mut Running, name: &str) {
    wait_until(name, Duration::from_mins(1), || {
        assert!(!engine.has_ended(), "ended too early: {}", engine.said());
        project.outside(name).exists().then_some(())
    });
}

/// Attempts, and those whose checkpoints they went on from.
fn restored(run: &Run) -> Vec<(u64, u64)> {
    let events = run.events().into_iter();
    let restored = events.filter(|event| event["event"] == "checkpoint_restored");
    let number = |value: &Value| value.as_u64().expect("a number");
    restored.map(|event| (number(&event["attempt"]), number(&event["from"]["attempt"]))).collect()
}

#[test]
fn a_task_that_dies_in_every_way_counts_each_number_once() {
    let death = "case $KEELBOAT_ATTEMPT in
      1) exit 3;;
      2) kill -9 $$;;
      3) sleep 1000;;
      4) kill -TERM $$;;
      5) false;;
    esac";
    let project = counting("retries = 5\nbackoff = \"1ms\"\ntimeout = \"6s\"", death);
    let run = project.run_well(&[]);
    check_counted(&project, 5);
    assert_eq!(restored(&run), [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5)], "{}", run.said());
    assert_eq!(run.tasks("checkpoint_saved").len(), 5);
    check_nothing_kept(&project);
    let why = project.start(project.command(&["why", "count"])).wait();
    why.assert_said(&["it went on from the checkpoint of attempt 5 (", "it saved its last"]);
}

#[test]
fn force_begins_without_what_an_earlier_run_saved() {
    let project = Project::new(GROWING);
    project.write("seed.txt", "x");
    project.run(&[]).assert_code(1);
    std::fs::write(project.outside("end"), "").expect("a file");
    let run = project.run_well(&["--force", "grow"]);
    assert_eq!(restored(&run), []);
    assert_eq!(project.read("out.txt"), "x");
    check_nothing_kept(&project);
}

#[test]
fn an_engine_that_is_killed_again_and_again_costs_no_number() {
    let project = counting("", "sleep 1000");
    for attempt in 1..=5 {
        let mut engine = project.start_run(&[]);
        wait_for(&project, &mut engine, &format!("reached-{attempt}"));
        if attempt == 3 {
            let from = "it went on from the checkpoint of attempt 2 (";
            wait_until("the status", Duration::from_secs(20), || {
                let status = project.start(project.command(&["status"])).wait();
                status.said().contains(from).then_some(())
            });
        }
        engine.kill();
        // Every second engine finds the processes of the one before.
        if attempt % 2 == 0 {
            wait_until_none(&project.mark());
        }
    }
    let run = project.run_well(&[]);
    assert_eq!(restored(&run), [(6, 5)], "{}", run.said());
    check_counted(&project, 5);
    check_nothing_kept(&project);
}

#[test]
fn a_warden_that_is_killed_costs_no_number() {
    let project = counting("", "sleep 1000");
    let mut engine = project.start_run(&[]);
    for attempt in 1..=5 {
        wait_for(&project, &mut engine, &format!("reached-{attempt}"));
        for warden in wardens(&project.mark()) {
            send(warden, Signal::SIGKILL);
        }
    }
    let run = engine.wait();
    run.assert_code(0);
    assert_eq!(restored(&run), [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5)], "{}", run.said());
    check_counted(&project, 5);
    check_nothing_kept(&project);
}

#[test]
fn a_run_that_is_stopped_goes_on_with_what_its_task_saved_when_it_was_told_to_end() {
    let project = Project::new(
        r#"
[task.long]
checkpoint = "state"
run = '''
if [ -e state/last ]; then cat state/last; exit; fi
trap 'echo "saved at the end" > state/last; exit 1' TERM
@count long
while :; do sleep 0.05; done
'''
"#,
    );
    let mut engine = project.start_run(&[]);
    engine.wait_for_count(&project, "long");
    engine.signal(Signal::SIGTERM);
    let stopped = engine.wait();
    assert_eq!(stopped.tasks("checkpoint_saved"), ["long"], "{}", stopped.said());
    project.run_well(&[]);
    let log = project.start(project.command(&["log", "long"])).wait();
    assert_eq!(log.stdout, "saved at the end\n");
    check_nothing_kept(&project);
}

#[test]
fn a_run_that_failed_leaves_its_state_to_the_next_run() {
    let project = counting("", "exit 1");
    project.run(&[]).assert_code(1);
    let run = project.run_well(&[]);
    let events = run.events();
    let from = events.iter().find(|event| event["event"] == "checkpoint_restored");
    let from = &from.expect("it goes on")["from"];
    assert!(from["run"].as_str().is_some_and(|earlier| events[0]["run"] != earlier), "{from}");
    // The first attempt of that run dies at 1,000, which is behind it.
    let began = std::fs::read_to_string(project.outside("began")).expect("what it began with");
    assert_eq!(began, "1 from 0\n1 from 1000\n");
    check_counted(&project, 1);
    check_nothing_kept(&project);
}

/// The files of all snapshots, by their paths.
fn snapshots(project: &Project) -> Vec<(PathBuf, Vec<u8>)> {
    project.files(".keelboat/checkpoints").into_iter().collect()
}

const GROWING: &str = r#"
[task.grow]
inputs = { seed = "seed.txt" }
outputs = { out = "out.txt" }
checkpoint = "state/"
run = '''
cat {{ inputs.seed }} >> state/seen
if [ ! -e @outside/end ]; then exit 1; fi
cp state/seen {{ outputs.out }}
'''
"#;

#[test]
fn what_is_damaged_is_not_put_back_but_the_one_before_is() {
    let project = Project::new(GROWING);
    project.write("seed.txt", "x");
    for _ in 0..3 {
        project.run(&[]).assert_code(1);
    }
    let state = |(path, _): &(PathBuf, Vec<u8>)| path.ends_with("state/seen");
    let kept: Vec<_> = snapshots(&project).into_iter().filter(state).collect();
    let held: Vec<&[u8]> = kept.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(held, [&b"xx"[..], b"xxx"], "the last two are kept");
    project.write(&kept[1].0, "xxy");
    std::fs::write(project.outside("end"), "").expect("a file");
    let run = project.run_well(&[]);
    run.assert_said(&["a checkpoint of grow is damaged (seen has 3 bytes with digest"]);
    assert_eq!(project.read("out.txt"), "xxx", "two of the one before, and one more");
    check_nothing_kept(&project);
}

#[test]
fn another_input_gets_no_old_state_and_success_removes_that_of_all_keys() {
    let project = Project::new(GROWING);
    for seed in ["a", "b", "a"] {
        project.write("seed.txt", seed);
        project.run(&[]).assert_code(1);
    }
    std::fs::write(project.outside("end"), "").expect("a file");
    project.write("seed.txt", "b");
    let run = project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "bb", "{}", run.said());
    check_nothing_kept(&project);
    project.write("seed.txt", "a");
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "a", "what was saved for it went with the success");
}

#[test]
fn an_output_that_was_not_written_costs_the_task_nothing_of_its_state() {
    let project = Project::new(
        r#"
[task.late]
outputs = { out = "out.txt" }
checkpoint = "state/"
run = '''
echo x >> state/seen
if [ $(wc -l < state/seen) = 2 ]; then cp state/seen {{ outputs.out }}; fi
'''
"#,
    );
    project.run(&[]).assert_code(1);
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "x\nx\n");
    check_nothing_kept(&project);
}

#[test]
fn two_tasks_with_one_key_have_each_their_own() {
    let task = |name: &str| {
        format!(
            "[task.{name}]\ncheckpoint = 'state'\nretries = 1\nbackoff = '1ms'\n\
             run = 'echo $KEELBOAT_TASK >> state/who; cat state/who; [ $KEELBOAT_ATTEMPT = 2 ]'\n"
        )
    };
    let project = Project::new(&[task("one"), task("two")].concat());
    let run = project.run_well(&["-j", "2"]);
    let keys: Vec<Value> = run.events().into_iter().map(|event| event["key"].clone()).collect();
    let keys: Vec<&Value> = keys.iter().filter(|key| key.is_string()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    for name in ["one", "two"] {
        let log = project.start(project.command(&["log", name])).wait();
        assert_eq!(log.stdout, format!("{name}\n{name}\n"));
    }
    check_nothing_kept(&project);
}

/// The task writes two files that belong together, each by a rename, and waits to be looked at.
const SAVED_WHILE_IT_RUNS: &str = r#"
[task.long]
checkpoint = "state/"
checkpoint_every = "1s"
run = '''
if [ -e state/a ]; then cat state/a state/b; exit; fi
@count long
at=0
while [ ! -e @outside/hold ]; do
  at=$((at + 1))
  for name in a b; do echo $at > state/$name.new; mv state/$name.new state/$name; done
  sleep 0.4
done
echo later > state/a
: > @outside/held
sleep 1000
'''
"#;

#[test]
fn what_is_saved_while_a_task_runs_is_of_one_moment_and_all_that_counts_after_a_crash() {
    let project = Project::new(SAVED_WHILE_IT_RUNS);
    let mut engine = project.start_run(&[]);
    wait_until("a checkpoint", Duration::from_mins(1), || {
        assert!(!engine.has_ended(), "ended too early: {}", engine.said());
        engine.said().contains("checkpoint_saved").then_some(())
    });
    std::fs::write(project.outside("hold"), "").expect("a file");
    wait_for(&project, &mut engine, "held");
    engine.kill();
    wait_until_none(&project.mark());
    let saved = snapshots(&project).into_iter();
    let later = saved.filter(|(path, bytes)| path.ends_with("a") && bytes == b"later\n").count();
    // As if the machine had been started anew: what was written last may be torn.
    let leases = project.files(".keelboat/scratch").into_iter();
    let mut leases = leases.filter(|(path, _)| path.to_string_lossy().ends_with(".checkpoint"));
    let (path, lease) = leases.next().expect("a note");
    let mut lease: Value = serde_json::from_slice(&lease).expect("JSON");
    lease["boot"] = "another".into();
    project.write(path, lease.to_string());
    let run = project.run_well(&[]);
    run.assert_said(&["the machine was started anew while attempt 1 of long ran"]);
    let log = project.start(project.command(&["log", "long"])).wait();
    if later == 0 {
        let numbers: Vec<u32> = log.stdout.lines().map(|line| line.parse().expect(line)).collect();
        let [a, b] = numbers[..] else { panic!("{numbers:?}") };
        assert!(a == b || a == b + 1, "a is {a} and b is {b}: never so at one moment");
    }
    check_nothing_kept(&project);
}

#[test]
fn what_is_kept_is_counted_and_collected() {
    let project = Project::new(GROWING);
    project.write("seed.txt", "x");
    project.run(&[]).assert_code(1);
    let stats = project.start(project.command(&["cache", "stats"])).wait();
    stats.assert_said(&["checkpoints        3 files, "]);
    let gc = |arguments: &[&str]| {
        let all = [&["cache", "gc"], arguments].concat();
        project.start(project.command(&all)).wait()
    };
    gc(&["--keep-days", "1"]).assert_code(0);
    assert_eq!(snapshots(&project).len(), 3, "it is not old");
    gc(&["--keep-days", "0", "--dry-run"]).assert_said(&["3 files of checkpoints"]);
    assert_eq!(snapshots(&project).len(), 3, "nothing was touched");
    gc(&["--keep-days", "0"]).assert_said(&["3 files of checkpoints"]);
    assert_eq!(snapshots(&project), []);
}
