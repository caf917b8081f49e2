//! Bad input of every kind: a clear text, the right exit code, and nothing lost.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use crate::processes::wait_until_none;
use crate::project::{Project, Run};
use crate::server::Server;

/// Runs a workflow that has to end like this, with these texts.
#[track_caller]
fn ends(project: &Project, arguments: &[&str], code: i32, texts: &[&str]) -> Run {
    let run = project.start_run(arguments).wait_at_most(Duration::from_mins(1));
    run.assert_code(code);
    run.assert_said(texts);
    run
}

/// A good run of another workflow in the same project: nothing was spoilt.
#[track_caller]
fn goes_on(project: &Project) {
    project.set_workflow(GOOD);
    let run = project.run_well(&[]);
    assert_eq!(project.read("good.txt"), "good\n", "{}", run.said());
}

const GOOD: &str = r#"
[workflow]
name = "good"
[task.good]
outputs = { out = "good.txt" }
run = "echo good > {{ outputs.out }}"
"#;

#[test]
fn broken_toml_is_shown_with_its_place() {
    let project = Project::new("[workflow]\nname = \"x\n");
    ends(&project, &[], 2, &["flow.toml:2:", "help"]);
    project.write("flow.toml", b"[workflow]\nname = \"\xff\xfe\"\n");
    ends(&project, &[], 2, &["flow.toml", "UTF-8"]);
    assert!(!project.exists(".keelboat"), "a file that cannot be read begins no run");
    goes_on(&project);
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_one() {
    let project = Project::new(&GOOD.replace("outputs =", "output ="));
    ends(&project, &[], 2, &["flow.toml:5:1", "output", "outputs"]);
    goes_on(&project);
}

#[test]
fn a_workflow_file_that_is_not_there_is_named() {
    let project = Project::new(GOOD);
    std::fs::remove_file(project.path("flow.toml")).unwrap();
    ends(&project, &[], 2, &["flow.toml", "keelboat init"]);
    std::fs::create_dir(project.path("flow.toml")).unwrap();
    ends(&project, &[], 2, &["flow.toml", "directory"]);
    std::fs::remove_dir(project.path("flow.toml")).unwrap();
    goes_on(&project);
}

#[test]
fn a_cycle_is_shown_with_its_tasks() {
    let project = Project::new(
        r#"
[workflow]
name = "cycle"
[task.a]
inputs = { x = "b.txt" }
outputs = { y = "a.txt" }
run = "cp {{ inputs.x }} {{ outputs.y }}"
[task.b]
inputs = { x = "a.txt" }
outputs = { y = "b.txt" }
run = "cp {{ inputs.x }} {{ outputs.y }}"
"#,
    );
    ends(&project, &[], 2, &["a -> b -> a", "flow.toml:4:", "change one of these paths"]);
    assert!(!project.exists(".keelboat/runs") || project.files(".keelboat/runs").is_empty());
    goes_on(&project);
}

#[test]
fn two_tasks_with_one_output_are_both_named() {
    let project = Project::new(
        r#"
[workflow]
name = "double"
[task.one]
outputs = { y = "same.txt" }
run = "echo 1 > {{ outputs.y }}"
[task.two]
outputs = { y = "./same.txt" }
run = "echo 2 > {{ outputs.y }}"
"#,
    );
    ends(&project, &[], 2, &["same.txt", "one", "two", "flow.toml:"]);
    // A file within a directory that another task writes.
    let text =
        project.read("flow.toml").replace("{ y = \"./same.txt\" }", "{ y = \"same.txt/in\" }");
    project.write(
        "flow.toml",
        text.replace("\"same.txt\"", "{ path = \"same.txt\", directory = true }"),
    );
    ends(&project, &[], 2, &["same.txt", "one", "two"]);
    goes_on(&project);
}

#[test]
fn an_output_that_is_never_written_is_named() {
    let project = Project::new(
        r#"
[workflow]
name = "forgetful"
[task.forgets]
outputs = { out = "out/forgotten.txt" }
run = "echo something > elsewhere.txt"
[task.waits]
inputs = { out = "out/forgotten.txt" }
outputs = { out = "never.txt" }
run = "cp {{ inputs.out }} {{ outputs.out }}"
"#,
    );
    let run = ends(&project, &[], 1, &["did not write its output out", "out/forgotten.txt"]);
    assert_eq!(run.tasks("skipped"), ["waits"]);
    goes_on(&project);
}

#[test]
fn a_local_input_that_is_never_found_is_named() {
    let project = Project::new(
        r#"
[workflow]
name = "seeks"
[task.seeks]
inputs = { x = "data/absent.txt" }
outputs = { y = "out.txt" }
run = "@count seeks; cp {{ inputs.x }} {{ outputs.y }}"
[task.other]
outputs = { y = "other.txt" }
run = "@count other; echo other > {{ outputs.y }}"
"#,
    );
    let run = ends(&project, &["--keep-going"], 1, &["data/absent.txt", "check the path"]);
    assert_eq!(run.tasks("failed"), ["seeks"]);
    assert_eq!([project.count("seeks"), project.count("other")], [0, 1]);
    // A directory where a file should be, and the other way round.
    std::fs::create_dir_all(project.path("data/absent.txt")).unwrap();
    ends(&project, &[], 1, &["data/absent.txt is a directory, expected a regular file"]);
    std::fs::remove_dir(project.path("data/absent.txt")).unwrap();
    // When it is there, only what failed runs.
    project.write("data/absent.txt", "found\n");
    project.run_well(&[]);
    assert_eq!([project.count("seeks"), project.count("other")], [1, 1]);
    assert_eq!(project.read("out.txt"), "found\n");
}

#[test]
fn a_remote_input_that_is_never_found_is_no_data() {
    let server = Server::start(0, 0);
    let project = Project::new(&format!(
        r#"
[workflow]
name = "seeks"
[task.seeks]
inputs = {{ x = "{}/absent.txt?token=hush" }}
outputs = {{ y = "out.txt" }}
run = "@count seeks; cp {{{{ inputs.x }}}} {{{{ outputs.y }}}}"
"#,
        server.base()
    ));
    let run = ends(&project, &[], 1, &["404", "/absent.txt"]);
    assert!(!run.said().contains("hush"), "a secret is shown: {}", run.said());
    assert_eq!(project.count("seeks"), 0);
    server.put("/absent.txt", "found\n");
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "found\n");
    // With the digest of something else it is no input either.
    let digest = keelboat_engine::Digest::of(b"something else").to_hex();
    let flow = project.read("flow.toml");
    let address = format!("\"{}/absent.txt?token=hush\"", server.base());
    let declared = format!("{{ url = {address}, sha256 = \"{digest}\" }}");
    project.write("flow.toml", flow.replace(&address, &declared));
    ends(&project, &[], 1, &["absent.txt", digest.get(..12).unwrap()]);
    assert_eq!(project.count("seeks"), 1);
    // A server that nobody answers for.
    project.write(
        "flow.toml",
        flow.replace(server.base(), "http://127.0.0.1:1").replace("absent", "other"),
    );
    ends(&project, &["--offline"], 1, &["127.0.0.1:1", "offline"]);
    goes_on(&project);
}

