//! Failures, retries, cancellation.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelboat::flow::{
    Cache, Config, Exit, Fact, FailureClass, FailureKind, Flow, Future, OnClose, Response, Stamped,
    TaskState, as_completed,
};
use libtest_mimic::Trial;

use super::{Case, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("failures::they_are_remembered_when_asked", they_are_remembered),
        trial("failures::what_may_go_away_is_not_remembered", what_may_go_away),
        trial("failures::the_chain_of_causes_begins_at_the_root", the_chain_of_causes),
        trial("failures::what_needs_a_refused_task_says_so", what_needs_a_refused_task_says_so),
        trial("failures::a_panic_is_a_failure_of_its_task", a_panic_is_a_failure_of_its_task),
        trial("failures::retries_end_well", retries_end_well),
        trial("failures::a_task_is_cancelled_with_its_dependents", cancelled_with_dependents),
        trial("failures::futures_of_another_flow", futures_of_another_flow_are_refused),
        trial("failures::a_refused_task_is_told_by_itself", a_refused_task_is_told_by_itself),
        trial("failures::a_function_does_not_wait", a_function_does_not_wait_for_its_own_flow),
        trial("failures::captured_values_panic", what_a_function_captures_may_panic_when_dropped),
        trial(
            "failures::handlers_see_missing_outputs",
            what_looks_at_failures_sees_those_of_outputs,
        ),
        trial("failures::an_address_follows_its_output", an_address_follows_its_output),
        trial("failures::very_long_waits", very_long_waits_are_none),
        trial("failures::joins_end_with_the_flow", joins_end_with_the_flow_and_when_cancelled),
        trial("failures::cancelling_one_leaves_others", cancelling_one_leaves_others_of_its_name),
        trial("failures::a_call_that_takes_too_long_fails", a_call_that_takes_too_long_fails),
        trial("failures::others_go_on", others_go_on),
        trial("failures::a_join_fails_with_its_inner_task", a_join_fails_with_its_inner_task),
    ]
}

fn the_chain_of_causes() {
    let case = Case::new();
    let flow = &case.flow;
    let root: Future<u32> =
        flow.function(|x: u32| Err::<u32, _>(format!("no {x}"))).name("root").try_call((7,));
    let middle = flow.function(|x: u32| x).name("middle").call((root,));
    let end = flow.function(|x: u32, y: u32| x + y).name("end").call((middle, 1));
    let error = end.wait().unwrap_err();
    let causes: Vec<String> = error.causes().iter().map(ToString::to_string).collect();
    assert_eq!(causes.len(), 3, "{causes:?}");
    assert!(causes[0].starts_with("root[") && causes[0].contains("no 7"), "{causes:?}");
    assert!(causes[1].starts_with("middle[") && causes[1].contains("needs root["), "{causes:?}");
    assert!(causes[2].starts_with("end["), "{causes:?}");
    assert!(error.root().to_string().contains("no 7"));
    assert!(!error.is_cancelled());
    let whole = format!("{error:?}");
    assert!(whole.find("no 7") < whole.find("end["), "root first: {whole}");
    let report = case.flow.close().unwrap();
    assert_eq!((report.counts.failed, report.counts.skipped), (1, 2));
}

fn what_needs_a_refused_task_says_so() {
    let case = Case::new();
    let flow = &case.flow;
    let refused = flow.command("cat {{ nothing }}").output("x", "x.txt").submit();
    let next = flow.call(|_: std::path::PathBuf| 1u8, (refused.output("x"),));
    let end = flow.call(|x: u8| x, (next,));
    let error = end.wait_for(SOON).expect("no hang").unwrap_err();
    assert_eq!(error.causes().len(), 3, "{error:?}");
    assert!(error.root().to_string().contains("`nothing` is not defined"), "{error:?}");
}

