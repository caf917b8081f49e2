//! A line for each thing that happened.

use std::collections::BTreeSet;
use std::path::PathBuf;

use keelboat_engine::{Fact, Failure, Reuse, Stamped, TaskName};

use super::super::args::RunArgs;
use super::super::past::checkpoint;
use super::super::reason::reasons;
use super::super::terminal::{Colour, Terminal, bytes, counted, plain, span};
use super::{Shown, is_news};
use crate::driver::{Observer, Start, View};
use crate::project::Project;

/// Lines of a failed task's standard error that are shown.
const ERROR_LINES_MAX: usize = 12;

/// The part of the standard error, at its end, that is looked at.
const ERROR_BYTES_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Lines {
    terminal: Terminal,
    verbose: bool,
    quiet: bool,
    project: Option<Project>,
    run: String,
    workflow: PathBuf,
    /// A failed attempt, until it is known whether it was the last one.
    held: Option<Stamped>,
    /// Tasks that skipped themselves.
    skips: BTreeSet<TaskName>,
    /// Lines go through this when something else is on the screen.
    pub(super) above: Option<indicatif::MultiProgress>,
}

impl Lines {
    pub(super) fn new(args: &RunArgs) -> Self {
        Self {
            terminal: Terminal::new(),
            verbose: args.verbose,
            quiet: args.quiet,
            project: Project::of_workflow(&args.workflow.workflow).ok(),
            run: String::new(),
            workflow: args.workflow.workflow.clone(),
            held: None,
            skips: BTreeSet::new(),
            above: None,
        }
    }

    fn say(&self, colour: Colour, word: &str, text: &str) {
        let word = self.terminal.paint(colour, format_args!("{word:>9}"));
        let line = format!("{word} {text}");
        match &self.above {
            Some(bars) => drop(bars.println(line)),
            None => self.terminal.note(format_args!("{line}")),
        }
    }

    fn failed(&self, word: &str, task: &str, failure: &Failure, ordinal: Option<u32>) {
        self.say(Colour::Red, word, &format!("{}: {}", plain(task), plain(&failure.cause)));
        if let Some(hint) = &failure.hint {
            self.say(Colour::Blue, "hint", &plain(hint));
        }
        let Some((ordinal, project)) = ordinal.zip(self.project.as_ref()) else { return };
        let Some(run) = project.run(&self.run) else { return };
        let log = run.log(task, ordinal, "err");
        let written = std::fs::read(&log).unwrap_or_default();
        let end = written.get(written.len().saturating_sub(ERROR_BYTES_MAX)..).unwrap_or_default();
        let text = String::from_utf8_lossy(end);
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(ERROR_LINES_MAX);
        for line in &lines[first..] {
            self.say(Colour::Dim, "|", &plain(line));
        }
    }

    fn tell_held(&mut self) {
        if let Some(held) = self.held.take() {
            self.tell(&held.fact);
        }
    }

