//! How attempts end, and what comes after: publication, another try, or the end.

use std::time::Duration;

use super::task::Counted;
use super::{Action, Core, Course, Phase, Urgency};
use crate::{
    AttemptId, AttemptOutcome, Fact, Failure, FailureClass, MemoRecord, Memoize, Response,
    Shortage, SiteId, TaskId, Usage, key_parts,
};

/// Attempts of one task in a row that may be lost through no fault of its own or cost nothing, and
/// results of it that may be lost in all, before it is given up.
pub(super) const LOSSES_MAX: u32 = 20;

/// The wait after the second loss in a row; doubled for each one after it.
const LOSS_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait after a loss.
const LOSS_BACKOFF_MAX: Duration = Duration::from_secs(30);

impl Core {
    pub(super) fn on_attempt_ended(&mut self, outcome: AttemptOutcome, actions: &mut Vec<Action>) {
        let AttemptOutcome { attempt, result, usage } = outcome;
        let Some(Phase::Running(site)) = self.current(attempt) else { return };
        if self.is_in_line(attempt.task) {
            if result.is_err() && self.was_asked_to_stop() {
                // Nobody had begun it, or nobody needs to know.
                self.leave(attempt.task);
                self.tasks[attempt.task.index()].phase = Phase::Backoff;
                return;
            }
            self.tell_of_begin(attempt.task, actions);
        }
        match result {
            Ok(()) => {
                self.learn_wall(attempt.task, usage.wall);
                self.begin_publishing(attempt.task, site);
                self.tasks[attempt.task.index()].usage = Some(Box::new(usage));
                actions.push(Action::Publish { attempt });
            }
            Err(failure) => self.on_attempt_failed(attempt.task, failure, usage, actions),
        }
    }

    pub(super) fn on_published(
        &mut self,
        attempt: AttemptId,
        record: &MemoRecord,
        actions: &mut Vec<Action>,
    ) {
        let Some(Phase::Publishing(site)) = self.current(attempt) else { return };
        let task = attempt.task;
        let usage = self.usage_published(task);
        let spec = self.spec(task);
        let fact = Fact::Completed {
            task: spec.name.clone(),
            ordinal: attempt.ordinal,
            key: self.tasks[task.index()].key().expect("what ran has a key"),
            parts: key_parts(spec, &self.contents_read(task), &self.values(task)),
            record: record.clone(),
            usage,
            memoized: spec.options.memoize.remembers(),
        };
        super::record(fact, actions);
        self.on_done(task, record, site, Counted::Completed, actions);
    }

    pub(super) fn on_join_began(&mut self, attempt: AttemptId) {
        if let Some(Phase::Publishing(_)) = self.current(attempt) {
            self.sites.joining.insert(attempt.task);
        }
    }

    pub(super) fn on_publish_failed(
        &mut self,
        attempt: AttemptId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let Some(Phase::Publishing(_)) = self.current(attempt) else { return };
        let usage = self.usage_published(attempt.task);
        self.on_attempt_failed(attempt.task, failure, usage, actions);
    }

    /// What the attempt used whose outputs were being published.
    fn usage_published(&mut self, task: TaskId) -> Usage {
        self.tasks[task.index()].usage.take().map_or_else(Usage::default, |usage| *usage)
    }

    /// The phase of an attempt's task, if it is the task's present attempt. The one place where
    /// reports about earlier attempts are dropped.
    pub(super) fn current(&self, attempt: AttemptId) -> Option<Phase> {
        let state = self.tasks.get(attempt.task.index())?;
        (state.ordinal == attempt.ordinal).then_some(state.phase)
    }

