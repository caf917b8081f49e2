//! Short tasks that are launched while their slots are still taken.

use super::*;
use crate::Command;

/// One core, and three that may wait in line for it, when one of them was seen to be short.
fn short(plan: &str) -> Script {
    let mut tasks = tasks(plan);
    for task in &mut tasks {
        let name = if &*task.name == "other" { "g" } else { "f" };
        task.options_mut().goes_ahead = &*task.name != "long";
        task.command = Command::Function { name: name.into(), arguments: Digest::of(b"") };
    }
    let options = Options { keep_going: true, ahead_after: 1, ..Options::default() };
    Script::of(tasks, History::default(), options)
}

fn begun(script: &Script) -> Vec<String> {
    let begun = script.facts.iter().filter_map(|fact| match fact {
        Fact::AttemptStarted { task, ordinal, .. } => Some(format!("{task}.{ordinal}")),
        _ => None,
    });
    begun.collect()
}

const FIVE: &str = "a: -> a; b: -> b; c: -> c; d: -> d; e: -> e";

/// `a` runs, the others wait for slots.
fn five() -> Script {
    let mut script = short(FIVE);
    script.run(
        "start      => recall a, recall b, recall c, recall d, recall e
         join 0 1>3 =>
         miss a     => launch a.1@0
         miss b     =>
         miss c     =>
         miss d     =>
         miss e     =>",
    );
    script
}

#[test]
fn when_one_was_short_the_next_are_launched_ahead() {
    let mut script = five();
    script.run("ended a => publish a.1, launch b.1@0, launch c.1@0, launch d.1@0, launch e.1@0");
    assert_eq!(begun(&script), ["a.1", "b.1"], "who is in line has not begun");
    assert_eq!((script.core.counts().running, script.core.ready()), (1, 3));
    let [b, c] = ["b", "c"].map(|name| script.task(name));
    assert!(script.core.is_in_line(c) && !script.core.is_in_line(b));
    assert_eq!(script.core.waits_for(c).as_deref(), Some("free slots at s0"));
    assert_eq!((script.core.held(b).cores, script.core.held(c).cores), (1, 0));
    assert_eq!(script.core.at_work(SiteId::HOME, 0), 1);
    script.run("ended b => publish b.1");
    assert_eq!(begun(&script), ["a.1", "b.1", "c.1"]);
    script.run("ended c => publish c.1\n ended d => publish d.1\n ended e => publish e.1");
    assert_eq!(begun(&script).len(), 5);
    assert_eq!(script.core.at_work(SiteId::HOME, 0), 0);
}

#[test]
fn a_long_one_ends_that() {
    let mut script = short("a: -> a; b: -> b; c: -> c; d: -> d; long: -> l");
    script.run(
        "start      => recall a, recall b, recall c, recall d, recall long
         join 0 1>3 =>
         miss a     => launch a.1@0
         miss b     =>",
    );
    script.run(
        "ended a after 2 => publish a.1, launch b.1@0
         miss c          =>
         miss long       =>
         ended b         => publish b.1, launch c.1@0
         miss d          =>",
    );
    assert_eq!(begun(&script), ["a.1", "b.1", "c.1"], "two milliseconds are remembered");
}

#[test]
fn who_needs_more_or_says_nothing_is_never_launched_ahead() {
    let mut script = short("a: -> a; b: -> b; long: -> l; z: -> z");
    script.run(
        "start      => recall a, recall b, recall long, recall z
         join 0 1>3 =>
         miss a     => launch a.1@0
         miss b     =>
         miss long  =>
         miss z     =>
         ended a    => publish a.1, launch b.1@0
         ended b    => publish b.1, launch long.1@0, launch z.1@0
         ended long => publish long.1
         ended z    => publish z.1",
    );
    assert_eq!(begun(&script), ["a.1", "b.1", "long.1", "z.1"]);
}

#[test]
fn the_end_of_one_in_line_is_believed() {
    let mut script = five();
    script.run(
        "ended a           => publish a.1, launch b.1@0, launch c.1@0, launch d.1@0, launch e.1@0
         ended c           => publish c.1
         ended d permanent => failed d (permanent)",
    );
    assert_eq!(begun(&script), ["a.1", "b.1", "c.1", "d.1"], "it had begun, then");
    assert_eq!(script.core.counts().running, 1);
}

#[test]
fn one_in_line_is_cancelled_and_others_go_on() {
    let mut script = five();
    script.run(
        "ended a           => publish a.1, launch b.1@0, launch c.1@0, launch d.1@0, launch e.1@0
         cancel c          => kill c.1
         ended c transient => failed c (permanent)
         ended b           => publish b.1",
    );
    assert_eq!(begun(&script), ["a.1", "b.1", "c.1", "d.1"]);
}

#[test]
fn a_run_that_is_stopped_begins_none_of_the_line() {
    for urgency in ["drain", "now"] {
        let mut script = five();
        let running = if urgency == "now" { "kill b.1, " } else { "" };
        script.run(&format!(
            "ended a => publish a.1, launch b.1@0, launch c.1@0, launch d.1@0, launch e.1@0
             published a       =>
             stop {urgency}    => {running}kill c.1, kill d.1, kill e.1
             ended c transient =>
             ended d transient =>
             ended e transient =>"
        ));
        assert_eq!(begun(&script), ["a.1", "b.1"]);
        script.run("ended b transient => finish cancelled");
    }
}

#[test]
fn each_function_is_known_by_itself() {
    let mut script = short("a: -> a; b: -> b; other: -> o; z: -> z");
    script.run(
        "start      => recall a, recall b, recall other, recall z
         join 0 1>3 =>
         miss a     => launch a.1@0
         miss b     =>
         miss other =>
         miss z     =>
         ended a    => publish a.1, launch b.1@0
         ended b    => publish b.1, launch other.1@0, launch z.1@0",
    );
    assert_eq!(begun(&script), ["a.1", "b.1", "other.1"], "nobody knows how long the other is");
}
