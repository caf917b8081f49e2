//! Inputs, outputs and transfers.

use super::*;

#[test]
fn one_transfer_serves_all_who_read_a_file() {
    check(
        "a: u:s -> x; b: u:s -> y",
        "start      => stage s@0
         staged s@0 => recall a, recall b
         staged s@0 =>
         miss a     =>
         miss b     =>
         join 0 2   => launch a.1@0, launch b.1@0",
    );
}

#[test]
fn a_source_that_cannot_be_had_fails_its_readers_once() {
    check_keep_going(
        "a: u:s -> x; b: u:s? -> y; c: u:s? -> z",
        "start                  => stage s@0
         unstaged s@0 permanent => failed a (permanent), failed b (permanent), failed c (permanent), finish failed",
    );
    check_keep_going(
        "a: u:s -> x; b: u:s? -> y",
        "start                => stage s@0
         unstaged s@0 missing => failed a (input missing), recall b
         hit b                => finish failed",
    );
}

#[test]
fn transfers_are_tried_again_as_often_as_they_may() {
    let options = Options { stage_retries: 1, ..Options::default() };
    Script::new("a: u:s -> x", History::default(), options).run(
        "start                  => stage s@0
         unstaged s@0 transient => stage s@0
         unstaged s@0 transient => failed a (transient), finish failed",
    );
}

#[test]
fn a_declared_digest_is_believed_until_the_task_must_run() {
    check(
        "a: u:s= -> x",
        "start    => recall a
         join 0 1 =>
         hit a    => finish succeeded",
    );
    check(
        "a: u:s= -> x",
        "start      => recall a
         join 0 1   =>
         miss a     => stage s@0
         staged s@0 u:s => failed a (permanent), finish failed",
    );
    check(
        "a: u:s= -> x",
        "start      => recall a
         join 0 1   =>
         miss a     => stage s@0
         staged s@0 => launch a.1@0",
    );
}

#[test]
fn a_declared_file_that_cannot_be_brought_is_tried_once_for_all() {
    check_keep_going(
        "a: u:s= -> x; b: u:s= -> y",
        "start                  => recall a, recall b
         join 0 1               =>
         miss a                 => stage s@0
         unstaged s@0 permanent => failed a (permanent)
         miss b                 => failed b (permanent), finish failed",
    );
}

#[test]
fn optional_outputs_may_be_left_out_for_readers_who_can_do_without() {
    check_keep_going(
        "a: -> x?; b: x? -> y; c: x -> z",
        "start                 => recall a
         join 0 1              =>
         miss a                => launch a.1@0
         ended a               => publish a.1
         published a without x => recall b, failed c (input missing)
         hit b                 => finish failed",
    );
}

#[test]
fn a_hit_without_an_output_that_must_be_there_is_none() {
    check(
        "a: -> x",
        "start           => recall a
         join 0 1        =>
         hit a without x => launch a.1@0",
    );
}

#[test]
fn files_inside_a_directory_are_looked_at_when_it_is_there() {
    check(
        "a: -> d/; b: d/f -> x; c: d/g? -> y",
        "start                => recall a
         join 0 2             =>
         miss a               => launch a.1@0
         ended a              => publish a.1
         published a          => stage d/f@0, stage d/g@0
         staged d/f@0         => recall b
         unstaged d/g@0 missing => recall c
         miss b               => launch b.1@0",
    );
}

#[test]
fn a_directory_that_is_left_out_takes_its_files_along() {
    check_keep_going(
        "a: -> d/?; b: d/f -> x; c: d/f? -> y",
        "start                 => recall a
         hit a without d       => failed b (input missing), recall c",
    );
}

#[test]
fn the_same_bytes_cause_nothing_downstream() {
    check(
        "a: -> x; b: x -> y",
        "start       => recall a
         join 0 1    =>
         miss a      => launch a.1@0
         ended a     => publish a.1
         published a => recall b
         hit b       => finish succeeded",
    );
}

#[test]
fn bytes_come_from_the_site_that_has_them_and_lost_ones_are_found_again() {
    check(
        "p#8: -> x; a#1: x -> y; b#9: x -> z",
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         join 2 1 9      =>
         published p executable => recall a, recall b
         miss b          => stage x@2 from 1
         unstaged x@2 missing => recall p known executable
         hit p           => stage x@2 from 0
         staged x@2      => launch b.1@2",
    );
}

#[test]
fn a_source_that_changed_gives_its_readers_another_key() {
    let mut script = Script::new("a: s -> x; b: s -> y", History::default(), Options::default());
    script.run(
        "start              => stage s@0
         join 0 1           =>
         staged s@0         => recall a, recall b
         miss a             => launch a.1@0
         miss b             =>
         ended a missing    => stage s@0",
    );
    let before = script.core.key(TaskId(1));
    script.run("staged s@0 changed => recall a, recall b");
    assert_ne!(before, script.core.key(TaskId(1)));
}

