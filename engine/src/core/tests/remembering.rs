//! Failures that are remembered.

use std::sync::Arc;

use super::*;
use crate::{Memoize, RetryPolicy};

/// One task of which failures are remembered, as `memoize` says.
fn failing(memoize: Memoize, failure: Failure, retries: u32) -> (Script, Vec<Fact>) {
    let mut tasks = tasks("a: -> x; b: x -> y");
    for task in &mut tasks {
        task.options_mut().memoize = memoize;
        task.options_mut().retry = Arc::new(RetryPolicy { retries, ..RetryPolicy::default() });
    }
    let options = Options { keep_going: true, ..Options::default() };
    let mut script = Script::of(tasks, History::default(), options);
    script.run(
        "start    => recall a
         join 0 1 =>
         miss a   => launch a.1@0",
    );
    let mut actions = Vec::new();
    let attempt = AttemptId { task: script.task("a"), ordinal: 1 };
    let outcome = AttemptOutcome { attempt, result: Err(failure), usage: Usage::default() };
    script.core.step(Timestamp(1), Event::AttemptEnded(outcome), &mut actions);
    let kept = actions.into_iter().filter_map(|action| match action {
        Action::Record(fact @ Fact::FailureKept { .. }) => Some(fact),
        _ => None,
    });
    let kept = kept.collect();
    (script, kept)
}

#[test]
fn verdicts_are_remembered_when_that_is_wanted() {
    let plain = || Failure::new(FailureClass::Transient, "x");
    let code = |code| plain().with_exit(Exit::Code(code));
    for failure in [code(1), code(124), plain().as_error()] {
        let (script, kept) = failing(Memoize::Failures, failure.clone(), 0);
        let task = script.task("a");
        let key = script.core.key(task).expect("a key");
        assert_eq!(kept, [Fact::FailureKept { task: "a".into(), key, failure: failure.clone() }]);
        assert!(failing(Memoize::Failures, failure.clone(), 1).1.is_empty(), "it is tried again");
        for memoize in [Memoize::On, Memoize::ReadOnly] {
            assert!(failing(memoize, failure.clone(), 0).1.is_empty(), "{memoize:?}");
        }
    }
    let others = [
        plain(),
        code(125),
        code(127),
        code(137),
        plain().with_exit(Exit::Signal(11)),
        code(1).with_shortage(Shortage::Memory),
        Failure::new(FailureClass::Permanent, "it did not write its output"),
        Failure::new(FailureClass::OutOfResources, "timed out").with_shortage(Shortage::Time),
    ];
    for failure in others {
        assert!(failing(Memoize::Failures, failure.clone(), 0).1.is_empty(), "{failure:?}");
    }
}

#[test]
fn one_that_is_remembered_fails_at_once() {
    let mut tasks = tasks("a: -> x; b: x -> y; c: -> z");
    for task in &mut tasks {
        task.options_mut().memoize = Memoize::Failures;
    }
    let options = Options { keep_going: true, ..Options::default() };
    let mut script = Script::of(tasks, History::default(), options);
    script.run("start => recall a, recall c");
    let (task, mut actions) = (script.task("a"), Vec::new());
    let key = script.core.key(task).expect("a key");
    let failure = Failure::new(FailureClass::Transient, "as before");
    let event = Event::Recalled { task, key, verdict: Recall::Failed { failure } };
    script.core.step(Timestamp(1), event, &mut actions);
    let told: Vec<_> = actions.iter().filter_map(|action| script.describe(action)).collect();
    assert_eq!(told, ["failed a (transient)", "skipped b (a)"]);
    script.run("join 0 1 =>\n miss c => launch c.1@0\n ended c => publish c.1");
}
