//! A first flow: a command makes a file, functions work on it, and all of it is remembered.
//!
//! ```sh
//! cargo run --example quickstart [DIRECTORY]        # without one: here
//! ```
//!
//! Start it twice. The second time nothing is left to do, and the same would be true after
//! `kill -9`: what was done is done. Change the poem, and only what follows from it runs again.
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow};

/// Reads a file. An error would be the failure of this task, and of those that need it.
fn words(poem: PathBuf) -> std::io::Result<Vec<String>> {
    let text = std::fs::read_to_string(poem)?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn count(words: Vec<String>) -> usize {
    words.len()
}

fn longest(words: Vec<String>) -> String {
    words.into_iter().max_by_key(String::len).unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let flow = Flow::open(Config::new(directory).name("quickstart"))?;

    // Nothing here waits: each call returns a future at once, and the futures make the graph.
    let poem = flow
        .command("printf '%s\\n' {{ lines }} > {{ outputs.poem }}")
        .arg("lines", ["they that go down to the sea", "in ships that do business"])
        .output("poem", "poem.txt")
        .submit();
    let words = flow.try_call(words, (poem.output("poem"),));
    let count = flow.call(count, (&words,));
    let longest = flow.call(longest, (words,));

    println!("{} words, the longest is {:?}", count.wait()?, longest.wait()?);
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
