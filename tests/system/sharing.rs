//! Large results are shared with the tasks that read them, when the user is not root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::project::Project;

/// The user `nobody` of Debian; any number other than 0 does.
const USER: u32 = 65534;

const FLOW: &str = r#"
[workflow]
name = "sharing"

[task.make]
outputs = { large = "large" }
run = "head -c 6000000 /dev/zero > {{ outputs.large }}"

[task.read]
inputs = { large = "large" }
outputs = { links = "links" }
run = "stat -c %h {{ inputs.large }} > {{ outputs.links }}"

[task.spoil]
inputs = { large = "large" }
after = ["read"]
outputs = { done = "done" }
run = "chmod +w {{ inputs.large }}; echo spoiled >> {{ inputs.large }}; echo > {{ outputs.done }}"
"#;

/// `keelboat run` as somebody who is not root; `None` when that cannot be tried.
fn run_as_user(project: &Project) -> Option<(Option<i32>, String)> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: sharing as another user needs root");
        return None;
    }
    let program = project.outside("keelboat");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_keelboat"), &program).expect("a copy of the program");
    }
    for place in [project.outside(""), project.path(""), project.path("flow.toml")] {
        chown(place, Some(USER), Some(USER)).expect("another owner");
    }
    let mut command = Command::new(program);
    command.args(["run", "--keep-going"]).current_dir(project.path("")).uid(USER).gid(USER);
    let output = command.output().expect("a run");
    Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_large_result_is_linked_and_one_that_was_written_to_is_found_out() {
    let project = Project::new(FLOW);
    let Some((code, said)) = run_as_user(&project) else { return };
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("spoil"), "{said}");
    let links: u32 = project.read("links").trim().parse().expect("a number");
    if links == 1 {
        println!("skipped: this file system shares blocks, so that there are no links to look at");
        return;
    }
    assert_eq!(links, 3, "the result, the object and the input are one file");
    assert!(!project.exists("done"), "{said}");

    // What was spoiled is made again, and what read it before stays as it was.
    let mended = FLOW.replace("chmod +w", "true").replace("echo spoiled >>", "cat >/dev/null");
    project.set_workflow(&mended);
    let Some((code, said)) = run_as_user(&project) else { return };
    assert_eq!(code, Some(0), "{said}");
    let large = std::fs::read(project.path("large")).expect("the result");
    assert!(large.len() == 6_000_000 && large.iter().all(|byte| *byte == 0));
}
