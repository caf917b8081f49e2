//! Facts as they stand in a journal, version 1.
//!
//! Postcard is not self-describing: variants are only appended, fields never change. Anything else
//! is a new version with types of its own and a golden file. Texts are borrowed both ways, so that
//! writing copies them once and reading not before they become facts.

mod failure;

use keelboat_engine::{
    CheckpointOrigin, Content, Digest, Fact, KeyChange, KeyPart, Kind, MemoKey, MemoRecord,
    OutputRecord, RETRY_COST, Reason, Reuse, RunOutcome, Stamped, Timestamp,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::failure::{ExitV1, FailureV1};
use self::failure::{ShortageV1, UsageV1, kept};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StampedV1<'a> {
    at: u64,
    #[serde(borrow)]
    fact: FactV1<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum FactV1<'a> {
    EngineStarted {
        pid: u32,
        host: &'a str,
        version: &'a str,
        workflow: &'a str,
        plan: [u8; 32],
        file: &'a str,
    },
    Planned {
        tasks: u64,
    },
    Fetched {
        source: [u8; 32],
        display: &'a str,
        content: ContentV1,
        transferred: u64,
        etag: Option<&'a str>,
        last_modified: Option<&'a str>,
    },
    AttemptStarted {
        task: &'a str,
        ordinal: u32,
        #[serde(borrow)]
        reasons: Vec<ReasonV1<'a>>,
    },
    AttemptFailed {
        task: &'a str,
        ordinal: u32,
        #[serde(borrow)]
        failure: FailureV1<'a>,
        usage: UsageV1,
        counted: bool,
    },
    Completed {
        task: &'a str,
        ordinal: u32,
        key: [u8; 32],
        #[serde(borrow)]
        parts: Vec<PartV1<'a>>,
        #[serde(borrow)]
        record: RecordV1<'a>,
        usage: UsageV1,
        memoized: bool,
    },
    Reused {
        task: &'a str,
        key: [u8; 32],
        #[serde(borrow)]
        record: RecordV1<'a>,
        reuse: ReuseV1,
        memoized: bool,
    },
    Delivered {
        task: &'a str,
        path: &'a str,
        display: &'a str,
        content: ContentV1,
    },
    Failed {
        task: &'a str,
        #[serde(borrow)]
        failure: FailureV1<'a>,
    },
    Skipped {
        task: &'a str,
        because: &'a str,
    },
    RunEnded {
        outcome: RunOutcomeV1,
    },
    Owed {
        task: &'a str,
        path: &'a str,
        display: &'a str,
    },
    Undelivered {
        task: &'a str,
        path: &'a str,
        display: &'a str,
        #[serde(borrow)]
        failure: FailureV1<'a>,
    },
    /// `AttemptFailed` where more is known of the failure, or it did not cost all or nothing.
    AttemptEndedBadly {
        task: &'a str,
        ordinal: u32,
        #[serde(borrow)]
        failure: FailureV1<'a>,
        usage: UsageV1,
        cost: u32,
        exit: Option<ExitV1>,
        shortage: Option<ShortageV1>,
    },
    Value {
        bytes: &'a [u8],
    },
    CheckpointSaved {
        task: &'a str,
        ordinal: u32,
        bytes: u64,
    },
    CheckpointRestored {
        task: &'a str,
        ordinal: u32,
        #[serde(borrow)]
        from: CheckpointV1<'a>,
    },
    FailureKept {
        task: &'a str,
        key: [u8; 32],
        #[serde(borrow)]
        failure: FailureV1<'a>,
        exit: Option<ExitV1>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckpointV1<'a> {
    run: Option<&'a str>,
    ordinal: u32,
    saved: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ContentV1 {
    digest: [u8; 32],
    bytes: u64,
    kind: KindV1,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum KindV1 {
    File,
    Directory,
}

#[derive(Debug, Serialize, Deserialize)]
enum ReasonV1<'a> {
    FirstRun,
    Changed { part: &'a str, old: Option<&'a str>, new: Option<&'a str> },
    Forced,
    CacheOff,
    OutputMissing { path: &'a str },
    OutputChanged { path: &'a str },
    RecordLost,
    ResultLost,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PartV1<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecordV1<'a> {
    #[serde(borrow)]
    outputs: Vec<OutputV1<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct OutputV1<'a> {
    path: &'a str,
    content: Option<ContentV1>,
    executable: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum ReuseV1 {
    InPlace,
    Restored,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum RunOutcomeV1 {
    Succeeded,
    Failed,
    Cancelled,
}

impl<'a> From<&'a Stamped> for StampedV1<'a> {
    fn from(stamped: &'a Stamped) -> Self {
        Self { at: stamped.at.0, fact: (&stamped.fact).into() }
    }
}

impl From<StampedV1<'_>> for Stamped {
    fn from(disk: StampedV1<'_>) -> Self {
        Self { at: Timestamp(disk.at), fact: disk.fact.into() }
    }
}

impl<'a> From<&'a Fact> for FactV1<'a> {
    fn from(fact: &'a Fact) -> Self {
        match fact {
            Fact::EngineStarted { pid, host, version, workflow, plan, file } => {
                let plan = *plan.as_bytes();
                Self::EngineStarted { pid: *pid, host, version, workflow, plan, file }
            }
            Fact::Planned { tasks } => Self::Planned { tasks: *tasks },
            Fact::Fetched { source, display, content, transferred, etag, last_modified } => {
                Self::Fetched {
                    source: *source.as_bytes(),
                    display,
                    content: (*content).into(),
                    transferred: *transferred,
                    etag: etag.as_deref(),
                    last_modified: last_modified.as_deref(),
                }
            }
            Fact::AttemptStarted { task, ordinal, reasons } => {
                let reasons = reasons.iter().map(Into::into).collect();
                Self::AttemptStarted { task, ordinal: *ordinal, reasons }
            }
            Fact::AttemptFailed { task, ordinal, failure, usage, cost } => {
                failure::attempt_failed((task, *ordinal), failure, *usage, *cost)
            }
            Fact::Completed { task, ordinal, key, parts, record, usage, memoized } => {
                Self::Completed {
                    task,
                    ordinal: *ordinal,
                    key: *key.0.as_bytes(),
                    parts: parts.iter().map(Into::into).collect(),
                    record: record.into(),
                    usage: (*usage).into(),
                    memoized: *memoized,
                }
            }
            Fact::Reused { task, key, record, reuse, memoized } => {
                let (key, reuse) = (*key.0.as_bytes(), (*reuse).into());
                Self::Reused { task, key, record: record.into(), reuse, memoized: *memoized }
            }
            Fact::Delivered { task, path, display, content } => {
                Self::Delivered { task, path, display, content: (*content).into() }
            }
            Fact::Failed { task, failure } => Self::Failed { task, failure: failure.into() },
            Fact::Skipped { task, because } => Self::Skipped { task, because },
            Fact::RunEnded { outcome } => Self::RunEnded { outcome: (*outcome).into() },
            Fact::Owed { task, path, display } => Self::Owed { task, path, display },
            Fact::Undelivered { task, path, display, failure } => {
                Self::Undelivered { task, path, display, failure: failure.into() }
            }
            Fact::Value { bytes } => Self::Value { bytes },
            Fact::CheckpointSaved { task, ordinal, bytes } => {
                Self::CheckpointSaved { task, ordinal: *ordinal, bytes: *bytes }
            }
            Fact::CheckpointRestored { task, ordinal, from } => {
                Self::CheckpointRestored { task, ordinal: *ordinal, from: from.into() }
            }
            Fact::FailureKept { task, key, failure } => {
                let (key, exit) = (*key.0.as_bytes(), failure.exit.map(Into::into));
                Self::FailureKept { task, key, failure: failure.into(), exit }
            }
        }
    }
}

impl From<FactV1<'_>> for Fact {
    fn from(disk: FactV1<'_>) -> Self {
        match disk {
            FactV1::EngineStarted { pid, host, version, workflow, plan, file } => {
                let texts = [host, version, workflow, file].map(str::to_owned);
                let ([host, version, workflow, file], plan) = (texts, Digest::from_bytes(plan));
                Self::EngineStarted { pid, host, version, workflow, plan, file }
            }
            FactV1::Planned { tasks } => Self::Planned { tasks },
            FactV1::Fetched { source, display, content, transferred, etag, last_modified } => {
                Self::Fetched {
                    source: Digest::from_bytes(source),
                    display: display.to_owned(),
                    content: content.into(),
                    transferred,
                    etag: etag.map(str::to_owned),
                    last_modified: last_modified.map(str::to_owned),
                }
            }
            FactV1::AttemptStarted { task, ordinal, reasons } => {
                let reasons = reasons.into_iter().map(Into::into).collect();
                Self::AttemptStarted { task: task.into(), ordinal, reasons }
            }
            FactV1::AttemptFailed { task, ordinal, failure, usage, counted } => {
                let cost = if counted { RETRY_COST } else { 0 };
                failure::from_disk((task, ordinal), failure, usage, cost, (None, None))
            }
            FactV1::AttemptEndedBadly { task, ordinal, failure, usage, cost, exit, shortage } => {
                failure::from_disk((task, ordinal), failure, usage, cost, (exit, shortage))
            }
            FactV1::Completed { task, ordinal, key, parts, record, usage, memoized } => {
                Self::Completed {
                    task: task.into(),
                    ordinal,
                    key: MemoKey(Digest::from_bytes(key)),
                    parts: parts.into_iter().map(Into::into).collect(),
                    record: record.into(),
                    usage: usage.into(),
                    memoized,
                }
            }
            FactV1::Reused { task, key, record, reuse, memoized } => {
                let (key, reuse) = (MemoKey(Digest::from_bytes(key)), reuse.into());
                Self::Reused { task: task.into(), key, record: record.into(), reuse, memoized }
            }
            FactV1::Delivered { task, path, display, content } => {
                let (task, path, display) = (task.into(), path.into(), display.to_owned());
                Self::Delivered { task, path, display, content: content.into() }
            }
            FactV1::Failed { task, failure } => {
                Self::Failed { task: task.into(), failure: failure.into() }
            }
            FactV1::Skipped { task, because } => {
                Self::Skipped { task: task.into(), because: because.into() }
            }
            FactV1::RunEnded { outcome } => Self::RunEnded { outcome: outcome.into() },
            FactV1::Owed { task, path, display } => {
                Self::Owed { task: task.into(), path: path.into(), display: display.to_owned() }
            }
            FactV1::Undelivered { task, path, display, failure } => {
                let (task, path, display) = (task.into(), path.into(), display.to_owned());
                Self::Undelivered { task, path, display, failure: failure.into() }
            }
            FactV1::Value { bytes } => Self::Value { bytes: bytes.into() },
            FactV1::CheckpointSaved { task, ordinal, bytes } => {
                Self::CheckpointSaved { task: task.into(), ordinal, bytes }
            }
            FactV1::CheckpointRestored { task, ordinal, from } => {
                Self::CheckpointRestored { task: task.into(), ordinal, from: from.into() }
            }
            FactV1::FailureKept { task, key, failure, exit } => kept(task, key, failure, exit),
        }
    }
}

impl<'a> From<&'a CheckpointOrigin> for CheckpointV1<'a> {
    fn from(origin: &'a CheckpointOrigin) -> Self {
        let CheckpointOrigin { run, ordinal, saved, bytes } = origin;
        Self { run: run.as_deref(), ordinal: *ordinal, saved: saved.0, bytes: *bytes }
    }
}

impl From<CheckpointV1<'_>> for CheckpointOrigin {
    fn from(disk: CheckpointV1<'_>) -> Self {
        let CheckpointV1 { run, ordinal, saved, bytes } = disk;
        Self { run: run.map(Into::into), ordinal, saved: Timestamp(saved), bytes }
    }
}

impl From<Content> for ContentV1 {
    fn from(content: Content) -> Self {
        let kind = match content.kind {
            Kind::File => KindV1::File,
            Kind::Directory => KindV1::Directory,
        };
        Self { digest: *content.digest.as_bytes(), bytes: content.bytes, kind }
    }
}

impl From<ContentV1> for Content {
    fn from(disk: ContentV1) -> Self {
        let kind = match disk.kind {
            KindV1::File => Kind::File,
            KindV1::Directory => Kind::Directory,
        };
        Self { digest: Digest::from_bytes(disk.digest), bytes: disk.bytes, kind }
    }
}

impl<'a> From<&'a Reason> for ReasonV1<'a> {
    fn from(reason: &'a Reason) -> Self {
        match reason {
            Reason::FirstRun => Self::FirstRun,
            Reason::Changed(KeyChange { part, old, new }) => {
                Self::Changed { part, old: old.as_deref(), new: new.as_deref() }
            }
            Reason::Forced => Self::Forced,
            Reason::CacheOff => Self::CacheOff,
            Reason::OutputMissing { path } => Self::OutputMissing { path },
            Reason::OutputChanged { path } => Self::OutputChanged { path },
            Reason::RecordLost => Self::RecordLost,
            Reason::ResultLost => Self::ResultLost,
        }
    }
}

