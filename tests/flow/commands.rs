//! Commands, their files, and functions beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keelboat::flow::{Config, Exit, Flow, OnClose, Ranks};
use libtest_mimic::Trial;

use super::{Case, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("commands::files_go_from_one_to_the_next", files_go_from_one_to_the_next),
        trial("commands::an_output_is_sent_before_its_future_is_there", an_output_is_sent),
        trial("commands::images_are_named_as_in_registries", images_are_named_as_in_registries),
        trial("commands::ranks_are_started_on_this_machine", ranks_are_started_on_this_machine),
        trial("commands::arguments_are_quoted", arguments_are_quoted),
        trial("commands::what_they_print_is_an_output", what_they_print_is_an_output),
        trial("commands::what_is_printed_is_written_by_nobody_else", what_is_printed_is_written),
        trial("commands::what_they_are_given_may_come_later", what_they_are_given),
        trial("commands::a_text_is_made_by_a_function", a_text_is_made_by_a_function),
        trial("commands::values_are_in_the_key", values_are_in_the_key),
        trial("commands::labels_are_in_the_key", labels_are_in_the_key),
        trial("commands::mistakes_are_errors_of_the_task", mistakes_are_errors_of_the_task),
        trial("commands::a_flow_that_is_cancelled_kills", a_flow_that_is_cancelled_kills),
    ]
}

fn count_lines(path: PathBuf) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn files_go_from_one_to_the_next() {
    let case = Case::new();
    case.write("words.txt", "b\na\nc\na\n");
    let flow = &case.flow;
    let sorted = flow
        .command("sort {{ inputs.words }} > {{ outputs.sorted }}")
        .input("words", "words.txt")
        .output("sorted", "out/sorted.txt")
        .submit();
    let unique = flow
        .program(["sh", "-c", "uniq \"$1\" > \"$2\"", "sh", "{{ inputs.x }}", "{{ outputs.y }}"])
        .input("x", sorted.output("sorted"))
        .output("y", "out/unique.txt")
        .submit();
    let lines = flow.call(count_lines, (unique.output("y"),));
    assert_eq!(lines.wait().unwrap(), 3);
    assert_eq!(case.read("out/unique.txt"), "a\nb\nc\n");
    assert_eq!(sorted.output("sorted").wait().unwrap(), case.path().join("out/sorted.txt"));
    unique.done().wait().unwrap();
}

fn an_output_is_sent() {
    let case = Case::new();
    let place = case.path().join("elsewhere/copy.txt");
    let made = case
        .flow
        .command("echo made > {{ outputs.out }}")
        .output("out", "out.txt")
        .to(place.to_str().unwrap())
        .submit();
    made.output("out").wait().unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "made\n");
    std::fs::write(case.path().join("file"), "").unwrap();
    let below = case.path().join("file/below.txt");
    let stuck = case
        .flow
        .command("echo made > {{ outputs.out }}")
        .output("out", "out2.txt")
        .to(below.to_str().unwrap())
        .submit();
    stuck.done().wait().unwrap();
    stuck.output("out").wait().unwrap_err();
}

fn images_are_named_as_in_registries() {
    let case = Case::new();
    let wrong = case.flow.command("true").container("./tool.sif").submit();
    let error = wrong.done().wait().unwrap_err();
    assert!(error.to_string().contains("is a file"), "{error}");
}

