//! Outputs after a run: damaged ones are made whole again, touched ones cause nothing, and nothing
//! appears that a task did not finish.

use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::processes::{wait_until, wait_until_none};
use crate::project::{Project, Run};
use crate::server::Server;

/// Three tasks in a row and one beside them; the second has a directory.
const WORKFLOW: &str = r#"
[workflow]
name = "outputs"

[task.strip]
inputs = { source = "source.txt" }
outputs = { text = "out/stripped.txt" }
run = "@count strip; grep -v '^#' {{ inputs.source }} > {{ outputs.text }}"

[task.split]
inputs = { text = "out/stripped.txt" }
outputs = { lines = { path = "out/lines", directory = true } }
run = '''
@count split
mkdir -p {{ outputs.lines }}/deep
head -n 1 {{ inputs.text }} > {{ outputs.lines }}/first
tail -n 1 {{ inputs.text }} > {{ outputs.lines }}/deep/last
'''

[task.join]
inputs = { lines = { from = "split.lines" } }
outputs = { joined = "out/joined.txt" }
run = "@count join; cat {{ inputs.lines }}/first {{ inputs.lines }}/deep/last > {{ outputs.joined }}"
"#;

const SOURCE: &str = "# a comment\nfirst line\nmiddle line\nlast line\n";
const STRIPPED: &str = "first line\nmiddle line\nlast line\n";
const JOINED: &str = "first line\nlast line\n";

/// A project in which all tasks have run once.
fn done() -> Project {
    let project = Project::new(WORKFLOW);
    project.write("source.txt", SOURCE);
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("completed"), ["strip", "split", "join"]);
    assert_whole(&project, &run);
    project
}

#[track_caller]
fn assert_whole(project: &Project, run: &Run) {
    run.assert_code(0);
    assert_eq!(project.read("out/stripped.txt"), STRIPPED, "{}", run.said());
    assert_eq!(project.read("out/lines/first"), "first line\n", "{}", run.said());
    assert_eq!(project.read("out/lines/deep/last"), "last line\n", "{}", run.said());
    assert_eq!(project.read("out/joined.txt"), JOINED, "{}", run.said());
    assert_eq!(project.files("out").len(), 4, "{:?}", project.files("out").keys());
}

/// How often the three tasks have run.
fn counts(project: &Project) -> [usize; 3] {
    ["strip", "split", "join"].map(|task| project.count(task))
}

/// Changes a published file, which may be read-only, in place.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mode = path.metadata().expect("a file").permissions();
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).expect("a mode");
    let mut bytes = std::fs::read(path).expect("a file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("a file");
    std::fs::set_permissions(path, mode).expect("a mode");
}

#[expect(clippy::ptr_arg, reason = "it is passed where files may also be made shorter")]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn set_modified(path: &Path, moment: SystemTime) {
    let file = File::open(path).expect("a file");
    file.set_times(FileTimes::new().set_modified(moment)).expect("times");
}

/// Replaces a file by another one with the same bytes, as an editor does.
fn detach(path: &Path) {
    let bytes = std::fs::read(path).expect("a file");
    std::fs::remove_file(path).expect("a file");
    std::fs::write(path, bytes).expect("a file");
}

/// All objects of the cache that hold these bytes.
fn objects(project: &Project, bytes: &[u8]) -> Vec<PathBuf> {
    let files = project.files(".keelboat/objects").into_iter();
    files.filter(|(_, held)| held == bytes).map(|(path, _)| project.path(path)).collect()
}

#[test]
fn a_truncated_output_is_made_whole_again() {
    for path in ["out/stripped.txt", "out/lines/deep/last", "out/joined.txt"] {
        let project = done();
        damage(&project.path(path), |bytes| bytes.truncate(4));
        assert_whole(&project, &project.run(&[]));
    }
}

#[test]
fn an_output_truncated_beside_the_cache_is_restored_without_a_run() {
    for path in ["out/stripped.txt", "out/lines/deep/last", "out/joined.txt"] {
        let project = done();
        detach(&project.path(path));
        damage(&project.path(path), |bytes| bytes.truncate(4));
        let run = project.run(&[]);
        assert_whole(&project, &run);
        assert_eq!(counts(&project), [1, 1, 1], "{path}: {}", run.said());
        let events = run.events();
        assert!(events.iter().any(|event| event["restored"] == true), "{path}: {}", run.said());
    }
}

#[test]
fn an_output_with_one_flipped_bit_is_made_whole_again() {
    for path in ["out/stripped.txt", "out/lines/first", "out/joined.txt"] {
        let project = done();
        damage(&project.path(path), flip);
        assert_whole(&project, &project.run(&[]));
    }
}

