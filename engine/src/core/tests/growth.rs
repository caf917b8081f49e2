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
