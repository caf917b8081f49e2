//! Functions, their values and their arguments.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelboat::flow::{Cache, Future, Remember, TaskState, all, any, as_completed};
use libtest_mimic::Trial;
use serde::{Deserialize, Serialize};

use super::{Case, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("calls::a_value_comes_from_a_function", a_value_comes_from_a_function),
        trial("calls::async_functions_run_side_by_side", async_functions_run_side_by_side),
        trial("calls::futures_are_arguments_at_any_depth", futures_are_arguments_at_any_depth),
        trial("calls::parts_of_values_need_no_waiting", parts_of_values_need_no_waiting),
        trial("calls::joins_recurse", joins_recurse),
        trial("calls::a_loop_goes_on_until_it_converges", a_loop_goes_on_until_it_converges),
        trial("calls::futures_are_waited_for_together", futures_are_waited_for_together),
        trial("calls::a_result_is_used_again", a_result_is_used_again),
        trial("calls::closures_without_a_name_are_not_confused", closures_without_a_name),
        trial("calls::the_method_is_in_the_key", the_method_is_in_the_key),
        trial("calls::functions_of_one_name_are_not_confused", functions_of_one_name),
        trial("calls::large_values_are_kept_too", large_values_are_kept_too),
        trial("calls::a_flow_that_remembers_nothing_works", a_flow_that_remembers_nothing_works),
        trial("calls::dropping_in_any_order_ends", dropping_in_any_order_ends),
        trial("calls::many_tasks_into_one", many_tasks_into_one),
    ]
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn sum(numbers: Vec<u64>) -> u64 {
    numbers.iter().sum()
}

fn a_value_comes_from_a_function() {
    let case = Case::new();
    let three = case.flow.call(add, (1, 2));
    let six = case.flow.call(add, (&three, 3));
    assert_eq!(six.wait().unwrap(), 6);
    assert_eq!(three.state(), TaskState::Done);
    assert_eq!(three.try_get().unwrap().unwrap(), 3);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(async { six.clone().await.unwrap() }), 6);
    assert_eq!(case.flow.call(|| "no arguments".to_owned(), ()).wait().unwrap(), "no arguments");
    let report = case.flow.close().unwrap();
    assert_eq!((report.counts.total, report.counts.completed), (3, 3));
}

fn async_functions_run_side_by_side() {
    let case = Case::with(|config| config.cores(8));
    let barrier = Arc::new(tokio::sync::Barrier::new(5));
    let meet = |at: u32| {
        let barrier = Arc::clone(&barrier);
        let met = move |at: u32| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                at
            }
        };
        case.flow.call(met, (at,))
    };
    let met: Vec<Future<u32>> = (0..5).map(meet).collect();
    for (at, one) in (0..).zip(met) {
        assert_eq!(one.wait_for(SOON).expect("they meet").unwrap(), at);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: f64,
    label: Option<String>,
}

fn futures_are_arguments_at_any_depth() {
    fn count(
        deep: Vec<Vec<u64>>,
        named: BTreeMap<String, u64>,
        hashed: HashMap<u8, u64>,
        maybe: Option<u64>,
        point: Point,
    ) -> (usize, u64, u64, Option<u64>, Point) {
        let all = deep.iter().flatten().sum();
        (deep.len(), all, named["a"] + hashed[&7], maybe, point)
    }
    let case = Case::new();
    let one = |x: u64| case.flow.call(add, (x, 0));
    let deep = vec![vec![one(1), one(2)], vec![], vec![one(3)]];
    let named = BTreeMap::from([("a".to_owned(), one(10)), ("b".to_owned(), one(20))]);
    let hashed = HashMap::from([(7, one(5)), (8, one(6))]);
    let point = Point { x: 0.5, label: Some("p".to_owned()) };
    let found = case.flow.call(count, (deep, named, hashed, Some(one(4)), point));
    let point = Point { x: 0.5, label: Some("p".to_owned()) };
    assert_eq!(found.wait().unwrap(), (3, 6, 15, Some(4), point));
    let plain = case.flow.call(sum, (vec![1u64, 2, 3],));
    assert_eq!(plain.wait().unwrap(), 6);
    let nobody: Vec<Future<u64>> = Vec::new();
    assert_eq!(case.flow.call(sum, (nobody,)).wait().unwrap(), 0);
    case.write("in.txt", "12");
    let length = |paths: Vec<PathBuf>| {
        paths.iter().map(|path| std::fs::read(path).map_or(0, |bytes| bytes.len())).sum::<usize>()
    };
    let files = vec![case.flow.file("in.txt"), case.flow.file("data:,345")];
    assert_eq!(case.flow.call(length, (files,)).wait().unwrap(), 5);
}

