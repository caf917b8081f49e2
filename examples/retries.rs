//! Failures: what is tried again, how often and after which pause, and what an error tells in the
//! end.
//!
//! ```sh
//! cargo run --example retries [DIRECTORY]           # without one: a fresh temporary directory
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keelboat::flow::{Config, Exit, Failure, FailureKind, Flow, Response};

static KNOCKS: AtomicU32 = AtomicU32::new(0);

/// Somebody opens at the third knock.
fn knock() -> Result<String, String> {
    match KNOCKS.fetch_add(1, Ordering::SeqCst) + 1 {
        knocks @ 1..3 => Err(format!("nobody opens ({knocks})")),
        knocks => Ok(format!("come in, after {knocks} knocks")),
    }
}

fn parse(text: String) -> Result<i64, std::num::ParseIntError> {
    text.parse()
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("retries"))?;
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(40));

    // Up to four tries more, after 10, 20, 40 and 40 milliseconds. The success is remembered like
    // any other.
    let knocked = flow.function(knock).retries(4).backoff(first, longest).try_call(());
    println!("{}", knocked.wait()?);

    // An exit code that costs none of the retries; and a closure that looks at each failure and
    // says what it costs, in thousandths of a retry.
    let busy = "[ $KEELBOAT_ATTEMPT -ge 3 ] || exit 75";
    let busy = flow.command(busy).backoff(first, longest);
    busy.on(FailureKind::Exit(Exit::Code(75)), Response::Retry { cost: 0 })
        .submit()
        .done()
        .wait()?;
    let half = |failure: &Failure| match failure.cause.as_str() {
        "nobody is there" => Some(Response::Retry { cost: 500 }),
        _ => Some(Response::Fail),
    };
    let call = || Err::<(), _>("nobody is there");
    let called = flow.function(call).name("call").retries(1).backoff(first, longest);
    let error = called.on_failure(half).try_call(()).wait().expect_err("nobody ever is");
    println!("{error}");

    // A limit for each try.
    let asleep = flow.command("sleep 600").name("asleep").timeout(Duration::from_millis(200));
    let error = asleep.submit().done().wait().expect_err("it sleeps too long");
    println!("{error}");

    // What needs a task that failed does not run. Its error has them all, from the first on.
    let number = flow.function(parse).name("parse").try_call(("twelve",));
    let double = flow.function(|x: i64| 2 * x).name("double").call((number,));
    let report = flow.function(|x: i64| x.to_string()).name("report").call((double,));
    let error = report.wait().expect_err("twelve is no number for a machine");
    for (depth, cause) in error.causes().iter().enumerate() {
        println!("{:indent$}{cause}", "", indent = 2 * depth);
    }

    let counts = flow.close()?.counts;
    println!("{} done, {} failed, {} not run", counts.completed, counts.failed, counts.skipped);
    Ok(())
}
