//! Failures: a class for the machine, a cause and a hint for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it was. Only this decides whether there is another try.
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

/// One failure, told to the machine and to people. Texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For the machine.
    pub class: FailureClass,
    /// What happened and where, a lower-case fragment.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: FailureClass, cause: impl Into<String>) -> Self {
        Self { class, cause: cause.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}
