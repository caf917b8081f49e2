//! Retry policies: what failures cost, which ones are final, and which skip a task.

use std::sync::Arc;

use super::*;
use crate::{FailureKind, MemoryGrowth, Response, RetryRule};

/// A run in which every task has these rules.
fn script(plan: &str, rules: &[(FailureKind, Response)]) -> Script {
    after_crash(plan, rules, History::default())
}

fn after_crash(plan: &str, rules: &[(FailureKind, Response)], history: History) -> Script {
    let mut tasks = tasks(plan);
    for task in &mut tasks {
        let rules = rules.iter().map(|(on, then)| RetryRule { on: *on, then: *then });
        Arc::make_mut(&mut task.options_mut().retry).rules = rules.collect();
    }
    Script::of(tasks, history, Options::default())
}

const fn code(code: i32) -> FailureKind {
    FailureKind::Exit(Exit::Code(code))
}

const START: &str = "start  => recall a
                     join 0 1 =>
                     miss a   => launch a.1@0";

#[test]
fn a_failure_that_costs_half_is_tried_twice_as_often() {
    let mut script = script("a+1: -> x", &[(code(75), Response::Retry { cost: 500 })]);
    script.run(START);
    script.run(
        "ended a code 75 =>
         time 2000       => launch a.2@0
         ended a code 75 =>
         time 6000       => launch a.3@0
         ended a code 75 => failed a (transient), finish failed",
    );
}

#[test]
fn what_was_spent_before_a_crash_is_spent() {
    let mut history = History::default();
    for ordinal in 1..=3 {
        history.apply(&Fact::AttemptFailed {
            task: "a".into(),
            ordinal,
            failure: failure("code 75"),
            usage: Usage::default(),
            cost: 500,
        });
    }
    let rules = [(code(75), Response::Retry { cost: 500 })];
    let mut script = after_crash("a+2: -> x", &rules, history);
    script.run(START);
    script.run(
        "ended a code 75 =>
         time 60000      => launch a.2@0
         ended a code 75 => failed a (transient), finish failed",
    );
}

#[test]
fn what_costs_nothing_is_tried_again_after_a_wait_but_not_for_ever() {
    let mut script = script("a: -> x", &[(code(75), Response::Retry { cost: 0 })]);
    script.run(START);
    for next in 2..=21 {
        script.run("ended a code 75 =>");
        let due = script.core.next_deadline().expect("a next try").0;
        assert!(due >= script.now.0 + 500, "it waits as after any failure");
        script.run(&format!("time {due} => launch a.{next}@0"));
    }
    script.run("ended a code 75 => failed a (transient), finish failed");
    let cause = script.facts.iter().find_map(|fact| match fact {
        Fact::Failed { failure, .. } => Some(failure.cause.clone()),
        _ => None,
    });
    let expected = "as the script says (given up after 21 attempts in a row that cost it no retry)";
    assert_eq!(cause.as_deref(), Some(expected));
}

#[test]
fn a_loss_may_cost_something_and_is_not_waited_for() {
    let lost = FailureKind::Class(FailureClass::InfrastructureLost);
    let mut script = script("a+1: -> x", &[(lost, Response::Retry { cost: 1_000 })]);
    script.run(START);
    script.run(
        "ended a infrastructure => launch a.2@0
         ended a infrastructure => failed a (infrastructure lost), finish failed",
    );
}

#[test]
fn a_rule_makes_a_failure_final_or_gives_a_final_one_another_try() {
    let rules = [
        (code(2), Response::Fail),
        (FailureKind::Class(FailureClass::Permanent), Response::Retry { cost: 1_000 }),
    ];
    let mut one = script("a+5: -> x", &rules);
    one.run(START);
    one.run("ended a code 2 => failed a (transient), finish failed");
    let mut other = script("a+1: -> x", &rules);
    other.run(START);
    other.run(
        "ended a permanent =>
         time 2000         => launch a.2@0
         ended a permanent => failed a (permanent), finish failed",
    );
}

#[test]
fn a_task_that_skips_itself_takes_with_it_what_needs_it_and_fails_nothing() {
    let rules = [(code(77), Response::Skip)];
    let mut script = script("a: -> x; b: x -> y; c: y -> z; d: -> w", &rules);
    script.run(
        "start           => recall a, recall d
         join 0 1        =>
         miss a          => launch a.1@0
         miss d          =>
         ended a code 77 => skipped a (a), skipped b (a), skipped c (a), launch d.1@0
         ended d         => publish d.1
         published d     => finish succeeded",
    );
    let counts = script.core.counts();
    assert_eq!((counts.completed, counts.skipped, counts.failed), (1, 3, 0));
}

#[test]
fn what_grows_under_a_task_that_skipped_itself_is_skipped() {
    let mut script = script("a: -> x; g!: -> l", &[(code(77), Response::Skip)]);
    script.run(
        "start            => recall a, recall g
         join 0 1         =>
         miss a           => launch a.1@0
         ended a code 77  => skipped a (a)
         hit g            => expand g
         grown g b: x -> y => skipped b (a), finish succeeded",
    );
}

#[test]
fn a_lost_result_whose_task_skips_itself_now_fails_who_needs_it() {
    let mut script = script("p: -> x; a: x -> y", &[(code(77), Response::Skip)]);
    script.run(
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         published p     => recall a
         lost 1          =>
         join 2 1        =>
         miss a          => recall p known
         miss p          => launch p.2@2
         ended p code 77 => skipped p (p), failed a (input missing), finish failed",
    );
}

