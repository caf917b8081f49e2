//! Tasks that wait for each other in a circle, shown where they are declared.

use keelboat_engine::TaskName;

use super::link::Reference;
use super::problem::{Problem, Problems};
use super::{Workflow, WorkflowErrors};

/// Tasks of a circle that are pointed at; a longer one is named in words only.
const SHOWN_MAX: usize = 4;

impl Workflow {
    /// The mistake of these tasks, each of which waits for the next one, and the last one for the
    /// first.
    pub fn circle(&self, tasks: &[TaskName]) -> WorkflowErrors {
        let names: Vec<&str> = tasks.iter().chain(tasks.first()).map(AsRef::as_ref).collect();
        let message = format!("tasks wait for each other in a circle: {}", names.join(" -> "));
        let mut places = Vec::new();
        for task in tasks.iter().take(SHOWN_MAX) {
            let declared = self.by_name.get(Reference::parse(task).task);
            let place = declared.map(|at| self.declarations[*at].place);
            places.extend(place.filter(|place| !places.contains(place)));
        }
        let mut problem = match places.first() {
            None => Problem::without_place(message),
            Some(first) => {
                self.sources.problem(*first, message).labelled("none of these can begin")
            }
        };
        for place in places.iter().skip(1) {
            problem = self.sources.also(problem, *place, "nor this one");
        }
        let help = "an input of each one is an output of the next: change one of these paths, or \
                    leave out an `after`";
        let mut problems = Problems::default();
        problems.push(problem.help(help));
        WorkflowErrors::new(&self.file, problems)
    }
}
