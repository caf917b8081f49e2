//! Pi by throwing darts: many tasks that do the same with other numbers, and one that adds up.
//!
//! ```sh
//! cargo run --release --example pi [DIRECTORY]      # without one: a fresh temporary directory
//! ```
//!
//! Chance comes from a seed that is an argument, so a result can be remembered, and is the same on
//! every machine.
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow, Future};

const DARTS: u32 = 100_000;

/// The next number of a seeded sequence (splitmix64, by S. Vigna), as a fraction.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)) / 4_294_967_296.0
}

/// Darts that hit the quarter of a circle, out of so many.
fn throw(seed: u64, darts: u32) -> u32 {
    let mut state = seed;
    let mut hits = || {
        let (x, y) = (random(&mut state), random(&mut state));
        x * x + y * y < 1.0
    };
    (0..darts).map(|_| u32::from(hits())).sum()
}

fn sum(hits: Vec<u32>) -> u32 {
    hits.iter().sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("pi"))?;

    let throws: Vec<Future<u32>> = (1..=20).map(|seed| flow.call(throw, (seed, DARTS))).collect();
    let hits = flow.call(sum, (throws,));

    println!("pi is about {:.3}", 4.0 * f64::from(hits.wait()?) / f64::from(20 * DARTS));
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