#[test]
fn who_looked_at_the_failure_itself_has_the_last_word() {
    let mut script = script("a: -> x", &[(FailureKind::AnyExit, Response::Fail)]);
    script.run(START);
    for (response, expected) in
        [(Response::Retry { cost: 0 }, ""), (Response::Skip, "skipped a (a), finish succeeded")]
    {
        let attempt = script.attempt("a");
        let failure = failure("code 1").with_response(response);
        let outcome = AttemptOutcome { attempt, result: Err(failure), usage: Usage::default() };
        let mut actions = Vec::new();
        script.core.step(script.now, Event::AttemptEnded(outcome), &mut actions);
        let found: Vec<String> = actions.iter().filter_map(|a| script.describe(a)).collect();
        assert_eq!(found.join(", "), expected);
        if let Some(due) = script.core.next_deadline() {
            script.run(&format!("time {} => launch a.2@0", due.0));
        }
    }
}

/// Tasks whose memory doubles, up to so many GiB.
fn growing(plan: &str, max: Option<u64>) -> Vec<TaskSpec> {
    let mut tasks = tasks(plan);
    for task in &mut tasks {
        let max = max.map(|gib| gib << 30);
        task.options_mut().memory_growth = Some(MemoryGrowth { factor: 2_000, max });
    }
    tasks
}

fn gib(script: &Script, task: &str) -> u64 {
    script.core.held(script.task(task)).memory >> 30
}

#[test]
fn a_task_that_runs_out_of_memory_asks_for_more_at_once_and_at_no_cost() {
    let tasks = growing("a#1+1: -> x", Some(6));
    let mut script = Script::of(tasks, History::default(), Options::default());
    script.run(
        "start          => recall a
         join 0 1 32    =>
         miss a         => launch a.1@0",
    );
    assert_eq!(gib(&script, "a"), 1);
    for (next, expected) in [(2, 2), (3, 4), (4, 6)] {
        script.run(&format!("ended a memory => launch a.{next}@0"));
        assert_eq!(gib(&script, "a"), expected);
    }
    script.run(
        "ended a memory =>
         time 5000      => launch a.5@0
         ended a memory => failed a (out of resources), finish failed",
    );
}

#[test]
fn it_asks_for_no_more_than_the_largest_site_has_and_goes_there() {
    let mut script = Script::of(growing("a#3: -> x", None), History::default(), Options::default());
    script.run(
        "start          => recall a
         join 0 4 4     =>
         join 1 1 8     =>
         miss a         => launch a.1@0
         ended a memory => launch a.2@1",
    );
    assert_eq!(gib(&script, "a"), 6);
    script.run("ended a memory => launch a.3@1");
    assert_eq!(gib(&script, "a"), 8);
    script.run("ended a memory => failed a (out of resources), finish failed");
}

#[test]
fn what_it_asks_for_at_its_place_does_not_change_with_what_others_have() {
    let tasks = growing("b#8: -> y; a#5: -> x", None);
    let mut script = Script::of(tasks, History::default(), Options::default());
    script.run(
        "start          => recall b, recall a
         join 0 2 8     =>
         miss a         => launch a.1@0
         miss b         =>
         ended a memory => launch b.1@0
         join 1 0 99    =>
         join 2 1 16    =>
         ended b        => publish b.1, launch a.2@0",
    );
    assert_eq!(gib(&script, "a"), 8, "as the largest site had when it got its place");
}

#[test]
fn memory_has_grown_after_a_crash() {
    let mut history = History::default();
    for ordinal in 1..=2 {
        history.apply(&Fact::AttemptFailed {
            task: "a".into(),
            ordinal,
            failure: failure("memory"),
            usage: Usage::default(),
            cost: 0,
        });
    }
    let mut script = Script::of(growing("a#1: -> x", None), history, Options::default());
    script.run(
        "start       => recall a
         join 0 1 32 =>
         miss a      => launch a.1@0",
    );
    assert_eq!(gib(&script, "a"), 4);
}

#[test]
fn a_rule_may_let_running_out_of_memory_cost_something_and_it_grows_all_the_same() {
    let mut tasks = growing("a#1+1: -> x", None);
    let (on, then) = (FailureKind::Shortage(Shortage::Memory), Response::Retry { cost: 1_000 });
    Arc::make_mut(&mut tasks[0].options_mut().retry).rules = [RetryRule { on, then }].into();
    let mut script = Script::of(tasks, History::default(), Options::default());
    script.run(
        "start          => recall a
         join 0 1 32    =>
         miss a         => launch a.1@0
         ended a memory =>
         time 5000      => launch a.2@0",
    );
    assert_eq!(gib(&script, "a"), 2);
    script.run("ended a memory => failed a (out of resources), finish failed");
}

/// Seed 5,181 of the simulator: it asked for as much memory as a site had that lacked the rest.
#[test]
fn it_grows_to_what_those_sites_have_that_have_the_rest() {
    let mut tasks = growing("a#2: -> x", None);
    tasks[0].options_mut().resources.gpus = 1;
    let mut script = Script::of(tasks, History::default(), Options::default());
    script.run(
        "start          => recall a
         join 0 1 3 1   =>
         join 1 1 8     =>
         miss a         => launch a.1@0
         ended a memory => launch a.2@0",
    );
    assert_eq!(gib(&script, "a"), 3);
}
