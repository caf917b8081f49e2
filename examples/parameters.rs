//! A sweep over two parameters, with a table at the end.
//!
//! How an epidemic goes depends on how many people one infects a day, and for how many days: each
//! pair of numbers is a task. The table has the share of people who were ill, and the day on which most
//! of them were. Add a value and start it again: only what is new runs.
//!
//! ```sh
//! cargo run --example parameters [DIRECTORY]        # without one: here
//! ```
#![expect(clippy::print_stdout, reason = "it shows its result")]

use std::error::Error;
use std::fmt::Write as _;

use keelboat::flow::{Config, Flow, Future};
use serde::{Deserialize, Serialize};

const CONTACTS: [f64; 3] = [0.2, 0.3, 0.4];
const DAYS: [f64; 4] = [3.0, 5.0, 7.0, 9.0];

/// Any type that serde knows can be an argument or a result.
#[derive(Debug, Serialize, Deserialize)]
struct Epidemic {
    peak_day: u32,
    infected_percent: f64,
}

/// The classical model of an epidemic (susceptible, infected, recovered), by steps of a day.
fn epidemic(infects_a_day: f64, days: f64) -> Epidemic {
    let (mut healthy, mut ill) = (0.999, 0.001);
    let (mut peak, mut peak_day) = (ill, 0);
    for day in 1..=1000 {
        let (caught, cured) = (infects_a_day * healthy * ill, ill / days);
        healthy -= caught;
        ill += caught - cured;
        if ill > peak {
            (peak, peak_day) = (ill, day);
        }
    }
    Epidemic { peak_day, infected_percent: 100.0 * (1.0 - healthy) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let flow = Flow::open(Config::new(directory).name("parameters"))?;

    let row = |contacts: f64| DAYS.map(|days| flow.call(epidemic, (contacts, days)));
    let rows: Vec<(f64, [Future<Epidemic>; 4])> = CONTACTS.map(|c| (c, row(c))).into();

    let mut table = String::from("infects | ill for 3 days  5 days    7 days    9 days\n");
    for (contacts, row) in rows {
        write!(table, "{contacts:3} a day")?;
        for epidemic in row {
            let Epidemic { peak_day, infected_percent } = epidemic.wait()?;
            write!(table, "  {infected_percent:3.0}% {peak_day:3}")?;
        }
        table.push('\n');
    }
    print!("{table}");
    let counts = flow.close()?.counts;
    println!("{} tasks ran, {} were remembered", counts.completed, counts.reused);
    Ok(())
}
