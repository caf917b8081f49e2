//! Disks that are full or read-only, and files of the engine's own that are damaged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::processes::{is_root, wait_until};
use crate::project::{Project, Run};

/// Five tasks that write a little, and one that writes 200 kB.
const WORKFLOW: &str = r#"
[workflow]
name = "disk"

[task.small]
foreach = { at = { range = [0, 5] } }
outputs = { out = "out/small-{{ at }}.txt" }
run = "@count small-{{ at }}; echo {{ at }} > {{ outputs.out }}"

[task.large]
inputs = { small = { from = "small.out" } }
outputs = { out = "out/large.bin" }
run = "@count large; head -c 200000 /dev/zero > {{ outputs.out }}; cat {{ inputs.small }} >> {{ outputs.out }}"
"#;

const TASKS: [&str; 6] = ["small-0", "small-1", "small-2", "small-3", "small-4", "large"];

fn counts(project: &Project) -> [usize; 6] {
    TASKS.map(|task| project.count(task))
}

#[track_caller]
fn assert_done(project: &Project, run: &Run) {
    run.assert_code(0);
    for at in 0..5 {
        assert_eq!(
            project.read(format!("out/small-{at}.txt")),
            format!("{at}\n"),
            "{}",
            run.said()
        );
    }
    assert_eq!(project.read("out/large.bin").len(), 200_010, "{}", run.said());
}

fn done() -> Project {
    let project = Project::new(WORKFLOW);
    let run = project.run_well(&[]);
    assert_done(&project, &run);
    assert_eq!(counts(&project), [1; 6]);
    project
}

/// A mounted file system, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// A file system in memory; `None` where that is not allowed.
    fn new(place: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(place).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place);
        let done = is_root() && mount.output().is_ok_and(|output| output.status.success());
        done.then(|| Self(place.to_owned()))
    }

    fn again(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.expect("mount").success(), "cannot mount {} again", self.0.display());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing can be done about it here.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_is_named_and_the_same_command_goes_on_when_there_is_room() {
    let project = Project::new(WORKFLOW);
    let Some(disk) = Mounted::new(&project.path(""), "size=160k") else {
        println!("SKIPPED a_full_disk: file systems cannot be mounted here");
        return;
    };
    project.set_workflow(WORKFLOW);
    let run = project.run(&[]);
    run.assert_code(4);
    run.assert_said(&["make room on the disk"]);
    disk.again("size=64m");
    let run = project.run(&[]);
    assert_done(&project, &run);
    // What was shown as completed was durable.
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 6);
}

#[test]
fn a_disk_that_fills_up_at_any_point_loses_nothing() {
    let project = Project::new(WORKFLOW);
    let Some(disk) = Mounted::new(&project.path(""), "size=8k") else {
        println!("SKIPPED a_disk_that_fills_up: file systems cannot be mounted here");
        return;
    };
    project.set_workflow(WORKFLOW);
    let mut completed = Vec::new();
    for kib in (8..600).step_by(24) {
        disk.again(&format!("size={kib}k"));
        let run = project.run(&[]);
        for task in run.tasks("completed") {
            assert!(!completed.contains(&task), "{task} ran again: {}", run.said());
            completed.push(task);
        }
        if run.code() == Some(0) {
            break;
        }
        assert!(matches!(run.code(), Some(1 | 4)), "{:?} {}", run.status, run.said());
        let said = run.said().to_lowercase();
        assert!(said.contains("space") || said.contains("room"), "{said}");
    }
    disk.again("size=64m");
    let run = project.run(&[]);
    assert_done(&project, &run);
}

#[test]
fn a_limit_on_file_size_loses_nothing() {
    let project = Project::new(WORKFLOW);
    // In blocks of 512 bytes: the large output does not fit.
    let script = "ulimit -f 200; exec \"$KEELBOAT\" run flow.toml --json";
    let run = project.start(project.shell(script)).wait();
    run.assert_code(1);
    let run = project.run(&[]);
    assert_done(&project, &run);
    assert_eq!(counts(&project), [1, 1, 1, 1, 1, 2]);
}

#[test]
fn a_read_only_project_is_named() {
    let project = Project::new(WORKFLOW);
    let Some(disk) = Mounted::new(&project.path(""), "size=64m") else {
        println!("SKIPPED a_read_only_project: file systems cannot be mounted here");
        return;
    };
    project.set_workflow(WORKFLOW);
    disk.again("ro");
    let run = project.run(&[]);
    run.assert_code(4);
    run.assert_said(&[".keelboat", "ead-only file system", "must be writable"]);
    // What only reads works.
    project.start(project.command(&["plan", "flow.toml"])).wait().assert_code(0);
    disk.again("rw");
    let run = project.run(&[]);
    assert_done(&project, &run);
    disk.again("ro");
    let run = project.run(&[]);
    run.assert_code(4);
    run.assert_said(&["ead-only file system"]);
}

#[test]
fn an_output_directory_that_is_read_only_fails_the_task_and_no_more() {
    let project = Project::new(WORKFLOW);
    let Some(disk) = Mounted::new(&project.path("out"), "size=64m,ro") else {
        println!("SKIPPED an_output_directory: file systems cannot be mounted here");
        return;
    };
    let run = project.run(&["--keep-going"]);
    run.assert_code(1);
    run.assert_said(&["small-0.txt", "ead-only file system"]);
    assert_eq!(project.files("out").len(), 0);
    disk.again("rw");
    let run = project.run(&[]);
    assert_done(&project, &run);
}

