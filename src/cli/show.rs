//! What `keelboat run` shows while it runs: bars on a terminal, lines elsewhere, or JSON.

mod bars;
mod json;
mod lines;

use keelboat_engine::{Fact, Reuse, Stamped};

use super::args::RunArgs;
use super::terminal::Terminal;
use crate::driver::Observer;

/// An observer that is told when nothing more comes.
pub(super) trait Shown: Observer {
    /// Clears what is on the screen only while the run lasts.
    fn end(&mut self);
}

/// The observer that was asked for.
pub(super) fn observer(args: &RunArgs, terminal: &Terminal) -> Box<dyn Shown> {
    if args.json {
        Box::new(json::Json::new())
    } else if terminal.is_interactive() && !args.quiet {
        Box::new(bars::Bars::new(lines::Lines::new(args)))
    } else {
        Box::new(lines::Lines::new(args))
    }
}

/// Whether a fact is one that people are told of when they did not ask for all.
fn is_news(stamped: &Stamped) -> bool {
    matches!(
        stamped.fact,
        Fact::Fetched { .. }
            | Fact::AttemptFailed { .. }
            | Fact::Completed { .. }
            | Fact::Delivered { .. }
            | Fact::Failed { .. }
            | Fact::Undelivered { .. }
            | Fact::CheckpointRestored { .. }
            | Fact::Reused { reuse: Reuse::Restored, .. }
    )
}