#[test]
fn what_ran_is_recorded_with_what_it_read() {
    let mut script =
        Script::new("p: -> x; a: x -> y; b: x -> z", History::default(), Options::default());
    script.run(
        "start           => recall p
         join 0 2        =>
         hit p           => recall a, recall b
         miss a          => launch a.1@0
         miss b          => launch b.1@0
         ended b missing => recall p known
         hit p new       => recall b
         ended a         => publish a.1
         published a     =>",
    );
    let read = Digest::of(b"x").to_hex();
    let told = script.facts.iter().any(|fact| match fact {
        Fact::Completed { task, parts, .. } => {
            &**task == "a" && parts.iter().any(|part| part.name == "input x" && part.value == read)
        }
        _ => false,
    });
    assert!(told, "{:?}", script.facts);
}

/// Found by the simulator: the transfer's failure was taken for the file's end.
#[test]
fn a_transfer_from_a_replica_that_is_distrusted_meanwhile_starts_again_elsewhere() {
    check(
        "p#8: -> x; a#1: x -> y; b#9: x -> z",
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         join 2 1 9      =>
         published p     => recall a, recall b
         miss a          => launch a.1@1
         miss b          => stage x@2 from 1
         ended a missing => recall p known
         unstaged x@2 missing =>
         hit p           => stage x@1 from 0, stage x@2 from 0",
    );
}

/// Found by the simulator (seed 2429): a task ran again although another site had what it wrote.
#[test]
fn an_input_that_is_missing_at_one_site_is_brought_from_another() {
    check(
        "p#8: -> x; a#1: x -> y; b#9: x -> z",
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         join 2 1 9      =>
         published p     => recall a, recall b
         miss b          => stage x@2 from 1
         staged x@2      => launch b.1@2
         miss a          => launch a.1@1
         ended b missing => stage x@2 from 1
         staged x@2      => launch b.2@2",
    );
}

/// Found by the simulator: a file that is gone with its directory was taken for one that never was.
#[test]
fn a_file_that_is_gone_with_its_directory_comes_back_with_it() {
    check(
        "p: -> d/; a: d/f -> y",
        "start           => recall p
         join 0 1        =>
         hit p           => stage d/f@0
         staged d/f@0    => recall a
         miss a          => launch a.1@0
         ended a missing => recall p known
         hit p           => stage d/f@0
         unstaged d/f@0 missing => recall p known
         hit p           => stage d/f@0
         staged d/f@0    => launch a.2@0",
    );
}

/// Found by the simulator: damaged bytes became what the file was believed to hold.
#[test]
fn bytes_that_differ_from_what_a_site_was_said_to_have_are_not_believed() {
    check(
        "p#8: -> x; b#9: x -> z",
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         join 2 1 9      =>
         published p     => recall b
         miss b          => stage x@2 from 1
         staged x@2 damaged => recall p known
         hit p           => stage x@2 from 0
         staged x@2      => launch b.1@2",
    );
}

/// Found by the simulator: the next try ran under the key of the bytes before.
#[test]
fn a_task_whose_input_changed_while_it_ran_and_failed_gets_another_key() {
    check(
        "p: -> x; a+1: x -> y; b: x -> z",
        "start             => recall p
         join 0 2          =>
         hit p             => recall a, recall b
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         ended b missing   => recall p known
         hit p new         => recall b
         ended a transient => recall a
         miss a            =>
         time 1000         => launch a.2@0",
    );
}

/// Found by the simulator (seed 5443): a change of an input cut the wait after a failure short.
#[test]
fn a_task_waits_before_its_next_try_even_if_its_input_changes_meanwhile() {
    check(
        "a+1: s -> x; b: s -> y",
        "start             => stage s@0
         join 0 2          =>
         staged s@0        => recall a, recall b
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         ended a transient =>
         ended b missing   => stage s@0
         staged s@0 changed => recall a, recall b
         miss a            =>
         time 499          =>
         time 1000         => launch a.2@0",
    );
}

/// Found by the simulator: a late transfer of earlier bytes came over those of a newer result, which
/// were believed to be there still.
#[test]
fn a_result_that_a_late_transfer_came_over_is_not_believed_to_be_there() {
    check(
        "p#8: -> x; a#1: x -> y; b#9: x -> z",
        "start           => recall p
         join 1 1        =>
         miss p          => launch p.1@1
         ended p         => publish p.1
         join 0 1 9      =>
         published p     => recall a, recall b
         miss a          => launch a.1@1
         miss b          => stage x@0 from 1
         ended a missing => recall p known
         hit p new       => recall a, recall b, stage x@1 from 0
         staged x@0      =>
         miss b          => recall p known
         hit p new       => launch b.1@0",
    );
}

