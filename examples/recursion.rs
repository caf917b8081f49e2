//! Functions that call themselves as tasks: Fibonacci numbers and merge sort.
//!
//! A *join* submits tasks and returns the future of one of them. It takes no core while it waits for
//! that one, so recursion of any depth gets by with a single core.
//!
//! ```sh
//! cargo run --example recursion [DIRECTORY]         # without one: a fresh temporary directory
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]

use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow, Future};

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn fib(flow: &Flow, n: u64) -> Future<u64> {
    let own = flow.clone();
    let split = move |n: u64| match n {
        0 | 1 => own.call(std::convert::identity, (n,)),
        _ => own.call(add, (fib(&own, n - 1), fib(&own, n - 2))),
    };
    flow.join(split, (n,))
}

fn merge(left: Vec<u32>, right: Vec<u32>) -> Vec<u32> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut right = right.into_iter().peekable();
    for item in left {
        merged.extend(std::iter::from_fn(|| right.next_if(|other| *other < item)));
        merged.push(item);
    }
    merged.extend(right);
    merged
}

/// Halves are sorted by tasks of their own, until they are short.
fn sort(flow: &Flow, list: Vec<u32>) -> Future<Vec<u32>> {
    let own = flow.clone();
    let split = move |mut left: Vec<u32>| {
        if left.len() <= 8 {
            left.sort_unstable();
            return own.call(std::convert::identity, (left,));
        }
        let right = left.split_off(left.len() / 2);
        own.call(merge, (sort(&own, left), sort(&own, right)))
    };
    flow.join(split, (list,))
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("recursion"))?;

    let number = fib(&flow, 12);
    let shuffled: Vec<u32> = (0..101).map(|n| n * 37 % 101).collect();
    let sorted = sort(&flow, shuffled);

    println!("the 12th Fibonacci number is {}", number.wait()?);
    let sorted = sorted.wait()?;
    println!("sorted: {} {} {} … {}", sorted[0], sorted[1], sorted[2], sorted[sorted.len() - 1]);
    println!("{} tasks", flow.close()?.counts.total);
    Ok(())
}
