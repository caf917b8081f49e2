//! When checkpoints are saved, and when they are given up.

use super::*;

#[test]
fn a_running_task_is_saved_again_and_again_one_at_a_time() {
    check(
        "a~50: -> x; b: -> y",
        "start       => recall a, recall b
         join 0 2    =>
         miss a      => launch a.1@0
         miss b      => launch b.1@0
         time 49     =>
         time 50     => snapshot a.1
         time 500    =>
         saved a 1   => a.1 is saved
         time 549    =>
         time 550    => snapshot a.1
         unsaved a   =>
         time 599    =>
         time 600    => snapshot a.1
         time 900    =>
         ended a     => publish a.1
         saved a 2   => a.1 is saved
         time 2000   =>
         published a => forget a",
    );
}

#[test]
fn an_attempt_that_is_over_is_not_saved_any_more() {
    let mut script = Script::new("a~50+1: -> x", History::default(), Options::default());
    script.run(
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.1@0
         time 50           => snapshot a.1
         saved a 1         => a.1 is saved
         saved a 1         =>
         saved a 2         => a.1 is saved
         ended a transient =>
         saved a 3         =>
         time 5000         => launch a.2@0
         restored a.1 1    =>
         restored a 1      => a.2 goes on from 1
         restored a 1      =>
         saved a.1 4       =>
         time 5049         =>
         ended a transient => failed a (transient), finish failed",
    );
    assert_eq!(script.core.next_deadline(), None);
}

#[test]
fn what_an_attempt_saved_is_told_before_its_end_and_without_a_period() {
    check(
        "a~+1: -> x",
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.1@0
         time 100000       =>
         saved a 1         => a.1 is saved
         ended a transient =>
         time 200000       => launch a.2@0
         ended a           => publish a.2
         saved a 1         => a.2 is saved
         unpublished a transient => failed a (transient), finish failed",
    );
}

#[test]
fn what_is_done_has_no_checkpoint_whether_it_ran_or_not() {
    check(
        "a~: -> x; b~: x -> y; c: y -> z",
        "start       => recall a
         join 0 1    =>
         hit a       => forget a, recall b
         miss b      => launch b.1@0
         ended b     => publish b.1
         published b => forget b, recall c
         hit c       => finish succeeded",
    );
}

#[test]
fn a_run_that_ends_when_its_tasks_have_ended_goes_on_saving_them() {
    check(
        "a~50: -> x; b: x -> y",
        "start       => recall a
         join 0 1    =>
         miss a      => launch a.1@0
         stop drain  =>
         time 50     => snapshot a.1
         saved a 1   => a.1 is saved
         stop now    => kill a.1
         time 100    => snapshot a.1
         ended a transient => finish cancelled",
    );
}

#[test]
fn force_begins_without_what_earlier_runs_saved_and_with_what_its_own_attempts_did() {
    for (plan, anew) in [("a~+1^: -> x", true), ("a~+1: -> x", false), ("a~+1%: -> x", false)] {
        let script = Script::new(plan, History::default(), Options::default());
        let attempt = |ordinal| AttemptId { task: script.task("a"), ordinal };
        assert_eq!(script.core.begins_anew(attempt(1)), anew, "{plan}");
        assert!(!script.core.begins_anew(attempt(2)), "{plan}");
    }
}
