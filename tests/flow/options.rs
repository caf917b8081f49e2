//! What may be said of a task.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelboat::flow::{Cache, Exit, FailureKind, Future, Response, TaskState};
use libtest_mimic::Trial;

use super::{Case, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("options::exit_codes_mean_retry_or_skip", exit_codes_mean_retry_or_skip),
        trial("options::a_command_goes_on_from_its_checkpoint", a_command_goes_on),
        trial("options::a_function_says_what_failures_cost", a_function_says_what_failures_cost),
        trial("options::pools_are_chosen_by_name", pools_are_chosen_by_name),
        trial("options::priority_goes_first", priority_goes_first),
        trial("options::a_result_can_be_used_and_none_remembered", a_cache_can_be_read_only),
    ]
}

const SHORT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(2));

fn exit_codes_mean_retry_or_skip() {
    let case = Case::new();
    let flow = &case.flow;
    let third = flow
        .command("echo x >> {{ log }}; [ $(wc -l < {{ log }}) -ge 3 ] || exit 75")
        .arg("log", case.path().join("tries").to_str())
        .on(FailureKind::Exit(Exit::Code(75)), Response::Retry { cost: 0 })
        .backoff(SHORT.0, SHORT.1)
        .submit();
    third.done().wait().expect("it is tried until it is well, and that costs nothing");
    assert_eq!(case.read("tries"), "x\nx\nx\n");
    let skipped = flow
        .command("exit 77")
        .on(FailureKind::Exit(Exit::Code(77)), Response::Skip)
        .retries(3)
        .submit();
    let error = skipped.done().wait().unwrap_err();
    assert!(error.to_string().contains("77") && error.to_string().contains("skipped"), "{error}");
    let counts = case.flow.close().unwrap().counts;
    assert_eq!((counts.completed, counts.skipped, counts.failed), (1, 1, 0));
}

fn a_command_goes_on() {
    let case = Case::new();
    let count = r#"
        at=$(cat state/at 2>/dev/null || echo 0)
        for step in 1 2 3; do
            at=$((at + 1))
            echo "$at" >> {{ log }}
            echo "$at" > state/at.new
            mv state/at.new "$KEELBOAT_CHECKPOINT_DIR/at"
        done
        [ "$at" -ge 9 ] || kill -9 $$
        echo "$at" > {{ outputs.out }}
    "#;
    let counted = case
        .flow
        .command(count)
        .arg("log", case.path().join("log").to_str())
        .checkpoint("state/")
        .output("out", "out.txt")
        .retries(5)
        .backoff(SHORT.0, SHORT.1)
        .submit();
    counted.output("out").wait().unwrap();
    assert_eq!(case.read("out.txt"), "9\n");
    assert_eq!(case.read("log"), "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "each number once");
    let clash = case.flow.command("true").output("x", "state/x").checkpoint("state").submit();
    let error = clash.done().wait().unwrap_err();
    assert!(error.to_string().contains("in one place"), "{error}");
}

fn a_function_says_what_failures_cost() {
    let case = Case::new();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let fails = move || -> Result<u32, String> {
        Err(format!("try {}", counted.fetch_add(1, Ordering::SeqCst) + 1))
    };
    let half = |failure: &keelboat::flow::Failure| {
        failure.cause.contains("try").then_some(Response::Retry { cost: 500 })
    };
    let task = case.flow.function(fails.clone()).retries(1).backoff(SHORT.0, SHORT.1);
    let error = task.clone().on_failure(half).try_call(()).wait().unwrap_err();
    assert!(error.to_string().contains("try 3"), "two halves are one retry: {error}");
    tries.store(0, Ordering::SeqCst);
    let at_once = task.on_failure(|_| Some(Response::Fail)).try_call(());
    assert!(at_once.wait().unwrap_err().to_string().contains("try 1"));
    tries.store(0, Ordering::SeqCst);
    let confused = case.flow.function(fails).on_failure(|_| panic!("no idea")).try_call(());
    let error = confused.wait_for(SOON).expect("no hang").unwrap_err();
    assert!(error.to_string().contains("no idea"), "{error}");
}

fn pools_are_chosen_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[executors.wide]\ncores = 4\n";
    std::fs::write(directory.path().join("keelboat.toml"), settings).unwrap();
    let config = keelboat::flow::Config::from_file(directory.path().join("keelboat.toml"));
    let flow = keelboat::flow::Flow::open(config.unwrap().cores(1)).unwrap();
    // Four at once, though `local` has one core.
    let barrier = Arc::new(tokio::sync::Barrier::new(4));
    let meet = |at: u32| {
        let barrier = Arc::clone(&barrier);
        let met = move |at: u32| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                at
            }
        };
        flow.function(met).executor("wide").call((at,))
    };
    let met: Vec<Future<u32>> = (0..4).map(meet).collect();
    for one in met {
        one.wait_for(SOON).expect("they meet").unwrap();
    }
    let nowhere = flow.function(|| 1u8).executor("wise").call(());
    let error = nowhere.wait_for(SOON).expect("no hang").unwrap_err();
    assert!(format!("{error:?}").contains("wise"), "{error:?}");
    flow.close().unwrap();
}

fn priority_goes_first() {
    let case = Case::with(|config| config.cores(1));
    let flow = &case.flow;
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = Arc::new(Mutex::new(opened));
    let holds = flow.call(
        move || {
            let _ended = opened.lock().unwrap().recv();
            0u32
        },
        (),
    );
    let deadline = std::time::Instant::now() + SOON;
    while holds.state() != TaskState::Running {
        assert!(std::time::Instant::now() < deadline, "it never began");
        std::thread::yield_now();
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let run = |priority: i32| {
        let order = Arc::clone(&order);
        let note = move |priority: i32| order.lock().unwrap().push(priority);
        flow.function(note).priority(priority).call((priority,))
    };
    let all: Vec<Future<()>> = [0, 5, -3, 9].map(run).into();
    // When this one is taken in, so are those before it.
    let last = run(100);
    drop(gate);
    last.wait().unwrap();
    for one in all {
        one.wait().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [100, 9, 5, 0, -3]);
}

fn a_cache_can_be_read_only() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    fn counted(x: u32) -> u32 {
        RUNS.fetch_add(1, Ordering::SeqCst);
        x
    }
    let directory = tempfile::tempdir().unwrap();
    let ran = |cache| {
        let before = RUNS.load(Ordering::SeqCst);
        let config = keelboat::flow::Config::new(directory.path());
        let flow = keelboat::flow::Flow::open(config).unwrap();
        assert_eq!(flow.function(counted).cache(cache).call((1,)).wait().unwrap(), 1);
        flow.close().unwrap();
        RUNS.load(Ordering::SeqCst) - before
    };
    assert_eq!(ran(Cache::ReadOnly), 1);
    assert_eq!(ran(Cache::ReadOnly), 1, "nothing was remembered");
    assert_eq!(ran(Cache::On), 1);
    assert_eq!(ran(Cache::ReadOnly), 0, "what was remembered is used");
}
