//! Order, slots, retries and failures.

use super::*;

#[test]
fn a_chain_runs_from_its_source_to_its_end() {
    check(
        "a: s -> x; b: x -> y",
        "start       => stage s@0
         join 0 1    =>
         staged s@0  => recall a
         miss a      => launch a.1@0
         ended a     => publish a.1
         published a => recall b
         miss b      => launch b.1@0
         ended b     => publish b.1
         published b => finish succeeded",
    );
}

#[test]
fn ready_tasks_run_in_order_as_slots_get_free() {
    check(
        "a: -> x; b: -> y; c: -> z",
        "start    => recall a, recall b, recall c
         miss c   =>
         miss b   =>
         miss a   =>
         join 0 1 => launch a.1@0
         ended a  => publish a.1, launch b.1@0
         ended b  => publish b.1, launch c.1@0",
    );
}

#[test]
fn memory_is_a_slot_and_too_much_of_it_is_an_error() {
    check_keep_going(
        "a#5: -> x; b#5: -> y; c#9: -> z",
        "start    => recall a, recall b, recall c
         join 0 4 =>
         miss a   => launch a.1@0
         miss b   =>
         miss c   => failed c (out of resources)
         ended a  => publish a.1, launch b.1@0",
    );
}

#[test]
fn who_asks_for_more_cores_than_there_are_runs_alone() {
    check(
        "a*9: -> x; b: -> y",
        "start    => recall a, recall b
         join 0 2 =>
         miss b   => launch b.1@0
         miss a   =>
         ended b  => publish b.1, launch a.1@0",
    );
}

#[test]
fn a_large_task_is_passed_by_some_and_then_waited_for() {
    let small: Vec<_> = (0..40).map(|at| format!("z{at:02}: -> s{at}")).collect();
    let mut script = Script::new(
        &format!("b: -> y; a*2: -> x; {}", small.join(";")),
        History::default(),
        Options::default(),
    );
    let mut actions = Vec::new();
    script.core.resume(Timestamp(0), &mut actions);
    script.run("join 0 2 =>\n miss b => launch b.1@0\n miss a =>");
    for at in 0..17 {
        let name = format!("z{at:02}");
        let event = script.event(&format!("miss {name}"));
        script.core.step(Timestamp(0), event, &mut actions);
        let event = script.event(&format!("ended {name}"));
        script.core.step(Timestamp(0), event, &mut actions);
    }
    script.run("ended b => publish b.1, launch a.1@0");
}

#[test]
fn a_failure_that_may_go_away_is_tried_again_after_a_wait() {
    let mut script = Script::new("a+2: -> x", History::default(), Options::default());
    script.run(
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.1@0
         ended a transient =>",
    );
    let due = script.core.next_deadline().expect("a next try").0;
    assert!((500..=1_000).contains(&due), "half to all of one second: {due}");
    script.run(&format!(
        "time {}           =>
         time {due}        => launch a.2@0
         ended a resources =>",
        due - 1
    ));
    let wait = script.core.next_deadline().expect("a last try").0 - due;
    assert!((1_000..=2_000).contains(&wait), "half to all of two seconds: {wait}");
    script.run(&format!(
        "time {}           => launch a.3@0
         ended a transient => failed a (transient), finish failed",
        due + wait
    ));
}

#[test]
fn tasks_that_failed_together_spread() {
    let plan: Vec<_> = (0..20).map(|at| format!("t{at}+1: -> x{at}")).collect();
    let mut script = Script::new(&plan.join(";"), History::default(), Options::default());
    let mut actions = Vec::new();
    script.core.resume(Timestamp(0), &mut actions);
    script.run("join 0 64 =>");
    for at in 0..20 {
        script.run(&format!("miss t{at} => launch t{at}.1@0\n ended t{at} transient =>"));
    }
    let due: std::collections::BTreeSet<_> =
        script.core.timers.iter().map(|(due, _)| due).collect();
    assert!(due.len() > 10, "{due:?}");
}

