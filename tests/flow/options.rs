//! What may be said of a task.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelboat::flow::{
    Cache, Config, Context, Exit, FailureKind, Flow, Future, Remember, Response, TaskState,
};
use libtest_mimic::Trial;

use super::{Case, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("options::exit_codes_mean_retry_or_skip", exit_codes_mean_retry_or_skip),
        trial("options::a_command_goes_on_from_its_checkpoint", a_command_goes_on),
        trial("options::a_function_says_what_failures_cost", a_function_says_what_failures_cost),
        trial("options::pools_are_chosen_by_name", pools_are_chosen_by_name),
        trial("options::functions_have_gpus_of_their_own", functions_have_gpus_of_their_own),
        trial("options::short_functions_keep_to_their_cores", short_functions_keep_to_their_cores),
        trial("options::priority_goes_first", priority_goes_first),
        trial("options::an_attribute_has_the_options_of_its_function", attributes),
        trial("options::what_is_ignored_of_a_call_is_not_counted", what_is_ignored_of_a_call),
        trial("options::what_is_ignored_of_a_command_is_not_counted", what_is_ignored_of_a_command),
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
    let config = Config::from_file(directory.path().join("keelboat.toml"));
    let flow = Flow::open(config.unwrap().cores(1)).unwrap();
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

fn functions_have_gpus_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[executors.wide]\ncores = 2\ngpus = [\"3\", \"GPU-5f\"]\n";
    std::fs::write(directory.path().join("keelboat.toml"), settings).unwrap();
    let config = Config::from_file(directory.path().join("keelboat.toml"));
    let flow = Flow::open(config.unwrap()).unwrap();
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let meet = |at: u32| {
        let barrier = Arc::clone(&barrier);
        let met = move |context: Context, _: u32| {
            barrier.wait();
            context.gpus().to_vec()
        };
        flow.function(met).gpus(1).executor("wide").call((at,))
    };
    let met: Vec<Future<Vec<String>>> = (0..2).map(meet).collect();
    let mut met: Vec<_> = met.into_iter().flat_map(|one| one.wait().unwrap()).collect();
    met.sort();
    assert_eq!(met, ["3", "GPU-5f"]);
}

/// They are launched ahead of their slots, and yet so many at one time as there are cores.
fn short_functions_keep_to_their_cores() {
    let case = Case::with(|config| config.cores(2).remember(Remember::Nothing));
    let flow = &case.flow;
    let (busy, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let enter = move |busy: &AtomicU32| {
        most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        most.load(Ordering::SeqCst)
    };
    let (own, enters) = (Arc::clone(&busy), enter.clone());
    let plain = move |at: u32| {
        let most = enters(&own);
        // Some are long, and one more than there are cores would be seen at work.
        let pause = if at.is_multiple_of(97) { Duration::from_millis(3) } else { Duration::ZERO };
        std::thread::sleep(pause);
        own.fetch_sub(1, Ordering::SeqCst);
        most
    };
    let waits = move |_: u32| {
        let (busy, enter) = (Arc::clone(&busy), enter.clone());
        async move {
            let most = enter(&busy);
            tokio::task::yield_now().await;
            busy.fetch_sub(1, Ordering::SeqCst);
            most
        }
    };
    let call = |at: u32| match at {
        at if at.is_multiple_of(50) => flow.call(|_: u32| 0, (at,)),
        at if at.is_multiple_of(3) => flow.function(waits.clone()).name("waits").call((at,)),
        at => flow.function(plain.clone()).name("plain").call((at,)),
    };
    let calls: Vec<Future<u32>> = (0..2_000).map(call).collect();
    // Those that are in line can be cancelled, and the others go on.
    calls.iter().step_by(50).for_each(Future::cancel);
    let seen = calls.iter().filter_map(|call| call.wait_for(SOON).expect("no hang").ok());
    let most = seen.max().expect("some were called");
    assert!(most <= 2, "{most} at one time");
    let counts = flow.counts();
    assert_eq!((counts.ended(), counts.running, counts.ready), (2_000, 0, 0));
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
        let config = Config::new(directory.path());
        let flow = Flow::open(config).unwrap();
        assert_eq!(flow.function(counted).cache(cache).call((1,)).wait().unwrap(), 1);
        flow.close().unwrap();
        RUNS.load(Ordering::SeqCst) - before
    };
    assert_eq!(ran(Cache::ReadOnly), 1);
    assert_eq!(ran(Cache::ReadOnly), 1, "nothing was remembered");
    assert_eq!(ran(Cache::On), 1);
    assert_eq!(ran(Cache::ReadOnly), 0, "what was remembered is used");
}

/// Says what it was called with.
fn told(data: PathBuf, log: PathBuf, threads: Vec<u32>, name: String) -> String {
    format!("{:?} {threads:?} {name} {}", std::fs::read(data).unwrap(), log.exists())
}

fn what_is_ignored_of_a_call() {
    let case = Case::new();
    case.write("data", "1");
    case.write("log", "a");
    let flow = &case.flow;
    let task = flow.function(told).version("1").ignore([1, 2]);
    let call = |threads: u32, name: &str| {
        let threads = flow.function(|n: u32| n).name("n").call((threads,));
        task.call((flow.file("data"), flow.file("log"), vec![threads], name)).wait().unwrap()
    };
    assert_eq!(call(4, "x"), "[49] [4] x true");
    assert_eq!(call(8, "x"), "[49] [4] x true", "the value counts for nothing");
    assert_eq!(call(8, "y"), "[49] [8] y true", "what comes after it counts");
    case.write("log", "b");
    assert_eq!(call(9, "x"), "[49] [4] x true", "nor does the file");
    // What is also given where it counts does count.
    let twice = flow.function(|a: u32, b: u32| (a, b)).name("twice").ignore([0]);
    let one = flow.function(|n: u32| n).name("n").call((1,));
    let two = flow.function(|n: u32| n).name("n").call((2,));
    assert_eq!(twice.call((&one, &one)).wait().unwrap(), (1, 1));
    assert_eq!(twice.call((&two, &two)).wait().unwrap(), (2, 2));
}

fn what_is_ignored_of_a_command() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let run = |threads: u32, place: &str, text: &str| {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let run = flow
            .command("echo {{ text }} {{ threads }} $PLACE > {{ outputs.o }}; echo x >> {{ log }}")
            .arg("threads", threads)
            .arg("text", text)
            .arg("log", directory.path().join("log").to_str())
            .env("PLACE", place)
            .ignore(["threads", "PLACE"])
            .output("o", "o.txt")
            .submit();
        run.done().wait().unwrap();
        flow.close().unwrap();
        read("o.txt")
    };
    assert_eq!(run(4, "here", "a"), "a 4 here\n");
    assert_eq!(run(8, "there", "a"), "a 4 here\n");
    assert_eq!(read("log"), "x\n", "it ran once");
    assert_eq!(run(8, "there", "b"), "b 8 there\n");
    let case = Case::new();
    let late = case.flow.call(|n: u32| n, (3,));
    let unknown = case.flow.command("echo {{ n }}").arg("n", late).ignore(["m"]).submit();
    let error = unknown.done().wait().unwrap_err();
    assert!(error.to_string().contains("ignore \"m\""), "{error}");
}

