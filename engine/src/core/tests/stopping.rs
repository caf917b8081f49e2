//! Failures that stop a run or not, stops, and cancelled tasks.

use super::*;

#[test]
fn a_failure_stops_the_run_when_what_runs_has_ended() {
    check(
        "a: -> x; b: -> y; c: -> z; d: x -> w",
        "start             => recall a, recall b, recall c
         join 0 2          =>
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         miss c            =>
         ended a permanent => failed a (permanent), skipped d (a)
         ended b           => publish b.1
         published b       => finish failed",
    );
}

#[test]
fn a_stopped_run_has_no_deadline_that_would_wake_it_for_nothing() {
    let mut script =
        Script::new("a+1: -> x; b: -> y; c: -> z", History::default(), Options::default());
    script.run(
        "start             => recall a, recall b, recall c
         join 0 3          =>
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         miss c            => launch c.1@0
         ended a transient =>
         ended b permanent => failed b (permanent)",
    );
    assert_eq!(script.core.next_deadline(), None);
}

#[test]
fn with_keep_going_only_what_depends_on_a_failure_is_skipped() {
    check_keep_going(
        "a: -> x; b: x -> y; c: y -> z; d&c: -> w; e: -> v",
        "start             => recall a, recall e
         join 0 2          =>
         miss a            => launch a.1@0
         ended a permanent => failed a (permanent), skipped b (a), skipped c (a), skipped d (a)
         miss e            => launch e.1@0
         ended e           => publish e.1
         published e       => finish failed",
    );
}

#[test]
fn a_drained_run_lets_end_what_runs() {
    check(
        "a: -> x; b: x -> y",
        "start       => recall a
         join 0 1    =>
         miss a      => launch a.1@0
         stop drain  =>
         ended a     => publish a.1
         published a => recall b, finish cancelled
         miss b      =>",
    );
}

#[test]
fn a_stop_kills_what_runs_and_costs_no_retry() {
    let mut script = Script::new("a: -> x; b: -> y", History::default(), Options::default());
    script.run(
        "start             => recall a, recall b
         join 0 1          =>
         miss a            => launch a.1@0
         miss b            =>
         stop now          => kill a.1
         ended a transient => finish cancelled",
    );
    let counted = |fact: &Fact| matches!(fact, Fact::AttemptFailed { cost: 1.., .. });
    assert!(!script.facts.iter().any(counted));
}

#[test]
fn a_stop_while_outputs_move_waits_for_them() {
    check(
        "a: -> x; b: x -> y",
        "start       => recall a
         join 0 1    =>
         miss a      => launch a.1@0
         ended a     => publish a.1
         stop now    =>
         published a => recall b, finish cancelled",
    );
}

#[test]
fn a_stop_waits_for_no_answers_and_no_transfers() {
    check("a: s -> x; b: -> y", "start => recall b, stage s@0\n stop drain => finish cancelled");
}

#[test]
fn what_was_asked_to_stop_and_is_done_has_succeeded() {
    check(
        "a: -> x",
        "start       => recall a
         join 0 1    =>
         miss a      => launch a.1@0
         stop drain  =>
         ended a     => publish a.1
         published a => finish succeeded",
    );
}

#[test]
fn one_task_can_be_cancelled_wherever_it_stands() {
    check(
        "a: -> x; b: x -> y; c: s -> z; d: -> w",
        "start             => recall a, recall d, stage s@0
         join 0 2          =>
         miss a            => launch a.1@0
         cancel a          => kill a.1
         ended a transient => failed a (permanent), skipped b (a)
         cancel c          => failed c (permanent)
         cancel c          =>
         miss d            => launch d.1@0
         ended d           => publish d.1
         published d       => finish failed",
    );
}

#[test]
fn copies_to_addresses_are_waited_for_unless_in_a_hurry() {
    check(
        "a: -> x>",
        "start       => recall a
         hit a       => deliver a.0
         delivered a => finish succeeded
         delivered a =>",
    );
    check("a: -> x>", "start => recall a\n hit a => deliver a.0\n stop now => finish cancelled");
    check(
        "a: -> x>; b: -> y",
        "start                 => recall a, recall b
         hit a                 => deliver a.0
         undelivered a permanent => undelivered a.x (permanent), finish failed",
    );
}

/// Seed 12,365 of the simulator: the run ended while `p` was being asked for, told as done.
#[test]
fn a_run_does_not_end_while_a_lost_result_is_made_again() {
    check_keep_going(
        "p: -> x; a: x u:n= -> y",
        "start                => recall p
         join 1 1             =>
         miss p               => launch p.1@1
         ended p              => publish p.1
         published p          => recall a
         miss a               => stage n@1
         join 2 1             =>
         lost 1               => recall p known, stage n@2
         unstaged n@2 missing => failed a (input missing)
         miss p               => launch p.2@2
         ended p              => publish p.2
         published p          => finish failed",
    );
}

#[test]
fn a_run_ends_when_a_lost_result_cannot_be_made_again() {
    check_keep_going(
        "p: -> x; a: x u:n= -> y",
        "start                => recall p
         join 1 1             =>
         miss p               => launch p.1@1
         ended p              => publish p.1
         published p          => recall a
         miss a               => stage n@1
         join 2 1             =>
         lost 1               => recall p known, stage n@2
         unstaged n@2 missing => failed a (input missing)
         miss p               => launch p.2@2
         ended p permanent    => failed p (permanent), finish failed",
    );
}
