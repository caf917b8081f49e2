//! The read-only and small commands, through the program, on small projects.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::{contains, starts_with};

const FAILING: &str = r#"
[task.first]
outputs = { a = "a.txt" }
run = "echo one; echo two >&2; exit 3"

[task.second]
inputs = { a = "a.txt" }
outputs = { b = "b.txt" }
run = "cp {{ inputs.a }} {{ outputs.b }}"
"#;

fn keelboat(directory: &Path) -> Command {
    let mut command = Command::cargo_bin("keelboat").expect("the program is built");
    command.current_dir(directory).env("NO_COLOR", "1").env_remove("KEELBOAT_LOG");
    command.env("XDG_STATE_HOME", directory.join(".state"));
    command
}

fn project() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("a file can be written");
}

/// A project made by `init` that ran once.
fn project_that_ran() -> tempfile::TempDir {
    let project = project();
    keelboat(project.path()).arg("init").assert().success().stdout(contains("next: keelboat run"));
    keelboat(project.path()).arg("run").assert().success();
    project
}

#[test]
fn init_makes_a_workflow_that_runs_and_overwrites_nothing() {
    let project = project();
    write(project.path(), ".gitignore", "target");
    keelboat(project.path()).arg("init").assert().success();
    keelboat(project.path()).arg("run").assert().success();
    let all = fs::read_to_string(project.path().join("out/all.txt")).unwrap();
    assert_eq!(all, "hello ada\nhello grace\nhello barbara\n");
    let ignored = fs::read_to_string(project.path().join(".gitignore")).unwrap();
    assert_eq!(ignored, "target\n.keelboat/\n");
    let again = keelboat(project.path()).arg("init").assert().code(2);
    again.stderr(contains("flow.toml is there already"));
}