#[test]
fn a_permanent_failure_is_final_at_once() {
    check(
        "a+5: -> x",
        "start             => recall a
         join 0 1          =>
         miss a            => launch a.1@0
         ended a permanent => failed a (permanent), finish failed",
    );
}

#[test]
fn a_lost_place_costs_neither_a_retry_nor_time() {
    check(
        "a: -> x",
        "start                  => recall a
         join 0 1               =>
         miss a                 => launch a.1@0
         ended a infrastructure => launch a.2@0",
    );
}

/// Lets a task's wait pass, and returns how many milliseconds it was.
fn sleep(script: &mut Script, launched: &str) -> u64 {
    let due = script.core.next_deadline().expect("a next try").0;
    let waited = due - script.now.0;
    script.run(&format!("time {} =>\n time {due} => {launched}", due - 1));
    waited
}

#[test]
fn losses_in_a_row_are_waited_for_longer_and_longer_but_not_for_ever() {
    let mut script = Script::new("a: -> x", History::default(), Options::default());
    script.run(
        "start                  => recall a
         join 0 1               =>
         miss a                 => launch a.1@0
         ended a infrastructure => launch a.2@0",
    );
    let (mut whole, mut all) = (100, 0);
    for next in 3..=21 {
        script.run("ended a infrastructure =>");
        let waited = sleep(&mut script, &format!("launch a.{next}@0"));
        assert!((whole / 2..=whole).contains(&waited), "half to all of {whole} ms: {waited}");
        whole = (whole * 2).min(30_000);
        all += waited;
    }
    assert!(all > 120_000, "a machine has minutes to recover: {all} ms");
    script.run("ended a infrastructure => failed a (infrastructure lost), finish failed");
    let failure = script.facts.iter().find_map(|fact| match fact {
        Fact::Failed { failure, .. } => Some(failure.cause.as_str()),
        _ => None,
    });
    assert_eq!(
        failure,
        Some(
            "as the script says (given up after 21 attempts in a row that were lost through no \
             fault of the task)"
        )
    );
}

#[test]
fn losses_are_counted_anew_after_an_attempt_that_ended_otherwise() {
    let mut script = Script::new("a+1: -> x; b: x -> y", History::default(), Options::default());
    script.run(
        "start                  => recall a
         join 0 1               =>
         miss a                 => launch a.1@0
         ended a infrastructure => launch a.2@0
         ended a infrastructure =>",
    );
    sleep(&mut script, "launch a.3@0");
    script.run("ended a transient =>");
    sleep(&mut script, "launch a.4@0");
    script.run("ended a infrastructure => launch a.5@0");
    script.run("ended a => publish a.5\n unpublished a infrastructure =>");
    let waited = sleep(&mut script, "launch a.6@0");
    assert!(waited <= 100, "it is the second loss in a row: {waited}");
    script.run(
        "ended a     => publish a.6
         published a => recall b
         miss b      => launch b.1@0",
    );
}

#[test]
fn a_lost_place_fails_no_task_that_used_up_its_retries_before_a_crash() {
    let mut history = History::default();
    for ordinal in 1..=2 {
        history.apply(&Fact::AttemptFailed {
            task: "a".into(),
            ordinal,
            failure: failure("transient"),
            usage: Usage::default(),
            cost: 1_000,
        });
    }
    Script::new("a+1: -> x", history, Options::default()).run(
        "start                  => recall a
         join 0 1               =>
         miss a                 => launch a.1@0
         ended a infrastructure => launch a.2@0
         ended a transient      => failed a (transient), finish failed",
    );
}

#[test]
fn an_input_that_is_missing_is_looked_at_again() {
    check(
        "a: s -> x",
        "start           => stage s@0
         join 0 1        =>
         staged s@0      => recall a
         miss a          => launch a.1@0
         ended a missing => stage s@0
         staged s@0      => launch a.2@0
         ended a missing =>
         time 100        => stage s@0
         unstaged s@0 missing => failed a (input missing), finish failed",
    );
}

