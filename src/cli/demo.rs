//! `keelboat demo`.

use std::path::Path;

use keelboat_checkpoint::read_journal;
use keelboat_engine::Fact;

use super::args::DemoArgs;
use super::exit::Exit;
use super::terminal::Terminal;
use crate::demo::{self, TaskCounts};
use crate::project::Project;

pub(super) fn demo(args: &DemoArgs, terminal: &mut Terminal) -> Exit {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            terminal.error(format_args!("cannot find this program's own file: {error}"), None);
            return Exit::Broken;
        }
    };
    let mut say = |text: std::fmt::Arguments<'_>| terminal.line(text);
    match demo::run(&program, args.directory.as_deref(), &mut count_tasks, &mut say) {
        Ok(()) => Exit::Success,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            terminal.error(format_args!("{error}{cause}"), None);
            Exit::Failed
        }
    }
}

/// What the latest engine in a project did, from the journal of its run.
fn count_tasks(project: &Path) -> TaskCounts {
    let mut counts = TaskCounts::default();
    let runs = Project::at(project).list_runs().unwrap_or_default();
    let Some(recovered) = runs.first().and_then(|run| read_journal(&run.journal()).ok()) else {
        return counts;
    };
    for stamped in &recovered.facts {
        match stamped.fact {
            Fact::EngineStarted { .. } => counts = TaskCounts::default(),
            Fact::Completed { .. } => counts.ran += 1,
            Fact::Reused { .. } => counts.reused += 1,
            _ => {}
        }
    }
    counts
}