impl From<ReasonV1<'_>> for Reason {
    fn from(disk: ReasonV1<'_>) -> Self {
        match disk {
            ReasonV1::FirstRun => Self::FirstRun,
            ReasonV1::Changed { part, old, new } => Self::Changed(KeyChange {
                part: part.to_owned(),
                old: old.map(str::to_owned),
                new: new.map(str::to_owned),
            }),
            ReasonV1::Forced => Self::Forced,
            ReasonV1::CacheOff => Self::CacheOff,
            ReasonV1::OutputMissing { path } => Self::OutputMissing { path: path.into() },
            ReasonV1::OutputChanged { path } => Self::OutputChanged { path: path.into() },
            ReasonV1::RecordLost => Self::RecordLost,
            ReasonV1::ResultLost => Self::ResultLost,
        }
    }
}

impl<'a> From<&'a KeyPart> for PartV1<'a> {
    fn from(part: &'a KeyPart) -> Self {
        Self { name: &part.name, value: &part.value }
    }
}

impl From<PartV1<'_>> for KeyPart {
    fn from(disk: PartV1<'_>) -> Self {
        Self { name: disk.name.to_owned(), value: disk.value.to_owned() }
    }
}

impl<'a> From<&'a MemoRecord> for RecordV1<'a> {
    fn from(record: &'a MemoRecord) -> Self {
        let outputs = record.outputs.iter().map(|output| OutputV1 {
            path: &output.path,
            content: output.content.map(Into::into),
            executable: output.executable,
        });
        // A value stands last, as a file that has no path.
        let value = record.value.map(|digest| OutputV1 {
            path: "",
            content: Some(Content { digest, bytes: 0, kind: Kind::File }.into()),
            executable: false,
        });
        Self { outputs: outputs.chain(value).collect() }
    }
}

