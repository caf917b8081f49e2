//! Pools, GPUs, scratch room and priorities: who gets which slots, and when.

use super::*;

fn with(plan: &str, change: impl Fn(&mut TaskSpec)) -> Script {
    let mut tasks = tasks(plan);
    tasks.iter_mut().for_each(change);
    Script::of(tasks, History::default(), Options::default())
}

/// Tasks with these pools, by their names.
fn choosing(plan: &str, labels: &[(&str, &[&str])]) -> Script {
    with(plan, |task| {
        let own = labels.iter().find(|(name, _)| **name == *task.name);
        task.options_mut().executors = own
            .map(|(_, labels)| *labels)
            .unwrap_or_default()
            .iter()
            .map(|l| (*l).into())
            .collect();
    })
}

fn pool_of(script: &Script, task: &str) -> u16 {
    script.core.pool(script.task(task))
}

#[test]
fn no_two_tasks_have_the_same_gpu() {
    let mut script = with("a: -> x; b: -> y; c: -> z; d: -> w", |task| {
        task.options_mut().resources.gpus =
            u32::from(&*task.name != "d") + u32::from(&*task.name == "b");
    });
    script.run(
        "start        => recall a, recall b, recall c, recall d
         join 0 4 8 3 =>
         miss a       => launch a.1@0
         miss b       => launch b.1@0
         miss c       =>
         miss d       => launch d.1@0",
    );
    let gpus = |script: &Script, name| script.core.gpus(script.task(name)).to_vec();
    assert_eq!((gpus(&script, "a"), gpus(&script, "b")), (vec![0], vec![1, 2]));
    assert!(gpus(&script, "d").is_empty());
    script.run("ended a transient => failed a (transient)");
    assert!(gpus(&script, "a").is_empty());
}

#[test]
fn a_gpu_that_is_given_back_goes_to_the_next() {
    let mut script = with("a: -> x; b: -> y", |task| task.options_mut().resources.gpus = 1);
    script.run(
        "start        => recall a, recall b
         join 0 4 8 1 =>
         miss a       => launch a.1@0
         miss b       =>
         ended a      => publish a.1, launch b.1@0",
    );
    assert_eq!(script.core.gpus(script.task("b")), [0]);
}

#[test]
fn room_for_scratch_files_is_a_slot() {
    let mut script = with("a: -> x; b: -> y", |task| task.options_mut().resources.disk = 6 << 30);
    script.run(
        "start           => recall a, recall b
         join 0 4 8 0 10 =>
         miss a          => launch a.1@0
         miss b          =>
         ended a         => publish a.1, launch b.1@0",
    );
}

#[test]
fn what_no_place_has_is_an_error_that_says_of_what() {
    let told = |change: fn(&mut TaskSpec)| {
        let mut script = with("a: -> x", change);
        script.run("start => recall a\n join 0 4 8 1 9 =>\n join 1 4 4 2 99 =>");
        script.run("miss a => failed a (out of resources), finish failed");
        let failure = script.facts.iter().find_map(|fact| match fact {
            Fact::Failed { failure, .. } => Some(failure.clone()),
            _ => None,
        });
        failure.expect("a failure").cause
    };
    let gpus = "it asks for 3 GPUs, and the largest site has 2";
    assert_eq!(told(|task| task.options_mut().resources.gpus = 3), gpus);
    let disk = "it asks for 102400 MiB of disk, and the largest site has 101376 MiB";
    assert_eq!(told(|task| task.options_mut().resources.disk = 100 << 30), disk);
    let both = "no one site has as much memory, disk and GPUs as it asks for";
    let change = |task: &mut TaskSpec| {
        task.options_mut().resources =
            Resources { memory: 8 << 30, gpus: 2, ..Resources::default() };
    };
    assert_eq!(told(change), both);
}

#[test]
fn the_higher_priority_goes_first_among_ready_and_queued_tasks() {
    let mut script = with("a: -> x; b: -> y; c: -> z; d: -> w", |task| {
        task.options_mut().priority = match &*task.name {
            "c" => 1,
            "b" => -1,
            _ => 0,
        };
    });
    script.run(
        "start    => recall a, recall b, recall c, recall d
         miss a   =>
         miss b   =>
         miss c   =>
         miss d   =>
         join 0 1 => launch c.1@0
         ended c  => publish c.1, launch a.1@0
         ended a  => publish a.1, launch d.1@0
         ended d  => publish d.1, launch b.1@0",
    );
}

