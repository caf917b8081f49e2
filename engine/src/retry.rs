//! What follows from a failed attempt: another try and what it costs, the end of the task, or that
//! it is skipped.
//!
//! All of it is data, so that it can be written in a file, compared, and decided on without asking
//! anybody. Whoever has a program to decide (a function of the library) lets it decide when the
//! attempt has failed, and puts the answer into [`Failure::response`].

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::{Exit, Failure, FailureClass, Shortage};

/// What a failure costs when nobody says otherwise: one retry, in thousandths.
pub const RETRY_COST: u32 = 1_000;

/// How often, and how soon, a failed task is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first one, if each failure costs one. They are a budget: a task whose
    /// failures cost more than this fails.
    pub retries: u32,
    /// Wait before the first retry; doubled for each one after it, with jitter.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// What follows from particular failures: of the rules that apply, the first one.
    pub rules: Arc<[RetryRule]>,
}

impl RetryPolicy {
    /// That of very many tasks: it takes room once.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<RetryPolicy>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 0,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
            rules: Arc::default(),
        }
    }
}

/// What follows from failures of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRule {
    /// Which failures.
    pub on: FailureKind,
    /// What follows.
    pub then: Response,
}

/// Failures that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The command ended like this.
    Exit(Exit),
    /// The command ended by itself or by a signal, and nothing that it asked for ran out.
    AnyExit,
    /// This ran out.
    Shortage(Shortage),
    /// Any of this class.
    Class(FailureClass),
}

impl FailureKind {
    fn includes(self, failure: &Failure) -> bool {
        match self {
            Self::Exit(exit) => failure.exit == Some(exit),
            Self::AnyExit => failure.exit.is_some() && failure.shortage.is_none(),
            Self::Shortage(shortage) => failure.shortage == Some(shortage),
            Self::Class(class) => failure.class == class,
        }
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// Another try, if the budget has this much.
    Retry {
        /// Thousandths of a retry. What costs nothing is tried again, but not for ever.
        cost: u32,
    },
    /// The task fails at once.
    Fail,
    /// The task is skipped, with all that needs it; the run does not fail by that.
    Skip,
}

impl Response {
    /// What follows from a failure of this class when nobody says otherwise.
    pub const fn of(class: FailureClass) -> Self {
        match class {
            FailureClass::Permanent => Self::Fail,
            FailureClass::Transient | FailureClass::OutOfResources => {
                Self::Retry { cost: RETRY_COST }
            }
            FailureClass::InfrastructureLost | FailureClass::InputMissing => {
                Self::Retry { cost: 0 }
            }
        }
    }
}

impl RetryPolicy {
    /// What is to follow from a failure: what it says itself, or else what a rule says.
    pub fn answer(&self, failure: &Failure) -> Option<Response> {
        let rule = || self.rules.iter().find(|rule| rule.on.includes(failure));
        failure.response.or_else(|| rule().map(|rule| rule.then))
    }

    /// All that failures may cost, in thousandths.
    pub fn budget(&self) -> u64 {
        u64::from(self.retries) * u64::from(RETRY_COST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[(FailureKind, Response)]) -> RetryPolicy {
        let rules = rules.iter().map(|(on, then)| RetryRule { on: *on, then: *then });
        RetryPolicy { rules: rules.collect(), ..RetryPolicy::default() }
    }

    #[test]
    fn a_failure_speaks_first_then_the_first_rule_that_applies() {
        let (code, signal) = (Exit::Code(75), Exit::Signal(11));
        let policy = policy(&[
            (FailureKind::Exit(code), Response::Retry { cost: 1 }),
            (FailureKind::Exit(signal), Response::Skip),
            (FailureKind::Shortage(Shortage::Memory), Response::Retry { cost: 2 }),
            (FailureKind::Class(FailureClass::InfrastructureLost), Response::Retry { cost: 3 }),
            (FailureKind::AnyExit, Response::Fail),
        ]);
        let failure = |exit| Failure { exit, ..Failure::new(FailureClass::Transient, "x") };
        let killed = failure(Some(Exit::Signal(9))).with_shortage(Shortage::Memory);
        let lost = Failure::new(FailureClass::InfrastructureLost, "x");
        let own = failure(Some(code)).with_response(Response::Skip);
        let table = [
            (failure(Some(code)), Some(Response::Retry { cost: 1 })),
            (own, Some(Response::Skip)),
            (failure(Some(signal)), Some(Response::Skip)),
            (failure(Some(Exit::Code(2))), Some(Response::Fail)),
            (killed, Some(Response::Retry { cost: 2 })),
            (lost, Some(Response::Retry { cost: 3 })),
            (failure(None), None),
            (Failure::new(FailureClass::Permanent, "x"), None),
        ];
        for (failure, expected) in table {
            assert_eq!(policy.answer(&failure), expected, "{failure:?}");
        }
    }
}