/// Found by the simulator (seed 2940): a try from one source was counted against the next one.
#[test]
fn a_transfer_that_starts_over_from_elsewhere_has_all_of_its_tries() {
    let options = Options { stage_retries: 1, ..Options::default() };
    Script::new("a#9: u:s= -> x; b: u:s= -> y", History::default(), options).run(
        "start                  => recall a, recall b
         join 0 1               =>
         miss b                 => stage s@0
         staged s@0             => launch b.1@0
         join 1 1 9             =>
         miss a                 => stage s@1 from 0
         unstaged s@1 transient => stage s@1 from 0
         staged s@1 damaged     => stage s@1
         unstaged s@1 transient => stage s@1
         unstaged s@1 transient => failed a (transient)",
    );
    let options = Options { stage_retries: 1, ..Options::default() };
    Script::new("p#8: -> x; b#9: x -> z", History::default(), options).run(
        "start                  => recall p
         join 1 1               =>
         miss p                 => launch p.1@1
         ended p                => publish p.1
         join 2 1 9             =>
         published p            => recall b
         miss b                 => stage x@2 from 1
         unstaged x@2 transient => stage x@2 from 1
         lost 1                 => recall p known
         hit p                  => stage x@2 from 0
         unstaged x@2 transient => stage x@2 from 0
         unstaged x@2 transient => failed b (transient), finish failed",
    );
}

#[test]
fn what_unblocks_the_most_is_brought_first() {
    let options = Options { transfers_max: Some(1), ..Options::default() };
    let plan = "a: u:a1 u:a2 -> v; b: u:b -> w; c: u:c1 u:c2 -> x; d: u:c1 -> y; e: u:c1 -> z";
    Script::new(plan, History::default(), options).run(
        "start       => stage c1@0
         staged c1@0 => recall d, recall e, stage b@0
         staged b@0  => recall b, stage c2@0
         staged c2@0 => recall c, stage a1@0
         staged a1@0 => stage a2@0
         staged a2@0 => recall a",
    );
}

#[test]
fn what_became_the_last_missing_file_goes_before_others_of_before() {
    let options = Options { transfers_max: Some(1), ..Options::default() };
    Script::new(
        "a: u:s -> x; b: u:t1 u:t2 -> y; c: u:u -> z; d: u:t1 -> q",
        History::default(),
        options,
    )
    .run(
        "start       => stage t1@0
         staged t1@0 => recall d, stage s@0
         staged s@0  => recall a, stage t2@0
         staged t2@0 => recall b, stage u@0",
    );
}

#[test]
fn inputs_of_tasks_without_a_place_are_brought_while_others_compute() {
    let declared: Vec<_> = (0..10).map(|at| format!("t{at}: u:s{at}= -> x{at}")).collect();
    let options = Options { transfers_max: Some(48), ..Options::default() };
    let mut script = Script::new(&declared.join(";"), History::default(), options);
    let recalls: Vec<_> = (0..10).map(|at| format!("recall t{at}")).collect();
    script.run(&format!("start => {}\njoin 0 1 =>", recalls.join(", ")));
    // Eight have a place; what the ninth reads is brought too, and the tenth has to wait.
    for at in 0..9 {
        script.run(&format!("miss t{at} => stage s{at}@0"));
    }
    script.run(
        "miss t9    =>
         staged s8@0 => stage s9@0
         staged s0@0 => launch t0.1@0",
    );
}

#[test]
fn a_file_that_cannot_be_brought_ahead_fails_who_needs_it_only() {
    let declared: Vec<_> = (0..9).map(|at| format!("t{at}: u:s{at}= -> x{at}")).collect();
    let mut script = Script::new(
        &declared.join(";"),
        History::default(),
        Options { keep_going: true, ..Options::default() },
    );
    let recalls: Vec<_> = (0..9).map(|at| format!("recall t{at}")).collect();
    script.run(&format!("start => {}\njoin 0 1 =>", recalls.join(", ")));
    for at in 0..9 {
        script.run(&format!("miss t{at} => stage s{at}@0"));
    }
    script.run(
        "unstaged s8@0 permanent =>
         staged s0@0             => launch t0.1@0, failed t8 (permanent)",
    );
}