#[test]
fn a_flipped_bit_is_found_although_size_and_time_are_as_before() {
    for path in ["out/stripped.txt", "out/lines/first", "out/joined.txt"] {
        let project = done();
        let path = project.path(path);
        let moment = path.metadata().unwrap().modified().unwrap();
        damage(&path, flip);
        set_modified(&path, moment);
        assert_whole(&project, &project.run(&[]));
    }
}

#[test]
fn a_touched_output_causes_nothing_to_run() {
    for path in ["out/stripped.txt", "out/lines/first", "out/joined.txt"] {
        let project = done();
        set_modified(&project.path(path), SystemTime::now() + Duration::from_hours(1));
        let run = project.run(&[]);
        assert_whole(&project, &run);
        assert_eq!(run.tasks("reused").len(), 3, "{}", run.said());
        assert_eq!(counts(&project), [1, 1, 1]);
    }
}

#[test]
fn a_deleted_output_comes_back_from_the_cache() {
    let project = done();
    std::fs::remove_dir_all(project.path("out")).unwrap();
    let run = project.run(&[]);
    assert_whole(&project, &run);
    assert_eq!(counts(&project), [1, 1, 1], "{}", run.said());
}

#[test]
fn an_output_replaced_by_something_else_comes_back() {
    let project = done();
    std::fs::remove_file(project.path("out/joined.txt")).unwrap();
    project.write("out/joined.txt/inside", "a directory where a file should be");
    std::fs::remove_dir_all(project.path("out/lines")).unwrap();
    project.write("out/lines", "a file where a directory should be");
    let run = project.run(&[]);
    assert_whole(&project, &run);
    assert_eq!(counts(&project), [1, 1, 1], "{}", run.said());
}

#[test]
fn outputs_with_the_same_bytes_are_executable_each_as_it_was_written() {
    let project = Project::new(
        r#"
[workflow]
name = "modes"

[task.notes]
outputs = { text = "out/notes" }
run = "@count notes; echo 'echo it works' > {{ outputs.text }}"

[task.tool]
after = ["notes"]
outputs = { tool = "out/tool" }
run = "@count tool; echo 'echo it works' > {{ outputs.tool }}; chmod 750 {{ outputs.tool }}"
"#,
    );
    let executable = |name: &str| {
        let metadata = project.path(name).metadata().expect("the output is there");
        metadata.permissions().mode() & 0o100 != 0
    };
    project.run_well(&[]);
    for spoil in ["rm out/notes out/tool", "chmod -x out/tool; chmod +x out/notes"] {
        assert!(executable("out/tool") && !executable("out/notes"));
        assert!(project.shell(spoil).status().expect("a shell").success());
        assert_eq!(project.run_well(&[]).tasks("completed"), <[&str; 0]>::default(), "{spoil}");
    }
    assert!(executable("out/tool") && !executable("out/notes"));
}

#[test]
fn a_file_added_to_a_directory_output_goes_away() {
    let project = done();
    project.write("out/lines/added", "not of the task's making");
    assert_whole(&project, &project.run(&[]));
}

#[test]
fn outputs_and_cache_that_are_gone_are_made_again() {
    let project = done();
    for directory in ["out", ".keelboat/objects"] {
        std::fs::remove_dir_all(project.path(directory)).unwrap();
    }
    let run = project.run(&[]);
    assert_whole(&project, &run);
    assert_eq!(counts(&project), [2, 2, 2], "{}", run.said());
}

#[test]
fn a_damaged_object_is_never_used() {
    let project = done();
    let objects = objects(&project, STRIPPED.as_bytes());
    assert_eq!(objects.len(), 1);
    // A file of its own, so that only the object is damaged.
    detach(&project.path("out/stripped.txt"));
    damage(&objects[0], flip);
    std::fs::remove_file(project.path("out/stripped.txt")).unwrap();
    let run = project.run(&[]);
    assert_whole(&project, &run);
    // The second task's inputs are what they were.
    assert_eq!(counts(&project), [2, 1, 1], "{}", run.said());
}

#[test]
fn a_change_without_effect_on_the_first_output_runs_nothing_after_it() {
    let project = done();
    project.write("source.txt", SOURCE.replace("a comment", "another comment"));
    let run = project.run(&[]);
    assert_whole(&project, &run);
    assert_eq!(run.tasks("completed"), ["strip"]);
    assert_eq!(counts(&project), [2, 1, 1]);
    // Back to the first text: nothing at all.
    project.write("source.txt", SOURCE);
    let run = project.run(&[]);
    assert_eq!(run.tasks("reused").len(), 3, "{}", run.said());
}