fn a_panic_is_a_failure_of_its_task() {
    let case = Case::new();
    let flow = &case.flow;
    let direct = flow.call(|x: u32| if x > 0 { panic!("x is {x}") } else { x }, (3,));
    assert!(direct.wait().unwrap_err().to_string().contains("panicked: x is 3"));
    let later = flow.call(|x: u32| async move { if x > 0 { panic!("later") } else { x } }, (3,));
    assert!(later.wait().unwrap_err().to_string().contains("panicked: later"));
    assert_eq!(flow.call(|| 1u8, ()).wait().unwrap(), 1, "the flow goes on");
}

fn retries_end_well() {
    let case = Case::new();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let third = move || {
        let at = counted.fetch_add(1, Ordering::SeqCst) + 1;
        if at < 3 { Err(format!("try {at}")) } else { Ok(at) }
    };
    let short = (Duration::from_millis(1), Duration::from_millis(2));
    let task = case.flow.function(third.clone()).retries(2).backoff(short.0, short.1);
    assert_eq!(task.try_call(()).wait().unwrap(), 3);
    tries.store(0, Ordering::SeqCst);
    let too_few = case.flow.function(third).retries(1).backoff(short.0, short.1);
    assert!(too_few.try_call(()).wait().unwrap_err().to_string().contains("try 2"));
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

fn cancelled_with_dependents() {
    let case = Case::new();
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = Arc::new(Mutex::new(opened));
    let waits = move || {
        let _ended = opened.lock().unwrap().recv();
        1u32
    };
    let held = case.flow.call(waits, ());
    let next = case.flow.call(|x: u32| x, (&held,));
    let deadline = std::time::Instant::now() + SOON;
    while held.state() != TaskState::Running {
        assert!(std::time::Instant::now() < deadline, "it never began");
        std::thread::yield_now();
    }
    held.cancel();
    assert!(held.wait_for(SOON).expect("at once").unwrap_err().is_cancelled());
    assert!(next.wait_for(SOON).expect("at once").unwrap_err().is_cancelled());
    drop(gate);
    let pending = case.flow.call(
        |x: u32| async move {
            std::future::pending::<()>().await;
            x
        },
        (1,),
    );
    pending.cancel();
    assert!(pending.wait_for(SOON).expect("at once").unwrap_err().is_cancelled());
    case.flow.close().unwrap();
}

fn joins_end_with_the_flow_and_when_cancelled() {
    for how in [OnClose::Cancel, OnClose::Drain] {
        // The one slot is taken: what the join returns cannot begin.
        let case = Case::with(|config| config.cores(1));
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let opened = Arc::new(Mutex::new(opened));
        let (begun, has_begun) = std::sync::mpsc::channel::<()>();
        let own = case.flow.clone();
        let outer = move || {
            let (opened, begun) = (Arc::clone(&opened), begun.clone());
            let inner = move || {
                begun.send(()).unwrap();
                let _ended = opened.lock().unwrap().recv();
                1u32
            };
            let first = own.call(inner, ());
            own.call(|x: u32| x, (first,))
        };
        let joined = case.flow.join(outer.clone(), ());
        has_begun.recv_timeout(SOON).expect("the inner task runs");
        // Whatever its rules say of failures: nobody wants it any more.
        let again = Response::Retry { cost: 0 };
        let cancelled = case.flow.function(outer);
        let cancelled = cancelled.on(FailureKind::Class(FailureClass::Permanent), again).join(());
        let next = case.flow.call(|x: u32| x, (&cancelled,));
        cancelled.cancel();
        assert!(cancelled.wait_for(SOON).expect("at once").unwrap_err().is_cancelled());
        assert!(next.wait_for(SOON).expect("at once").unwrap_err().is_cancelled());
        let (flow, events) = (case.flow.clone(), case.flow.events());
        let (closed, is_closed) = std::sync::mpsc::channel();
        let closing = std::thread::spawn(move || closed.send(flow.close_by(how)).unwrap());
        let is_closing = |stamped: Stamped| match stamped.fact {
            Fact::AttemptFailed { failure, .. } => failure.cause.contains("the flow was closed"),
            _ => false,
        };
        while !is_closing(events.wait_next_for(SOON).expect("the join is given up").unwrap()) {}
        if how == OnClose::Drain {
            drop(gate);
        }
        is_closed.recv_timeout(SOON).expect("it ends").unwrap();
        closing.join().unwrap();
        joined.wait_for(SOON).expect("it ended").unwrap_err();
    }
}

fn futures_of_another_flow_are_refused() {
    let (here, there) = (Case::new(), Case::new());
    // Both are called the same.
    let one = there.flow.call(|| 1u32, ());
    here.flow.call(|| 2u32, ());
    let taken = here.flow.call(|x: u32| x, (&one,));
    let error = taken.wait_for(SOON).expect("at once").unwrap_err();
    assert!(error.to_string().contains("is of another flow"), "{error}");
    let made = there.flow.command("true").output("out", "out").submit();
    let read = here.flow.command("true").input("in", made.output("out")).submit();
    let error = read.done().wait_for(SOON).expect("at once").unwrap_err();
    assert!(error.to_string().contains("is of another flow"), "{error}");
    assert_eq!(one.wait().unwrap(), 1);
}

fn a_refused_task_is_told_by_itself() {
    let case = Case::new();
    let good = case.flow.function(|| 1u32).name("same").call(());
    assert_eq!(good.wait().unwrap(), 1);
    // It is called as the one that is done, whose value is not meant.
    let refused = case.flow.function(|| 1u32).name("same").executor("nowhere").call(());
    let next = case.flow.function(|x: u32| x).name("next").call((&refused,));
    let error = next.wait_for(SOON).expect("at once").unwrap_err();
    assert_eq!(error.causes().len(), 2, "{error:?}");
    // The graph refuses the second maker of a file, and what was submitted with it knows why.
    let first = case.flow.command("true").name("first").output("out", "one").submit();
    let second = case.flow.command("true").name("second").output("out", "one").submit();
    let reader = case.flow.command("true").name("reader").input("in", second.output("out"));
    let error = reader.submit().done().wait_for(SOON).expect("at once").unwrap_err();
    assert_eq!(error.root().task(), "second", "{error:?}");
    first.done().cancel();
}

fn a_function_does_not_wait_for_its_own_flow() {
    let case = Case::with(|config| config.cores(1));
    let own = case.flow.clone();
    let waits = move || own.call(|| 1u32, ()).wait().map_err(|error| format!("{error:?}"));
    let error = case.flow.try_call(waits, ()).wait_for(SOON).expect("no hang").unwrap_err();
    assert!(error.to_string().contains("return it from a join"), "{error}");
    let own = case.flow.clone();
    let waits = move || {
        let own = own.clone();
        async move { own.call(|| 1u32, ()).await.map_err(|error| format!("{error:?}")) }
    };
    case.flow.try_call(waits, ()).wait_for(SOON).expect("no hang").unwrap_err();
    let own = case.flow.clone();
    let waits = move || {
        let mut completed = as_completed([own.call(|| 1u32, ())]);
        completed.wait_next().map_or(Ok(0), |(_, result)| result.map_err(|error| error.to_string()))
    };
    case.flow.try_call(waits, ()).wait_for(SOON).expect("no hang").unwrap_err();
    let own = case.flow.clone();
    let waits = move || {
        let found =
            own.call(|| 1u32, ()).wait_for(SOON * 2).ok_or_else(|| "it waited".to_owned())?;
        found.map_err(|error| format!("{error:?}"))
    };
    let error = case.flow.try_call(waits, ()).wait_for(SOON).expect("no hang").unwrap_err();
    assert!(error.to_string().contains("return it from a join"), "{error}");
    // Another flow has places of its own.
    let other = Case::new();
    let flow = other.flow;
    let waits = move || flow.call(|| 2u32, ()).wait().map_err(|error| error.to_string());
    assert_eq!(case.flow.try_call(waits, ()).wait().unwrap(), 2);
}

fn cancelling_one_leaves_others_of_its_name() {
    let case = Case::new();
    let refused = case.flow.command("true {{ nothing }}").name("same").submit();
    let good = case.flow.command("sleep 0.2; true").name("same").submit();
    refused.done().cancel();
    good.done().wait_for(SOON).expect("it ends").expect("it was not meant");
}

fn a_call_that_takes_too_long_fails() {
    let case = Case::new();
    let never = |x: u32| async move {
        std::future::pending::<()>().await;
        x
    };
    let short = case.flow.function(never).timeout(Duration::from_millis(20)).call((1,));
    let error = short.wait_for(SOON).expect("in time").unwrap_err();
    assert!(error.to_string().contains("timed out after 20ms"), "{error}");
    let quick = case.flow.function(|| 1u8).timeout(Duration::from_mins(10)).call(());
    assert_eq!(quick.wait().unwrap(), 1);
    case.flow.close().unwrap();
}

fn others_go_on() {
    let case = Case::new();
    let fails = case.flow.try_call(|| Err::<u32, _>("no"), ());
    fails.wait().unwrap_err();
    let numbers: Vec<Future<u32>> = (0..10).map(|x| case.flow.call(|x: u32| x, (x,))).collect();
    for (x, one) in (0..).zip(numbers) {
        assert_eq!(one.wait().unwrap(), x);
    }
}

fn a_join_fails_with_its_inner_task() {
    let case = Case::new();
    let own = case.flow.clone();
    let outer = move |x: u32| {
        let fails = own.function(|x: u32| Err::<u32, _>(format!("inner {x}"))).name("fails");
        own.function(|x: u32| x).name("next").call((fails.try_call((x,)),))
    };
    let error = case.flow.function(outer).name("outer").join((4,)).wait().unwrap_err();
    let causes = error.causes();
    let tasks: Vec<&str> =
        causes.iter().filter_map(|cause| cause.task().split('[').next()).collect();
    assert_eq!(tasks, ["fails", "next", "outer"], "{error:?}");
    assert!(causes[0].to_string().ends_with("failed: inner 4"), "{error:?}");
    assert_eq!(error.class(), FailureClass::Transient);
    let own = case.flow.clone();
    let outer = move || {
        let endless = own.call(async || std::future::pending::<u32>().await, ());
        endless.cancel();
        endless
    };
    let error = case.flow.join(outer, ()).wait_for(SOON).expect("it ends").unwrap_err();
    assert!(error.is_cancelled(), "{error:?}");
}

/// Panics where it is dropped.
#[derive(Clone)]
struct Bomb(Arc<()>);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(Arc::strong_count(&self.0) > 1, "dropped");
    }
}