#[keelboat::task(version = "1", ignore = ["threads"])]
fn doubled(n: u64, threads: u32) -> u64 {
    assert_ne!(threads, 0, "it has a result already");
    2 * n
}

#[keelboat::task(retries = 2, name = "patient", version = "1")]
async fn patient(log: PathBuf) -> Result<u64, String> {
    tokio::task::yield_now().await;
    let before = std::fs::read_to_string(&log).unwrap_or_default();
    std::fs::write(&log, format!("{before}x")).map_err(|error| error.to_string())?;
    if before.len() < 2 { Err("not yet".to_owned()) } else { Ok(before.len() as u64) }
}

#[keelboat::task]
fn chained(flow_of: u64) -> u64 {
    flow_of + 1
}

fn attributes() {
    #[keelboat::task(version = "1")]
    fn local(n: u64) -> u64 {
        n
    }
    let case = Case::new();
    let flow = &case.flow;
    assert_eq!(doubled::task(flow).call((4, 1)).wait().unwrap(), 8);
    assert_eq!(doubled::task(flow).call((4, 0)).wait().unwrap(), 8);
    assert_eq!(doubled(5, 1), 10, "it is a function as before");
    let log = case.path().join("log");
    let patient = patient::task(flow).backoff(SHORT.0, SHORT.1).try_call((log,));
    let next = chained::task(flow).call((&patient,));
    assert_eq!(next.wait().unwrap(), 3);
    assert!(patient.task().starts_with("patient["), "{}", patient.task());
    assert!(next.task().starts_with("chained["), "{}", next.task());
    assert_eq!(local::task(flow).call((next,)).wait().unwrap(), 3);
    // Its name is its path, so that what it made is found again by the function itself.
    let same = flow.function(doubled).version("1").ignore([1]).call((4, 0));
    assert_eq!(same.wait().unwrap(), 8);
}