#[test]
fn an_engine_killed_while_it_copies_to_another_disk_leaves_no_half_of_a_file() {
    let project = Project::new(
        r#"
[workflow]
name = "across"
[task.large]
outputs = { out = "out/large.bin" }
run = "@count large; head -c 60000000 /dev/zero > {{ outputs.out }}"
"#,
    );
    let Some(_disk) = Mounted::new(&project.path("out"), "size=200m") else {
        println!("SKIPPED an_engine_killed_while_it_copies: file systems cannot be mounted here");
        return;
    };
    let mut engine = project.start_run(&[]);
    wait_until("the copy begins", Duration::from_mins(1), || {
        assert!(!engine.has_ended(), "it was not seen: {}", engine.said());
        let begun = std::fs::read_dir(project.path("out")).unwrap().count() > 0;
        begun.then_some(())
    });
    engine.kill();
    let left = names(&project, "out");
    assert!(left.len() == 1 && left[0] != "large.bin", "{left:?}");
    project.run_well(&[]);
    assert_eq!(names(&project, "out"), ["large.bin"]);
    assert_eq!(project.files("out").values().map(Vec::len).sum::<usize>(), 60_000_000);
}

fn names(project: &Project, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(project.path(directory)).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The journal of the newest run.
fn journal(project: &Project) -> PathBuf {
    let runs = std::fs::read_dir(project.path(".keelboat/runs")).expect("runs").flatten();
    runs.map(|run| run.path()).max().expect("a run").join("journal")
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("a file");
}

#[test]
fn a_torn_journal_is_cut_off_and_the_run_goes_on() {
    let project = done();
    let whole = std::fs::read(journal(&project)).unwrap();
    // Where the file ends, by and by, and what runs again: only what the rest does not tell.
    for (kept, ran_max) in [(whole.len() - 3, 1), (whole.len() / 2, 7), (20, 13), (5, 19), (0, 25)]
    {
        for run in std::fs::read_dir(project.path(".keelboat/runs")).unwrap().flatten() {
            if run.path().join("journal") != journal(&project) {
                std::fs::remove_dir_all(run.path()).unwrap();
            }
        }
        change(&journal(&project), |bytes| bytes.truncate(kept));
        let run = project.run(&[]);
        assert_done(&project, &run);
        assert!(counts(&project).iter().sum::<usize>() <= 6 + ran_max, "{}", run.said());
    }
}

#[test]
fn a_flipped_byte_in_a_journal_is_named_and_costs_at_most_one_task() {
    let project = done();
    let size = std::fs::read(journal(&project)).unwrap().len();
    change(&journal(&project), |bytes| bytes[size / 2] ^= 0x40);
    let run = project.run(&[]);
    assert_done(&project, &run);
    assert!(counts(&project).iter().sum::<usize>() <= 7, "{}", run.said());
    run.assert_said(&["the journal of run", "damaged"]);
}

#[test]
fn a_memo_store_that_is_gone_or_damaged_is_made_again() {
    // So many that they are brought to the store before the run ends.
    let project = Project::new(
        r#"
[workflow]
name = "many"
[task.many]
foreach = { at = { range = [0, 300] } }
outputs = { out = "out/{{ at }}.txt" }
run = "@count many; echo {{ at }} > {{ outputs.out }}"
"#,
    );
    project.run_well(&[]);
    let memo = project.path(".keelboat/memo");
    std::fs::remove_dir_all(&memo).unwrap();
    project.run_well(&["many[at=7]"]);
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 300);
    // Journals of old runs may be removed: from then on the store knows, and only it.
    for (path, _) in project.files(".keelboat/memo") {
        change(&project.path(path), |bytes| {
            for byte in bytes.iter_mut().step_by(97) {
                *byte ^= 0x55;
            }
        });
    }
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 300);
    std::fs::remove_dir_all(&memo).ok();
    project.write(".keelboat/memo", "a file");
    assert_eq!(project.run_well(&[]).tasks("reused").len(), 300);
    assert_eq!(project.count("many"), 300);
}

#[test]
fn a_digest_cache_that_is_gone_or_damaged_costs_only_time() {
    let project = done();
    std::fs::remove_file(project.path(".keelboat/digests")).unwrap();
    assert_done(&project, &project.run(&[]));
    change(&project.path(".keelboat/digests"), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert_done(&project, &project.run(&[]));
    project.write(".keelboat/digests", "nonsense");
    assert_done(&project, &project.run(&[]));
    assert_eq!(counts(&project), [1; 6]);
}

#[test]
fn a_project_that_was_moved_has_all_its_results() {
    let mut project = done();
    project.move_to("another place");
    let run = project.run(&[]);
    assert_done(&project, &run);
    assert_eq!(counts(&project), [1; 6], "{}", run.said());
    std::fs::remove_dir_all(project.path("out")).unwrap();
    assert_done(&project, &project.run(&[]));
    assert_eq!(counts(&project), [1; 6]);
}
