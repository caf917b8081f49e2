//! Events as JSON, one a line on standard output, for programs.
//!
//! Version 1, as `docs/command-line.md` describes it: fields may be added, and none is taken away
//! or changes its meaning without another version.

use std::time::Duration;

use keelboat_engine::{
    CheckpointOrigin, Content, Fact, Failure, RETRY_COST, Reuse, RunOutcome, Stamped, Usage,
};
use serde::Serialize;

use super::super::reason::reason;
use super::super::terminal::Terminal;
use super::Shown;
use crate::driver::{Observer, Start, View};

#[derive(Debug)]
pub(super) struct Json {
    terminal: Terminal,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    /// Milliseconds since 1970, UTC.
    at_ms: u64,
    #[serde(flatten)]
    event: EventV1<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventV1<'a> {
    Started {
        run: &'a str,
        workflow: &'a str,
        resumed: bool,
        tasks: u32,
    },
    Planned {
        tasks: u64,
    },
    Fetched {
        source: &'a str,
        sha256: String,
        bytes: u64,
        transferred: u64,
    },
    AttemptStarted {
        task: &'a str,
        attempt: u32,
        reasons: Vec<String>,
    },
    AttemptFailed {
        task: &'a str,
        attempt: u32,
        failure: &'a Failure,
        /// Retries that it cost.
        cost: f64,
        usage: UsageV1,
    },
    Completed {
        task: &'a str,
        attempt: u32,
        key: String,
        outputs: Vec<OutputV1<'a>>,
        usage: UsageV1,
    },
    Reused {
        task: &'a str,
        key: String,
        restored: bool,
        outputs: Vec<OutputV1<'a>>,
    },
    Delivered {
        task: &'a str,
        path: &'a str,
        to: &'a str,
        sha256: String,
    },
    Undelivered {
        task: &'a str,
        path: &'a str,
        to: &'a str,
        failure: &'a Failure,
    },
    Failed {
        task: &'a str,
        failure: &'a Failure,
    },
    Skipped {
        task: &'a str,
        because: &'a str,
    },
    CheckpointSaved {
        task: &'a str,
        attempt: u32,
        bytes: u64,
    },
    CheckpointRestored {
        task: &'a str,
        attempt: u32,
        from: CheckpointV1<'a>,
    },
    Warning {
        text: &'a str,
    },
    /// A transfer does not move.
    Waiting {
        text: &'a str,
    },
    Ended {
        outcome: &'static str,
    },
}

#[derive(Serialize)]
struct CheckpointV1<'a> {
    /// Absent: this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    attempt: u32,
    saved_ms: u64,
    bytes: u64,
}

impl<'a> From<&'a CheckpointOrigin> for CheckpointV1<'a> {
    fn from(origin: &'a CheckpointOrigin) -> Self {
        let CheckpointOrigin { run, ordinal, saved, bytes } = origin;
        Self { run: run.as_deref(), attempt: *ordinal, saved_ms: saved.0, bytes: *bytes }
    }
}

#[derive(Serialize)]
struct OutputV1<'a> {
    path: &'a str,
    /// Absent for an optional output that was not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct UsageV1 {
    wall_ms: u128,
    cpu_user_ms: u128,
    cpu_system_ms: u128,
    memory_max_bytes: u64,
    read_bytes: u64,
    written_bytes: u64,
}

impl From<&Usage> for UsageV1 {
    fn from(usage: &Usage) -> Self {
        Self {
            wall_ms: usage.wall.as_millis(),
            cpu_user_ms: usage.cpu_user.as_millis(),
            cpu_system_ms: usage.cpu_system.as_millis(),
            memory_max_bytes: usage.memory_max,
            read_bytes: usage.read,
            written_bytes: usage.written,
        }
    }
}

