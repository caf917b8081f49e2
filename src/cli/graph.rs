//! `keelboat graph`: draws the tasks of a workflow, as far as they are known before anything runs.

mod dot;
mod drawing;
mod layout;
mod mermaid;
mod svg;

use self::drawing::Drawing;
use super::args::{GraphArgs, GraphFormat};
use super::exit::Exit;
use super::run::complain;
use super::terminal::Terminal;
use crate::driver::RunError;
use crate::project::Project;
use crate::workflow::{LoadOptions, Workflow};

pub(super) fn graph(args: &GraphArgs, terminal: &mut Terminal) -> Exit {
    let drawing = match draw(args) {
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

fn draw(args: &GraphArgs) -> Result<Drawing, RunError> {
    let file = &args.workflow.workflow;
    let project = Project::of_workflow(file)
        .map_err(RunError::setup("find the directory of the workflow file"))?;
    let options =
        LoadOptions { set: args.workflow.set.clone(), project_dir: project.root().to_path_buf() };
    let mut workflow = Workflow::load(file, &options)?;
    let tasks = workflow.take_tasks();
    let later = workflow.declarations().filter(|declaration| declaration.tasks.is_none());
    let later: Vec<String> = later.map(|declaration| declaration.name.to_owned()).collect();
    Ok(Drawing::of(workflow.name(), tasks, &later, args.files)?)
}
