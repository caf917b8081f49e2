//! Map and reduce over a list that nobody knows before the program runs.
//!
//! A command writes a log. How many hosts it speaks of is known when it has been read: a *join* then
//! submits one task for each of them, and one that takes the results of all.
//!
//! ```sh
//! cargo run --example map_reduce [DIRECTORY]        # without one: a fresh temporary directory
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]
#![expect(clippy::needless_pass_by_value, reason = "functions are given values")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use keelboat::flow::{Config, Flow, Future};

const LOG: &str = r#"awk 'BEGIN {
    for (i = 1; i <= 300; i++) print "host" i % 7, (i % 5 ? "fine" : "failed")
}' > {{ outputs.log }}"#;

/// The lines of a log by the host that they begin with.
fn by_host(log: PathBuf) -> std::io::Result<BTreeMap<String, Vec<String>>> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(log)?.lines() {
        if let Some((host, event)) = line.split_once(' ') {
            hosts.entry(host.to_owned()).or_default().push(event.to_owned());
        }
    }
    Ok(hosts)
}

/// The map: one task for each host.
fn failures(events: Vec<String>) -> usize {
    events.iter().filter(|event| *event == "failed").count()
}

/// The reduction: takes a map of numbers, and is given a map of futures.
fn report(failures: BTreeMap<String, usize>) -> String {
    let line = |(host, count): (&String, &usize)| format!("{host}  {count} failures\n");
    failures.iter().map(line).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    keelboat::init();
    let directory = match std::env::args().nth(1) {
        Some(given) => PathBuf::from(given),
        None => tempfile::tempdir()?.keep(),
    };
    let flow = Flow::open(Config::new(directory).name("map_reduce"))?;

    let log = flow.command(LOG).output("log", "events.log").submit();
    let hosts = flow.try_call(by_host, (log.output("log"),));
    let own = flow.clone();
    let all_of_them = move |hosts: BTreeMap<String, Vec<String>>| {
        let counted = hosts.into_iter().map(|(host, events)| {
            let count: Future<usize> = own.call(failures, (events,));
            (host, count)
        });
        own.call(report, (counted.collect::<BTreeMap<_, _>>(),))
    };
    let report = flow.join(all_of_them, (hosts,));

    print!("{}", report.wait()?);
    println!("{} tasks", flow.close()?.counts.total);
    Ok(())
}