#[test]
fn a_task_that_ignores_sigterm_is_killed_after_its_time() {
    let project = Project::new(
        r#"
[workflow]
name = "deaf"
[task.deaf]
timeout = "300ms"
retries = 1
backoff = "10ms"
outputs = { out = "out.txt" }
run = '''
@count deaf
trap '' TERM INT HUP
while :; do sleep 0.05; done
'''
"#,
    );
    ends(&project, &[], 1, &["timed out after 300ms", "timeout"]);
    assert_eq!(project.count("deaf"), 2);
    wait_until_none(&project.mark());
    goes_on(&project);
}

#[test]
fn names_with_spaces_quotes_and_other_letters_work() {
    let project = Project::new(
        r#"
[workflow]
name = "names"
[task.copy]
foreach = { file = { glob = "in/*" } }
inputs = { x = "{{ file }}" }
outputs = { y = "out/{{ file.name }}" }
run = "@count copies; cat {{ inputs.x }} > {{ outputs.y }}"
[task.all]
inputs = { ys = { from = "copy.y" } }
outputs = { all = "all it's $(all) \"there\".txt" }
run = "cat {{ inputs.ys }} > {{ outputs.all }}"
"#,
    );
    let names = [
        "a b",
        "it's",
        "say \"hi\"",
        "$(touch pwned)",
        "`touch pwned`",
        "-rf",
        "é ß",
        "a\\b",
        "a;b&c|d",
        "*",
        "#x",
    ];
    for name in names {
        project.write(format!("in/{name}"), format!("{name}\n"));
    }
    project.run_well(&[]);
    for name in names {
        assert_eq!(project.read(format!("out/{name}")), format!("{name}\n"));
    }
    let all = project.read("all it's $(all) \"there\".txt");
    assert_eq!(all.lines().count(), names.len(), "{all}");
    assert_eq!(project.run_well(&[]).tasks("reused").len(), names.len() + 1);
    assert!(!project.exists("pwned"));
}