#[test]
fn strict_reads_all_bytes_and_runs_nothing_when_they_are_right() {
    let project = done();
    let run = project.run(&["--strict"]);
    assert_whole(&project, &run);
    assert_eq!(run.tasks("reused").len(), 3, "{}", run.said());
    damage(&project.path("out/joined.txt"), flip);
    assert_whole(&project, &project.run(&["--strict"]));
}

#[test]
fn force_runs_a_task_and_what_follows_only_when_it_writes_something_else() {
    let project = done();
    let run = project.run(&["--force", "strip"]);
    assert_whole(&project, &run);
    assert_eq!(counts(&project), [2, 1, 1], "{}", run.said());
    let run = project.run(&[]);
    assert_eq!(run.tasks("reused").len(), 3, "{}", run.said());
}

#[test]
fn a_task_without_cache_runs_each_time() {
    let project = Project::new(
        r#"
[workflow]
name = "clock"
[task.now]
cache = false
outputs = { now = "now.txt" }
run = "@count now; echo now > {{ outputs.now }}"
[task.use]
inputs = { now = "now.txt" }
outputs = { used = "used.txt" }
run = "@count use; cat {{ inputs.now }} > {{ outputs.used }}"
"#,
    );
    for times in 1..=3 {
        project.run_well(&[]);
        assert_eq!([project.count("now"), project.count("use")], [times, 1]);
    }
}

#[test]
fn a_task_that_fails_half_way_leaves_nothing_at_the_final_paths() {
    let workflow = r#"
[workflow]
name = "half"
[task.half]
outputs = { a = "out/a.txt", b = "out/b.txt", c = { path = "out/c", directory = true } }
run = '''
@count half
echo new > {{ outputs.a }}
mkdir {{ outputs.c }}
echo new > {{ outputs.c }}/x
@end
echo new > {{ outputs.b }}
'''
"#;
    let project = Project::new(&workflow.replace("@end", "exit 1"));
    project.run(&[]).assert_code(1);
    assert_eq!(project.files("out").len(), 0, "{:?}", project.files("out").keys());
    // Neither does it when it ends well but lacks one of three outputs.
    project.set_workflow(&workflow.replace("@end", "exit 0"));
    let run = project.run(&[]);
    run.assert_code(1);
    run.assert_said(&["did not write its output b"]);
    assert_eq!(project.files("out").len(), 0, "{:?}", project.files("out").keys());
    // And what was there of an earlier success stays.
    project.set_workflow(&workflow.replace("@end", ""));
    project.run_well(&[]);
    let before = project.files("out");
    assert_eq!(before.len(), 3);
    project.set_workflow(&workflow.replace("new", "newer").replace("@end", "exit 1"));
    project.run(&[]).assert_code(1);
    assert_eq!(project.files("out"), before);
}

/// Larger than what is copied rather than linked.
fn large() -> Vec<u8> {
    (0..5_000_000_u32)
        .map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).expect("a byte"))
        .collect()
}

#[test]
fn a_task_that_writes_to_its_remote_input_does_not_harm_the_cache() {
    let server = Server::start(0, 0);
    server.put("/large.bin", large());
    let project = Project::new(&format!(
        r#"
[workflow]
name = "vandal"
[task.vandal]
inputs = {{ large = "{0}/large.bin" }}
outputs = {{ out = "vandal.txt" }}
run = '''
@count vandal
chmod u+w {{{{ inputs.large }}}} || true
printf XXXX | dd of={{{{ inputs.large }}}} conv=notrunc 2>/dev/null || true
echo done > {{{{ outputs.out }}}}
'''
[task.honest]
after = ["vandal"]
inputs = {{ large = "{0}/large.bin" }}
outputs = {{ out = "copy.bin" }}
run = "@count honest; cat {{{{ inputs.large }}}} > {{{{ outputs.out }}}}"
"#,
        server.base()
    ));
    project.run(&["--keep-going"]);
    project.run(&["--keep-going", "honest"]);
    project.set_workflow(&project.read("flow.toml").replace("after = [\"vandal\"]", ""));
    project.run(&["honest"]).assert_code(0);
    assert!(std::fs::read(project.path("copy.bin")).unwrap() == large(), "the input was harmed");
    for (path, bytes) in project.files(".keelboat/objects") {
        let harmed = bytes.len() == large().len() && bytes != large();
        assert!(!harmed, "{} holds what the task wrote", path.display());
    }
}

#[test]
fn a_success_on_the_second_try_is_remembered() {
    let project = Project::new(
        r#"
[workflow]
name = "moody"
[task.moody]
retries = 1
backoff = "10ms"
outputs = { out = "moody.txt" }
run = '''
@count moody
echo "try" > {{ outputs.out }}
[ "$KEELBOAT_ATTEMPT" -eq 2 ]
'''
"#,
    );
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("attempt_failed"), ["moody"]);
    let run = project.run_well(&[]);
    assert_eq!(run.tasks("reused"), ["moody"]);
    assert_eq!(project.count("moody"), 2);
}