fn what_a_function_captures_may_panic_when_dropped() {
    let case = Case::with(|config| config.cores(1));
    for _ in 0..3 {
        let bomb = Bomb(Arc::new(()));
        let holds = move || u32::from(Arc::strong_count(&bomb.0) > 0);
        let held = case.flow.call(holds, ());
        assert_eq!(held.wait_for(SOON).expect("it ends").unwrap(), 1);
    }
    let next = case.flow.call(|| 2u32, ());
    assert_eq!(next.wait_for(SOON).expect("all goes on").unwrap(), 2);
    case.flow.close().unwrap();
}

fn what_looks_at_failures_sees_those_of_outputs() {
    let case = Case::new();
    let seen = Arc::new(AtomicU32::new(0));
    let sees = Arc::clone(&seen);
    let forgets = case.flow.command("true").output("out", "never").on_failure(move |failure| {
        sees.fetch_add(u32::from(failure.cause.contains("never")), Ordering::SeqCst);
        None
    });
    forgets.submit().done().wait_for(SOON).expect("it ends").unwrap_err();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

fn an_address_follows_its_output() {
    let case = Case::new();
    let early = case.flow.command("true").to("/nowhere").output("out", "out").submit();
    let error = early.done().wait_for(SOON).expect("at once").unwrap_err();
    assert!(error.to_string().contains("follows its output"), "{error}");
    let again = Flow::open(Config::new(case.path())).unwrap_err();
    assert_eq!(format!("{again:?}").lines().count(), 1, "{again:?}");
    // What was refused is counted, before and at the end.
    let counts = case.flow.counts();
    assert_eq!((counts.total, counts.failed), (1, 1));
    let counts = case.flow.close().unwrap().counts;
    assert_eq!((counts.total, counts.failed), (1, 1));
}

fn very_long_waits_are_none() {
    let case = Case::new();
    let one = case.flow.call(|| 1u32, ());
    assert_eq!(one.wait_for(Duration::MAX).expect("it ends").unwrap(), 1);
}

fn they_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let run = |cache: Cache, argument: u32, ends_well: bool| {
        let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
        let counted = Arc::clone(&tries);
        let checks = move |x: u32| -> Result<u32, String> {
            counted.fetch_add(1, Ordering::SeqCst);
            if ends_well { Ok(x) } else { Err(format!("{x} is no good")) }
        };
        let task = flow.function(checks).name("checks").version("1").cache(cache).retries(1);
        let moment = Duration::from_millis(1);
        let called = task.backoff(moment, moment).try_call((argument,));
        let next = flow.call(|x: u32| x, (called.clone(),));
        let told = called.wait().map_err(|error| error.to_string());
        assert_eq!(next.wait().is_ok(), told.is_ok());
        flow.close().unwrap();
        (tries.swap(0, Ordering::SeqCst), told)
    };
    let (ran, told) = run(Cache::Failures, 1, false);
    assert_eq!(ran, 2, "it is tried again first");
    assert!(told.unwrap_err().ends_with("1 is no good"));
    let (ran, told) = run(Cache::Failures, 1, false);
    let told = told.unwrap_err();
    assert!(ran == 0 && told.contains("1 is no good (remembered of "), "{ran}: {told}");
    assert_eq!(run(Cache::Failures, 2, false).0, 2, "another argument");
    assert_eq!(run(Cache::On, 1, false).0, 2, "it does not count for who did not ask");
    assert_eq!(run(Cache::Failures, 1, true).0, 0);
    assert_eq!(run(Cache::Refresh, 1, true), (1, Ok(1)));
    assert_eq!(run(Cache::Failures, 1, false), (0, Ok(1)), "a result goes before a failure");

    // Commands, by their exit codes.
    let count = directory.path().join("count");
    let command = |code: &str| {
        let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
        let task = flow.command("echo x >> {{ count }}; exit {{ code }}").cache(Cache::Failures);
        let task = task.arg("count", count.to_str()).arg("code", code).submit();
        let error = task.done().wait().unwrap_err();
        let lines = std::fs::read_to_string(&count).unwrap().lines().count();
        (lines, error.exit(), error.to_string().contains("remembered"))
    };
    assert_eq!(command("3"), (1, Some(Exit::Code(3)), false));
    assert_eq!(command("3"), (1, Some(Exit::Code(3)), true));
    assert_eq!(command("127").0, 2);
    assert_eq!(command("127"), (3, Some(Exit::Code(127)), false));
}

fn what_may_go_away() {
    let directory = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let run = || {
        let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
        let counted = Arc::clone(&tries);
        let panics = move || -> u32 { panic!("try {}", counted.fetch_add(1, Ordering::SeqCst)) };
        let task = flow.function(panics).name("panics").cache(Cache::Failures);
        task.call(()).wait().unwrap_err();
        let counted = Arc::clone(&tries);
        let slow = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<u32>()
        };
        let task = flow.function(slow).name("slow").cache(Cache::Failures);
        task.timeout(Duration::from_millis(5)).call(()).wait().unwrap_err();
        flow.close().unwrap();
        tries.swap(0, Ordering::SeqCst)
    };
    assert_eq!((run(), run()), (2, 2));
}
