//! From `checkpoint` and `checkpoint_every` to what a task saves for its next attempt.

use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::CheckpointSpec;
use toml::de::DeTable;

use super::declaration::Text;
use super::paths;
use super::problem::Place;
use super::reader::{Reader, Spot};

/// The shortest time between two snapshots of a task that runs.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// What one table says of checkpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Checkpointing {
    directory: Option<Text>,
    every: Option<(Duration, Place)>,
}

/// What a task saves, and where the file says so.
#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    pub(super) spec: Arc<CheckpointSpec>,
    pub(super) place: Place,
}

impl Checkpointing {
    /// This, and what `defaults` says where this says nothing.
    pub(super) fn over(self, defaults: &Self) -> Self {
        Self {
            directory: self.directory.or_else(|| defaults.directory.clone()),
            every: self.every.or(defaults.every),
        }
    }
}

impl Reader<'_> {
    pub(super) fn checkpointing(&mut self, table: &DeTable<'_>) -> Checkpointing {
        Checkpointing {
            directory: table.get("checkpoint").and_then(|value| self.directory(value)),
            every: table.get("checkpoint_every").and_then(|value| self.every(value)),
        }
    }

    fn directory(&mut self, value: &Spot<'_>) -> Option<Text> {
        let help = "write the name of a directory in quotes, such as checkpoint = \"state/\"";
        let text = self.text(value, "checkpoint", help)?;
        match paths::check_checkpoint(&text.value) {
            Ok(directory) => Some(Text { value: directory, ..text }),
            Err(complaint) => {
                let problem = self.problem(value.span(), complaint.message).help(complaint.help);
                self.problems.push(problem);
                None
            }
        }
    }

    fn every(&mut self, value: &Spot<'_>) -> Option<(Duration, Place)> {
        let every = self.duration(value, "checkpoint_every")?;
        if every < EVERY_MIN {
            let problem = self
                .problem(value.span(), "checkpoints cannot be saved more often than each second")
                .help("write checkpoint_every = \"10m\": as much work as may be lost with the machine");
            self.problems.push(problem);
            return None;
        }
        Some((every, self.place(value.span())))
    }

    /// What a task saves, by its own table and the defaults. `own`: what its own table says.
    pub(super) fn checkpoint(
        &mut self,
        own: &DeTable<'_>,
        checkpointing: &Checkpointing,
    ) -> Option<Checkpoint> {
        let every = checkpointing.every;
        if let Some(Text { value, place }) = checkpointing.directory.clone() {
            let every = every.map(|(every, _)| every);
            return Some(Checkpoint {
                spec: Arc::new(CheckpointSpec { directory: value, every }),
                place,
            });
        }
        // One that could not be read has been reported.
        if let Some((_, place)) = every
            && own.contains_key("checkpoint_every")
            && !own.contains_key("checkpoint")
        {
            let problem = self
                .sources
                .problem(place, "checkpoint_every says how often, but not what is saved")
                .help(
                    "add checkpoint = \"state/\", the directory in which the task saves its state",
                );
            self.problems.push(problem);
        }
        None
    }
}
