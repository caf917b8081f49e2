//! The examples do what they say. The demo runs in a check of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use keelboat::workflow::{LoadOptions, Workflow};

use crate::project::Project;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// A copy of an example, to run it in.
fn copy(name: &str) -> Project {
    let project = Project::new("");
    for entry in std::fs::read_dir(directory(name)).expect("an example").flatten() {
        if entry.file_type().expect("a type").is_file() {
            let copied = std::fs::copy(entry.path(), project.path(entry.file_name()));
            copied.expect("a copy");
        }
    }
    project
}

#[test]
fn all_examples_load() {
    for (name, tasks) in
        [("hello", 4), ("sweep", 38), ("demo", 1), ("variants", 13), ("checkpoint", 1)]
    {
        let project_dir = directory(name);
        let options = LoadOptions { project_dir: project_dir.clone(), ..LoadOptions::default() };
        match Workflow::load(&project_dir.join("flow.toml"), &options) {
            Ok(workflow) => assert!(workflow.tasks().len() >= tasks, "{name}"),
            Err(errors) => panic!("{name}: {errors}: {:?}", errors.problems()),
        }
    }
}

#[test]
fn hello_greets() {
    let project = copy("hello");
    project.run_well(&[]);
    assert_eq!(project.read("out/all.txt"), "Hello, world!\nHello, moon!\nHello, sea!\n");
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 4);
}

#[test]
fn a_line_more_makes_the_sweep_run_only_what_is_new() {
    let project = copy("sweep");
    project.run_well(&[]);
    let table = project.read("out/table.csv");
    assert_eq!(table.lines().count(), 1 + 36, "{table}");
    assert!(project.read("out/advice.txt").lines().count() >= 3);
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 38);
    let diseases = project.read("diseases.csv");
    let last = diseases.lines().last().unwrap();
    let (_, rest) = last.split_once(',').unwrap();
    project.write("diseases.csv", format!("{}\nnovelty,{rest}\n", diseases.trim_end()));
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("reused").len(), 36, "{}", run.said());
    assert_eq!(project.read("out/table.csv").lines().count(), 1 + 48);
}

#[test]
fn the_long_computation_goes_on_each_time_that_it_dies() {
    let project = copy("checkpoint");
    let run = project.run_well(&["--set", "up_to=12000", "--set", "unlucky=3"]);
    let pairs = "220 284\n1184 1210\n2620 2924\n5020 5564\n6232 6368\n10744 10856\n";
    assert_eq!(project.read("out/pairs.txt"), pairs, "{}", run.said());
    assert_eq!(run.tasks("checkpoint_restored"), ["search"; 3]);
    let log = project.start(project.command(&["log", "search"])).wait();
    assert_eq!(log.stdout, "attempt 4 goes on after 9000\n");
}

/// What the genomics example needs and this machine has not.
fn missing_for_variants() -> Vec<&'static str> {
    let runs = |tool: &str| Command::new(tool).output().is_ok();
    let mut missing = Vec::new();
    missing.extend(["bwa", "samtools", "bcftools"].into_iter().filter(|tool| !runs(tool)));
    let data = "/usr/share/doc/bowtie2/examples/reads/reads_1.fq.gz";
    missing.extend([data].into_iter().filter(|path| !Path::new(path).exists()));
    missing
}

#[test]
fn variants_are_found_and_a_parameter_without_effect_runs_nothing_after_the_filter() {
    let missing = missing_for_variants();
    if !missing.is_empty() {
        println!("SKIPPED variants: there is no {}", missing.join(", no "));
        return;
    }
    let project = copy("variants");
    project.run_well(&[]);
    let check = project.start(project.shell("bash ./check.sh")).wait();
    check.assert_code(0);
    let run = project.run_well(&["--set", "min_quality=40"]);
    assert_eq!(run.tasks("completed").len(), 2, "{}", run.said());
    assert!(run.tasks("completed").iter().all(|task| task.starts_with("filter[")));
}
