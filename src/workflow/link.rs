//! Which declaration refers to which: `from`, `after`, `foreach` over an output; and in which order
//! they can be expanded.

use std::collections::HashMap;
use std::sync::Arc;

use super::declaration::{Declaration, InputSource, Text, Values};
use super::near::suggestion;
use super::problem::{Place, Problem, Problems, Sources};

/// What one declaration refers to.
#[derive(Debug, Default, Clone)]
pub(super) struct Link {
    /// Declarations that must be expanded first, with the place that says so.
    pub(super) needs: Vec<(usize, Place)>,
    /// Declarations whose tasks must be done first, since they make values of `foreach`.
    pub(super) generators: Vec<usize>,
    /// Whether others take values of `foreach` from it.
    pub(super) generates: bool,
    /// Whether anyone refers to it.
    pub(super) referenced: bool,
}

/// `task.label`, `task[instance].label`, or with the label left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'t> {
    pub(super) task: &'t str,
    /// The name of one instance, brackets included.
    pub(super) instance: Option<&'t str>,
    pub(super) label: Option<&'t str>,
}

impl<'t> Reference<'t> {
    pub(super) fn parse(text: &'t str) -> Self {
        let task_end = text.find(['[', '.']).unwrap_or(text.len());
        let task = text.get(..task_end).unwrap_or("");
        let instance_end = text
            .rfind(']')
            .filter(|_| text.get(task_end..).is_some_and(|rest| rest.starts_with('[')));
        let rest = text.get(instance_end.map_or(task_end, |end| end + 1)..).unwrap_or("");
        Self {
            task,
            instance: instance_end.and_then(|end| text.get(..=end)),
            label: rest.strip_prefix('.'),
        }
    }
}

/// Finds declarations and their outputs by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory<'a> {
    pub(super) declarations: &'a [Declaration],
    pub(super) by_name: &'a HashMap<Arc<str>, usize>,
    pub(super) sources: &'a Sources,
}

impl Directory<'_> {
    /// The declaration, and the position of its output label, that a `from` means. The error is
    /// `None` when it only follows from a problem that has been reported.
    pub(super) fn resolve(&self, text: &Text) -> Result<(usize, usize), Option<Problem>> {
        let reference = Reference::parse(&text.value);
        let task = self.task(text, reference.task).map_err(Some)?;
        let Declaration { outputs, files_unread, .. } = &self.declarations[task];
        let unless_unread = |problem: Problem| (!files_unread).then_some(problem);
        let labels = || outputs.iter().map(|named| named.label.as_ref());
        let Some(label) = reference.label else {
            if outputs.len() == 1 {
                return Ok((task, 0));
            }
            let problem = self
                .sources
                .problem(text.place, format!("`{}` does not say which output", text.value))
                .help(match labels().next() {
                    Some(first) => format!("write from = \"{}.{first}\"", text.value),
                    None => format!("task `{}` declares no outputs", reference.task),
                });
            return Err(unless_unread(problem));
        };
        if let Some(label) = labels().position(|known| known == label) {
            return Ok((task, label));
        }
        let message = format!("task `{}` has no output `{label}`", reference.task);
        let help = if outputs.is_empty() {
            format!("task `{}` declares no outputs", reference.task)
        } else {
            suggestion(label, labels(), "output")
        };
        Err(unless_unread(self.sources.problem(text.place, message).help(help)))
    }

    /// The declaration with this name.
    pub(super) fn task(&self, text: &Text, name: &str) -> Result<usize, Problem> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let known = self.declarations.iter().map(|declaration| declaration.name.as_ref());
            self.sources
                .problem(text.place, format!("there is no task `{name}`"))
                .help(suggestion(name, known, "task"))
        })
    }
}

/// What each declaration refers to. References to what is not there are problems.
pub(super) fn links(directory: Directory<'_>, problems: &mut Problems) -> Vec<Link> {
    let mut links = vec![Link::default(); directory.declarations.len()];
    for (at, declaration) in directory.declarations.iter().enumerate() {
        let froms =
            declaration.inputs.iter().flat_map(|named| &named.items).filter_map(|item| match &item
                .source
            {
                InputSource::From(text) => Some(text),
                _ => None,
            });
        let generated = declaration.foreach.iter().flat_map(|dimension| &dimension.variables);
        let generated = generated.filter_map(|variable| match &variable.values {
            Values::Output { output, .. } => Some(output),
            _ => None,
        });
        let mut needs: Vec<(usize, Place)> = Vec::new();
        let mut note = |found: Result<usize, Option<Problem>>, text: &Text| match found {
            Ok(task) => {
                needs.push((task, text.place));
                Some(task)
            }
            Err(problem) => {
                if let Some(problem) = problem {
                    problems.push(problem);
                }
                None
            }
        };
        for text in froms {
            note(directory.resolve(text).map(|(task, _)| task), text);
        }
        for text in &declaration.after {
            let task = directory.task(text, Reference::parse(&text.value).task);
            note(task.map_err(Some), text);
        }
        let generators: Vec<usize> = generated
            .filter_map(|text| note(directory.resolve(text).map(|(task, _)| task), text))
            .collect();
        for task in &generators {
            links[*task].generates = true;
        }
        for (task, _) in &needs {
            links[*task].referenced = true;
        }
        links[at].needs = needs;
        links[at].generators = generators;
    }
    links
}