#[test]
fn status_tells_how_the_last_run_ended() {
    let project = project_that_ran();
    keelboat(project.path())
        .arg("status")
        .assert()
        .success()
        .stdout(contains("of hello: succeeded").and(contains("tasks    5 completed of 5")));
    let output = keelboat(project.path()).args(["status", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["state"], "succeeded");
    assert_eq!(report["tasks"]["completed"], 5);
    keelboat(project.path()).arg("run").assert().success();
    let all = keelboat(project.path()).args(["status", "--all"]).assert().success();
    all.stdout(contains("5 reused of 5").and(contains("5 completed of 5")));
    let unknown = keelboat(project.path()).args(["status", "--run", "nosuch"]).assert().code(2);
    unknown.stderr(contains("no run is called \"nosuch\""));
}

#[test]
fn a_project_without_runs_says_what_to_do() {
    let project = project();
    for command in [&["status"][..], &["why", "a"], &["log", "a"]] {
        let asked = keelboat(project.path()).args(command).assert().code(2);
        asked
            .stderr(contains("no run is known in .").and(contains("hint: run the workflow first")));
    }
    keelboat(project.path()).args(["cache", "stats"]).assert().code(2);
}

#[test]
fn why_names_the_part_that_changed_and_who_changed_it() {
    let project = project_that_ran();
    let first = keelboat(project.path()).args(["why", "all"]).assert().success();
    first.stdout(contains("its first run").and(contains("it wrote out/all.txt: 36 B")));
    keelboat(project.path()).arg("run").assert().success();
    let reused = keelboat(project.path()).args(["why", "all"]).assert().success();
    reused.stdout(
        contains("did not run, since its result was there").and(contains("made the result")),
    );

    let flow = fs::read_to_string(project.path().join("flow.toml")).unwrap();
    write(project.path(), "flow.toml", &flow.replace("echo hello", "echo good day"));
    keelboat(project.path()).arg("run").assert().success();
    let changed = keelboat(project.path()).args(["why", "greet[who=ada]"]).assert().success();
    changed.stdout(
        contains("its command changed:")
            .and(contains("- echo hello ada > out/ada.txt"))
            .and(contains("+ echo good day ada > out/ada.txt")),
    );
    let downstream = keelboat(project.path()).args(["why", "all"]).assert().success();
    downstream.stdout(
        contains("its input out/ada.txt changed: ")
            .and(contains("greet[who=ada] wrote it in this run")),
    );
}

#[test]
fn a_failure_is_told_with_its_cause_first_and_what_it_kept_from_running() {
    let project = project();
    write(project.path(), "flow.toml", FAILING);
    keelboat(project.path()).arg("run").assert().code(1);
    let status = keelboat(project.path()).arg("status").assert().success();
    status.stdout(
        contains("1 failed, 1 skipped of 2")
            .and(contains("failed   first: "))
            .and(contains("keelboat log first"))
            .and(contains("keelboat run flow.toml")),
    );
    let failed = keelboat(project.path()).args(["why", "first"]).assert().success();
    failed.stdout(contains("failed\n  cause: ").and(contains("3")));
    let skipped = keelboat(project.path()).args(["why", "second"]).assert().success();
    skipped.stdout(contains("did not run, since first failed, which it needs\n  cause: "));
}

#[test]
fn logs_are_shown_as_they_are_and_found_in_the_run_that_made_the_result() {
    let project = project();
    write(project.path(), "flow.toml", &FAILING.replace("exit 3", "echo x > {{ outputs.a }}"));
    keelboat(project.path()).arg("run").assert().success();
    keelboat(project.path()).arg("run").assert().success();
    keelboat(project.path())
        .args(["log", "first"])
        .assert()
        .success()
        .stdout(
            "==> standard output of first, attempt 1 <==\none\n\
             ==> standard error of first, attempt 1 <==\ntwo\n",
        )
        .stderr(starts_with("first did not run since; this is the log of run "));
    keelboat(project.path()).args(["log", "first", "--err"]).assert().success().stdout("two\n");
    let missing =
        keelboat(project.path()).args(["log", "first", "--attempt", "7"]).assert().code(2);
    missing.stderr(contains("first has no attempt 7"));
    let unknown = keelboat(project.path()).args(["log", "frist"]).assert().code(2);
    unknown.stderr(contains("did you mean \"first\"?"));
}

#[test]
fn the_graph_is_drawn_in_each_form() {
    let project = project();
    write(project.path(), "flow.toml", FAILING);
    let dot = keelboat(project.path()).arg("graph").assert().success();
    dot.stdout(starts_with("digraph {").and(contains("n0 -> n1;")));
    let mermaid =
        keelboat(project.path()).args(["graph", "--format", "mermaid", "--files"]).assert();
    mermaid.success().stdout(starts_with("flowchart LR\n").and(contains("[/\"a.txt\"/]")));
    let svg = keelboat(project.path()).args(["graph", "--format", "svg"]).assert().success();
    svg.stdout(starts_with("<svg ").and(contains(">second</text>")));
}

/// The arrows of a DOT graph by the names of its nodes: `names -> all`, dashed ones with `-->`.
fn arrows(dot: &str) -> Vec<String> {
    let label = |node: &str| {
        let line = dot.lines().find(|line| line.trim_start().starts_with(&format!("{node} [")));
        let label = line.and_then(|line| line.split('"').nth(1)).expect("a node with a label");
        label.split("\\n").next().unwrap_or_default().to_owned()
    };
    let ends = dot.lines().filter_map(|line| line.trim().trim_end_matches(';').split_once(" -> "));
    let mut arrows: Vec<String> = ends
        .map(|(from, rest)| {
            let (to, dashed) =
                rest.split_once(" [style=dashed]").map_or((rest, false), |(to, _)| (to, true));
            format!("{} {} {}", label(from), if dashed { "-->" } else { "->" }, label(to))
        })
        .collect();
    arrows.sort();
    arrows
}

#[test]
fn a_graph_that_grows_is_drawn_as_the_file_says_and_then_as_it_has_grown() {
    let project = project();
    keelboat(project.path()).arg("init").assert().success();
    let drawn = || {
        let output = keelboat(project.path()).arg("graph").output().expect("it ran");
        assert!(output.status.success());
        arrows(&String::from_utf8(output.stdout).expect("text"))
    };
    assert_eq!(drawn(), ["greet --> all", "names --> greet"]);
    keelboat(project.path()).arg("run").assert().success();
    let all = ["ada", "barbara", "grace"].map(|who| format!("greet[who={who}] -> all"));
    let names = ["ada", "barbara", "grace"].map(|who| format!("names -> greet[who={who}]"));
    assert_eq!(drawn(), [all, names].concat());
    fs::remove_file(project.path().join("out/names.txt")).unwrap();
    fs::write(project.path().join("out/names.txt"), "a\na\n").unwrap();
    let wrong = keelboat(project.path()).arg("graph").assert().success();
    wrong.stderr(contains("two tasks would be called").and(contains("known later")));
}

#[test]
fn a_warning_tells_its_place() {
    let project = project();
    let text = "[task.t]\noutputs = { o = 'o' }\nrun = 'echo > \"{{ outputs.o }}\"'\n";
    write(project.path(), "flow.toml", text);
    let ran = keelboat(project.path()).arg("run").assert().success();
    ran.stderr(contains("flow.toml:3: this value is quoted twice"));
}

#[test]
fn a_damaged_object_is_named_and_the_exit_code_says_so() {
    let project = project_that_ran();
    keelboat(project.path())
        .args(["cache", "verify"])
        .assert()
        .success()
        .stdout(contains("all is whole"));
    let objects = project.path().join(".keelboat/objects");
    let object = walkdir::WalkDir::new(objects)
        .into_iter()
        .flatten()
        .find(|entry| entry.file_type().is_file() && entry.file_name().len() == 62)
        .expect("there is an object")
        .into_path();
    fs::remove_file(&object).unwrap();
    fs::write(&object, "rotten").unwrap();
    let verified = keelboat(project.path()).args(["cache", "verify"]).assert().code(5);
    verified.stdout(contains("damaged: object "));
    keelboat(project.path()).args(["cache", "verify"]).assert().success();
    // The output in its place is whole.
    fs::write(&object, "rotten again").unwrap();
    let repaired = keelboat(project.path()).args(["cache", "repair"]).assert().success();
    repaired.stdout(contains("mended: object "));
    assert!(!fs::read(&object).unwrap().starts_with(b"rotten"));
    let repaired = keelboat(project.path()).args(["cache", "repair"]).assert().success();
    repaired.stdout(contains("nothing to mend"));
    keelboat(project.path())
        .args(["cache", "gc"])
        .assert()
        .success()
        .stdout(contains("damaged objects"));
    keelboat(project.path()).args(["cache", "gc", "--max-size", "lots"]).assert().code(2);
}

#[test]
fn gc_removes_what_is_old_and_keeps_the_newest_run() {
    let project = project_that_ran();
    keelboat(project.path()).args(["run", "--force", "all"]).assert().success();
    let dry =
        keelboat(project.path()).args(["cache", "gc", "--keep-days", "0", "--dry-run"]).assert();
    dry.success().stdout(contains("would remove"));
    keelboat(project.path()).args(["cache", "gc", "--keep-days", "0"]).assert().success();
    let runs = fs::read_dir(project.path().join(".keelboat/runs")).unwrap().count();
    assert!(runs >= 1, "the newest run stays");
    keelboat(project.path()).arg("run").assert().success();
    keelboat(project.path()).arg("status").assert().stdout(contains("5 reused of 5"));
}

#[test]
fn gc_keeps_records_of_globus_as_long_as_they_promise() {
    let project = project_that_ran();
    let partial = project.path().join(".keelboat/partial");
    let data = format!("{}.data", keelboat_engine::Digest::of(b"x").to_hex());
    fs::create_dir_all(partial.join("globus")).unwrap();
    let age = |name: &str, days: u64| {
        let path = partial.join(name);
        fs::write(&path, "x").unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_hours(days * 24);
        fs::File::open(&path).and_then(|file| file.set_modified(then)).unwrap();
    };
    let left = || [&*data, "globus/s.json", "mine"].map(|name| partial.join(name).exists());
    let gc = |args: &[&str]| {
        keelboat(project.path()).args(["cache", "gc"]).args(args).assert().success()
    };
    for name in [&*data, "globus/s.json", "mine"] {
        age(name, 20);
    }
    gc(&[]);
    assert_eq!(left(), [true, true, true], "neither is 30 days old");
    gc(&["--keep-days", "7", "--dry-run"]).stdout(contains("1 file of partial transfers"));
    gc(&["--keep-days", "7"]);
    assert_eq!(left(), [false, true, true]);
    age("globus/s.json", 31);
    gc(&["--keep-days", "7"]);
    assert_eq!(left(), [false, false, true]);
}

#[test]
fn fetch_verifies_and_replaces_nothing_unasked() {
    let project = project();
    write(project.path(), "source.txt", "keelboat");
    let url = format!("file://{}", project.path().join("source.txt").display());
    let sha256 = keelboat_engine::Digest::of(b"keelboat").to_hex();
    keelboat(project.path())
        .args(["fetch", &url, "-o", "got.txt", "--sha256", &sha256])
        .assert()
        .success()
        .stdout(contains(&sha256));
    assert_eq!(fs::read(project.path().join("got.txt")).unwrap(), b"keelboat");
    assert!(!project.path().join(".keelboat-partial").exists(), "nothing is left over");
    let again = keelboat(project.path()).args(["fetch", &url, "-o", "got.txt"]).assert();
    again.success().stdout(contains("got.txt is already there, as it is at its source"));
    let same = keelboat(project.path())
        .args(["fetch", &url, "-o", "got.txt", "--sha256", &sha256])
        .assert();
    same.success().stdout(contains("already there"));
    let other = "0".repeat(64);
    let wrong = keelboat(project.path())
        .args(["fetch", &url, "-o", "new.txt", "--sha256", &other])
        .assert();
    wrong.code(1).stderr(contains("expected SHA-256 000000000000"));
    assert!(!project.path().join("new.txt").exists(), "what is wrong never appears");
}