fn outputs(record: &keelboat_engine::MemoRecord) -> Vec<OutputV1<'_>> {
    let output = |output: &'_ keelboat_engine::OutputRecord| {
        (output.content.map(|content: Content| content.digest.to_hex()), output.content)
    };
    let shown = record.outputs.iter().map(|left| {
        let (sha256, content) = output(left);
        OutputV1 { path: &left.path, sha256, bytes: content.map(|content| content.bytes) }
    });
    shown.collect()
}

fn event(fact: &Fact) -> Option<EventV1<'_>> {
    Some(match fact {
        Fact::EngineStarted { .. } => return None,
        Fact::Planned { tasks } => EventV1::Planned { tasks: *tasks },
        Fact::Fetched { display, content, transferred, .. } => EventV1::Fetched {
            source: display,
            sha256: content.digest.to_hex(),
            bytes: content.bytes,
            transferred: *transferred,
        },
        Fact::AttemptStarted { task, ordinal, reasons } => EventV1::AttemptStarted {
            task,
            attempt: *ordinal,
            reasons: reasons.iter().map(reason).collect(),
        },
        Fact::AttemptFailed { task, ordinal, failure, usage, cost } => {
            let cost = f64::from(*cost) / f64::from(RETRY_COST);
            EventV1::AttemptFailed { task, attempt: *ordinal, failure, cost, usage: usage.into() }
        }
        Fact::Completed { task, ordinal, key, record, usage, .. } => EventV1::Completed {
            task,
            attempt: *ordinal,
            key: key.to_string(),
            outputs: outputs(record),
            usage: usage.into(),
        },
        Fact::Reused { task, key, record, reuse, memoized: _ } => EventV1::Reused {
            task,
            key: key.to_string(),
            restored: *reuse == Reuse::Restored,
            outputs: outputs(record),
        },
        Fact::Delivered { task, path, display, content } => {
            EventV1::Delivered { task, path, to: display, sha256: content.digest.to_hex() }
        }
        Fact::Owed { .. } | Fact::Value { .. } | Fact::FailureKept { .. } => return None,
        Fact::Undelivered { task, path, display, failure } => {
            EventV1::Undelivered { task, path, to: display, failure }
        }
        Fact::CheckpointSaved { task, ordinal, bytes } => {
            EventV1::CheckpointSaved { task, attempt: *ordinal, bytes: *bytes }
        }
        Fact::CheckpointRestored { task, ordinal, from } => {
            EventV1::CheckpointRestored { task, attempt: *ordinal, from: from.into() }
        }
        Fact::Failed { task, failure } => EventV1::Failed { task, failure },
        Fact::Skipped { task, because } => EventV1::Skipped { task, because },
        Fact::RunEnded { outcome } => EventV1::Ended {
            outcome: match outcome {
                RunOutcome::Succeeded => "succeeded",
                RunOutcome::Failed => "failed",
                RunOutcome::Cancelled => "cancelled",
            },
        },
    })
}

impl Json {
    pub(super) fn new() -> Self {
        Self { terminal: Terminal::new() }
    }

    fn print(&self, at_ms: u64, event: EventV1<'_>) {
        match serde_json::to_string(&Line { v: 1, at_ms, event }) {
            Ok(line) => self.terminal.line(format_args!("{line}")),
            Err(error) => tracing::error!(%error, "an event cannot be shown as JSON"),
        }
    }
}

fn now_ms() -> u64 {
    let since_1970: Duration = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

impl Observer for Json {
    fn started(&mut self, start: &Start<'_>) {
        let Start { run, workflow, resumed, tasks } = *start;
        self.print(now_ms(), EventV1::Started { run, workflow, resumed, tasks });
    }

    fn fact(&mut self, stamped: &Stamped) {
        if let Some(event) = event(&stamped.fact) {
            self.print(stamped.at.0, event);
        }
    }

    fn progress(&mut self, _view: &View<'_>) {}

    fn warning(&mut self, text: &str) {
        self.print(now_ms(), EventV1::Warning { text });
    }

    fn waiting(&mut self, text: &str) {
        self.print(now_ms(), EventV1::Waiting { text });
    }
}

impl Shown for Json {
    fn end(&mut self) {}
}