/// An order in which everything that a declaration needs comes before it; a cycle is a problem.
pub(super) fn order(
    directory: Directory<'_>,
    links: &[Link],
    problems: &mut Problems,
) -> Vec<usize> {
    let needs: Vec<Vec<(usize, Place)>> = links.iter().map(|link| link.needs.clone()).collect();
    let (order, cycle) = sorted(&needs);
    if let Some(cycle) = cycle {
        problems.push(cycle_problem(directory, &cycle));
    }
    order
}

/// The problem of a cycle, given as declarations with the place that refers to the next one.
pub(super) fn cycle_problem(directory: Directory<'_>, cycle: &[(usize, Place)]) -> Problem {
    let name = |at: usize| directory.declarations[at].name.as_ref();
    let mut names: Vec<&str> = cycle.iter().map(|(task, _)| name(*task)).collect();
    names.extend(names.first().copied());
    let first = cycle.first().map_or(Place { file: 0, start: 0, end: 0 }, |(_, place)| *place);
    let message = if cycle.len() == 1 {
        format!("task `{}` waits for itself", names[0])
    } else {
        "these tasks wait for one another".to_owned()
    };
    let wait = |at: usize| {
        let next = cycle[(at + 1) % cycle.len()].0;
        format!("`{}` waits for `{}`", name(cycle[at].0), name(next))
    };
    let mut problem = directory.sources.problem(first, message).labelled(&wait(0));
    for (at, (_, place)) in cycle.iter().enumerate().skip(1) {
        problem = directory.sources.also(problem, *place, &wait(at));
    }
    problem.help(format!("break the cycle {}", names.join(" -> ")))
}

type Cycle = Vec<(usize, Place)>;

/// Depth first, without recursion, since chains may be long.
pub(super) fn sorted(needs: &[Vec<(usize, Place)>]) -> (Vec<usize>, Option<Cycle>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; needs.len()];
    let mut order = Vec::with_capacity(needs.len());
    let mut found = None;
    for root in 0..needs.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        let mut stack = vec![(root, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let Some((need, _)) = needs[*node].get(*next) else {
                marks[*node] = Mark::Done;
                order.push(*node);
                stack.pop();
                continue;
            };
            *next += 1;
            match marks[*need] {
                Mark::New => {
                    marks[*need] = Mark::Open;
                    stack.push((*need, 0));
                }
                Mark::Open if found.is_none() => {
                    let start = stack.iter().position(|(node, _)| node == need).unwrap_or(0);
                    let cycle = stack.iter().skip(start);
                    found =
                        Some(cycle.map(|(node, next)| (*node, needs[*node][next - 1].1)).collect());
                }
                Mark::Open | Mark::Done => {}
            }
        }
    }
    (order, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let parse = |text| {
            let Reference { task, instance, label } = Reference::parse(text);
            (task, instance, label)
        };
        assert_eq!(parse("align"), ("align", None, None));
        assert_eq!(parse("align.bam"), ("align", None, Some("bam")));
        assert_eq!(parse("align[s=a.b].bam"), ("align", Some("align[s=a.b]"), Some("bam")));
        assert_eq!(parse("align[s={{ s }}]"), ("align", Some("align[s={{ s }}]"), None));
        assert_eq!(parse(""), ("", None, None));
    }

    #[test]
    fn order_and_cycles() {
        let place = Place { file: 0, start: 0, end: 0 };
        let needs = |lists: &[&[usize]]| -> Vec<Vec<(usize, Place)>> {
            lists.iter().map(|list| list.iter().map(|at| (*at, place)).collect()).collect()
        };
        assert_eq!(sorted(&needs(&[&[1, 2], &[2], &[]])), (vec![2, 1, 0], None));
        let (_, cycle) = sorted(&needs(&[&[1], &[2], &[1]]));
        let cycle: Vec<usize> = cycle.into_iter().flatten().map(|(at, _)| at).collect();
        assert_eq!(cycle, [1, 2]);
    }
}
