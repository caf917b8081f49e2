//! Runs that go on after a crash.

use super::*;
use crate::MemoKey;

/// A first engine's facts, folded for the next one.
fn crashed(plan: &str, script: &str) -> History {
    let mut first = Script::new(plan, History::default(), Options::default());
    first.run(script);
    let mut history = History::default();
    first.facts.iter().for_each(|fact| history.apply(fact));
    history
}

fn resumed(plan: &str, history: History, script: &str) {
    Script::new(plan, history, Options::default()).run(script);
}

#[test]
fn numbers_of_attempts_and_counted_failures_go_on() {
    let plan = "a+1: -> x";
    let history = crashed(
        plan,
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.1@0
         ended a transient =>
         time 5000         => launch a.2@0",
    );
    resumed(
        plan,
        history,
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.3@0
         ended a transient => failed a (transient), finish failed",
    );
}

#[test]
fn results_of_this_run_count_even_where_earlier_ones_do_not() {
    for (plan, for_later) in [("a%: -> x; b: x -> y", false), ("a^: -> x; b: x -> y", true)] {
        let history = crashed(
            plan,
            "start       =>
             join 0 1    => launch a.1@0
             ended a     => publish a.1
             published a executable => recall b",
        );
        let mut script = Script::new(plan, history, Options::default());
        script.run("start => recall a known executable\n hit a => recall b");
        let reused =
            |fact: &Fact| matches!(fact, Fact::Reused { memoized, .. } if *memoized == for_later);
        assert!(script.facts.iter().any(reused), "{plan}: {:?}", script.facts);
    }
}

#[test]
fn a_result_with_another_key_is_not_known() {
    let history = crashed(
        "a%: s -> x",
        "start       => stage s@0
         join 0 1    =>
         staged s@0  => launch a.1@0
         ended a     => publish a.1
         published a => finish succeeded",
    );
    resumed(
        "a%: s -> x",
        history,
        "start => stage s@0\n join 0 1 =>\n staged s@0 changed => launch a.2@0",
    );
}

#[test]
fn copies_that_were_made_are_not_made_again() {
    let history = crashed(
        "a: -> x>; b: -> y",
        "start       => recall a, recall b
         hit a       => deliver a.0
         delivered a =>",
    );
    let script = "start => recall a known, recall b\n hit a =>";
    resumed("a: -> x>; b: -> y", history.clone(), script);
    resumed(
        "a: -> x>; b: -> y",
        history,
        "start => recall a known, recall b\n hit a new => deliver a.0",
    );
}

#[test]
fn tasks_that_grew_are_remembered_by_name() {
    let history = crashed(
        "g!: -> list",
        "start           => recall g
         join 0 1        =>
         hit g           => expand g
         grown g a: -> x => recall a
         miss a          => launch a.1@0",
    );
    resumed(
        "g!: -> list",
        history,
        "start           => recall g known
         join 0 1        =>
         hit g           => expand g
         grown g a: -> x => recall a
         miss a          => launch a.2@0",
    );
}

#[test]
fn an_answer_about_another_key_is_dropped() {
    let mut script = Script::new("a: -> x", History::default(), Options::default());
    script.run("start => recall a\n join 0 1 =>");
    let key = MemoKey(Digest::of(b"another"));
    let verdict = Recall::Miss { reasons: Vec::new() };
    let mut actions = Vec::new();
    script.core.step(Timestamp(0), Event::Recalled { task: TaskId(0), key, verdict }, &mut actions);
    assert_eq!(actions, []);
}
