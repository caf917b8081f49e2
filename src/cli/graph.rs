//! `keelboat graph`: draws the tasks of a workflow, as far as they are known before anything
//! runs, and from what earlier runs have written.

mod dot;
mod drawing;
mod layout;
mod mermaid;
mod svg;

use std::path::Path;

use keelboat_engine::TaskSpec;

use self::drawing::{Drawing, Growth};
use super::args::{GraphArgs, GraphFormat};
use super::exit::Exit;
use super::run::complain;
use super::terminal::Terminal;
use crate::driver::RunError;
use crate::driver::labels_of;
use crate::project::Project;
use crate::workflow::{LoadOptions, Workflow, WorkflowErrors};

pub(super) fn graph(args: &GraphArgs, terminal: &mut Terminal) -> Exit {
    let drawing = match draw(args, terminal) {
        Ok(drawing) => drawing,
        Err(error) => return complain(&error, terminal),
    };
    if drawing.collapsed {
        terminal.note(format_args!(
            "the workflow has {} tasks: tasks of one declaration are drawn as one",
            drawing.tasks
        ));
    }
    let text = match args.format {
        GraphFormat::Dot => dot::render(&drawing),
        GraphFormat::Mermaid => mermaid::render(&drawing),
        GraphFormat::Svg => svg::render(&drawing),
    };
    terminal.raw(text.as_bytes());
    Exit::Success
}

fn draw(args: &GraphArgs, terminal: &mut Terminal) -> Result<Drawing, RunError> {
    let file = &args.workflow.workflow;
    let project = Project::of_workflow(file)
        .map_err(RunError::setup("find the directory of the workflow file"))?;
    let options = LoadOptions {
        set: args.workflow.set.clone(),
        project_dir: project.root().to_path_buf(),
        executors: labels_of(project.root()),
    };
    let mut workflow = Workflow::load(file, &options)?;
    let mut tasks = workflow.take_tasks();
    if let Err(error) = grow(&mut workflow, &mut tasks, project.root()) {
        terminal.note(format_args!("{error}; what comes of it is drawn as known later"));
        workflow = Workflow::load(file, &options)?;
        tasks = workflow.take_tasks();
    }
    let growth = Growth { dormant: workflow.dormant(), growing: workflow.growing().collect() };
    Ok(Drawing::of(workflow.name(), tasks, &growth, args.files)?)
}

/// Adds the tasks that come of what earlier runs have left on the disk.
fn grow(
    workflow: &mut Workflow,
    tasks: &mut Vec<TaskSpec>,
    root: &Path,
) -> Result<(), WorkflowErrors> {
    let mut next = 0;
    while let Some(task) = tasks.get(next) {
        next += 1;
        let needed = task.outputs.iter().filter(|output| !output.optional);
        if task.options.generates
            && needed.map(|output| root.join(&*output.path)).all(|path| path.exists())
        {
            let name = task.name.clone();
            tasks.extend(workflow.grow(&name, &mut |path| std::fs::read(root.join(path)))?);
        }
    }
    Ok(())
}