    fn tell(&self, fact: &Fact) {
        match fact {
            Fact::Fetched { display, content, transferred, .. } => {
                let mut size = bytes(content.bytes);
                if *transferred != content.bytes {
                    size = format!("{size}, {} over the network", bytes(*transferred));
                }
                self.say(Colour::Green, "fetched", &format!("{} ({size})", plain(display)));
            }
            Fact::AttemptStarted { task, ordinal, reasons: why } => {
                let again = if *ordinal > 1 { format!(", try {ordinal}") } else { String::new() };
                let text = format!("{}{again} ({})", plain(task), reasons(why));
                self.say(Colour::Blue, "started", &text);
            }
            Fact::AttemptFailed { task, ordinal, failure, .. } => {
                self.failed("try lost", task, failure, Some(*ordinal));
            }
            Fact::Completed { task, usage, .. } => {
                let text = format!("{} ({})", plain(task), span(usage.wall));
                self.say(Colour::Green, "done", &text);
            }
            Fact::Reused { task, reuse, .. } => match reuse {
                Reuse::InPlace => self.say(Colour::Dim, "reused", &plain(task)),
                Reuse::Restored => {
                    let text = format!("{} from the object cache", plain(task));
                    self.say(Colour::Green, "restored", &text);
                }
            },
            Fact::Delivered { path, display, .. } => {
                self.say(
                    Colour::Green,
                    "delivered",
                    &format!("{} to {}", plain(path), plain(display)),
                );
            }
            Fact::Failed { task, failure } => self.failed("failed", task, failure, None),
            Fact::Skipped { task, because } => {
                let what = if self.skips.contains(because) { "was skipped" } else { "failed" };
                let text = format!("{}: it needs {}, which {what}", plain(task), plain(because));
                self.say(Colour::Yellow, "skipped", &text);
            }
            Fact::Undelivered { path, failure, .. } => self.failed("not sent", path, failure, None),
            Fact::CheckpointSaved { task, ordinal, bytes: size } => {
                let what = format!("the checkpoint of attempt {ordinal} ({})", bytes(*size));
                self.say(Colour::Dim, "saved", &format!("{}: {what}", plain(task)));
            }
            Fact::CheckpointRestored { task, ordinal, from } => {
                let from = checkpoint(from);
                let text = format!("{}: attempt {ordinal} from {from}", plain(task));
                self.say(Colour::Blue, "goes on", &text);
            }
            Fact::EngineStarted { .. }
            | Fact::Planned { .. }
            | Fact::Owed { .. }
            | Fact::FailureKept { .. }
            | Fact::Value { .. }
            | Fact::RunEnded { .. } => {}
        }
    }
}

impl Observer for Lines {
    fn started(&mut self, start: &Start<'_>) {
        start.run.clone_into(&mut self.run);
        if self.quiet {
            return;
        }
        let goes_on = if start.resumed { ", resumed" } else { "" };
        let text = format!(
            "{} ({}) in {}, run {}{goes_on}",
            plain(start.workflow),
            counted(start.tasks, "task"),
            self.workflow.display(),
            start.run
        );
        self.say(Colour::Bold, "workflow", &text);
    }

    fn fact(&mut self, stamped: &Stamped) {
        let held = self.held.take();
        match (&stamped.fact, held.map(|held| held.fact)) {
            // The last try is told as the failure of its task, once.
            (
                Fact::Failed { task, failure },
                Some(Fact::AttemptFailed { task: tried, ordinal, .. }),
            ) if *task == tried => return self.failed("failed", task, failure, Some(ordinal)),
            // So is what a task said that skips itself.
            (
                Fact::Skipped { task, because },
                Some(Fact::AttemptFailed { task: tried, failure, .. }),
            ) if task == because && *task == tried => {
                let text = format!("{}: it says so itself, by {}", plain(task), failure.cause);
                self.say(Colour::Yellow, "skipped", &text);
                self.skips.insert(task.clone());
                return;
            }
            (_, Some(earlier)) => self.tell(&earlier),
            (_, None) => {}
        }
        let failed = matches!(stamped.fact, Fact::Failed { .. } | Fact::Undelivered { .. });
        if !(self.verbose || failed || (!self.quiet && is_news(stamped))) {
            return;
        }
        if let Fact::AttemptFailed { .. } = stamped.fact {
            self.held = Some(stamped.clone());
        } else {
            self.tell(&stamped.fact);
        }
    }

    fn progress(&mut self, _view: &View<'_>) {
        self.tell_held();
    }

    fn warning(&mut self, text: &str) {
        self.tell_held();
        self.say(Colour::Yellow, "warning", &plain(text));
    }

    fn waiting(&mut self, text: &str) {
        if !self.quiet {
            self.tell_held();
            self.say(Colour::Yellow, "waiting", &plain(text));
        }
    }
}

impl Shown for Lines {
    fn end(&mut self) {
        self.tell_held();
    }
}
