//! Options of tasks: what failures lead to.

use crate::project::Project;

#[test]
fn a_variable_that_is_ignored_is_set_and_not_counted() {
    let workflow = r#"
[task.t]
outputs = { o = "out/t" }
env     = { THREADS = "4", MODE = "fast" }
cache   = { ignore = ["THREADS"] }
run     = "@count t; echo $THREADS $MODE > {{ outputs.o }}"
"#;
    let project = Project::new(workflow);
    project.run_well(&[]);
    assert_eq!(project.read("out/t"), "4 fast\n");
    project.set_workflow(&workflow.replace("\"4\"", "\"8\""));
    project.run_well(&[]);
    assert_eq!((project.count("t"), project.read("out/t")), (1, "4 fast\n".to_owned()));
    project.set_workflow(&workflow.replace("\"fast\"", "\"slow\""));
    project.run_well(&[]);
    assert_eq!((project.count("t"), project.read("out/t")), (2, "4 slow\n".to_owned()));
}

#[test]
fn what_is_printed_becomes_an_output() {
    let workflow = r#"
[task.list]
foreach = { x = ["a", "b"] }
argv    = ["printf", "%s\\n", "{{ x }}"]
stdout  = "out/{{ x }}.txt"

[task.all]
inputs = { lists = { from = "list.stdout" } }
run    = "@count all; cat {{ inputs.lists }}; echo two lists >&2"
stdout = "out/all.txt"
stderr = { path = "out/said.txt", to = "copies/said.txt" }
"#;
    let project = Project::new(workflow);
    project.run_well(&[]);
    assert_eq!(project.read("out/all.txt"), "a\nb\n");
    assert_eq!(project.read("out/said.txt"), "two lists\n");
    assert_eq!(project.read("copies/said.txt"), "two lists\n");
    let log = project.start(project.command(&["log", "all"])).wait();
    log.assert_said(&["a\nb\n", "two lists"]);
    project.run_well(&[]);
    assert_eq!(project.count("all"), 1);
    std::fs::remove_file(project.path("out/all.txt")).expect("removed");
    project.run_well(&[]);
    assert_eq!((project.count("all"), project.read("out/all.txt")), (1, "a\nb\n".to_owned()));
    // Printed elsewhere it is another computation.
    project.set_workflow(&workflow.replace("out/all.txt", "out/every.txt"));
    project.run_well(&[]);
    assert_eq!((project.count("all"), project.read("out/every.txt")), (2, "a\nb\n".to_owned()));
}

#[test]
fn what_attempts_leave_is_kept() {
    let workflow = r#"
[defaults]
keep_scratch = "failed"

[task.good]
outputs = { o = "out/good" }
run = "echo x > {{ outputs.o }}; echo y > beside"
keep_scratch = "always"

[task.bad]
outputs = { o = "out/bad" }
run = "echo half > {{ outputs.o }}; exit 3"
"#;
    let project = Project::new(workflow);
    let run = project.run(&["--keep-going"]);
    run.assert_code(1);
    let told = project.start(project.command(&["run", "flow.toml"])).wait();
    told.assert_said(&["what it left is in .keelboat/kept/bad"]);
    assert_eq!(project.read(".keelboat/kept/bad/out/bad"), "half\n");
    assert_eq!(project.read(".keelboat/kept/good/beside"), "y\n");
    let why = project.start(project.command(&["why", "bad"])).wait();
    why.assert_said(&[".keelboat/kept/bad"]);
    project.start(project.command(&["cache", "stats"])).wait().assert_said(&["kept", "2 files"]);
    project.start(project.command(&["cache", "gc"])).wait().assert_code(0);
    assert!(project.exists(".keelboat/kept/bad/out/bad"), "it is of today");
    project.start(project.command(&["cache", "gc", "--keep-days", "0"])).wait().assert_code(0);
    assert!(!project.exists(".keelboat/kept/bad") && !project.exists(".keelboat/kept/good"));
}

#[test]
fn failures_are_remembered_when_asked() {
    let workflow = r#"
[task.t]
outputs = { o = "out/t" }
cache = "failures"
run = "@count t; echo mode 1; exit 3"
"#;
    let project = Project::new(workflow);
    project.run(&[]).assert_code(1);
    project.start(project.command(&["plan", "flow.toml"])).wait().assert_said(&["remembered of"]);
    let again = project.run(&[]);
    again.assert_code(1);
    assert_eq!((project.count("t"), again.tasks("failed")), (1, vec!["t".to_owned()]));
    let why = project.start(project.command(&["why", "t"])).wait();
    why.assert_said(&["exit code 3 (remembered of", "it was not run again", "or is forced"]);
    // The index knows it, too, when the journals are gone.
    project.start(project.command(&["cache", "verify"])).wait().assert_code(0);
    project.run(&["--force", "t"]).assert_code(1);
    assert_eq!(project.count("t"), 2);
    project.set_workflow(&workflow.replace("mode 1", "mode 2"));
    project.run(&[]).assert_code(1);
    assert_eq!(project.count("t"), 3);
    project.set_workflow(&workflow.replace("\"failures\"", "true"));
    project.run(&[]).assert_code(1);
    assert_eq!(project.count("t"), 4);
}