    pub(super) fn on_attempt_failed(
        &mut self,
        task: TaskId,
        failure: Failure,
        usage: Usage,
        actions: &mut Vec<Action>,
    ) {
        let site = self.phase(task).site();
        self.leave(task);
        self.snapshots.forget(task);
        let asked_to_stop = self.was_asked_to_stop();
        let grows = failure.shortage == Some(Shortage::Memory) && self.grow(task);
        let answer = self.spec(task).options.retry.answer(&failure);
        // With more memory it is another attempt, and no answer means that it costs nothing.
        let grows = grows && answer.is_none();
        let response = match answer {
            None if grows => Response::Retry { cost: 0 },
            answer => answer.unwrap_or_else(|| Response::of(failure.class)),
        };
        let state = &mut self.tasks[task.index()];
        state.phase = Phase::Backoff;
        let interfered = state.cancelled || asked_to_stop;
        let cost = match response {
            Response::Retry { cost } if !interfered => cost,
            _ => 0,
        };
        state.failures += u32::from(cost > 0);
        state.spent += u64::from(cost);
        let free = is_loss(failure.class) || response == Response::Retry { cost: 0 };
        state.losses = if free && !grows { state.losses + 1 } else { 0 };
        let (ordinal, cancelled) = (state.ordinal, state.cancelled);
        let fact = Fact::AttemptFailed {
            task: self.spec(task).name.clone(),
            ordinal,
            failure: failure.clone(),
            usage,
            cost,
        };
        super::record(fact, actions);
        if let Some(site) = site.filter(|_| failure.class == FailureClass::InputMissing) {
            self.distrust_inputs(task, site);
        }
        if asked_to_stop {
            // A run that was stopped leaves the task as it is, for the next run to take up.
        } else if cancelled {
            self.fail(task, cancellation(), actions);
        } else if response == Response::Skip {
            self.skip_itself(task, actions);
        } else if self.is_given_up(task, response) {
            let failure = told_with_losses(failure, self.tasks[task.index()].losses);
            self.keep_failure(task, &failure, actions);
            self.fail(task, failure, actions);
        } else if self.course != Course::Failing {
            let wait = if grows { Duration::ZERO } else { self.wait_after(task, failure.class) };
            self.tasks[task.index()].due = self.now.after(wait);
            self.try_again(task, actions);
        }
    }

    /// A failure for good is remembered, if that is wanted and it would come again.
    fn keep_failure(&self, task: TaskId, failure: &Failure, actions: &mut Vec<Action>) {
        let spec = self.spec(task);
        if spec.options.memoize == Memoize::Failures
            && failure.is_verdict()
            && let Some(key) = self.tasks[task.index()].key()
        {
            let (task, failure) = (spec.name.clone(), failure.clone());
            super::record(Fact::FailureKept { task, key, failure }, actions);
        }
    }

    fn is_given_up(&self, task: TaskId, response: Response) -> bool {
        let (state, policy) = (&self.tasks[task.index()], &self.spec(task).options.retry);
        match response {
            Response::Fail | Response::Skip => true,
            Response::Retry { .. } if state.losses > LOSSES_MAX => true,
            Response::Retry { cost } => cost > 0 && state.spent > policy.budget(),
        }
    }

    /// The wait before the next try. A loss is not waited for, unless it follows another one: then
    /// its reason persists, and trying at once would use up all tries in no time.
    fn wait_after(&self, task: TaskId, class: FailureClass) -> Duration {
        let (state, policy) = (&self.tasks[task.index()], &self.spec(task).options.retry);
        let random = mix(self.options.seed ^ (u64::from(task.0) << 32 | u64::from(state.ordinal)));
        if !is_loss(class) {
            let failures = state.failures.saturating_add(state.losses);
            backoff(policy.backoff_min, policy.backoff_max, failures, random)
        } else if state.losses == 1 {
            Duration::ZERO
        } else {
            backoff(LOSS_BACKOFF_MIN, LOSS_BACKOFF_MAX, state.losses - 1, random)
        }
    }

    fn try_again(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.forget_read_before(task) {
            self.tasks[task.index()].phase = Phase::Waiting;
            self.on_inputs_known(task, actions);
        } else {
            self.make_ready(task);
        }
    }

