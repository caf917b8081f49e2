//! `keelboat plan`.

use std::collections::BTreeMap;

use keelboat_engine::Failure;
use serde::Serialize;

use super::args::PlanArgs;
use super::exit::Exit;
use super::reason::{reason, reasons};
use super::run::complain;
use super::terminal::{Colour, Terminal, plain};
use crate::driver::{Plan, RunOptions, Verdict};

/// Tasks with one and the same verdict that are listed before the rest is only counted.
const LISTED_MAX: usize = 40;

pub(super) fn plan(args: &PlanArgs, terminal: &mut Terminal) -> Exit {
    let options = RunOptions {
        workflow: args.workflow.workflow.clone(),
        set: args.workflow.set.clone(),
        targets: args.targets.clone(),
        strict: args.strict,
        force: args.force.clone(),
        ..RunOptions::default()
    };
    let plan = match crate::driver::plan(&options) {
        Ok(plan) => plan,
        Err(error) => return complain(&error, terminal),
    };
    if args.json {
        print_json(&plan, terminal);
    } else {
        print_lines(&plan, args.verbose, terminal);
    }
    let fails = plan.tasks.iter().any(|(_, verdict)| matches!(verdict, Verdict::Fail(_)));
    if fails { Exit::Failed } else { Exit::Success }
}

fn print_lines(plan: &Plan, verbose: bool, terminal: &Terminal) {
    let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (task, verdict) in &plan.tasks {
        let (colour, word, text) = words(verdict);
        *counts.entry(word).or_default() += 1;
        let quiet = matches!(verdict, Verdict::UpToDate);
        let so_far = listed.entry(word).or_default();
        *so_far += 1;
        if verbose || (!quiet && *so_far <= LISTED_MAX) {
            let word = terminal.paint(colour, format_args!("{word:>10}"));
            terminal.line(format_args!("{word} {}{text}", plain(task)));
        }
    }
    for url in &plan.fetches {
        let word = terminal.paint(Colour::Blue, format_args!("{:>10}", "fetch"));
        terminal.line(format_args!("{word} {}", plain(url)));
    }
    for task in &plan.generators {
        let word = terminal.paint(Colour::Dim, format_args!("{:>10}", "later"));
        terminal.line(format_args!("{word} more tasks may come from what {} writes", plain(task)));
    }
    for (word, count) in &listed {
        if !verbose && *count > LISTED_MAX && *word != "up to date" {
            terminal.line(format_args!("           … and {} more: {word}", count - LISTED_MAX));
        }
    }
    let mut counts: Vec<String> =
        counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if !plan.generators.is_empty() {
        counts.push("and tasks that are not known yet".to_owned());
    }
    let sum = if counts.is_empty() { "no tasks".to_owned() } else { counts.join(", ") };
    terminal.line(format_args!("{}: {sum}", plain(&plan.workflow)));
}

fn words(verdict: &Verdict) -> (Colour, &'static str, String) {
    match verdict {
        Verdict::UpToDate => (Colour::Dim, "up to date", String::new()),
        Verdict::Restore => (Colour::Green, "restore", " from the object cache".to_owned()),
        Verdict::Run(why) => (Colour::Blue, "run", format!(": {}", reasons(why))),
        Verdict::Depends(on) => (Colour::Yellow, "depends", format!(" on {}", plain(on))),
        Verdict::Fail(failure) => (Colour::Red, "fail", format!(": {}", explain(failure))),
        Verdict::Skip(because) => {
            (Colour::Yellow, "skip", format!(": it needs {}, which would fail", plain(because)))
        }
    }
}

fn explain(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{} ({})", plain(&failure.cause), plain(hint)),
        None => plain(&failure.cause),
    }
}

#[derive(Serialize)]
struct PlanV1<'a> {
    v: u32,
    workflow: &'a str,
    tasks: Vec<TaskV1<'a>>,
    fetches: &'a [String],
    generators: Vec<&'a str>,
}

#[derive(Serialize)]
struct TaskV1<'a> {
    task: &'a str,
    #[serde(flatten)]
    verdict: VerdictV1<'a>,
}

#[derive(Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum VerdictV1<'a> {
    UpToDate,
    Restore,
    Run { reasons: Vec<String> },
    Depends { on: &'a str },
    Fail { failure: &'a Failure },
    Skip { because: &'a str },
}

fn print_json(plan: &Plan, terminal: &Terminal) {
    let tasks = plan.tasks.iter().map(|(task, verdict)| {
        let verdict = match verdict {
            Verdict::UpToDate => VerdictV1::UpToDate,
            Verdict::Restore => VerdictV1::Restore,
            Verdict::Run(why) => VerdictV1::Run { reasons: why.iter().map(reason).collect() },
            Verdict::Depends(on) => VerdictV1::Depends { on },
            Verdict::Fail(failure) => VerdictV1::Fail { failure },
            Verdict::Skip(because) => VerdictV1::Skip { because },
        };
        TaskV1 { task, verdict }
    });
    let shown = PlanV1 {
        v: 1,
        workflow: &plan.workflow,
        tasks: tasks.collect(),
        fetches: &plan.fetches,
        generators: plan.generators.iter().map(AsRef::as_ref).collect(),
    };
    match serde_json::to_string_pretty(&shown) {
        Ok(text) => terminal.line(format_args!("{text}")),
        Err(error) => terminal.error(error, None),
    }
}
