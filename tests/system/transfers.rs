//! Remote inputs: fetched once, gone on with after a crash, looked at again on later runs.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::wait_until;
use crate::project::{Project, Running};
use crate::server::Server;

/// How soon an engine must have gone that was told to stop: long before the server would say
/// anything more.
const STOP_MAX: Duration = Duration::from_secs(5);

fn bytes(count: u32) -> Vec<u8> {
    let mixed = (0..count).map(|at| at.wrapping_mul(2_654_435_761) >> 24);
    mixed.map(|byte| u8::try_from(byte).expect("a byte")).collect()
}

/// Twenty tasks that read one file, and one that reads another.
fn workflow(base: &str) -> String {
    r#"
[workflow]
name = "transfers"
params = { base = "@base" }
[task.each]
foreach = { at = { range = [0, 20] } }
inputs = { shared = "{{ params.base }}/shared.txt" }
outputs = { out = "out/{{ at }}.txt" }
run = "@count each; cat {{ inputs.shared }} > {{ outputs.out }}"
[task.other]
inputs = { other = "{{ params.base }}/other.txt" }
outputs = { out = "out/other.txt" }
run = "@count other; cat {{ inputs.other }} > {{ outputs.out }}"
"#
    .replace("@base", base)
}

#[test]
fn one_source_is_fetched_once_and_again_only_when_it_changes() {
    let server = Server::start(0, 0);
    server.put("/shared.txt", "shared\n");
    server.put("/other.txt", "other\n");
    let project = Project::new(&workflow(server.base()));
    project.run_well(&[]);
    assert_eq!(server.requests(), 2, "one for each file");
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("reused").len(), 21, "{}", run.said());
    let transferred =
        run.events().iter().filter_map(|event| event["transferred"].as_u64()).sum::<u64>();
    assert_eq!(transferred, 0, "unchanged files came again: {}", run.said());
    server.put("/shared.txt", "changed\n");
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("completed").len(), 20, "{}", run.said());
    assert_eq!(project.read("out/7.txt"), "changed\n");
    assert_eq!([project.count("each"), project.count("other")], [40, 1]);
}

#[test]
fn hundreds_of_files_need_no_more_open_ones_than_a_program_usually_may_have() {
    let server = Server::start(0, 0);
    for at in 0..300 {
        server.put(&format!("/{at}.txt"), format!("{at}\n"));
    }
    let workflow = r#"
[workflow]
name = "many"
params = { base = "@base" }
[task.each]
foreach = { at = { range = [0, 300] } }
inputs = { data = "{{ params.base }}/{{ at }}.txt" }
outputs = { out = "out/{{ at }}.txt" }
run = "cat {{ inputs.data }} > {{ outputs.out }}"
"#;
    let project = Project::new(&workflow.replace("@base", server.base()));
    let run = project.shell("ulimit -Sn 128; exec \"$KEELBOAT\" run flow.toml --json");
    let run = project.start(run).wait();
    run.assert_code(0);
    assert_eq!(run.tasks("completed").len(), 300, "{}", run.said());
    assert_eq!(project.read("out/299.txt"), "299\n");
}

#[test]
fn offline_uses_what_is_here_and_asks_nobody() {
    let server = Server::start(0, 0);
    server.put("/shared.txt", "shared\n");
    server.put("/other.txt", "other\n");
    let project = Project::new(&workflow(server.base()));
    project.run_well(&["each"]);
    let before = server.requests();
    let run = project.run_well(&["each", "--offline"]);
    assert_eq!(run.tasks("reused").len(), 20, "{}", run.said());
    let run = project.run(&["--offline"]);
    run.assert_code(1);
    run.assert_said(&["other.txt", "offline"]);
    assert_eq!(server.requests(), before);
}

/// A run that fetches a file of which the server sends a half, and ends it as the caller does. The
/// next run goes on with what came.
fn end_in_the_middle(end: impl FnOnce(Running)) {
    let server = Server::start(0, 0);
    let whole = bytes(6_000_000);
    server.put("/held/large.bin", whole.clone());
    let project = Project::new(&format!(
        r#"
[workflow]
name = "large"
[task.large]
inputs = {{ large = "{}/held/large.bin" }}
outputs = {{ out = "copy.bin" }}
run = "cat {{{{ inputs.large }}}} > {{{{ outputs.out }}}}"
"#,
        server.base()
    ));
    let mut engine = project.start_run(&[]);
    wait_until("half of the file is here", Duration::from_secs(30), || {
        assert!(!engine.has_ended(), "{}", engine.said());
        let files = project.files(".keelboat/partial");
        files.values().any(|bytes| bytes.len() >= 2_900_000).then_some(())
    });
    end(engine);
    let run = project.run_well(&[]);
    let copy = std::fs::read(project.path("copy.bin")).expect("the output");
    assert!(copy == whole, "other bytes");
    let parts = server.parts();
    assert_eq!(parts.len(), 1, "one answer held a part: {parts:?}");
    let first = parts[0];
    // How far it was is written down once a second; the half takes a second and a half.
    assert!(first >= 1_000_000, "it began again at {first}: {}", run.said());
}

#[test]
fn a_transfer_goes_on_where_the_engine_was_killed() {
    end_in_the_middle(|engine| drop(engine.kill()));
}

#[test]
fn a_transfer_ends_with_a_run_that_is_terminated_and_goes_on_in_the_next_one() {
    end_in_the_middle(|engine| {
        engine.signal(Signal::SIGTERM);
        engine.wait_at_most(STOP_MAX).assert_code(130);
    });
}

#[test]
fn a_transfer_ends_with_a_run_that_is_interrupted_and_goes_on_in_the_next_one() {
    // Nothing runs that would have to be waited for.
    end_in_the_middle(|engine| {
        engine.signal(Signal::SIGINT);
        engine.wait_at_most(STOP_MAX).assert_code(130);
    });
}

#[test]
fn a_mirror_is_asked_when_the_first_address_has_nothing() {
    let server = Server::start(0, 0);
    server.put("/good/data.txt", "data\n");
    let project = Project::new(
        &r#"
[workflow]
name = "mirrors"
[task.use]
inputs = { data = { urls = ["@base/bad/data.txt", "@base/good/data.txt"] } }
outputs = { out = "out.txt" }
run = "cat {{ inputs.data }} > {{ outputs.out }}"
"#
        .replace("@base", server.base()),
    );
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "data\n");
}

#[test]
fn two_addresses_with_one_last_part_are_two_files() {
    let server = Server::start(0, 0);
    server.put("/a/data.txt", "a\n");
    server.put("/b/data.txt", "b\n");
    let text = r#"
[workflow]
name = "names"
[task.join]
inputs = { a = "@base/a/data.txt", b = @b }
outputs = { out = "out.txt" }
run = "cat {{ inputs.a }} {{ inputs.b }} > {{ outputs.out }}"
"#
    .replace("@base", server.base());
    let address = format!("\"{}/b/data.txt\"", server.base());
    let project = Project::new(&text.replace("@b", &address));
    let run = project.run(&[]);
    run.assert_code(2);
    run.assert_said(&["data.txt", "as = ", "flow.toml:5:"]);
    project.set_workflow(&text.replace("@b", &format!("{{ url = {address}, as = \"b.txt\" }}")));
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "a\nb\n");
}
