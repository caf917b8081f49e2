//! `keelboat run`.

use miette::GraphicalTheme;

use super::args::RunArgs;
use super::exit::Exit;
use super::show;
use super::terminal::{Colour, Terminal, bytes, span};
use crate::diagnosis::draw;
use crate::driver::{Report, RunError, RunOptions};
use keelboat_checkpoint::LockError;
use keelboat_engine::RunOutcome;

pub(super) fn run(args: &RunArgs, terminal: &mut Terminal) -> Exit {
    let options = RunOptions {
        workflow: args.workflow.workflow.clone(),
        set: args.workflow.set.clone(),
        targets: args.targets.clone(),
        jobs: args.jobs,
        keep_going: args.keep_going,
        strict: args.strict,
        offline: args.offline,
        force: args.force.clone(),
    };
    let mut observer = show::observer(args, terminal);
    let result = crate::driver::run(&options, observer.as_mut());
    observer.end();
    match result {
        Ok(report) => {
            if !args.json && !args.quiet {
                say_how_it_went(&report, terminal);
            }
            match report.outcome {
                RunOutcome::Succeeded => Exit::Success,
                RunOutcome::Failed if report.lacked_room => Exit::Broken,
                RunOutcome::Failed => Exit::Failed,
                RunOutcome::Cancelled => Exit::Interrupted,
            }
        }
        Err(error) => complain(&error, terminal),
    }
}

fn say_how_it_went(report: &Report, terminal: &Terminal) {
    let counts = report.counts;
    let (colour, word) = match report.outcome {
        RunOutcome::Succeeded => (Colour::Green, "done"),
        RunOutcome::Failed => (Colour::Red, "failed"),
        RunOutcome::Cancelled => (Colour::Yellow, "stopped"),
    };
    let restored = match report.restored {
        0 => String::new(),
        count => format!(" ({count} restored)"),
    };
    let mut parts =
        vec![format!("{} run", counts.completed), format!("{} reused{restored}", counts.reused)];
    for (count, what) in [(counts.failed, "failed"), (counts.skipped, "skipped")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let open = counts.total - counts.ended();
    if open > 0 {
        parts.push(format!("{open} not begun or not finished"));
    }
    if report.transferred > 0 {
        parts.push(format!("{} fetched", bytes(report.transferred)));
    }
    let word = terminal.paint(colour, word);
    terminal.note(format_args!("{word}: {} in {}", parts.join(", "), span(report.wall)));
    match report.outcome {
        RunOutcome::Succeeded => {}
        RunOutcome::Failed => terminal.note(format_args!(
            "  mend it and type the same command again; what is done stays done \
             (`keelboat why TASK`, `keelboat log TASK`)"
        )),
        RunOutcome::Cancelled => terminal
            .note(format_args!("  the same command goes on where it was: {}", own_command())),
    }
}

/// The command line of this process, as it can be typed again.
fn own_command() -> String {
    let mut words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut() {
        "keelboat".clone_into(program);
    }
    shell_words::join(words)
}

/// Shows why there is no run, or no more of it.
pub(super) fn complain(error: &RunError, terminal: &Terminal) -> Exit {
    match error {
        RunError::Workflow(errors) => {
            for problem in errors.problems() {
                let theme = if terminal.has_colours() {
                    GraphicalTheme::unicode()
                } else {
                    GraphicalTheme::unicode_nocolor()
                };
                terminal.note(format_args!("{}", draw(problem, theme)));
            }
            Exit::BadInput
        }
        RunError::Graph(_) | RunError::UnknownTarget { .. } | RunError::Settings(_) => {
            terminal.error(error, error.hint().as_deref());
            Exit::BadInput
        }
        RunError::Lock(LockError::Held { .. }) => {
            terminal.error(error, error.hint().as_deref());
            Exit::Busy
        }
        _ => {
            terminal.error(error, error.hint().as_deref());
            Exit::Broken
        }
    }
}