    /// A task has to run, as soon as its wait after a failure is over, even when its inputs
    /// changed meanwhile: what failed may have nothing to do with them.
    pub(super) fn make_ready(&mut self, task: TaskId) {
        let state = &mut self.tasks[task.index()];
        if state.due <= self.now {
            state.phase = Phase::Ready;
            let (kind, first_time) = (state.kind, state.counted == Counted::No);
            let turn = self.turn(task);
            self.ready.insert(kind, (first_time, turn.0, task));
            self.ahead.insert(turn);
            return;
        }
        state.phase = Phase::Backoff;
        let due = state.due;
        if !self.stopping() {
            self.timers.insert((due, task));
        }
    }

    /// An input was not where it was said to be: none of the task's inputs is believed to be
    /// there until it has been brought again. Of other sites that tells nothing.
    fn distrust_inputs(&mut self, task: TaskId, site: SiteId) {
        for at in 0..self.graph.task(task).inputs.len() {
            let file = self.graph.task(task).inputs[at];
            self.forget_replica(file, site);
        }
    }

    pub(super) fn wake_retries(&mut self) {
        while let Some((due, task)) = self.timers.first().copied() {
            if due > self.now {
                return;
            }
            self.timers.pop_first();
            self.make_ready(task);
        }
    }

    pub(super) fn on_stop_requested(&mut self, urgency: Urgency, actions: &mut Vec<Action>) {
        if self.course != Course::Halting {
            self.course = match urgency {
                Urgency::Drain => Course::Draining,
                Urgency::Now => Course::Halting,
            };
        }
        self.timers.clear();
        let killed: Vec<TaskId> = match urgency {
            Urgency::Now => self.sites.launched().collect(),
            Urgency::Drain => self.sites.in_line().collect(),
        };
        for task in killed {
            let attempt = self.tasks[task.index()].attempt(task);
            actions.push(Action::Kill { attempt });
        }
    }

    pub(super) fn on_task_cancelled(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        match self.phase(task) {
            Phase::Done | Phase::Failed | Phase::Skipped => {}
            // It comes to its end. If that is none, there is no other try.
            Phase::Publishing(_) => self.tasks[task.index()].cancelled = true,
            Phase::Running(_) => {
                let state = &mut self.tasks[task.index()];
                state.cancelled = true;
                actions.push(Action::Kill { attempt: state.attempt(task) });
            }
            _ => {
                self.tasks[task.index()].cancelled = true;
                self.fail(task, cancellation(), actions);
            }
        }
    }
}

/// Whether an attempt was lost through no fault of its task.
const fn is_loss(class: FailureClass) -> bool {
    matches!(class, FailureClass::InfrastructureLost | FailureClass::InputMissing)
}

/// `least`, doubled for each failure after the first, at most `most`; of which a random part of
/// up to one half is taken off, so that tasks which failed together spread.
fn backoff(least: Duration, most: Duration, failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let whole = least.saturating_mul(1 << doublings).min(most);
    let half_ms = whole.as_millis() / 2;
    let cut_ms = half_ms * u128::from(random >> 48) / (1 << 16);
    whole.saturating_sub(Duration::from_millis(u64::try_from(cut_ms).unwrap_or(u64::MAX)))
}

/// A failure that ends a task says so when it was one of many for which no retry was counted.
fn told_with_losses(mut failure: Failure, losses: u32) -> Failure {
    if losses > LOSSES_MAX {
        let why = if is_loss(failure.class) {
            "were lost through no fault of the task"
        } else {
            "cost it no retry"
        };
        failure.cause =
            format!("{} (given up after {losses} attempts in a row that {why})", failure.cause);
    }
    failure
}

fn cancellation() -> Failure {
    Failure::new(FailureClass::Permanent, "it was cancelled")
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): spreads every bit over all.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