#[test]
fn what_is_urgent_does_not_make_a_large_task_wait_for_ever() {
    let small: Vec<_> = (0..40).map(|at| format!("z{at:02}: -> s{at}")).collect();
    let plan = format!("b: -> y; a*2: -> x; {}", small.join(";"));
    let mut script =
        with(&plan, |task| task.options_mut().priority = i32::from(&*task.name == "a"));
    let mut actions = Vec::new();
    script.core.resume(Timestamp(0), &mut actions);
    script.run("join 0 2 =>\n miss b => launch b.1@0\n miss a =>");
    for at in 0..17 {
        for event in [format!("miss z{at:02}"), format!("ended z{at:02}")] {
            let event = script.event(&event);
            script.core.step(Timestamp(0), event, &mut actions);
        }
    }
    script.run("ended b => publish b.1, launch a.1@0");
}

#[test]
fn transfers_for_what_is_urgent_go_first() {
    let mut tasks = tasks("a: u:p -> x; b: u:q -> y; c: u:r -> z");
    for task in &mut tasks {
        task.options_mut().priority = i32::from(&*task.name == "c") - i32::from(&*task.name == "a");
    }
    let options = Options { transfers_max: Some(1), ..Options::default() };
    let mut script = Script::of(tasks, History::default(), options);
    script.run(
        "start      => stage r@0
         staged r@0 => recall c, stage q@0
         staged q@0 => recall b, stage p@0",
    );
}

#[test]
fn who_names_a_pool_runs_there_and_others_do_not() {
    let mut script = choosing("a: -> x; b: -> y; c: -> z", &[("b", &["big"])]);
    script.run(
        "start             => recall a, recall b, recall c
         join 0 1 + big: 1 =>
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         miss c            =>
         ended b           => publish b.1
         ended a           => publish a.1, launch c.1@0",
    );
    assert_eq!((pool_of(&script, "a"), pool_of(&script, "b")), (0, 1));
    assert_eq!(script.core.waits_for(script.task("c")), None);
}

#[test]
fn the_first_pool_that_is_free_is_taken_and_one_that_gets_free_helps_out() {
    let both: &[&str] = &["big", "local"];
    let labels = [("a", both), ("b", both), ("c", both), ("d", both)];
    let mut script = choosing("a: -> x; b: -> y; c: -> z; d: -> w", &labels);
    script.run(
        "start             => recall a, recall b, recall c, recall d
         join 0 1 + big: 1 =>
         miss a            => launch a.1@0
         miss b            => launch b.1@0
         miss c            =>
         miss d            =>",
    );
    assert_eq!((pool_of(&script, "a"), pool_of(&script, "b"), pool_of(&script, "c")), (1, 0, 1));
    script.run("ended b => publish b.1, launch c.1@0");
    assert_eq!(pool_of(&script, "c"), 0, "it waited for the other one");
    script.run("ended a => publish a.1, launch d.1@0");
}

#[test]
fn the_pools_of_a_site_share_its_files() {
    let mut script = choosing("a: s -> x; b: x -> y", &[("b", &["big"])]);
    script.run(
        "start             => stage s@0
         join 0 1 + big: 1 =>
         staged s@0        => recall a
         miss a            => launch a.1@0
         ended a           => publish a.1
         published a       => recall b
         miss b            => launch b.1@0",
    );
}

#[test]
fn a_pool_of_functions_runs_no_commands_even_if_it_is_named() {
    let mut script = choosing("a: -> x; b: -> y", &[("b", &["threads"])]);
    script.run(
        "start       => recall a, recall b
         join 0 0 + threads! 4 =>
         miss a      =>
         miss b      =>
         join 1 1    => launch a.1@1",
    );
    let waits = script.core.waits_for(script.task("b"));
    assert_eq!(waits.as_deref(), Some("a place at threads"));
}

#[test]
fn who_waits_for_one_pool_is_in_nobodys_way() {
    let many: Vec<_> = (0..200).map(|at| format!("g{at:03}: -> s{at}")).collect();
    let mut script = with(&format!("{}; a: -> x", many.join(";")), |task| {
        if &*task.name != "a" {
            task.options_mut().executors = ["big".into()].into();
        }
    });
    let mut actions = Vec::new();
    script.core.resume(Timestamp(0), &mut actions);
    script.run("join 0 1 + big: 1 =>\n miss g000 => launch g000.1@0");
    for at in 1..200 {
        script.run(&format!("miss g{at:03} =>"));
    }
    script.run("miss a => launch a.1@0");
}