#[test]
fn a_produced_input_that_is_missing_is_recalled_and_not_fetched_from_itself() {
    check(
        "p: -> x; a: x -> y",
        "start           => recall p
         join 0 1        =>
         miss p          => launch p.1@0
         ended p         => publish p.1
         published p     => recall a
         miss a          => launch a.1@0
         ended a missing => recall p known
         hit p           => launch a.2@0",
    );
}

#[test]
fn reports_about_earlier_attempts_are_dropped() {
    check(
        "a: -> x",
        "start                  => recall a
         join 0 1               =>
         miss a                 => launch a.1@0
         miss a                 =>
         ended a infrastructure => launch a.2@0
         ended a.1              =>
         published a.1          =>
         ended a.2              => publish a.2
         ended a.2 permanent    =>
         unpublished a.1 permanent =>
         published a.2          => finish succeeded
         published a.2          =>",
    );
}

#[test]
fn outputs_that_cannot_be_published_fail_the_attempt() {
    check(
        "a+1: -> x",
        "start                   => recall a
         join 0 1                =>
         miss a                  => launch a.1@0
         ended a                 => publish a.1
         unpublished a transient =>
         time 2000               => launch a.2@0
         ended a                 => publish a.2
         unpublished a permanent => failed a (permanent), finish failed",
    );
}

#[test]
fn a_lost_site_gives_its_tasks_to_others() {
    check(
        "a: -> x; b: -> y",
        "start    => recall a, recall b
         join 1 1 =>
         miss a   => launch a.1@1
         miss b   =>
         join 2 2 =>
         lost 1   => launch a.2@2, launch b.1@2",
    );
}

#[test]
fn results_that_only_a_lost_site_had_are_made_again() {
    check(
        "p: -> x; q: -> z; a: x z -> y",
        "start       => recall p, recall q
         join 1 1    =>
         miss p      => launch p.1@1
         ended p     => publish p.1
         published p =>
         lost 1      =>
         join 2 1    =>
         miss q      => launch q.1@2
         ended q     => publish q.1
         published q => recall a
         miss a      => recall p known
         miss p      => launch p.2@2
         ended p     => publish p.2
         published p => launch a.1@2",
    );
}

/// Seed 70,609 of the simulator: `a` ran again although what it had left was still there.
#[test]
fn a_lost_result_is_known_when_its_key_comes_back_before_it_was_made_again() {
    check(
        "p: -> x; a%: x -> y; b: y -> z",
        "start           => recall p
         join 0 1        =>
         hit p           => launch a.1@0
         ended a         => publish a.1
         published a     => recall b
         miss b          => launch b.1@0
         ended b missing => recall a known
         miss a          => launch a.2@0
         ended a missing => recall p known
         miss p          => launch p.1@0
         ended p         => publish p.1
         published p new => launch a.3@0
         ended a missing =>
         time 1000       => recall p known
         miss p          => launch p.2@0
         ended p         => publish p.2
         published p     => recall a known
         hit a           => launch b.2@0",
    );
}

#[test]
fn lost_results_find_a_place_where_all_room_is_taken_by_those_who_wait_for_them() {
    let readers: Vec<_> = (0..10).map(|at| format!("a{at}: x -> y{at}")).collect();
    let plan = format!("p: -> x; {}", readers.join(";"));
    let mut script = Script::new(&plan, History::default(), Options::default());
    let recalls: Vec<String> = (0..10).map(|at| format!("recall a{at}")).collect();
    script.run(&format!(
        "start       => recall p
         join 1 1    =>
         miss p      => launch p.1@1
         ended p     => publish p.1
         published p => {}
         lost 1      =>
         join 2 1    =>
         miss a0     => recall p known",
        recalls.join(", ")
    ));
    for at in 1..10 {
        script.run(&format!("miss a{at} =>"));
    }
    script.run("miss p => launch p.2@2");
}
