//! A long computation that does nothing twice, however often it is killed: a function with a
//! checkpoint, and a command that is told its result.
//!
//! Halve an even number, and take three times an odd one and one more: from where does it take the
//! most steps to come to 1? The function looks at every number below 300,000. After each ten
//! thousand it notes how far it is, in a directory that is kept when its process dies.
//!
//! ```sh
//! cargo run --example checkpointed          # in this directory; end it by Ctrl-C or kill -9, and start it again
//! cargo run --example checkpointed DIRECTORY 120000     # dies by itself when it comes to this number
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use keelboat::flow::{Config, Context, Flow};
use serde::{Deserialize, Serialize};

const NOTED_EACH: u64 = 10_000;

/// How far the search is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Search {
    looked_at: u64,
    best: u64,
    steps: u64,
}

fn next(x: u64) -> u64 {
    if x.is_multiple_of(2) { x / 2 } else { 3 * x + 1 }
}

fn steps(start: u64) -> u64 {
    let (mut x, mut steps) = (start, 0);
    while x != 1 {
        x = next(x);
        steps += 1;
    }
    steps
}

/// A new file takes the place of the old one, so that there is always a whole one.
fn note(search: &Search, file: &Path) -> io::Result<()> {
    fs::write(file.with_extension("new"), serde_json::to_vec(search)?)?;
    fs::rename(file.with_extension("new"), file)
}

/// Looks at all numbers below `end`, and writes down what comes after the best one.
fn longest(context: &Context, end: u64, dies_at: Option<u64>) -> io::Result<Search> {
    let file = context.checkpoint()?.join("search.json");
    let mut search: Search = match fs::read(&file) {
        Ok(noted) => serde_json::from_slice(&noted)?,
        Err(_) => Search::default(),
    };
    println!("try {} begins at {}", context.attempt(), search.looked_at + 1);
    for start in search.looked_at + 1..end {
        if Some(start) == dies_at {
            std::process::abort();
        }
        let steps = steps(start);
        if steps > search.steps {
            search = Search { best: start, steps, ..search };
        }
        search.looked_at = start;
        if start % NOTED_EACH == 0 {
            note(&search, &file)?;
        }
    }
    let mut chain = String::new();
    let mut x = search.best;
    for _ in 0..=search.steps {
        writeln!(chain, "{x}").map_err(io::Error::other)?;
        x = next(x);
    }
    fs::write(context.output("chain")?, chain)?;
    Ok(search)
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let dies_at = arguments.next().map(|number| number.parse()).transpose()?;
    let flow = Flow::open(Config::new(directory).name("checkpointed"))?;

    // What a closure has captured is no part of what its result is remembered by: where it dies does
    // not matter for the result.
    let longest = move |context: Context, end: u64| longest(&context, end, dies_at);
    let search = flow
        .function(longest)
        .name("longest")
        .version("1")
        .checkpoint("state/")
        .output("chain", "chain.txt")
        .try_call((300_000,));

    let report = flow
        .command(
            "echo \"$(sort -n {{ inputs.chain }} | tail -n 1) is the top of the way from \
             {{ search.best }}, which has {{ search.steps }} steps\" > {{ outputs.report }}",
        )
        .input("chain", search.output("chain"))
        .arg("search", &search)
        .output("report", "report.txt")
        .submit();

    print!("{}", fs::read_to_string(report.output("report").wait()?)?);
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
