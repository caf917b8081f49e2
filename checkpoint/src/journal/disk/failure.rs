//! Failures of attempts, and what attempts used, as they stand in a journal, version 1.

use std::time::Duration;

use keelboat_engine::{
    Digest, Exit, Fact, Failure, FailureClass, MemoKey, RETRY_COST, Shortage, Usage,
};
use serde::{Deserialize, Serialize};

use super::FactV1;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum ExitV1 {
    Code(i32),
    Signal(i32),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum ShortageV1 {
    Memory,
    Time,
    Disk,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailureV1<'a> {
    class: FailureClassV1,
    cause: &'a str,
    hint: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum FailureClassV1 {
    Transient,
    Permanent,
    OutOfResources,
    InfrastructureLost,
    InputMissing,
}

/// Spans are pairs of seconds and nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct UsageV1 {
    wall: (u64, u32),
    cpu_user: (u64, u32),
    cpu_system: (u64, u32),
    memory_max: u64,
    read: u64,
    written: u64,
}

impl<'a> From<&'a Failure> for FailureV1<'a> {
    fn from(failure: &'a Failure) -> Self {
        let class = match failure.class {
            FailureClass::Transient => FailureClassV1::Transient,
            FailureClass::Permanent => FailureClassV1::Permanent,
            FailureClass::OutOfResources => FailureClassV1::OutOfResources,
            FailureClass::InfrastructureLost => FailureClassV1::InfrastructureLost,
            FailureClass::InputMissing => FailureClassV1::InputMissing,
        };
        Self { class, cause: &failure.cause, hint: failure.hint.as_deref() }
    }
}

impl From<FailureV1<'_>> for Failure {
    fn from(disk: FailureV1<'_>) -> Self {
        let class = match disk.class {
            FailureClassV1::Transient => FailureClass::Transient,
            FailureClassV1::Permanent => FailureClass::Permanent,
            FailureClassV1::OutOfResources => FailureClass::OutOfResources,
            FailureClassV1::InfrastructureLost => FailureClass::InfrastructureLost,
            FailureClassV1::InputMissing => FailureClass::InputMissing,
        };
        let hint = disk.hint.map(str::to_owned);
        Self { hint, ..Self::new(class, disk.cause) }
    }
}

impl From<Exit> for ExitV1 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl From<ExitV1> for Exit {
    fn from(disk: ExitV1) -> Self {
        match disk {
            ExitV1::Code(code) => Self::Code(code),
            ExitV1::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl From<Shortage> for ShortageV1 {
    fn from(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Memory => Self::Memory,
            Shortage::Time => Self::Time,
            Shortage::Disk => Self::Disk,
        }
    }
}

impl From<ShortageV1> for Shortage {
    fn from(disk: ShortageV1) -> Self {
        match disk {
            ShortageV1::Memory => Self::Memory,
            ShortageV1::Time => Self::Time,
            ShortageV1::Disk => Self::Disk,
        }
    }
}

impl From<Usage> for UsageV1 {
    fn from(usage: Usage) -> Self {
        let pair = |span: Duration| (span.as_secs(), span.subsec_nanos());
        Self {
            wall: pair(usage.wall),
            cpu_user: pair(usage.cpu_user),
            cpu_system: pair(usage.cpu_system),
            memory_max: usage.memory_max,
            read: usage.read,
            written: usage.written,
        }
    }
}

impl From<UsageV1> for Usage {
    fn from(disk: UsageV1) -> Self {
        let span = |(seconds, nanos): (u64, u32)| {
            Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()))
        };
        Self {
            wall: span(disk.wall),
            cpu_user: span(disk.cpu_user),
            cpu_system: span(disk.cpu_system),
            memory_max: disk.memory_max,
            read: disk.read,
            written: disk.written,
        }
    }
}

/// The end of a failed attempt, in the shorter form where that can say it.
pub(super) fn attempt_failed<'a>(
    (task, ordinal): (&'a str, u32),
    failure: &'a Failure,
    usage: Usage,
    cost: u32,
) -> FactV1<'a> {
    let (exit, shortage, usage) = (failure.exit, failure.shortage, usage.into());
    let is_plain = exit.is_none() && shortage.is_none() && matches!(cost, 0 | RETRY_COST);
    let failure = failure.into();
    if is_plain {
        return FactV1::AttemptFailed { task, ordinal, failure, usage, counted: cost > 0 };
    }
    let (exit, shortage) = (exit.map(Into::into), shortage.map(Into::into));
    FactV1::AttemptEndedBadly { task, ordinal, failure, usage, cost, exit, shortage }
}

/// The same from the disk.
pub(super) fn from_disk(
    (task, ordinal): (&str, u32),
    failure: FailureV1<'_>,
    usage: UsageV1,
    cost: u32,
    (exit, shortage): (Option<ExitV1>, Option<ShortageV1>),
) -> Fact {
    let (exit, shortage) = (exit.map(Into::into), shortage.map(Into::into));
    let failure = Failure { exit, shortage, ..failure.into() };
    Fact::AttemptFailed { task: task.into(), ordinal, failure, usage: usage.into(), cost }
}

/// A failure that is remembered, from the disk.
pub(super) fn kept(
    task: &str,
    key: [u8; 32],
    failure: FailureV1<'_>,
    exit: Option<ExitV1>,
) -> Fact {
    let failure = Failure { exit: exit.map(Into::into), ..failure.into() };
    Fact::FailureKept { task: task.into(), key: MemoKey(Digest::from_bytes(key)), failure }
}
