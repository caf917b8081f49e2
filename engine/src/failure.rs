//! Failures: a class for the machine, a cause and a hint for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Response;

/// What kind of failure it was. This decides whether there is another try, unless the task's
/// [`RetryPolicy`](crate::RetryPolicy) has a rule for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// May go away: another try may succeed, and costs one retry.
    Transient,
    /// Another try would end the same way.
    Permanent,
    /// Memory, disk or time ran out; another try costs one retry.
    OutOfResources,
    /// The place where it ran went away, not its own doing; another try costs nothing.
    InfrastructureLost,
    /// An input cannot be had.
    InputMissing,
}

impl FailureClass {
    /// The class in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::OutOfResources => "out of resources",
            Self::InfrastructureLost => "infrastructure lost",
            Self::InputMissing => "input missing",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a command ended that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this exit code, which is not 0.
    Code(i32),
    /// Killed by the signal of this number.
    Signal(i32),
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// Memory: another try may ask for more.
    Memory,
    /// The time that the task may take.
    Time,
    /// Room on a disk.
    Disk,
}

/// From this one on, exit codes are those of whoever starts a command: docker and podman use 125,
/// shells 126, 127, and what follows 128 for signals.
const VERDICT_CODES_END: i32 = 125;

/// One failure, told to the machine and to people. Texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For the machine.
    pub class: FailureClass,
    /// What happened and where, a lower-case fragment.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How the command ended, where one had been started and ended of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What ran out, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Shortage>,
    /// Whether a function gave it as its error.
    #[serde(skip)]
    pub is_error: bool,
    /// What is to follow, where somebody has looked at this very failure. It goes before all rules.
    #[serde(skip)]
    pub response: Option<Response>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: FailureClass, cause: impl Into<String>) -> Self {
        Self {
            class,
            cause: cause.into(),
            hint: None,
            exit: None,
            shortage: None,
            is_error: false,
            response: None,
        }
    }

    /// Whether it is the task's own verdict on what it was given: the error of a function, or an exit
    /// code, but for those by which shells and containers say that there is nothing to be run, or
    /// that a signal came.
    pub const fn is_verdict(&self) -> bool {
        let by_code = matches!(self.exit, Some(Exit::Code(1..VERDICT_CODES_END)));
        self.shortage.is_none() && (self.is_error || by_code)
    }

    /// The same, as the error of a function.
    #[must_use]
    pub const fn as_error(mut self) -> Self {
        self.is_error = true;
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same of a command that ended like this.
    #[must_use]
    pub const fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = Some(exit);
        self
    }

    /// The same, and this had run out.
    #[must_use]
    pub const fn with_shortage(mut self, shortage: Shortage) -> Self {
        self.shortage = Some(shortage);
        self
    }

    /// The same, and this is to follow from it.
    #[must_use]
    pub const fn with_response(mut self, response: Response) -> Self {
        self.response = Some(response);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}