#[test]
fn a_timeout_kills_children_and_grandchildren_that_ignore_sigterm() {
    let project = Project::new(
        r#"
[workflow]
name = "late"
[task.late]
timeout = "500ms"
outputs = { out = "late.txt" }
run = '''
@count late
trap '' TERM
setsid sh -c "trap '' TERM; sleep 1000 & sleep 1000" &
sh -c "trap '' TERM; sleep 1000; sleep 1000"
sleep 1000
'''
"#,
    );
    let run = project.run(&[]);
    run.assert_code(1);
    run.assert_said(&["timed out after 500ms", "longer `timeout`"]);
    wait_until_none(&project.mark());
    assert!(!project.exists("late.txt"));
}

#[test]
fn what_a_finished_task_left_in_the_background_is_killed() {
    let project = Project::new(
        r#"
[workflow]
name = "daemon"
[task.daemon]
outputs = { out = "daemon.txt" }
run = '''
sleep 1000 &
setsid sleep 1000 &
echo done > {{ outputs.out }}
'''
[task.after]
inputs = { out = "daemon.txt" }
outputs = { out = "after.txt" }
run = '''
for entry in /proc/[0-9]*; do
    grep -qzx sleep "$entry/cmdline" 2>/dev/null || continue
    grep -qzxF "KEELBOAT_TEST_OF=@outside" "$entry/environ" 2>/dev/null || continue
    exit 1
done
echo none > {{ outputs.out }}
'''
"#,
    );
    project.run_well(&[]);
    assert_eq!(project.read("after.txt"), "none\n");
    wait_until_none(&project.mark());
}

#[test]
fn a_run_leaves_no_scratch_directories() {
    let project = done();
    let left = std::fs::read_dir(project.path(".keelboat/scratch")).unwrap();
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_not_sent_is_told_as_such_and_its_task_is_done() {
    let project = Project::new(
        r#"
[task.one]
outputs = { o = { path = "one.txt", to = "http://ann:hunter2@127.0.0.1:1/t.txt" } }
run = "echo one > {{ outputs.o }}"
"#,
    );
    let status = || project.start(project.command(&["status"])).wait();
    let mut engine = project.start_run(&[]);
    wait_until("it waits for the server", Duration::from_mins(1), || {
        assert!(!engine.has_ended(), "{}", engine.said());
        engine.said().contains("\"waiting\"").then_some(())
    });
    status().assert_said(&["1 completed of 1", "to send  one.txt to http://127.0.0.1:1/t.txt"]);
    engine.kill();
    status().assert_said(&["interrupted", "to send  one.txt to http://127.0.0.1:1/t.txt"]);
    project.write("keelboat.toml", "[staging]\ntries = 2\n");
    let run = project.run(&[]);
    run.assert_code(1);
    run.assert_said(&["try 2 of 2 in ", " s: http://127.0.0.1:1/t.txt: "]);
    assert_eq!(run.tasks("undelivered"), ["one"], "{}", run.said());
    assert_eq!(run.tasks("failed"), Vec::<String>::new(), "{}", run.said());
    let told = status();
    told.assert_said(&["failed\n", "1 completed of 1", "not sent one.txt: cannot write http://"]);
    assert!(!told.said().contains("to send"), "{}", told.said());
    assert!(!(told.said() + &run.said()).contains("hunter2"), "{}", run.said());
}

#[test]
fn an_address_that_is_given_up_is_told_once() {
    let project = Project::new(
        r#"
[task.one]
inputs = { i = { urls = ["http://127.0.0.1:1/none", "data:,x"], as = "i" } }
outputs = { o = "one.txt" }
run = "cp {{ inputs.i }} {{ outputs.o }}"
"#,
    );
    project.write("keelboat.toml", "[staging]\ntries = 2\n");
    let run = project.run_well(&[]);
    let told = |event: &str| {
        let events = run.events().into_iter().filter(|found| found["event"] == event);
        let texts = events.map(|found| found["text"].as_str().unwrap_or_default().to_owned());
        texts.filter(|text| text.contains("given up")).collect::<Vec<_>>()
    };
    assert_eq!(told("waiting"), Vec::<String>::new(), "{}", run.said());
    let [warning] = &told("warning")[..] else { panic!("{}", run.said()) };
    assert!(
        warning.starts_with("http://127.0.0.1:1/none is given up, the next address"),
        "{warning}"
    );
}
