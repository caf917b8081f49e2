//! What tasks of the library cost: no-op functions, chains, fan-in. See docs/benchmarks.md.
//!
//! `cargo bench --bench flow`, or with words: `-- tasks 100000`, `latency`, `chain`, `fan-in`,
//! `pending`. Prints one line for each.

use std::io::Write as _;
use std::time::{Duration, Instant};

use keelboat::flow::{Config, Flow, Future, Remember};

fn noop(x: u64) -> u64 {
    x
}

fn sum(numbers: Vec<u64>) -> u64 {
    numbers.into_iter().sum()
}

fn open(directory: &std::path::Path, remember: Remember) -> Flow {
    Flow::open(Config::new(directory).remember(remember)).expect("a flow")
}

/// Measures with so many tasks.
type Measure = fn(u64);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let names: Vec<&String> = words.iter().filter(|word| word.parse::<u64>().is_err()).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|word| *word == name);
    let count = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let all: [(&str, Measure); 6] = [
        ("tasks", tasks),
        ("remembered", remembered),
        ("latency", latency),
        ("chain", chain),
        ("fan-in", fan_in),
        ("pending", pending),
    ];
    for (name, measure) in all {
        if wanted(name) {
            measure(count);
        }
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{text}").expect("standard output");
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = [12, 13].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn many(name: &str, count: u64, remember: Remember) {
    let directory = tempfile::tempdir().expect("a directory");
    let flow = open(directory.path(), remember);
    let (begun, busy) = (Instant::now(), cpu());
    let futures: Vec<Future<u64>> = (0..count).map(|x| flow.call(noop, (x,))).collect();
    let submitted = begun.elapsed();
    let last = futures.into_iter().map(|future| future.wait().expect("a value")).max();
    assert_eq!(last, Some(count - 1));
    let (wall, used) = (begun.elapsed(), cpu().saturating_sub(busy));
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / wall.as_secs_f64();
    say(format_args!(
        "{name}: {count} no-op functions in {wall:.2?} (submitted in {submitted:.2?}, {used:.2?} \
         CPU): {rate:.0} tasks/s"
    ));
    flow.close().expect("the end");
}

fn tasks(count: u64) {
    many("tasks, nothing remembered", count, Remember::Nothing);
}

fn remembered(count: u64) {
    many("tasks, memo and journal", count, Remember::All);
}

fn percentile(spans: &mut [Duration], part: usize) -> Duration {
    spans.sort_unstable();
    spans.get(spans.len() * part / 100).copied().unwrap_or_default()
}

fn latency(_: u64) {
    for (name, remember) in
        [("nothing remembered", Remember::Nothing), ("remembered", Remember::All)]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let flow = open(directory.path(), remember);
        let one = |x: u64| {
            let begun = Instant::now();
            flow.call(noop, (x,)).wait().expect("a value");
            begun.elapsed()
        };
        (0..1_000).map(one).for_each(drop);
        let mut spans: Vec<Duration> = (1_000..11_000).map(one).collect();
        let (p50, p99) = (percentile(&mut spans, 50), percentile(&mut spans, 99));
        say(format_args!("latency, {name}: p50 {p50:.1?}, p99 {p99:.1?}"));
        flow.close().expect("the end");
    }
}

fn chain(count: u64) {
    let hops = count.min(20_000);
    let directory = tempfile::tempdir().expect("a directory");
    let flow = open(directory.path(), Remember::Nothing);
    let begun = Instant::now();
    let mut last = flow.call(noop, (1,));
    for _ in 1..hops {
        last = flow.call(noop, (last,));
    }
    assert_eq!(last.wait().expect("a value"), 1);
    let hop = begun.elapsed() / u32::try_from(hops).unwrap_or(u32::MAX);
    say(format_args!("chain of {hops}: {hop:.1?} a hop"));
    flow.close().expect("the end");
}

fn fan_in(count: u64) {
    for inputs in [count, 2 * count] {
        let directory = tempfile::tempdir().expect("a directory");
        let flow = open(directory.path(), Remember::Nothing);
        let (begun, busy) = (Instant::now(), cpu());
        let numbers: Vec<Future<u64>> = (0..inputs).map(|x| flow.call(noop, (x,))).collect();
        let total = flow.call(sum, (numbers,)).wait().expect("a value");
        assert_eq!(total, inputs * (inputs - 1) / 2);
        let (wall, used) = (begun.elapsed(), cpu().saturating_sub(busy));
        say(format_args!("fan-in of {inputs}: {wall:.2?}, {used:.2?} CPU"));
        flow.close().expect("the end");
    }
}

fn pending(count: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let flow = open(directory.path(), Remember::Nothing);
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let opened = std::sync::Arc::new(opened);
    let wait = move || {
        let ended = opened.lock().is_ok_and(|opened| opened.recv().is_err());
        u64::from(ended)
    };
    let before = resident();
    let first = flow.call(wait, ());
    let held = |x: u64, _: u64| x;
    let futures: Vec<Future<u64>> = (0..count).map(|x| flow.call(held, (x, &first))).collect();
    // All are in the core when one that was submitted behind them has run.
    flow.call(noop, (0,)).wait().expect("a value");
    let bytes = resident().saturating_sub(before);
    say(format_args!(
        "{count} pending tasks: {} MiB, {} bytes each",
        bytes >> 20,
        bytes / count.max(1)
    ));
    drop(gate);
    for future in futures {
        future.wait().expect("a value");
    }
    flow.close().expect("the end");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}
