//! Graphs that grow.

use super::*;

#[test]
fn new_tasks_run_on_what_is_done() {
    check(
        "g!: -> list; a: -> x",
        "start                  => recall g, recall a
         hit a                  =>
         hit g                  => expand g
         grown g b: x list -> y; c&a: y -> z => recall b
         grown g b: x list -> y =>
         hit b                  => recall c
         hit c                  => finish succeeded",
    );
}

#[test]
fn a_run_does_not_end_before_it_has_grown() {
    check(
        "g!: -> list",
        "start   => recall g
         hit g   => expand g
         grown g => finish succeeded",
    );
}

#[test]
fn new_tasks_that_need_what_failed_are_skipped() {
    check_keep_going(
        "g!: -> list; a: -> x; b: x -> y",
        "start             => recall g, recall a
         join 0 1          =>
         miss a            => launch a.1@0
         ended a permanent => failed a (permanent), skipped b (a)
         hit g             => expand g
         grown g c: x -> p; d: p -> q; e&b: -> r; f: list -> s => skipped c (a), skipped d (a), skipped e (b), recall f
         hit f             => finish failed",
    );
}

#[test]
fn growth_that_contradicts_the_graph_fails_the_run() {
    check(
        "g!: -> list",
        "start                        => recall g
         hit g                        => expand g
         grown g a: -> x; b: -> x     => failed g (permanent), finish failed",
    );
    check(
        "g!: -> list",
        "start               => recall g
         hit g               => expand g
         ungrown g permanent => failed g (permanent), finish failed",
    );
}

#[test]
fn growth_comes_too_late_for_a_run_that_stops() {
    check(
        "g!: -> list",
        "start           => recall g
         hit g           => expand g
         stop drain      =>
         grown g a: -> x => recall a, finish cancelled",
    );
    check("g!: -> list", "start => recall g\n hit g => expand g\n stop now => finish cancelled");
}

/// `a` is done again, and writes other bytes, while its first ones are on their way.
fn done_again_while_copied() -> Script {
    let options = Options { keep_going: true, ..Options::default() };
    let mut script = Script::new("a: -> x>; b: x -> y", History::default(), options);
    script.run(
        "start           => recall a
         join 0 1        =>
         miss a          => launch a.1@0
         ended a         => publish a.1
         published a     => recall b, deliver a.0
         miss b          => launch b.1@0
         ended b missing => recall a known
         miss a          => launch a.2@0
         ended a         => publish a.2
         published a new => recall b",
    );
    script
}

#[test]
fn what_a_task_wrote_when_it_was_done_again_is_copied_too() {
    let mut script = done_again_while_copied();
    script.run("delivered a => deliver a.0\n delivered a =>\n hit b => finish succeeded");
    let copied = script.facts.iter().filter_map(|fact| match fact {
        Fact::Delivered { content, .. } => Some(content.digest),
        _ => None,
    });
    assert_eq!(copied.collect::<Vec<_>>(), [&b"x"[..], b"other bytes"].map(Digest::of));
}

#[test]
fn a_copy_that_is_not_wanted_any_more_fails_nothing() {
    let mut script = done_again_while_copied();
    script.run(
        "undelivered a permanent => deliver a.0
         undelivered a permanent => undelivered a.x (permanent)
         delivered a             =>
         hit b                   => finish failed",
    );
}

#[test]
fn a_copy_that_failed_while_its_task_is_done_again_is_made_then() {
    check(
        "a: -> x>; b: x -> y",
        "start                   => recall a
         join 0 1                =>
         miss a                  => launch a.1@0
         ended a                 => publish a.1
         published a             => recall b, deliver a.0
         miss b                  => launch b.1@0
         ended b missing         => recall a known
         undelivered a permanent =>
         hit a                   => deliver a.0, launch b.2@0",
    );
}

#[test]
fn a_copy_is_owed_although_nobody_reads_what_is_done_again() {
    check(
        "p: -> x>; b: x u:s -> y",
        "start                   => recall p, stage s@0
         join 0 1                =>
         staged s@0              =>
         miss p                  => launch p.1@0
         ended p                 => publish p.1
         published p             => recall b, deliver p.0
         miss b                  => launch b.1@0
         ended b missing         => recall p known, stage s@0
         undelivered p permanent =>
         staged s@0 new          => recall b
         hit b                   =>
         hit p                   => deliver p.0
         delivered p             => finish succeeded",
    );
}

#[test]
fn copies_are_tried_again_as_often_as_transfers_may() {
    let options = Options { stage_retries: 1, ..Options::default() };
    let mut script = Script::new("a: -> x>", History::default(), options);
    script.run(
        "start                   => recall a
         hit a                   => deliver a.0
         undelivered a transient => deliver a.0
         undelivered a transient => undelivered a.x (transient), finish failed",
    );
    let mut script = Script::new("a: -> x>; b: -> y>", History::default(), options);
    script.run(
        "start                   => recall a, recall b
         hit a                   => deliver a.0
         undelivered a transient => deliver a.0
         delivered a             =>
         hit b                   => deliver b.0
         undelivered b permanent => undelivered b.y (permanent), finish failed",
    );
}