#[test]
fn exit_codes_mean_another_try_the_end_or_a_skip() {
    let project = Project::new(
        r#"
[defaults]
backoff = "10ms"

[task.again]
outputs = { o = "out/again" }
run = "@count again; test $KEELBOAT_ATTEMPT -gt 3 || exit 75; echo done > {{ outputs.o }}"
retries = 1
retry_on = [75]
retry_cost = { 75 = 0.3 }

[task.skipping]
outputs = { o = "out/skipping" }
run = "@count skipping; exit 77"
retries = 3
skip_on = 77

[task.reader]
inputs = { i = "out/skipping" }
outputs = { o = "out/reader" }
run = "@count reader; cp {{ inputs.i }} {{ outputs.o }}"
"#,
    );
    let run = project.run_well(&["--keep-going"]);
    assert_eq!(
        (project.count("again"), project.count("skipping"), project.count("reader")),
        (4, 1, 0)
    );
    assert_eq!(run.tasks("skipped"), ["skipping", "reader"]);
    let mut costs: Vec<f64> = run
        .events()
        .iter()
        .filter(|event| event["event"] == "attempt_failed")
        .map(|event| event["cost"].as_f64().expect("a cost"))
        .collect();
    costs.sort_by(f64::total_cmp);
    assert_eq!(costs, [0.0, 0.3, 0.3, 0.3]);
    let why = project.start(project.command(&["why", "skipping"])).wait();
    why.assert_said(&["skipped itself, by its exit code", "exit code 77"]);
    let why = project.start(project.command(&["why", "reader"])).wait();
    why.assert_said(&["did not run, since skipping was skipped, which it needs"]);
    let status = project.start(project.command(&["status"])).wait();
    status.assert_said(&["1 completed, 2 skipped of 3"]);

    // Told to people; what is done stays done, and what was skipped is asked again.
    let told = project.start(project.command(&["run", "flow.toml", "-v"])).wait();
    told.assert_code(0);
    told.assert_said(&[
        "skipped skipping: it says so itself, by exit code 77",
        "skipped reader: it needs skipping, which was skipped",
        "done: 0 run, 1 reused, 2 skipped",
    ]);
    assert_eq!((project.count("again"), project.count("skipping")), (4, 2));
}

#[test]
fn an_exit_code_that_is_not_worth_another_try_ends_the_task_at_once() {
    let project = Project::new(
        r#"
[defaults]
backoff = "10ms"
retries = 5

[task.named]
run = "@count named; exit 2"
fail_on = [2]

[task.other]
run = "@count other; exit 3"
retry_on = [75]

[task.killed]
run = "@count killed; kill -SEGV $$"
retry_cost = { SIGSEGV = 5 }

[task.late]
run = "@count late; sleep 60"
timeout = "300ms"
retry_cost = { timeout = "all" }
"#,
    );
    let run = project.run(&["--keep-going"]);
    run.assert_code(1);
    let counts = project.count_all();
    let counts: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("killed", 2), ("late", 1), ("named", 1), ("other", 1)]);
    let why = project.start(project.command(&["why", "killed"])).wait();
    why.assert_said(&["at the cost of 5 retries: killed by SIGSEGV"]);
}

/// Keeps 100 MB of memory in use, and goes on when it has as much.
const HOARD: &str = "head -c 100000000 /dev/zero | tail -c 100000000 | (sleep 1; wc -c)";

#[test]
fn a_task_that_runs_out_of_memory_gets_more() {
    let project = Project::new(&format!(
        r#"
[task.grows]
outputs = {{ o = "out/grows" }}
run = "@count grows; echo $KEELBOAT_MEMORY > {{{{ outputs.o }}}}; {HOARD}"
memory = {{ first = "40MiB", max = "1GiB" }}

[task.stays]
run = "@count stays; {HOARD}"
memory = "40MiB"
"#
    ));
    let run = project.run(&["--keep-going"]);
    run.assert_code(1);
    assert_eq!((project.count("grows"), project.count("stays")), (3, 1));
    assert_eq!(project.read("out/grows"), format!("{}\n", 160 << 20));
    let why = project.start(project.command(&["why", "stays"])).wait();
    why.assert_said(&["MiB and asked for 40.0 MiB", "let the task ask for more `memory`"]);
    let failed = run.events().into_iter().find(|event| event["event"] == "failed");
    assert_eq!(failed.expect("stays fails")["failure"]["shortage"], "memory");
}

