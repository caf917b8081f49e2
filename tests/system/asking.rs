//! What can be asked for: targets, and plans of workflows that grow.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::project::Project;

const FLOW: &str = r#"
[workflow]
name = "asking"

[task.names]
outputs = { list = "names.txt" }
run = "printf 'ada\\ngrace\\n' > {{ outputs.list }}"

[task.greet]
foreach = { who = { from = "names.list" } }
outputs = { text = "out/{{ who }}.txt" }
run = "echo hello {{ who }} > {{ outputs.text }}"

[task.square]
foreach = { i = { range = 3 } }
outputs = { o = "square/{{ i }}" }
run = "echo $(({{ i }} * {{ i }})) > {{ outputs.o }}"
"#;

#[test]
fn a_target_that_is_not_there_is_an_error_whether_known_before_or_after() {
    let project = Project::new(FLOW);
    for target in ["square[i=99]", "square[j=1]", "sqare", "greet[who=zoe]", "out/zoe.txt"] {
        let run = project.run(&[target]);
        assert_eq!(run.code(), Some(2), "{target}: {}", run.said());
        run.assert_said(&[target]);
    }
}

#[test]
fn a_path_that_comes_as_the_graph_grows_is_a_target() {
    let project = Project::new(FLOW);
    project.run_well(&["out/ada.txt"]);
    assert!(project.exists("out/ada.txt"));
    assert!(!project.exists("square/0"), "nobody asked for it");
}

#[test]
fn a_target_needs_no_file_before_it() {
    let project = Project::new(FLOW);
    let run = project.start(project.command(&["run", "square[i=1]"])).wait();
    assert_eq!(run.code(), Some(0), "{}", run.said());
    assert!(project.exists("square/1") && !project.exists("square/2"));
}

#[test]
fn a_plan_knows_the_tasks_that_come_from_a_result() {
    let project = Project::new(FLOW);
    project.run_well(&[]);
    project.set_workflow(&FLOW.replace("hello", "good morning"));
    let plan = project.start(project.command(&["plan"])).wait();
    assert_eq!(plan.code(), Some(0), "{}", plan.said());
    plan.assert_said(&["run greet[who=ada]: command changed", "2 run, 4 up to date"]);
}

#[test]
fn an_argument_that_is_no_text_is_refused_without_a_panic() {
    let project = Project::new(FLOW);
    let mut command = project.command(&["run", "flow.toml"]);
    command.arg(OsStr::from_bytes(b"caf\xe9"));
    let run = project.start(command).wait();
    assert_eq!(run.code(), Some(2), "{}", run.said());
}

#[test]
fn values_of_parameters_are_not_shown_to_others() {
    let flow = FLOW.replace("name = \"asking\"", "name = \"asking\"\nparams = { token = \"\" }");
    let project = Project::new(&flow);
    project.run_well(&["--set", "token=s3cr3t"]);
    let lock = project.read(".keelboat/lock");
    assert!(lock.contains("token=…") && !lock.contains("s3cr3t"), "{lock}");
}
