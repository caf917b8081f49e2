//! Watching a flow: events and counts.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use keelboat::flow::{Config, Fact, Flow, Future, Remember, TaskCounts};
use libtest_mimic::Trial;

use super::{Case, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("observing::who_is_slow_is_told_what_was_missed", who_is_slow_is_told),
        trial("observing::events_are_awaited", events_are_awaited),
        trial("observing::counts_add_up_at_each_moment", counts_add_up),
        trial("observing::counts_tell_of_what_was_remembered", counts_of_what_was_remembered),
    ]
}

fn who_is_slow_is_told() {
    let case = Case::with(|config| config.remember(Remember::Nothing));
    let (slow, quick) = (case.flow.events(), case.flow.events());
    let counting = std::thread::spawn(move || {
        std::iter::from_fn(|| quick.wait_next())
            .map(|event| event.map_or_else(|lagged| lagged.missed, |_| 1))
            .sum::<u64>()
    });
    let echo = case.flow.function(|x: u32| x).name("echo");
    let all: Vec<Future<u32>> = (0..10_000).map(|x| echo.call((x,))).collect();
    for one in all {
        one.wait().unwrap();
    }
    case.flow.close().unwrap();
    let all = counting.join().unwrap();
    let first = slow.wait_next_for(SOON).expect("it waits");
    let missed = first.expect_err("more came than are kept").missed;
    let mut kept = 0;
    while let Some(event) = slow.try_next() {
        event.expect("nothing is missed twice");
        kept += 1;
    }
    assert!(kept <= 16_384, "{kept} are kept");
    assert_eq!(missed + kept, all, "nothing is missed that is not told of");
    assert!(slow.wait_next().is_none(), "it is over");
}

fn events_are_awaited() {
    let case = Case::new();
    let events = case.flow.events();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let completed = async {
        let mut completed = Vec::new();
        while let Some(event) = events.next().await {
            if let Fact::Completed { task, .. } = event.unwrap().fact {
                completed.push(task.to_string());
            }
        }
        completed
    };
    let one = case.flow.function(|| 1u8).name("one").call(());
    let _two = case.flow.function(|x: u8| x + 1).name("two").call((one,));
    let flow = case.flow;
    let closing = std::thread::spawn(move || flow.close().unwrap());
    let completed = runtime.block_on(async { tokio::time::timeout(SOON, completed).await });
    let completed = completed.expect("in time");
    closing.join().unwrap();
    assert!(completed[0].starts_with("one") && completed[1].starts_with("two"), "{completed:?}");
}

fn sum(counts: &TaskCounts) -> u64 {
    counts.waiting + counts.ready + counts.running + counts.ended()
}

fn counts_add_up() {
    let case = Case::with(|config| config.cores(2));
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = Arc::new(Mutex::new(opened));
    let held = case.flow.function(move |x: u32| {
        let _ended = opened.lock().unwrap().recv();
        x
    });
    let held: Vec<Future<u32>> = (0..5).map(|x| held.call((x,))).collect();
    let after: Future<u32> =
        case.flow.call(|all: Vec<u32>| all.iter().sum::<u32>(), (held.clone(),));
    let failed = case.flow.try_call(|_: u32| Err::<u32, _>("no"), (&held[0],));
    let skipped = case.flow.call(|x: u32| x, (&failed,));
    let refused = case.flow.function(|| 1u8).executor("nowhere").call(());
    refused.wait().unwrap_err();
    assert_eq!((case.flow.counts().total, case.flow.counts().failed), (9, 1), "known at once");
    let expected = TaskCounts {
        total: 9,
        waiting: 3,
        ready: 3,
        running: 2,
        failed: 1,
        ..TaskCounts::default()
    };
    let deadline = Instant::now() + SOON;
    while case.flow.counts() != expected {
        assert!(Instant::now() < deadline, "{:?}", case.flow.counts());
        assert_eq!(sum(&case.flow.counts()), 9);
        std::thread::yield_now();
    }
    drop(gate);
    assert_eq!(after.wait().unwrap(), 10);
    assert!(case.flow.counts().done >= 6, "what a future has is counted");
    skipped.wait().unwrap_err();
    let counts = case.flow.counts();
    let expected = TaskCounts { total: 9, done: 6, failed: 2, skipped: 1, ..TaskCounts::default() };
    assert_eq!(counts, expected);
}

fn counts_of_what_was_remembered() {
    let directory = tempfile::tempdir().unwrap();
    for reused in [0, 3] {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let double = flow.function(|x: u32| 2 * x).name("double").version("1");
        let all: Vec<Future<u32>> = (0..3).map(|x| double.call((x,))).collect();
        for one in &all {
            one.wait().unwrap();
        }
        let counts = flow.counts();
        assert_eq!((counts.total, counts.reused, counts.done), (3, reused, 3 - reused));
        flow.close().unwrap();
    }
}
