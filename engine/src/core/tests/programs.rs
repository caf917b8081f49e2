//! Tasks that a program submits while others run. What the simulator found has its seed beside it.

use super::*;
use crate::{Command, key_parts};

/// An open run of nothing yet.
fn open() -> Script {
    Script::new(
        "",
        History::default(),
        Options { keep_going: true, open: true, ..Options::default() },
    )
}

fn function(mut spec: TaskSpec, takes: &[&str]) -> TaskSpec {
    let arguments = Digest::of(spec.name.as_bytes());
    spec.command = Command::Function { name: spec.name.to_string().into(), arguments };
    spec.takes = takes.iter().map(|name| (*name).into()).collect();
    spec
}

#[test]
fn a_program_submits_after_what_is_done_runs_or_failed() {
    let mut script = open();
    script.run(
        "start               =>
         join 0 2            =>
         submit a: -> x; b:-> => recall a, recall b
         miss a              => launch a.1@0
         miss b              => launch b.1@0
         ended a             => publish a.1
         published a         =>
         submit c: x -> y    => recall c
         ended b permanent   => failed b (permanent)
         submit d&b: x -> z  => skipped d (b)
         hit c               =>
         closed .            => finish failed",
    );
}

#[test]
fn what_is_refused_is_given_back_and_leaves_nothing() {
    let mut script = open();
    script.run(
        "start         =>
         submit a: -> x => recall a",
    );
    for refused in ["b: -> x", "b&nobody: -> y", "a: -> y", "b&c: -> y; c&b: -> z"] {
        let specs = tasks(refused);
        let mut actions = Vec::new();
        let (_, back) = script.core.submit(script.now, specs.clone(), &mut actions).unwrap_err();
        assert_eq!((back, actions, script.core.counts().total), (specs, Vec::new(), 1));
    }
}

#[test]
fn an_open_run_that_is_stopped_while_nothing_is_to_be_done_is_not_over() {
    // Seed 458: it was told of as a success, so that the next start began a new run.
    let mut script = open();
    script.run(
        "start          =>
         submit a: -> x => recall a
         hit a          =>
         stop now       => finish cancelled",
    );
}

#[test]
fn what_is_cancelled_while_it_is_published_is_not_tried_again() {
    // Seed 389.
    let mut script = open();
    script.run(
        "start                        =>
         join 0 1                     =>
         submit a+3: -> x; b: -> y    => recall a, recall b
         miss a                       => launch a.1@0
         ended a                      => publish a.1
         cancel a                     =>
         unpublished a infrastructure => failed a (permanent)
         miss b                       => launch b.1@0
         ended b                      => publish b.1
         cancel b                     =>
         published b                  =>
         closed .                     => finish failed",
    );
}

#[test]
fn others_are_given_the_value_that_a_function_left_first() {
    // Seed 35: a function was called again since its file was lost, and left another value; the
    // key of a task that was to get the first one was made of the second one.
    let mut script = open();
    script.run("start =>\n join 0 1 =>");
    let specs = tasks("f: -> x; a: x -> y; g: x -> z").into_iter();
    let specs = specs.map(|spec| match &*spec.name {
        "g" => function(spec, &["f"]),
        "f" => function(spec, &[]),
        _ => spec,
    });
    let mut actions = Vec::new();
    script.core.submit(script.now, specs.collect(), &mut actions).expect("a good plan");
    script.run(
        "miss f          => launch f.1@0
         ended f         => publish f.1
         published f     => recall a, recall g
         miss a          => launch a.1@0
         miss g          =>
         ended a missing => recall f known
         miss f          => launch f.2@0
         ended f         => publish f.2
         published f new => recall a, recall g
         miss g          => launch g.1@0
         ended g         => publish g.1
         published g     =>",
    );
    let (task, x) = (script.task("g"), content("other bytes", Kind::File));
    let first = Digest::of(b"the value of f");
    let parts = key_parts(script.core.spec(task), &[Some(x)], &[Some(first)]);
    let completed = |fact: &Fact| match fact {
        Fact::Completed { task, parts, .. } if &**task == "g" => Some(parts.clone()),
        _ => None,
    };
    assert_eq!(script.facts.iter().find_map(completed), Some(parts.clone()));
    assert_eq!(script.core.parts(task), Some(parts));
}

#[test]
fn a_join_moves_nothing_while_it_waits_for_its_task() {
    // Seed 678: transfers waited for room that a join might free, and the join for its task, whose
    // input came behind them.
    let mut script = open();
    script.run(
        "start         =>
         join 0 1      =>
         submit j: u:s -> x => stage s@0
         staged s@0    => recall j
         miss j        => launch j.1@0
         ended j       => publish j.1",
    );
    assert!(script.core.kept().is_moving);
    script.run("joins j =>");
    assert!(!script.core.kept().is_moving);
    let waits = script.core.waits_for(script.task("j"));
    assert_eq!(waits.as_deref(), Some("the task whose value it leaves"));
    script.run(
        "published j =>
         joins j     =>",
    );
}
