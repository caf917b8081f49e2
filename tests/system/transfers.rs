//! Remote inputs: fetched once, gone on with after a crash, looked at again on later runs.

use std::time::Duration;

use crate::processes::wait_until;
use crate::project::Project;
use crate::server::Server;

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

#[test]
fn a_transfer_goes_on_where_the_engine_was_killed() {
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
    engine.kill();
    let run = project.run_well(&[]);
    assert!(std::fs::read(project.path("copy.bin")).unwrap() == whole, "other bytes");
    let [first] = server.parts()[..] else {
        panic!("one answer held a part: {:?}", server.parts())
    };
    // How far it was is written down once a second; the half takes a second and a half.
    assert!(first >= 1_000_000, "it began again at {first}: {}", run.said());
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
