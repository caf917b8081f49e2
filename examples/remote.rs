//! Functions and commands on a file from elsewhere.
//!
//! The file is brought once, however many tasks want it, proven whole, and not asked for again when
//! the program is started again and the server says that nothing has changed. Other schemes go the
//! same way: `sftp:`, `s3:`, `ftp:` and the rest.
//!
//! ```sh
//! cargo run --example remote -- https://www.rfc-editor.org/rfc/rfc8949.txt [DIRECTORY]
//! ```
//!
//! Without a directory: a fresh temporary one. It is also shown here how a program that uses tokio
//! awaits futures.
#![expect(clippy::print_stdout, reason = "it shows its result")]

use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow};

const FREQUENT: &str = "tr -cs '[:alpha:]' '\\n' < {{ inputs.text }} | \
    LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2 > {{ outputs.words }}";

/// An `async` function: for waiting on others. What computes needs no `async`.
async fn lines(text: PathBuf) -> std::io::Result<usize> {
    Ok(tokio::fs::read_to_string(text).await?.lines().count())
}

/// The word of the first line, which has a number before it.
fn first(words: PathBuf) -> Result<String, Box<dyn Error + Send + Sync>> {
    let text = std::fs::read_to_string(words)?;
    let word = text.split_whitespace().nth(1).ok_or("there are no words in it")?;
    Ok(word.to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    // First of all, and before there is a runtime.
    keelboat::init();
    run()
}

#[tokio::main]
async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: remote ADDRESS [DIRECTORY]")?;
    let directory = match arguments.next() {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("remote"))?;

    let text = flow.file(&address);
    let lines = flow.try_call(lines, (&text,));
    let words =
        flow.command(FREQUENT).input("text", text).output("words", "words.txt").retries(2).submit();
    let first = flow.try_call(first, (words.output("words"),));

    println!("{} lines, and the most frequent word is {:?}", lines.await?, first.await?);
    let report = flow.close()?;
    println!("{} bytes came over the network", report.transferred);
    Ok(())
}
