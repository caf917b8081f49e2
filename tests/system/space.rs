//! The bound on what fetched files take of the disk.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::project::{Project, Run};
use crate::server::Server;

const FILES: usize = 20;
const FILE_BYTES: usize = 2_000_000;
const BOUND: u64 = 6_000_000;

/// One file may be let in beyond the bound while nothing else moves; and there are the outputs of
/// the tasks, and notes on what was used.
const SLACK: u64 = FILE_BYTES as u64 + 100_000;

/// Twenty tasks that read a file each.
fn project(server: &Server) -> Project {
    for at in 0..FILES {
        let byte = u8::try_from(at).expect("a small number");
        server.put(&format!("/{at}.bin"), vec![byte; FILE_BYTES]);
    }
    let workflow = r#"
[workflow]
name = "space"
params = { base = "@base" }
[task.each]
foreach = { at = { range = [0, 20] } }
inputs = { data = "{{ params.base }}/{{ at }}.bin" }
outputs = { out = "out/{{ at }}.txt" }
run = "@count each; sha256sum < {{ inputs.data }} > {{ outputs.out }}"
"#;
    let project = Project::new(&workflow.replace("@base", server.base()));
    project.write("keelboat.toml", "[staging]\nspace_max = \"6MB\"\n");
    project
}

/// Bytes that fetched files take: on their way, and here.
fn used(project: &Project) -> u64 {
    // By inode: while this looks, files move from one to the other.
    let mut files = BTreeMap::new();
    for place in [".keelboat/partial", ".keelboat/objects"] {
        note_below(&project.path(place), &mut files);
    }
    files.values().sum()
}

/// What goes while this looks counts nothing.
fn note_below(directory: &Path, files: &mut BTreeMap<u64, u64>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => note_below(&entry.path(), files),
            Ok(metadata) => drop(files.insert(metadata.ino(), metadata.len())),
            Err(_gone) => {}
        }
    }
}

/// Bytes that came over the network. Who learns from an answer that there is no room asks again
/// later.
fn transferred(run: &Run) -> u64 {
    run.events().iter().filter_map(|event| event["transferred"].as_u64()).sum()
}

#[test]
fn files_that_no_task_reads_any_more_make_room_for_others() {
    let server = Server::start(0, 0);
    let project = project(&server);
    let mut engine = project.start_run(&["-j", "1"]);
    let (mut most, mut before) = (0, 0);
    while !engine.has_ended() {
        // While this looks, some go and others come: what is true is true twice.
        let now = used(&project);
        most = most.max(now.min(before));
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let run = engine.wait();
    run.assert_code(0);
    assert_eq!(run.tasks("completed").len(), FILES, "{}", run.said());
    assert!(most <= BOUND + SLACK, "{most} bytes were used");
    let left = used(&project);
    assert!(left <= BOUND + SLACK, "{left} bytes are left");
    assert!(most.min(left) >= FILE_BYTES as u64, "what fits is kept: {most}, {left}");
    assert_eq!(transferred(&run), (FILES * FILE_BYTES) as u64, "each file came once");

    // What went comes again, to be held against what the tasks read.
    let run = project.run_well(&["-j", "1"]);
    assert_eq!(run.tasks("reused").len(), FILES, "{}", run.said());
    assert_eq!(project.count("each"), FILES);
    let left = used(&project);
    assert!(left <= BOUND + SLACK, "{left} bytes are left");
}

#[test]
fn what_a_task_still_reads_stays_however_little_room_there_is() {
    let server = Server::start(0, 0);
    let project = project(&server);
    project.set_workflow(
        &r#"
[workflow]
name = "all"
params = { base = "@base" }
[task.all]
inputs = { data = ["@base/0.bin", "@base/1.bin", "@base/2.bin", "@base/3.bin", "@base/4.bin"] }
outputs = { out = "all.txt" }
run = "@count all; cat {{ inputs.data }} | wc -c > {{ outputs.out }}"
"#
        .replace("@base", server.base()),
    );
    let run = project.run_well(&[]);
    assert_eq!(project.read("all.txt").trim(), "10000000", "{}", run.said());
    assert_eq!(transferred(&run), 5 * FILE_BYTES as u64, "each file came once");
}

#[test]
fn archives_make_room_for_each_other() {
    let server = Server::start(0, 0);
    let project = Project::new(
        &r#"
[workflow]
name = "archives"
params = { base = "@base" }
[task.each]
foreach = { at = { range = [0, 4] } }
inputs = { data = "tar:{{ params.base }}/{{ at }}.tar!/all/note.txt" }
outputs = { out = "out/{{ at }}.txt" }
run = "cp {{ inputs.data }} {{ outputs.out }}"
"#
        .replace("@base", server.base()),
    );
    project.write("keelboat.toml", "[staging]\nspace_max = \"6MB\"\n");
    for at in 0..4_u8 {
        project.write("all/note.txt", format!("note {at}\n"));
        std::fs::write(project.path("all/ballast"), vec![at; 4_000_000]).expect("a file");
        let packed = project.shell("tar cf all.tar all").status().expect("tar");
        assert!(packed.success());
        let archive = std::fs::read(project.path("all.tar")).expect("an archive");
        server.put(&format!("/{at}.tar"), archive);
    }
    // Where one of them kept its room, the next one would wait for ever.
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("completed").len(), 4, "{}", run.said());
    assert_eq!(project.read("out/3.txt"), "note 3\n");
    let left = used(&project);
    assert!(left <= BOUND + SLACK, "{left} bytes are left");
}
