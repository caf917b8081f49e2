//! Two executors in one flow: few slots for what computes, many for what only waits.
//!
//! Stations are asked side by side, since each of them takes its time and no core. What they said is
//! worked out one by one, by functions and a command.
//!
//! ```sh
//! cargo run --example executors [DIRECTORY]        # without one: a fresh temporary directory
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use keelboat::flow::{Config, Flow, Future};

const SETTINGS: &str = "\
[executors.local]     # of tasks that name none
cores = 1

[executors.radio]
cores = 3
";

/// Waits until three stations are asked at one time: with fewer slots it never would.
fn ask(station: String) -> Vec<f64> {
    static ALL_ASKED: Barrier = Barrier::new(3);
    ALL_ASKED.wait();
    station.bytes().map(f64::from).collect()
}

static COMPUTING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn mean(levels: Vec<f64>) -> f64 {
    MOST.fetch_max(COMPUTING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    let (sum, count) =
        levels.iter().fold((0.0, 0.0), |(sum, count), level| (sum + level, count + 1.0));
    let mean = sum / count;
    COMPUTING.fetch_sub(1, Ordering::SeqCst);
    mean
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("keelboat.toml"), SETTINGS)?;
    let flow = Flow::open(Config::new(directory).name("executors"))?;

    let ask = flow.function(ask).executor("radio");
    let stations = ["Abrolhos", "Berlenga", "Corvo"];
    let means: Vec<Future<f64>> =
        stations.into_iter().map(|station| flow.call(mean, (ask.call((station,)),))).collect();
    // The first executor of the list that is free.
    let log = flow
        .command("printf 'radio %s\n' silent > {{ outputs.log }}")
        .output("log", "radio.log")
        .executor("radio")
        .executor("local")
        .submit();

    for (station, mean) in stations.into_iter().zip(means) {
        println!("{station:<9} {:6.2}", mean.wait()?);
    }
    println!("at most {} computed at one time", MOST.load(Ordering::SeqCst));
    print!("{}", std::fs::read_to_string(log.output("log").wait()?)?);
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
