//! The workflow file: what it becomes, and how its mistakes are shown.

use std::path::Path;

use keelboat::workflow::{LoadOptions, Workflow, WorkflowErrors};
use keelboat_engine::{Command, Kind, Source, TaskSpec};
use miette::{GraphicalReportHandler, GraphicalTheme};

/// A project directory with these files; the first is the workflow file.
struct Project(tempfile::TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, text).expect("a file");
        }
        Self(directory)
    }

    fn load_with(&self, set: &[(&str, &str)]) -> Result<Workflow, WorkflowErrors> {
        let set = set.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let options = LoadOptions { set, project_dir: self.0.path().to_owned() };
        Workflow::load(&self.0.path().join("flow.toml"), &options)
    }

    fn shown(&self, errors: &WorkflowErrors) -> String {
        let mut text = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_width(100)
            .render_report(&mut text, errors)
            .expect("rendering");
        let directory = format!("{}/", self.0.path().display());
        let text = text.replace(&directory, "");
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

fn load(text: &str) -> Workflow {
    let project = Project::new(&[("flow.toml", text)]);
    project.load_with(&[]).unwrap_or_else(|errors| panic!("{}", project.shown(&errors)))
}

fn mistakes(files: &[(&str, &str)]) -> String {
    let project = Project::new(files);
    match project.load_with(&[]) {
        Ok(workflow) => format!("no mistake: {} tasks", workflow.tasks().len()),
        Err(errors) => project.shown(&errors),
    }
}

fn mistake(text: &str) -> String {
    mistakes(&[("flow.toml", text)])
}

fn names(tasks: &[TaskSpec]) -> Vec<&str> {
    tasks.iter().map(|task| task.name.as_ref()).collect()
}

fn script(task: &TaskSpec) -> &str {
    match &task.command {
        Command::Shell { script, .. } => script,
        Command::Argv(_) => "",
    }
}

const VARIANTS: &str = r#"
[workflow]
name = "variants"
params = { min_quality = 30 }

[task.index]
inputs  = { fa = { url = "https://host/ref.fa.gz", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
outputs = { idx = "ref/ref.idx" }
run     = "build-index {{ inputs.fa }} > {{ outputs.idx }}"

[task.align]
foreach = { sample = ["a", "b c"] }
inputs  = { reads = "ftp://host/{{ sample | replace(' ', '_') }}.fq.gz", idx = "ref/ref.idx" }
outputs = { bam = "out/{{ sample }}.bam" }
run     = "align -q {{ min_quality }} {{ inputs.idx }} {{ inputs.reads }} > {{ outputs.bam }}"
cores = 2
memory = "4GiB"
timeout = "2h"
retries = 3

[task.merge]
inputs  = { bams = { from = "align.bam" } }
outputs = { all = { path = "out/all.bam", to = "file:///tmp/all.bam" } }
argv    = ["merge", "-o", "{{ outputs.all }}", "{{ inputs.bams }}"]
"#;

#[test]
fn a_whole_file_becomes_tasks() {
    let workflow = load(VARIANTS);
    assert_eq!(workflow.name(), "variants");
    let tasks = workflow.tasks();
    assert_eq!(names(tasks), ["index", "align[sample=a]", "align[sample=b c]", "merge"]);
    assert_eq!(script(&tasks[0]), "build-index ref.fa.gz > ref/ref.idx");
    assert_eq!(script(&tasks[2]), "align -q 30 ref/ref.idx b_c.fq.gz > 'out/b c.bam'");
    assert_eq!(tasks[1].resources.cores, 2);
    assert_eq!(tasks[1].resources.memory, 4 << 30);
    assert_eq!(tasks[1].retry.retries, 3);
    assert_eq!(tasks[1].inputs[1].source, Source::Path("ref/ref.idx".into()));
    let argv = ["merge", "-o", "out/all.bam", "out/a.bam", "out/b c.bam"].map(String::from);
    assert_eq!(tasks[3].command, Command::Argv(argv.into()));
    assert_eq!(tasks[3].inputs[0].kind, Kind::File);
}

#[test]
fn wrong() {
    println!(
        "{}",
        mistake(
            &VARIANTS
                .replace("inputs.reads }}", "inputs.red }}")
                .replace("cores", "core")
                .replace("align.bam\" }", "algin.bam\"}")
        )
    );
}
