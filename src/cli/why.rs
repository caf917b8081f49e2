//! `keelboat why`: why a task ran, or why it did not; for a failure the cause first, then a hint.

mod diff;
mod find;
mod report;
mod words;

use std::time::Duration;

use keelboat_engine::{Failure, Reuse};

use self::find::{Found, find};
use self::report::{Explanation, Told};
use super::args::WhyArgs;
use super::exit::Exit;
use super::past::{
    AttemptEnd, AttemptPicture, Life, Made, Past, PastError, TaskPicture, checkpoint, moment,
    print_json, quoted,
};
use super::terminal::{Colour, Terminal, bytes, plain, span};

/// Reasons, attempts and outputs that are listed, each.
const LISTED_MAX: usize = 20;

pub(super) fn why(args: &WhyArgs, terminal: &mut Terminal) -> Exit {
    match explain(args, terminal) {
        Ok(()) => Exit::Success,
        Err(error) => error.tell(terminal),
    }
}

fn explain(args: &WhyArgs, terminal: &Terminal) -> Result<(), PastError> {
    let past = Past::open(&args.past)?;
    let found = find(&past, &args.task)?;
    let explanation = Explanation::of(&past, &found);
    if args.json {
        print_json(&explanation, terminal);
        return Ok(());
    }
    if let Some(passed) = &found.passed {
        terminal.line(format_args!("run {passed} did not come to it; the last one that did:"));
    }
    Speech { found: &found, explanation: &explanation, terminal }.tell();
    Ok(())
}

/// The explanation for people.
struct Speech<'a> {
    found: &'a Found,
    explanation: &'a Explanation,
    terminal: &'a Terminal,
}