#[test]
fn fetched_files_are_kept_until_they_are_spare_and_room_is_wanted() {
    let mut script =
        Script::new("a!: u:s u:t -> x; b: u:s -> y", History::default(), Options::default());
    let kept = |script: &Script| (script.core.kept().bytes, script.core.kept().is_moving);
    script.run(
        "start            => stage s@0, stage t@0
         staged s@0 12345 => recall b
         staged t@0 123   => recall a",
    );
    assert_eq!(kept(&script), (8, true), "a recall may end a task");
    script.run(
        "hit b  =>
         miss a =>",
    );
    assert_eq!(kept(&script), (8, false), "nothing runs, and no file is spare");
    assert!(!script.core.has_spare());
    script.run("join 0 1 => launch a.1@0");
    assert_eq!(kept(&script), (8, true));
    script.run(
        "ended a     => publish a.1
         published a => expand a",
    );
    assert_eq!(kept(&script), (8, true), "both files are spare");
    script.run("grown a c: u:s -> z => recall c");
    assert!(script.core.has_spare());
    script.run("room 9 => evict t");
    assert_eq!(kept(&script), (5, true));
    assert!(!script.core.has_spare());
    script.run("hit c => finish succeeded");
    assert_eq!(kept(&script), (5, true));
}

#[test]
fn what_nobody_reads_any_more_goes_when_room_is_wanted() {
    check(
        "a: u:long -> x; b: u:long u:s -> y; c: u:t -> z",
        "start         => stage long@0, stage t@0, stage s@0
         staged long@0 => recall a
         staged s@0    => recall b
         staged t@0    => recall c
         join 0 3      =>
         room 9        =>
         miss a        => launch a.1@0
         room 9        =>
         ended a       => publish a.1
         published a   =>
         room 9        =>
         hit b         =>
         room 1        => evict long
         room 9        => evict s
         room 9        =>
         hit c         => finish succeeded",
    );
}

#[test]
fn what_went_is_fetched_again_for_tasks_that_come_later() {
    check(
        "a!: u:s -> x; b: x -> y",
        "start       => stage s@0
         staged s@0  => recall a
         join 0 1    =>
         hit a       => recall b, expand a
         room 1      => evict s
         grown a c: u:s -> z => recall c
         miss c      => stage s@0
         room 1      =>
         staged s@0  => launch c.1@0
         room 1      =>
         hit b       =>
         ended c     => publish c.1
         published c => finish succeeded",
    );
}

/// Seed 164,412 of the simulator: what was spare, and then doubted, stayed spare for a new reader.
#[test]
fn what_is_doubted_does_not_go_when_a_task_that_comes_later_reads_it() {
    check_keep_going(
        "g!: -> list; b: u:s u:t= -> x",
        "start                 => recall g, stage s@0
         join 1 2              =>
         hit g                 => expand g
         staged s@0            => recall b
         miss b                => stage s@1 from 0, stage t@1
         unstaged t@1 permanent => failed b (permanent)
         staged s@1 damaged    => stage s@1
         grown g c: u:s -> y   => recall c
         room 1                =>
         miss c                =>
         staged s@1            => launch c.1@1",
    );
}

#[test]
fn what_is_read_to_make_a_lost_result_again_does_not_go() {
    check(
        "a: u:s -> x; b: x -> y",
        "start            => stage s@0
         staged s@0       => recall a
         join 0 1         =>
         hit a            => recall b
         miss b           => launch b.1@0
         ended b missing  => recall a known
         room 1           =>
         miss a           => launch a.1@0
         room 1           =>
         ended a          => publish a.1
         published a      => launch b.2@0
         room 1           => evict s
         ended b          => publish b.2
         published b      => finish succeeded",
    );
}

#[test]
fn a_host_has_only_a_share_of_what_is_under_way() {
    let options = Options { transfers_max: Some(3), ..Options::default() };
    Script::new(
        "a: u:p@slow -> w; b: u:q@slow -> x; c: u:r@slow -> y; d: u:s -> z",
        History::default(),
        options,
    )
    .run(
        "start           => stage slow/p@0, stage s@0
         staged s@0      => recall d
         staged slow/p@0 => recall a, stage slow/q@0
         staged slow/q@0 => recall b, stage slow/r@0",
    );
    let names: Vec<_> = (0..600).map(|at| format!("t{at}: u:s{at}@dead -> x{at}")).collect();
    let mut script = Script::new(
        &format!("{}; last: u:s -> x", names.join("; ")),
        History::default(),
        Options::default(),
    );
    let mut actions = Vec::new();
    script.core.resume(script.now, &mut actions);
    let staged: Vec<_> = actions.iter().filter_map(|action| script.describe(action)).collect();
    assert_eq!(staged.len(), 103, "a fifth for one host, and the other host's file");
    assert_eq!(staged.last().map(String::as_str), Some("stage s@0"));
}