#[test]
fn tasks_get_gpus_of_their_own_and_their_executor() {
    let project = Project::new(
        r#"
[task.g]
foreach = { n = { range = 6 } }
outputs = { o = "out/g{{ n }}" }
run = """
@count g
echo "$CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES $KEELBOAT_CORES" > {{ outputs.o }}
mkdir @outside/held-$CUDA_VISIBLE_DEVICES
sleep 0.05
rmdir @outside/held-$CUDA_VISIBLE_DEVICES
"""
gpus = 1
executor = ["fast", "local"]

[task.plain]
outputs = { o = "out/plain" }
run = "echo ${CUDA_VISIBLE_DEVICES-none} > {{ outputs.o }}"
"#,
    );
    project.write(
        "keelboat.toml",
        "[executors.fast]\ncores = 2\ngpus = [\"3\", \"GPU-5f\"]\n[executors.local]\ngpus = 1\n",
    );
    let mut command = project.command(&["run", "flow.toml"]);
    command.env("CUDA_VISIBLE_DEVICES", "none");
    project.start(command).wait().assert_code(0);
    let mut seen: Vec<String> = (0..6).map(|n| project.read(format!("out/g{n}"))).collect();
    seen.sort_unstable();
    seen.dedup();
    let known = ["0 0 1\n", "3 3 1\n", "GPU-5f GPU-5f 1\n", "none none 1\n"];
    assert!(seen.iter().all(|line| known.contains(&line.as_str())), "{seen:?}");
    assert!(seen.len() > 1, "the first one alone did all: {seen:?}");
    assert_eq!(project.read("out/plain"), "none\n", "as this program has it");
}

#[test]
fn the_most_urgent_goes_first() {
    let project = Project::new(
        r#"
[task.low]
run = "echo low >> @outside/order"
priority = -1

[task.usual]
run = "echo usual >> @outside/order"

[task.high]
run = "echo high >> @outside/order"
priority = 10

[task.disk]
run = "echo disk >> @outside/order"
disk = "1MB"
priority = 5
"#,
    );
    project.run_well(&["-j1"]);
    let order = project.read(project.outside("order"));
    // The first one may have its turn before the others are known.
    let order: Vec<&str> = order.lines().collect();
    let rest: Vec<&str> = order.iter().copied().skip(1).collect();
    let expected = ["high", "disk", "usual", "low"];
    let first = order[0];
    let expected: Vec<&str> = expected.into_iter().filter(|name| *name != first).collect();
    assert_eq!(rest, expected, "after {first}");
}

#[test]
fn what_no_executor_has_and_executors_that_are_not_there_are_told() {
    let project = Project::new("[task.t]\nrun = ':'\ngpus = 3\nexecutor = \"fast\"\n");
    project.write("keelboat.toml", "[executors.fast]\ncores = 1\ngpus = 2\n");
    let run = project.start(project.command(&["run", "flow.toml"])).wait();
    run.assert_code(1);
    run.assert_said(&[
        "failed t: it asks for 3 GPUs, and the largest site has 2",
        "lower `gpus` of the task",
    ]);
    project.write("keelboat.toml", "[executors.fat]\ncores = 1\n");
    let run = project.start(project.command(&["run", "flow.toml"])).wait();
    run.assert_code(2);
    run.assert_said(&["flow.toml:4", "there is no executor `fast`", "did you mean `fat`?"]);
}

#[test]
fn a_cache_that_is_read_only_is_used_and_not_filled() {
    let workflow = |cache: &str, text: &str| {
        format!(
            "[task.t]\noutputs = {{ o = 'out/t' }}\nrun = \"@count t; echo {text} > \
             {{{{ outputs.o }}}}\"\ncache = {cache}\n"
        )
    };
    let project = Project::new(&workflow("'read-only'", "a"));
    project.run_well(&[]);
    project.run_well(&[]);
    assert_eq!(project.count("t"), 2, "nothing was remembered");
    project.set_workflow(&workflow("true", "a"));
    project.run_well(&[]);
    project.set_workflow(&workflow("'read-only'", "a"));
    let run = project.run_well(&[]);
    assert_eq!((project.count("t"), run.tasks("reused")), (3, vec!["t".to_owned()]));
    project.run_well(&["--force", "t"]);
    assert_eq!(project.count("t"), 4);
}