#[test]
fn names_that_cannot_be_in_a_workflow_are_refused_with_a_hint() {
    let text = r#"
[workflow]
name = "names"
[task.copy]
foreach = { file = { glob = "in/*" } }
inputs = { x = "{{ file }}" }
outputs = { y = "out/{{ file.stem }}.txt" }
run = "cp {{ inputs.x }} {{ outputs.y }}"
"#;
    let newline = Project::new(text);
    newline.write("in/two\nlines", "x");
    ends(&newline, &[], 2, &["two\\nlines", "flow.toml:"]);
    goes_on(&newline);
    let bytes = Project::new(text);
    bytes.write(OsStr::from_bytes(b"in/\xff\xfe"), "x");
    ends(&bytes, &[], 2, &["UTF-8", "flow.toml:"]);
    goes_on(&bytes);
}

#[test]
fn a_directory_output_may_hold_any_names() {
    let project = Project::new(
        r#"
[workflow]
name = "names"
[task.make]
outputs = { dir = { path = "made", directory = true } }
run = '''
@count make
mkdir -p {{ outputs.dir }}
cd {{ outputs.dir }}
for name in "$(printf '\377\376')" "$(printf 'two\nlines')" "it's \"a\" name"; do
    echo content > "$name"
done
ln -s "it's \"a\" name" link
'''
[task.count]
inputs = { dir = { from = "make.dir" } }
outputs = { count = "count.txt" }
run = "@count count; cat {{ inputs.dir }}/* | wc -l > {{ outputs.count }}"
"#,
    );
    project.run_well(&[]);
    assert_eq!(project.read("count.txt").trim(), "4");
    let before = project.files("made");
    std::fs::remove_dir_all(project.path("made")).unwrap();
    project.run_well(&[]);
    assert_eq!(project.files("made"), before);
    assert_eq!([project.count("make"), project.count("count")], [1, 1]);
}

#[test]
fn unknown_targets_parameters_and_forced_tasks_are_told_with_the_nearest() {
    let project =
        Project::new(&GOOD.replace("name = \"good\"", "name = \"good\"\nparams = { size = 3 }"));
    ends(&project, &["godo"], 2, &["godo", "did you mean \"good\"?"]);
    ends(&project, &["--force", "goood"], 2, &["goood", "did you mean \"good\"?"]);
    ends(&project, &["--set", "sise=4"], 2, &["sise", "size"]);
    ends(&project, &["--set", "size"], 2, &["size", "NAME=VALUE"]);
    assert!(!project.exists("good.txt"));
    goes_on(&project);
}

#[test]
fn a_failing_task_shows_what_it_said() {
    let project = Project::new(
        r#"
[workflow]
name = "fails"
[task.fails]
outputs = { out = "out.txt" }
run = "echo this is why >&2; exit 7"
[task.absent]
outputs = { out = "out2.txt" }
argv = ["no-such-program", "{{ outputs.out }}"]
"#,
    );
    let mut command = project.command(&["run", "flow.toml", "--keep-going"]);
    // A directory that may not be entered would make it another error.
    command.env("PATH", "/usr/bin:/bin");
    let run = project.start(command).wait();
    run.assert_code(1);
    run.assert_said(&["exit code 7", "this is why", "no-such-program", "install the program"]);
    goes_on(&project);
}

#[test]
fn a_task_that_wants_more_than_there_is_gets_all_there_is() {
    let project = Project::new(&GOOD.replace("outputs =", "cores = 60000\noutputs ="));
    ends(&project, &["-j", "2"], 0, &[]);
    assert_eq!(project.read("good.txt"), "good\n");
}

#[test]
fn settings_that_mean_nothing_are_told_with_their_line() {
    let project = Project::new("[task.one]\nrun = 'echo x'\n");
    project.write("keelboat.toml", "[staging]\nconections = 3\ntries = 0\n");
    for arguments in [["run", "flow.toml"], ["ls", "none/"]] {
        let run = project.start(project.command(&arguments)).wait();
        run.assert_code(2);
        run.assert_said(&["keelboat.toml:2:1]", "did you mean `connections`?", "tries = 8"]);
    }
    project.write("keelboat.toml", "");
    let mut command = project.command(&["run", "flow.toml"]);
    command.env("KEELBOAT_CONFIG", project.path("none.toml"));
    let run = project.start(command).wait();
    run.assert_code(2);
    run.assert_said(&["KEELBOAT_CONFIG names", "/none.toml, which is not there", "unset"]);
}