impl Speech<'_> {
    fn tell(&self) {
        let task = self.found.picture();
        match self.explanation.state {
            Told::Completed => self.tell_completed(task),
            Told::Reused => self.tell_reused(task),
            Told::Failed => self.tell_failed(task),
            Told::Skipped => self.tell_skipped(task),
            Told::Running => self.tell_running(task),
            Told::Interrupted => {
                self.head("did not end: the engine died over it; the same command runs it again");
                self.tell_reasons(task);
            }
            Told::Retrying => {
                self.head("is to be tried again, since an attempt failed");
                self.tell_attempts(task);
            }
            Told::NotStarted => self.tell_not_started(),
        }
        let next = match self.explanation.state {
            Told::Failed | Told::Running | Told::Retrying => !task.attempts.is_empty(),
            _ => false,
        };
        if next {
            let task = quoted(&self.found.task);
            self.line(format_args!("what it wrote: keelboat log {}", plain(&task)));
        }
    }

    fn tell_completed(&self, task: &TaskPicture) {
        let took = task.attempts.last().and_then(AttemptPicture::took);
        let took = took.map(|took| format!(" and took {}", span(took))).unwrap_or_default();
        self.head(&format!("ran{took}, since"));
        self.tell_reasons(task);
        if task.attempts.len() > 1 {
            self.tell_attempts(task);
        }
        self.tell_outputs(task.result.as_ref(), "wrote");
        self.tell_aftermath(task);
    }

    fn tell_reused(&self, task: &TaskPicture) {
        self.head("did not run, since its result was there");
        let same = "its command, environment, inputs and outputs are the same as before";
        self.line(format_args!("{same}"));
        match task.reuse {
            Some(Reuse::Restored) => self.line(format_args!(
                "outputs that were missing or changed were restored from the object cache"
            )),
            _ => self.line(format_args!("its outputs are in their places and whole")),
        }
        match &self.explanation.made_by {
            Some(maker) if *maker.task == *self.found.task => {
                self.line(format_args!("run {} made the result", maker.run));
            }
            Some(maker) => {
                let name = plain(&maker.task);
                self.line(format_args!("run {} made the result, as {name}", maker.run));
            }
            None => self.line(format_args!("the run that made the result is not known any more")),
        }
        self.tell_outputs(task.result.as_ref(), "has");
        self.tell_aftermath(task);
    }

    fn tell_failed(&self, task: &TaskPicture) {
        let Some(failure) = &task.failure else { return };
        self.head(&self.terminal.paint(Colour::Red, "failed"));
        self.tell_failure(failure);
        if !task.attempts.is_empty() {
            self.line(format_args!("it had run, since"));
            self.tell_reasons(task);
            self.tell_attempts(task);
        }
    }

    fn tell_skipped(&self, task: &TaskPicture) {
        let Some(because) = &self.explanation.skipped_because else { return };
        if because.task == self.found.task {
            self.head("skipped itself, by its exit code; it had run, since");
            self.tell_reasons(task);
            return self.tell_attempts(task);
        }
        let (needed, what) = (plain(&because.task), because.what);
        self.head(&format!("did not run, since {needed} {what}, which it needs"));
        match &because.failure {
            Some(failure) => self.tell_failure(&failure.0),
            None => self.line(format_args!("keelboat why {} tells more", quoted(&because.task))),
        }
    }

    fn tell_running(&self, task: &TaskPicture) {
        let since = task.open().map(|attempt| moment(attempt.started)).unwrap_or_default();
        self.head(&format!("runs, since {since}:"));
        self.tell_reasons(task);
        if task.attempts.len() > 1 {
            self.tell_attempts(task);
        }
    }

    fn tell_not_started(&self) {
        let why = match (self.found.run.life, self.explanation.run_outcome) {
            (Life::Live, _) => "has not started yet",
            (Life::Interrupted, _) => "had not started when the engine died",
            (_, Some("failed")) => "did not start: the run stopped after a failure",
            (_, Some("cancelled")) => "did not start: the run was stopped before",
            _ => "did not start: the run did not need it",
        };
        self.head(why);
        for failed in &self.explanation.failed_tasks {
            self.line(format_args!("{} failed", plain(failed)));
        }
        for blocker in &self.explanation.waits_for {
            self.line(format_args!(
                "it waits for {}, which {}",
                plain(&blocker.task),
                blocker.state
            ));
        }
        if self.found.run.life == Life::Live && self.explanation.waits_for.is_empty() {
            self.line(format_args!("it waits for its remote inputs, or for a free slot"));
        }
    }

    fn tell_reasons(&self, task: &TaskPicture) {
        let reasons = task.attempts.last().map_or(&[][..], |attempt| &attempt.reasons);
        for reason in reasons.iter().take(LISTED_MAX) {
            let (sentence, more) = words::reason(reason, &self.found.run.picture, self.terminal);
            self.line(format_args!("{sentence}"));
            for line in more {
                self.line(format_args!("  {line}"));
            }
        }
        self.rest(reasons.len());
    }

    fn tell_failure(&self, failure: &Failure) {
        self.line(format_args!("cause: {}", failure.cause));
        if let Some(hint) = &failure.hint {
            self.line(format_args!("hint:  {hint}"));
        }
    }

    fn tell_attempts(&self, task: &TaskPicture) {
        for attempt in task.attempts.iter().take(LISTED_MAX) {
            let took = attempt.took().map(|took| span(took.max(Duration::from_millis(1))));
            let took = took.unwrap_or_default();
            let end = match &attempt.end {
                AttemptEnd::Open => "runs".to_owned(),
                AttemptEnd::Lost => "was lost when its engine died".to_owned(),
                AttemptEnd::Completed { .. } => format!("succeeded after {took}"),
                AttemptEnd::Failed { failure, cost: 0, .. } => {
                    format!("ended after {took} and is not counted: {}", failure.cause)
                }
                AttemptEnd::Failed { failure, cost, .. } => {
                    format!("failed after {took}{}: {}", words::cost(*cost), failure.cause)
                }
            };
            let (ordinal, started) = (attempt.ordinal, moment(attempt.started));
            self.line(format_args!("attempt {ordinal} of {started} {end}"));
            if let Some(from) = &attempt.from {
                self.line(format_args!("  it went on from {}", checkpoint(from)));
            }
            if let Some((saved, size)) = attempt.saved {
                let (size, saved) = (bytes(size), moment(saved));
                self.line(format_args!("  it saved its last checkpoint at {saved} ({size})"));
            }
        }
        self.rest(task.attempts.len());
    }

    fn tell_outputs(&self, made: Option<&Made>, verb: &str) {
        let outputs = made.map_or(&[][..], |made| &made.record.outputs);
        for output in outputs.iter().take(LISTED_MAX) {
            let path = plain(&output.path);
            match &output.content {
                Some(content) => {
                    let (size, digest) = (bytes(content.bytes), content.digest.short());
                    self.line(format_args!("it {verb} {path}: {size}, SHA-256 {digest}…"));
                }
                None => self.line(format_args!("it left out {path}, which is optional")),
            }
        }
        self.rest(outputs.len());
    }

    /// What came after the task was done: copies of outputs, and failures of these.
    fn tell_aftermath(&self, task: &TaskPicture) {
        for (path, address) in task.delivered.iter().take(LISTED_MAX) {
            self.line(format_args!("{} was copied to {}", plain(path), plain(address)));
        }
        if let Some(failure) = &task.failure {
            self.line(format_args!("what was to follow failed"));
            self.tell_failure(failure);
        }
    }

    fn head(&self, text: &str) {
        let task = self.terminal.paint(Colour::Bold, plain(&self.found.task));
        let run = self.found.run.dir.id();
        self.terminal.line(format_args!("{task} (run {run}) {text}"));
    }

    fn line(&self, text: std::fmt::Arguments<'_>) {
        self.terminal.line(format_args!("  {text}"));
    }

    fn rest(&self, count: usize) {
        if count > LISTED_MAX {
            self.line(format_args!("and {} more; `--json` has all", count - LISTED_MAX));
        }
    }
}
