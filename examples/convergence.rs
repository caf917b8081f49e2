//! A loop that goes on until its result no longer changes, with a task for each step.
//!
//! A rod is held at 100 degrees on one end and at 0 on the other. Each step gives every point the
//! mean of its neighbours; a *join* looks at what came out and either returns it or submits the next
//! step. Nobody waits meanwhile, so several such loops run side by side.
//!
//! ```sh
//! cargo run --example convergence [DIRECTORY]       # without one: a fresh temporary directory
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow, Future};

/// The temperatures of a rod, and the largest change since the step before.
type State = (Vec<f64>, f64);

fn step(rod: Vec<f64>) -> State {
    let mut next = rod.clone();
    for (at, window) in rod.windows(3).enumerate() {
        next[at + 1] = f64::midpoint(window[0], window[2]);
    }
    let change = rod.iter().zip(&next).map(|(old, new)| (old - new).abs()).fold(0.0, f64::max);
    (next, change)
}

/// Steps until the change is small.
fn settle(flow: &Flow, rod: Vec<f64>) -> Future<Vec<f64>> {
    let own = flow.clone();
    let stepped = flow.call(step, (rod,));
    let decide = move |(rod, change): State| {
        if change < 0.01 { own.call(std::convert::identity, (rod,)) } else { settle(&own, rod) }
    };
    flow.join(decide, (stepped,))
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("convergence"))?;

    let rods: Vec<_> = [5, 7, 9]
        .map(|points| {
            let mut rod = vec![0.0; points];
            rod[0] = 100.0;
            settle(&flow, rod)
        })
        .into();
    for rod in rods {
        let rod = rod.wait()?;
        let shown: Vec<String> = rod.iter().map(|degrees| format!("{degrees:.0}")).collect();
        println!("{} points: {}", rod.len(), shown.join(" "));
    }
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