fn ranks_are_started_on_this_machine() {
    let case = Case::new();
    let wide = case.flow.program(["true"]).mpi(Ranks { nodes: 2, per_node: 4 }).submit();
    let error = wide.done().wait().unwrap_err();
    assert!(error.to_string().contains("2 nodes are asked for"), "{error}");
    let probe = std::process::Command::new("mpirun").args(["-n", "2", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return;
    }
    let two = case
        .flow
        .program(["sh", "-c", "mkdir -p {{ outputs.o }}; touch {{ outputs.o }}/$$"])
        .mpi(Ranks::new(2))
        .output_directory("o", "ranks")
        .submit();
    two.done().wait().unwrap();
    assert_eq!(std::fs::read_dir(case.path().join("ranks")).unwrap().count(), 2);
}

fn arguments_are_quoted() {
    let case = Case::new();
    let said = case
        .flow
        .command("printf '%s\\n' {{ words }} {{ n }} > {{ outputs.out }}")
        .arg("words", ["it's", "a b"])
        .arg("n", 3)
        .output("out", "out.txt")
        .submit();
    said.output("out").wait().unwrap();
    assert_eq!(case.read("out.txt"), "it's\na b\n3\n");
}

fn what_they_print_is_an_output() {
    let (directory, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = place.path().join("copy.txt");
    let run = |script: &str| {
        let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
        let said = flow.command(script).stdout("out/said.txt").to(copy.to_str().unwrap());
        let said = said.stderr("out/errors.txt").submit();
        let size = |path: PathBuf| std::fs::read(path).map(|bytes| bytes.len());
        let sizes = flow.try_call(size, (said.output("stdout"),));
        let errors = flow
            .command("wc -l < {{ inputs.errors }}")
            .input("errors", said.output("stderr"))
            .stdout("out/count.txt")
            .submit();
        errors.done().wait().unwrap();
        assert!(said.output("stdout").wait().unwrap().ends_with("out/said.txt"));
        (sizes.wait().unwrap(), flow.close().unwrap())
    };
    let read = |path: &str| std::fs::read_to_string(directory.path().join(path)).unwrap();
    let (size, _) = run("echo hello; echo one >&2; echo two >&2");
    assert_eq!((size, read("out/said.txt")), (6, "hello\n".to_owned()));
    assert_eq!(
        (read("out/errors.txt"), read("out/count.txt")),
        ("one\ntwo\n".into(), "2\n".into())
    );
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "hello\n");
    let logs = std::fs::read_dir(directory.path().join(".keelboat/runs")).unwrap();
    let logs = logs.flat_map(|run| std::fs::read_dir(run.unwrap().path().join("log")).unwrap());
    let logs = logs.filter_map(|log| std::fs::read_to_string(log.unwrap().path()).ok());
    assert!(logs.into_iter().any(|text| text == "hello\n"), "it is in the log, too");

    let (_, report) = run("echo hello; echo one >&2; echo two >&2");
    assert_eq!(report.counts.completed, 1, "the closure alone: {report:?}");
    std::fs::remove_file(directory.path().join("out/said.txt")).unwrap();
    let (size, report) = run("echo hello; echo one >&2; echo two >&2");
    assert_eq!((size, report.counts.completed), (6, 1), "it is restored: {report:?}");

    // Nothing that is printed shows of one that fails, and what was there stays.
    let flow = Flow::open(Config::new(directory.path()).cores(2)).unwrap();
    let fails = flow.command("echo half; exit 3").stdout("out/said.txt").submit();
    fails.output("stdout").wait().unwrap_err();
    assert_eq!(read("out/said.txt"), "hello\n");
    let silent = flow.command("true").stdout("out/nothing.txt").submit();
    silent.output("stdout").wait().unwrap();
    assert_eq!(read("out/nothing.txt"), "");
}

fn what_is_printed_is_written() {
    let case = Case::new();
    let both = case.flow.command("echo a; echo b > out/said.txt").stdout("out/said.txt").submit();
    let error = both.done().wait().unwrap_err().to_string();
    assert!(error.contains("the task itself wrote out/said.txt"), "{error}");
    assert!(!case.path().join("out/said.txt").exists());
    let asks = case.flow.command("echo a > {{ outputs.stdout }}").stdout("out/b.txt").submit();
    let error = asks.done().wait().unwrap_err().to_string();
    assert!(error.contains("stdout"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let link = case.flow.command("rmdir out; ln -s {{ to }} out").stdout("out/c.txt");
    let link = link.arg("to", elsewhere.path().to_str().unwrap()).submit();
    let error = link.done().wait().unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

fn what_they_are_given() {
    let case = Case::new();
    case.write("words.txt", "b\na\n");
    let flow = &case.flow;
    let sorted = flow
        .command("sort {{ inputs.words }} > {{ outputs.sorted }}")
        .input("words", "words.txt")
        .output("sorted", "sorted.txt")
        .submit();
    let settings = |gain: f64| BTreeMap::from([("gain", gain), ("offset", 0.2)]);
    let settings = flow.call(
        move |gain: f64| {
            settings(gain)
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<BTreeMap<String, f64>>()
        },
        (1.5,),
    );
    let seeds = [3, 4].map(|seed| flow.call(|seed: u64| seed * seed, (seed,)));
    let names = flow.call(|| ("it's".to_owned(), "a b".to_owned()), ());
    let run = flow
        .command(
            "printf '%s\\n' {{ name }} {{ settings.gain }} {{ settings }} {{ seeds }} {{ plain }} \
             > {{ outputs.said }}; cat {{ files.sorted }} >> {{ outputs.said }}",
        )
        .arg("name", names.index::<String>(0))
        .arg("settings", settings)
        .arg("seeds", seeds.to_vec())
        .arg("plain", "c d")
        .arg("files", BTreeMap::from([("sorted", sorted.output("sorted"))]))
        .output("said", "said.txt")
        .submit();
    run.output("said").wait().unwrap();
    let said = "it's\n1.5\n{\"gain\":1.5,\"offset\":0.2}\n9\n16\nc d\na\nb\n";
    assert_eq!(case.read("said.txt"), said);
    let spread = flow
        .program(["sh", "-c", "printf '%s|' \"$@\" > said2.txt", "sh", "{{ words }}", "-{{ n }}"])
        .arg("words", flow.call(|| vec!["a b".to_owned(), "c".to_owned()], ()))
        .arg("n", &seeds[0])
        .output("said", "said2.txt")
        .submit();
    spread.output("said").wait().unwrap();
    assert_eq!(case.read("said2.txt"), "a b|c|-9|");
}

fn a_text_is_made_by_a_function() {
    let case = Case::new();
    let script = |words: Vec<String>| format!("echo {} | tr a-z A-Z", words.join(" "));
    let words = case.flow.call(|| vec!["ebb".to_owned(), "flood".to_owned()], ());
    let run = case
        .flow
        .command("({{ script | raw }}) > {{ outputs.said }}")
        .arg("script", case.flow.call(script, (words,)))
        .output("said", "said.txt")
        .submit();
    run.output("said").wait().unwrap();
    assert_eq!(case.read("said.txt"), "EBB FLOOD\n");
}

/// What is remembered of a command counts when it is given the same again, and only then.
fn values_are_in_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let run = |value: u64| {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        let given = flow.call(move || value, ());
        let run = flow
            .command("echo {{ n }} {{ more }} > {{ outputs.said }}; echo >> {{ notes | raw }}")
            .arg("n", given)
            .arg("more", 7)
            .arg("notes", directory.path().join("ran"))
            .output("said", "said.txt")
            .submit();
        let path = run.output("said").wait().unwrap();
        flow.close().unwrap();
        std::fs::read_to_string(path).unwrap()
    };
    let times = || std::fs::read(directory.path().join("ran")).unwrap().len();
    assert_eq!((run(1).as_str(), times()), ("1 7\n", 1));
    assert_eq!((run(2).as_str(), times()), ("2 7\n", 2));
    assert_eq!((run(2).as_str(), times()), ("2 7\n", 2));
    assert_eq!((run(1).as_str(), times()), ("1 7\n", 2), "it is brought back");
}

/// Texts and files are the same, and which of them is which is not.
fn labels_are_in_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let said = |[first, second]: [&str; 2]| {
        let flow = Flow::open(Config::new(directory.path())).unwrap();
        for name in [first, second] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let run = flow
            .command("cat {{ inputs.a }} {{ inputs.b }} > {{ outputs.said }}; echo {{ n }} > {{ outputs.n }}")
            .arg("n", flow.call(|| 7, ()))
            .input("a", first)
            .input("b", second)
            .output("said", &format!("{first}.out"))
            .output("n", &format!("{second}.out"))
            .submit();
        let path = run.output("said").wait().unwrap();
        flow.close().unwrap();
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!((&*said(["x", "y"]), &*said(["y", "x"])), ("xy", "yx"));
}

fn mistakes_are_errors_of_the_task() {
    let case = Case::new();
    let flow = &case.flow;
    let wrong = flow.command("exit 3").output("x", "never.txt").submit();
    let next = flow.call(|_: PathBuf| 1u8, (wrong.output("x"),));
    let error = next.wait().unwrap_err();
    assert_eq!(error.exit(), Some(Exit::Code(3)), "{error:?}");
    let unknown = flow.command("cat {{ inputs.x }}").submit();
    let error = unknown.done().wait().unwrap_err();
    assert!(error.to_string().contains("there is no `x` in `inputs`"), "{error}");
    let late = || flow.call(|| 1u8, ());
    let forgotten = flow.command("echo {{ n }} {{ m }}").arg("n", late()).submit();
    let error = forgotten.done().wait().unwrap_err();
    assert!(error.to_string().contains("`m` is not defined"), "{error}");
    let unused = flow.command("true").arg("n", late()).submit();
    let error = unused.done().wait().unwrap_err();
    assert!(error.to_string().contains("\"n\", which its text does not ask for"), "{error}");
    let empty = flow.call(|| None::<u8>, ());
    let error = flow.command("echo {{ n }}").arg("n", empty).submit().done().wait().unwrap_err();
    assert!(error.to_string().contains("{{ n }}: the value is null"), "{error}");
    let broken = flow.call(|| -> u8 { panic!("no number") }, ());
    let needs = flow.command("echo {{ n }}").arg("n", broken).submit();
    let error = needs.done().wait().unwrap_err();
    assert!(error.root().to_string().contains("no number"), "{error:?}");
    let outside = flow.command("true").output("x", "../x").submit();
    let error = outside.output("x").wait().unwrap_err();
    assert!(error.to_string().contains(".."), "{error}");
    let first = flow.command("echo 1 > {{ outputs.x }}").output("x", "x.txt").submit();
    let second = flow.command("echo 2 > {{ outputs.x }}").output("x", "x.txt").submit();
    let error = second.output("x").wait().unwrap_err();
    assert!(error.to_string().contains("x.txt"), "{error}");
    first.output("x").wait().unwrap();
    let error = first.output("y").wait().unwrap_err();
    assert!(error.to_string().contains("no output \"y\", only x"), "{error}");
}

fn a_flow_that_is_cancelled_kills() {
    let case = Case::new();
    let sleeps = case.flow.command("touch begun; sleep 600").submit();
    let after = case.flow.call(|_: PathBuf| 1u8, (sleeps.output("none"),));
    let deadline = std::time::Instant::now() + super::SOON;
    while sleeps.done().state() != keelboat::flow::TaskState::Running {
        assert!(std::time::Instant::now() < deadline, "it never began");
        std::thread::yield_now();
    }
    case.flow.close_by(OnClose::Cancel).unwrap();
    let error = sleeps.done().wait().unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    after.wait().unwrap_err();
}