fn parts_of_values_need_no_waiting() {
    let case = Case::new();
    let point = case.flow.call(|x: f64| (Point { x, label: None }, vec![1, 2, 3]), (2.5,));
    let x: Future<f64> = point.index::<Point>(0).field("x");
    let twice = case.flow.call(|x: f64| x * 2.0, (x,));
    assert_eq!(twice.wait().unwrap().to_bits(), 5.0f64.to_bits());
    assert_eq!(point.index::<Vec<u8>>(1).index::<u8>(2).wait().unwrap(), 3);
    let wrong = point.index::<Vec<u8>>(1).index::<u8>(3);
    assert!(wrong.wait().unwrap_err().to_string().contains("3 items"), "{wrong:?}");
    let error = case.flow.call(|x: u8| x, (wrong,)).wait().unwrap_err();
    assert!(error.to_string().contains("3 items"), "{error}");
}

fn fib(flow: &keelboat::flow::Flow, n: u64) -> Future<u64> {
    let own = flow.clone();
    let step = move |n: u64| match n {
        0 | 1 => own.call(|n: u64| n, (n,)),
        _ => own.call(add, (fib(&own, n - 1), fib(&own, n - 2))),
    };
    flow.join(step, (n,))
}

fn joins_recurse() {
    // One slot, and joins that wait for others: nobody holds it meanwhile.
    let case = Case::with(|config| config.cores(1));
    assert_eq!(fib(&case.flow, 10).wait_for(SOON).expect("no deadlock").unwrap(), 55);
    let own = case.flow.clone();
    let later = move |n: u64| {
        let own = own.clone();
        async move { own.call(add, (n, 1)) }
    };
    assert_eq!(case.flow.join(later, (1,)).wait().unwrap(), 2);
}

fn a_loop_goes_on_until_it_converges() {
    fn newton(flow: &keelboat::flow::Flow, guess: f64) -> Future<f64> {
        let own = flow.clone();
        flow.join(
            move |guess: f64| {
                let next = f64::midpoint(guess, 2.0 / guess);
                if (next - guess).abs() < 1e-12 {
                    own.call(|x: f64| x, (next,))
                } else {
                    newton(&own, next)
                }
            },
            (guess,),
        )
    }
    let case = Case::new();
    let root = newton(&case.flow, 1.0).wait().unwrap();
    assert!((root * root - 2.0).abs() < 1e-9, "{root}");
}

fn futures_are_waited_for_together() {
    let case = Case::new();
    let flow = &case.flow;
    let numbers: Vec<Future<u64>> = (0..20).map(|x| flow.call(add, (x, x))).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let values = runtime.block_on(all(numbers.clone())).unwrap();
    assert_eq!(values, (0..20).map(|x| 2 * x).collect::<Vec<u64>>());
    let mut seen = Vec::new();
    let mut completed = as_completed(numbers);
    while let Some((at, value)) = completed.wait_next() {
        assert_eq!(value.unwrap(), 2 * at as u64);
        seen.push(at);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<usize>>());
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = Arc::new(Mutex::new(opened));
    let slow = flow.call(move || opened.lock().unwrap().recv().map_or(1, |()| 0), ());
    let fails = flow.try_call(|| Err::<u32, _>("no"), ());
    let quick = flow.call(|| 7u32, ());
    let first = runtime.block_on(any([fails.clone(), slow, quick])).unwrap();
    assert_eq!(first.unwrap(), 7);
    drop(gate);
    let none = runtime.block_on(any([fails])).unwrap();
    assert!(none.unwrap_err().to_string().contains("no"));
}

static RUNS: AtomicU32 = AtomicU32::new(0);

fn counted(x: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::SeqCst);
    x + 1
}

fn a_result_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || keelboat::flow::Flow::open(keelboat::flow::Config::new(directory.path()));
    let ran = |task: &dyn Fn(&keelboat::flow::Flow)| {
        let before = RUNS.load(Ordering::SeqCst);
        let flow = open().unwrap();
        task(&flow);
        flow.close().unwrap();
        RUNS.load(Ordering::SeqCst) - before
    };
    let chain = |flow: &keelboat::flow::Flow| {
        let two = flow.call(counted, (1,));
        assert_eq!(flow.call(counted, (two,)).wait().unwrap(), 3);
    };
    assert_eq!(ran(&chain), 2);
    assert_eq!(ran(&chain), 0, "results of an earlier program");
    let version = |version: &'static str| {
        move |flow: &keelboat::flow::Flow| {
            assert_eq!(flow.function(counted).version(version).call((1,)).wait().unwrap(), 2);
        }
    };
    assert_eq!(ran(&version("2")), 1, "another version");
    assert_eq!(ran(&version("2")), 0);
    assert_eq!(ran(&version("3")), 1);
    let cache = |cache| {
        move |flow: &keelboat::flow::Flow| {
            assert_eq!(flow.function(counted).cache(cache).call((1,)).wait().unwrap(), 2);
        }
    };
    assert_eq!(ran(&cache(Cache::Off)), 1);
    assert_eq!(ran(&cache(Cache::Refresh)), 1);
    assert_eq!(ran(&chain), 0);
}

