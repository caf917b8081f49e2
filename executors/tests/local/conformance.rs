//! What each executor has to keep. Everything but the constructor of [`Bench`] is about the port.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use keelboat_engine::Shortage;
use keelboat_executors::Executor as _;

use crate::support::{Bench, argv, failure, marked, pid_in, read, runs, shell, spec, until};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn success_with_logs_and_usage() {
    let bench = Bench::new();
    let script = "echo out; echo err >&2; head -c 50000000 /dev/zero | tail -c 50000000 | wc -c; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1";
    let (spec, outcome) = bench.run(script);
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(read(&spec.stdout), "out\n50000000\n");
    assert_eq!(read(&spec.stderr), "err\n");
    let usage = outcome.usage;
    assert!(usage.wall >= Duration::from_millis(100), "{usage:?}");
    assert!(usage.cpu_user + usage.cpu_system > Duration::ZERO, "{usage:?}");
    assert!((40 << 20..1 << 30).contains(&usage.memory_max), "tail keeps 50 MB: {usage:?}");
}

#[test]
fn standard_input_is_empty() {
    let (_, outcome) = Bench::new().run("test \"$(wc -c)\" = 0");
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn exit_codes_and_signals_are_told() {
    let bench = Bench::new();
    for (script, expected) in [
        ("exit 3", "transient | exit code 3 | -"),
        ("exit 255", "transient | exit code 255 | -"),
        ("no-such-command-at-all", "permanent | command not found (exit 127) | "),
        ("/dev/null", "permanent | command cannot be run (exit 126) | "),
        ("kill -SEGV $$", "transient | killed by SIGSEGV | -"),
        ("kill -KILL $$", "transient | killed by SIGKILL | it was not the kernel"),
        ("kill -TERM $$", "transient | killed by SIGTERM | -"),
        ("kill -40 $$", "transient | killed by signal 40 | -"),
        ("kill -PIPE $$", "transient | killed by SIGPIPE | -"),
    ] {
        let (_, outcome) = bench.run(script);
        let found = failure(&outcome);
        assert!(found.starts_with(expected), "{script}: {found}");
    }
}

#[test]
fn environment_and_directory_are_those_of_the_attempt() {
    let bench = Bench::new();
    let mut spec = bench.spec(shell("printf '%s|' \"$A\" \"$HOME\" \"$PWD\"; test -n \"$PATH\""));
    spec.env = [("A", "b c\n'd'"), ("HOME", "/nowhere")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let outcome = bench.outcomes.of(bench.begin(spec.clone()));
    assert_eq!(outcome.result, Ok(()));
    let directory = spec.directory.display();
    assert_eq!(read(&spec.stdout), format!("b c\n'd'|/nowhere|{directory}|"));
}

#[test]
fn a_path_of_its_own_finds_programs_of_its_own() {
    let bench = Bench::new();
    let mut spec = bench.spec(argv(&["tool", "x"]));
    let bin = spec.directory.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("tool"), "#!/bin/sh\necho \"tool $1\"\n").unwrap();
    fs::set_permissions(bin.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    spec.env.insert("PATH".to_owned(), "/nowhere:bin".to_owned());
    let outcome = bench.outcomes.of(bench.begin(spec.clone()));
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(read(&spec.stdout), "tool x\n");
}

#[test]
fn one_file_may_take_both_streams() {
    let bench = Bench::new();
    let mut spec = bench.spec(shell("echo one; echo two >&2; echo three"));
    spec.stderr.clone_from(&spec.stdout);
    fs::write(&spec.stdout, "of an earlier attempt").unwrap();
    let outcome = bench.outcomes.of(bench.begin(spec.clone()));
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(read(&spec.stdout), "one\ntwo\nthree\n");
}

#[test]
fn what_cannot_start_says_why() {
    let bench = Bench::new();
    let told = |spec| failure(&bench.outcomes.of(bench.begin(spec)));
    let found = told(bench.spec(argv(&["no-such-program"])));
    assert!(
        found.starts_with(
            "permanent | cannot start \"no-such-program\": no such file or directory | install"
        ),
        "{found}"
    );
    let found = told(bench.spec(argv(&["/dev/null"])));
    assert!(
        found.starts_with("permanent | cannot start \"/dev/null\": permission denied | "),
        "{found}"
    );
    let found = told(bench.spec(argv(&["a\0b"])));
    assert!(found.starts_with("permanent | cannot start"), "{found}");
    let found = told(bench.spec(argv(&[])));
    assert!(found.starts_with("permanent | cannot start"), "{found}");

    let mut gone = bench.spec(shell(":"));
    fs::remove_dir(&gone.directory).unwrap();
    let found = told(gone.clone());
    assert!(found.starts_with("permanent | cannot enter working directory"), "{found}");
    gone = bench.spec(shell(":"));
    gone.stderr = bench.path("nowhere/log");
    let found = told(gone);
    assert!(found.starts_with("permanent | cannot create log file"), "{found}");
    assert!(found.contains("nowhere/log"), "{found}");
}

#[test]
fn a_command_line_that_is_too_long_is_permanent() {
    let bench = Bench::new();
    for megabytes in [8, 20] {
        let arguments = vec!["x".repeat(100 << 10); megabytes * 10];
        let words: Vec<_> =
            ["true"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let outcome = bench.outcomes.of(bench.begin(bench.spec(argv(&words))));
        let found = failure(&outcome);
        let expected = "permanent | cannot start \"true\": argument list too long | ";
        assert!(found.starts_with(expected), "{megabytes} MB: {found}");
    }
}

#[test]
fn large_output_comes_whole() {
    let bench = Bench::new();
    let (spec, outcome) = bench.run("head -c 30000000 /dev/zero; head -c 1000 /dev/zero >&2");
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(fs::metadata(&spec.stdout).unwrap().len(), 30_000_000);
    assert_eq!(fs::metadata(&spec.stderr).unwrap().len(), 1000);
}

#[test]
fn names_of_every_kind() {
    let bench = Bench::new();
    let names: [&[u8]; 4] = [b"a b", b"quote'\"\\$(x)", b"new\nline", b"not-utf8-\xff\xfe"];
    for (task, name) in (0..).zip(names) {
        let directory = bench.directory.path().join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        let mut spec = spec(1000 + task, shell("pwd -P; touch here"), &directory, &directory);
        spec.stdout = directory.join("o\nut");
        let outcome = bench.outcomes.of(bench.begin(spec.clone()));
        assert_eq!(outcome.result, Ok(()), "{directory:?}");
        let expected = [directory.as_os_str().as_bytes(), b"\n"].concat();
        assert_eq!(fs::read(&spec.stdout).unwrap(), expected);
        assert!(directory.join("here").exists());
    }
}

#[test]
fn a_timeout_kills_grandchildren() {
    let bench = Bench::new();
    let mut spec = bench.spec(shell("sh -c 'sleep 1000 & echo $! > grandchild; wait' & wait"));
    spec.timeout = Some(SHORT);
    spec.grace = SHORT;
    let pid_file = spec.directory.join("grandchild");
    let attempt = bench.begin(spec);
    let grandchild = pid_in(&pid_file);
    let outcome = bench.outcomes.of(attempt);
    let found = failure(&outcome);
    assert!(found.starts_with("out of resources | timed out after 200ms | "), "{found}");
    assert!(outcome.usage.wall >= SHORT);
    assert!(!runs(grandchild));
}

/// A shell whose grandchildren keep so many bytes in memory until they are killed.
fn hoarder(bytes: u32, count: u32) -> keelboat_engine::Command {
    let one = format!("(head -c {bytes} /dev/zero | tail -c {bytes} | sleep 1000) &");
    shell(&format!("{} wait", one.repeat(count as usize)))
}

#[test]
fn who_has_more_memory_than_it_may_is_killed_with_all_of_its_processes() {
    let bench = Bench::new();
    let mut spec = bench.spec(hoarder(30_000_000, 4));
    spec.memory = Some(64 << 20);
    let outcome = bench.outcomes.of(bench.begin(spec));
    let found = failure(&outcome);
    let failed = outcome.result.unwrap_err();
    assert!(found.starts_with("out of resources | it used "), "{found}");
    assert!(found.contains(" MiB and asked for 64.0 MiB | let the task ask"), "{found}");
    assert_eq!((failed.shortage, failed.exit), (Some(Shortage::Memory), None));
    // Its own mark would find any of them.
    until("its processes are gone", || marked(&bench.token).len() == 1);
}

#[test]
fn what_is_read_and_what_others_use_is_not_counted() {
    let bench = Bench::new();
    let file = bench.path("large");
    fs::write(&file, vec![1; 100_000_000]).unwrap();
    let mut other = bench.spec(hoarder(100_000_000, 1));
    other.memory = Some(1 << 30);
    let other = bench.begin(other);
    let read = format!(
        "i=0; while [ $i -lt 5 ]; do cat '{}' | wc -c; i=$((i+1)); done; sleep 0.5",
        file.display()
    );
    let mut spec = bench.spec(shell(&read));
    spec.memory = Some(32 << 20);
    assert_eq!(bench.outcomes.of(bench.begin(spec)).result, Ok(()));
    bench.executor.kill(other);
    assert_eq!(failure(&bench.outcomes.of(other)), "transient | was cancelled | -");
}

#[test]
fn who_ignores_sigterm_dies_after_the_grace() {
    let bench = Bench::new();
    let script = "trap '' TERM; sh -c 'echo $$ > child; while :; do sleep 0.01; done' & wait; while :; do sleep 0.01; done";
    let mut spec = bench.spec(shell(script));
    spec.grace = SHORT;
    let pid_file = spec.directory.join("child");
    let attempt = bench.begin(spec);
    let child = pid_in(&pid_file);
    let asked = Instant::now();
    bench.executor.kill(attempt);
    let outcome = bench.outcomes.of(attempt);
    assert_eq!(failure(&outcome), "transient | was cancelled | -");
    assert!(asked.elapsed() >= SHORT, "the grace was not kept");
    assert!(!runs(child));
}

#[test]
fn sigterm_comes_first_and_may_be_used() {
    let bench = Bench::new();
    let mut spec = bench.spec(shell(
        "trap 'echo saved > saved; exit 0' TERM; echo $$ > ready; while :; do sleep 0.01; done",
    ));
    spec.timeout = Some(Duration::from_secs(2));
    let (saved, ready) = (spec.directory.join("saved"), spec.directory.join("ready"));
    let attempt = bench.begin(spec);
    pid_in(&ready);
    let found = failure(&bench.outcomes.of(attempt));
    assert!(found.starts_with("out of resources | timed out after 2s"), "{found}");
    assert_eq!(read(&saved), "saved\n");
}

#[test]
fn one_end_however_often_it_is_begun_and_killed() {
    let bench = Bench::new();
    let spec = bench.spec(shell("echo x >> ../ran; echo $$ > pid; sleep 1000"));
    let pid_file = spec.directory.join("pid");
    let attempt = bench.begin(spec.clone());
    bench.begin(spec.clone());
    pid_in(&pid_file);
    bench.executor.kill(attempt);
    bench.executor.kill(attempt);
    bench.outcomes.of(attempt);
    bench.executor.kill(attempt);
    bench.begin(spec);
    let (_, last) = bench.run(":");
    assert_eq!(last.result, Ok(()));
    bench.executor.shutdown();
    assert_eq!(bench.outcomes.all().len(), 2, "{:?}", bench.outcomes.all());
    assert_eq!(read(&bench.path("ran")), "x\n");
}

#[test]
fn background_children_die_with_the_leader() {
    let bench = Bench::new();
    let (spec, outcome) = bench.run("(while :; do echo x >> output; done) & echo $! > pid");
    assert_eq!(outcome.result, Ok(()));
    let pid = pid_in(&spec.directory.join("pid"));
    assert!(!runs(pid), "the background child outlived the report");
}

#[test]
fn daemons_die_with_the_leader() {
    let bench = Bench::new();
    let daemon = |name| {
        format!(
            "setsid sh -c '(setsid sleep 1000 & echo $! > {name}2); echo $$ > {name}; exec sleep 1000' </dev/null >/dev/null 2>&1 & while ! test -s {name} || ! test -s {name}2; do sleep 0.01; done; "
        )
    };
    // One that keeps its mark, one that hides it but works in the directory, one that hides both.
    let script =
        [daemon("plain"), format!("env -i PATH=\"$PATH\" sh -c {}; ", quoted(&daemon("unmarked")))]
            .concat();
    let (spec, outcome) = bench.run(&script);
    assert_eq!(outcome.result, Ok(()), "{}", read(&spec.stderr));
    for name in ["plain", "plain2", "unmarked", "unmarked2"] {
        let pid = pid_in(&spec.directory.join(name));
        assert!(!runs(pid), "{name} outlived the report");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn a_daemon_that_hides_dies_with_the_last_suspect() {
    let bench = Bench::new();
    let script = "env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > pid; cd /; exec sleep 1000' </dev/null >/dev/null 2>&1 & while ! test -s pid; do sleep 0.01; done; sleep 0.1";
    let (spec, outcome) = bench.run(script);
    assert_eq!(outcome.result, Ok(()));
    assert!(!runs(pid_in(&spec.directory.join("pid"))));
}

#[test]
fn a_running_attempt_keeps_its_daemons_when_another_ends() {
    let bench = Bench::new();
    let mut long = bench.spec(shell("(setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 &); while ! test -e go; do sleep 0.01; done"));
    long.grace = SHORT;
    let directory = long.directory.clone();
    let attempt = bench.begin(long);
    let daemon = pid_in(&directory.join("pid"));
    let (_, other) = bench.run(":");
    assert_eq!(other.result, Ok(()));
    assert!(runs(daemon), "the daemon of a running attempt was killed");
    fs::write(directory.join("go"), "").unwrap();
    assert_eq!(bench.outcomes.of(attempt).result, Ok(()));
    assert!(!runs(daemon));
}

#[test]
fn five_hundred_at_once() {
    let bench = Bench::new();
    let barrier = bench.path("go");
    let attempts: Vec<_> = (0..500)
        .map(|i| {
            let script = format!(
                "while ! test -e ../go; do sleep 0.2; done; echo {i} > o; exit $(({i} % 2))"
            );
            bench.begin(bench.spec(shell(&script)))
        })
        .collect();
    fs::write(barrier, "").unwrap();
    for (i, attempt) in attempts.iter().enumerate() {
        assert_eq!(bench.outcomes.of(*attempt).result.is_ok(), i % 2 == 0);
    }
    assert_eq!(bench.outcomes.all().len(), 500);
}

#[test]
fn what_was_started_elsewhere_is_removed_before_the_end_is_told() {
    let bench = Bench::new();
    for (script, expected) in [
        ("true", ""),
        ("exit 3", "removed\n"),
        ("kill -KILL $$", "removed\n"),
        ("sleep 9", "removed\n"),
    ] {
        let mut spec = bench.spec(shell(script));
        let place = spec.directory.join("removed");
        // It takes a while, and is not taken for a process of the attempt that was left.
        let cleanup =
            format!("sleep 0.2; (setsid sleep 0.1 && echo removed) >> '{}'", place.display());
        spec.cleanup = ["sh", "-c", &cleanup].map(str::to_owned).to_vec();
        spec.timeout = Some(SHORT);
        let directory = spec.directory.clone();
        let outcome = bench.outcomes.of(bench.begin(spec));
        assert_eq!(outcome.result.is_ok(), expected.is_empty(), "{script}");
        let found = fs::read_to_string(directory.join("removed")).unwrap_or_default();
        assert_eq!(found, expected, "{script}");
    }
}

#[test]
fn a_cleanup_that_cannot_start_keeps_nothing_from_ending() {
    let bench = Bench::new();
    let mut spec = bench.spec(shell("exit 3"));
    spec.cleanup = vec!["/no/such/program".to_owned()];
    let outcome = bench.outcomes.of(bench.begin(spec));
    assert!(failure(&outcome).contains("exit code 3"));
}

#[test]
fn shutdown_kills_all_and_refuses_more() {
    let bench = Bench::new();
    let spec = bench.spec(shell("echo $$ > pid; sleep 1000"));
    let pid_file = spec.directory.join("pid");
    let attempt = bench.begin(spec);
    let pid = pid_in(&pid_file);
    bench.executor.shutdown();
    assert!(!runs(pid));
    assert_eq!(failure(&bench.outcomes.of(attempt)), "transient | was cancelled | -");
    bench.executor.shutdown();
    until("the warden goes", || marked(&bench.token).is_empty());
}