impl From<RecordV1<'_>> for MemoRecord {
    fn from(disk: RecordV1<'_>) -> Self {
        let mut outputs = disk.outputs;
        let value = outputs.pop_if(|output| output.path.is_empty());
        let value = value.and_then(|value| Some(Content::from(value.content?).digest));
        let outputs = outputs.into_iter().map(|output| OutputRecord {
            path: output.path.into(),
            content: output.content.map(Into::into),
            executable: output.executable,
        });
        Self { outputs: outputs.collect(), value }
    }
}

impl From<Reuse> for ReuseV1 {
    fn from(reuse: Reuse) -> Self {
        match reuse {
            Reuse::InPlace => Self::InPlace,
            Reuse::Restored => Self::Restored,
        }
    }
}

impl From<ReuseV1> for Reuse {
    fn from(disk: ReuseV1) -> Self {
        match disk {
            ReuseV1::InPlace => Self::InPlace,
            ReuseV1::Restored => Self::Restored,
        }
    }
}

impl From<RunOutcome> for RunOutcomeV1 {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Succeeded => Self::Succeeded,
            RunOutcome::Failed => Self::Failed,
            RunOutcome::Cancelled => Self::Cancelled,
        }
    }
}

impl From<RunOutcomeV1> for RunOutcome {
    fn from(disk: RunOutcomeV1) -> Self {
        match disk {
            RunOutcomeV1::Succeeded => Self::Succeeded,
            RunOutcomeV1::Failed => Self::Failed,
            RunOutcomeV1::Cancelled => Self::Cancelled,
        }
    }
}