fn closures_without_a_name() {
    let case = Case::new();
    let flow = &case.flow;
    let (plus, times) = (|x: u64| x + 10, |x: u64| x * 10);
    assert_eq!(flow.call(plus, (1,)).wait().unwrap(), 11);
    assert_eq!(flow.call(times, (1,)).wait().unwrap(), 10);
    let pointers: [fn(u64) -> u64; 2] = [|x| x + 2, |x| x + 3];
    let sums = pointers.map(|pointer| flow.call(pointer, (1,)).wait().unwrap());
    assert_eq!(sums, [3, 4]);
}

/// A value of another type is left when the same function is called by another method.
fn the_method_is_in_the_key() {
    fn half(x: u64) -> Result<u64, String> {
        if x.is_multiple_of(2) { Ok(x / 2) } else { Err("it is odd".to_owned()) }
    }
    let case = Case::new();
    assert_eq!(case.flow.try_call(half, (4,)).wait().unwrap(), 2);
    assert_eq!(case.flow.call(half, (4,)).wait().unwrap(), Ok(2));
    assert_eq!(case.flow.try_call(half, (4,)).wait().unwrap(), 2);
}

fn functions_of_one_name() {
    let case = Case::new();
    let one = {
        fn f(x: u64) -> u64 {
            x + 1
        }
        f
    };
    let two = {
        fn f(x: u64) -> u64 {
            x + 2
        }
        f
    };
    assert_eq!(case.flow.call(one, (1,)).wait().unwrap(), 2);
    let error = case.flow.call(two, (1,)).wait().unwrap_err();
    assert!(error.to_string().contains("two functions are called"), "{error}");
    assert_eq!(case.flow.function(two).name("two").call((1,)).wait().unwrap(), 3);
    assert_eq!(case.flow.call(one, (2,)).wait().unwrap(), 3, "the first one may be called on");
}

fn large_values_are_kept_too() {
    let directory = tempfile::tempdir().unwrap();
    static MADE: AtomicU32 = AtomicU32::new(0);
    fn large(length: usize) -> String {
        MADE.fetch_add(1, Ordering::SeqCst);
        "x".repeat(length)
    }
    for _ in 0..2 {
        let config = keelboat::flow::Config::new(directory.path());
        let flow = keelboat::flow::Flow::open(config).unwrap();
        let text = flow.call(large, (3_000_000,));
        let length = flow.call(|text: String| text.len(), (text.clone(),));
        assert_eq!(length.wait().unwrap(), 3_000_000);
        assert!(text.wait().unwrap().bytes().all(|byte| byte == b'x'));
        flow.close().unwrap();
    }
    assert_eq!(MADE.load(Ordering::SeqCst), 1, "it is used again");
}

fn a_flow_that_remembers_nothing_works() {
    let case = Case::with(|config| config.remember(Remember::Nothing));
    let three = case.flow.call(add, (1, 2));
    assert_eq!(case.flow.call(add, (three, 3)).wait().unwrap(), 6);
    let Case { flow, directory } = case;
    flow.close().unwrap();
    let runs = directory.path().join(".keelboat/runs");
    assert_eq!(std::fs::read_dir(runs).unwrap().count(), 0, "no run is remembered");
}

fn dropping_in_any_order_ends() {
    for order in 0..3 {
        let case = Case::new();
        let future = case.flow.call(add, (1, 2));
        let clone = case.flow.clone();
        let inner = case.flow.clone();
        let from_inside = case.flow.call(
            move |x: u64| {
                let _dropped_here = inner.clone();
                x
            },
            (1,),
        );
        match order {
            0 => drop((case.flow, clone, future, from_inside)),
            1 => drop((future, from_inside, clone, case.flow)),
            _ => {
                drop((clone, case.flow));
                assert_eq!(future.wait().unwrap(), 3, "it waited for all when it was dropped");
            }
        }
    }
    let case = Case::new();
    let inner = case.flow.clone();
    let closes = case.flow.call(move || inner.clone().close().is_err(), ());
    assert!(closes.wait_for(SOON).expect("no hang").unwrap(), "it cannot wait for itself");
    drop(case);
    let case = Case::new();
    let left = case.flow.clone();
    case.flow.close().unwrap();
    let late = left.call(add, (1, 2));
    let error = late.wait_for(Duration::from_secs(10)).expect("no hang").unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

fn many_tasks_into_one() {
    let case = Case::with(|config| config.remember(Remember::Nothing));
    let numbers: Vec<Future<u64>> = (0..5_000).map(|x| case.flow.call(add, (x, 0))).collect();
    assert_eq!(case.flow.call(sum, (numbers,)).wait().unwrap(), 4_999 * 5_000 / 2);
}
