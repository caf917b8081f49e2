//! Memo keys are the same on every machine and in every version of Keelboat: a table of them, and
//! what may and what may not change one. A key that changes here makes everybody's results stale:
//! raise `KEY_VERSION` and say so in the changelog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::{
    Command, Content, Digest, InputSpec, KEY_VERSION, Kind, Memoize, OutputSpec, Ranks, Resources,
    Source, Stream, TaskSpec, Uncounted, key_changes, key_parts, memo_key,
};
use proptest::prelude::*;

fn list(arguments: &[&str]) -> Arc<[String]> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn shell(script: &str) -> TaskSpec {
    let command = Command::Shell { shell: list(&["/bin/sh", "-e", "-c"]), script: script.into() };
    TaskSpec::new("task", command)
}

fn argv(arguments: &[&str]) -> TaskSpec {
    TaskSpec::new("task", Command::Argv(list(arguments)))
}

fn with_input(mut task: TaskSpec, name: &str) -> TaskSpec {
    let source = Source::Path(format!("data/{name}").into());
    let (label, scratch_path) = ("in".into(), name.into());
    let kind = Kind::File;
    task.inputs.push(InputSpec { label, scratch_path, source, sha256: None, kind, optional: true });
    task
}

fn with_output(mut task: TaskSpec, name: &str, kind: Kind, optional: bool) -> TaskSpec {
    let (label, path, scratch_path) = ("out".into(), format!("final/{name}").into(), name.into());
    let (captures, deliver_to) = (None, None);
    task.outputs.push(OutputSpec {
        label,
        path,
        scratch_path,
        kind,
        optional,
        captures,
        deliver_to,
    });
    task
}

fn printing(mut task: TaskSpec, stream: Stream) -> TaskSpec {
    for output in &mut task.outputs {
        output.captures = Some(stream);
    }
    task
}

fn with_env(mut task: TaskSpec, name: &str, value: &str) -> TaskSpec {
    let mut env: BTreeMap<String, String> = task.options.env.as_ref().clone();
    env.insert(name.to_owned(), value.to_owned());
    task.options_mut().env = Arc::new(env);
    task
}

fn held(bytes: &str, kind: Kind) -> Content {
    Content { digest: Digest::of(bytes.as_bytes()), bytes: bytes.len() as u64, kind }
}

fn versioned(version: &str) -> TaskSpec {
    let mut task = shell("make");
    task.options_mut().version = Some(version.into());
    task
}

fn late(shell: Option<&[&str]>, words: &[&str]) -> TaskSpec {
    let arguments = [("x".into(), Digest::of(b"its value"))].into();
    let (shell, words) = (shell.map(list), list(words));
    TaskSpec::new("task", Command::Template { shell, words, arguments })
}

fn called(name: &str) -> TaskSpec {
    let arguments = Digest::of(b"its arguments");
    TaskSpec::new("task", Command::Function { name: name.into(), arguments })
}

/// Its files have these labels.
fn labelled(mut task: TaskSpec, labels: [&str; 2]) -> TaskSpec {
    for (input, label) in task.inputs.iter_mut().zip(labels) {
        input.label = label.into();
    }
    for (output, label) in task.outputs.iter_mut().zip(labels) {
        output.label = label.into();
    }
    task
}

fn contained(image: &str) -> TaskSpec {
    let mut task = shell("make");
    task.options_mut().container = Some(image.into());
    task
}

fn of_ranks(nodes: u32, per_node: u32) -> TaskSpec {
    let mut task = shell("make");
    task.options_mut().ranks = Some(Ranks { nodes, per_node });
    task
}

/// What has a key, by a name of its own.
fn examples() -> Vec<(&'static str, TaskSpec, Vec<Option<Content>>)> {
    let two = || with_input(with_input(shell("cat a b"), "a"), "b");
    vec![
        ("a script", shell("true"), vec![]),
        ("another script", shell("false"), vec![]),
        ("an empty script", shell(""), vec![]),
        ("arguments", argv(&["merge", "-o", "x"]), vec![]),
        ("one argument with a space", argv(&["merge", "-o x"]), vec![]),
        ("an argument with a NUL", argv(&["merge", "-o\0x"]), vec![]),
        ("quotes and an empty one", argv(&["it's", "", "'"]), vec![]),
        ("not ASCII", argv(&["écho", "✓"]), vec![]),
        ("a version", versioned("1.2"), vec![]),
        ("an environment", with_env(with_env(shell("env"), "B", "2"), "A", "1"), vec![]),
        ("a file", with_input(shell("cat a"), "a"), vec![Some(held("hello", Kind::File))]),
        (
            "a directory",
            with_input(shell("cat a"), "a"),
            vec![Some(held("hello", Kind::Directory))],
        ),
        ("an absent file", with_input(shell("cat a"), "a"), vec![None]),
        ("two files", two(), vec![Some(held("1", Kind::File)), Some(held("2", Kind::File))]),
        (
            "two files changed about",
            two(),
            vec![Some(held("2", Kind::File)), Some(held("1", Kind::File))],
        ),
        ("an output", with_output(shell("w"), "o", Kind::File, false), vec![]),
        ("an optional output", with_output(shell("w"), "o", Kind::File, true), vec![]),
        ("a directory output", with_output(shell("w"), "o", Kind::Directory, false), vec![]),
        ("an optional directory", with_output(shell("w"), "o", Kind::Directory, true), vec![]),
        ("a script to be made", late(Some(&["/bin/sh", "-e", "-c"]), &["echo {{ x }}"]), vec![]),
        ("arguments to be made", late(None, &["echo {{ x }}"]), vec![]),
        ("a container", contained("docker.io/library/alpine@sha256:00"), vec![]),
        ("another container", contained("docker.io/library/alpine@sha256:01"), vec![]),
        ("eight ranks", of_ranks(1, 8), vec![]),
        ("eight ranks on two nodes", of_ranks(2, 4), vec![]),
        ("a function", called("crate::f"), vec![]),
        (
            "a script to be made of a file",
            with_output(with_input(late(Some(&["/bin/sh"]), &["cp"]), "a"), "o", Kind::File, false),
            vec![Some(held("hello", Kind::File))],
        ),
        (
            "a function with an output",
            with_output(called("crate::f"), "o", Kind::File, false),
            vec![],
        ),
        (
            "what is printed",
            printing(with_output(shell("w"), "o", Kind::File, false), Stream::Stdout),
            vec![],
        ),
        (
            "what is printed of errors",
            printing(with_output(shell("w"), "o", Kind::File, false), Stream::Stderr),
            vec![],
        ),
    ]
}

#[test]
fn keys_are_the_known_ones() {
    assert_eq!(KEY_VERSION, 1);
    let known: Vec<&str> = include_str!("golden_keys.txt").lines().collect();
    let now: Vec<String> = examples()
        .iter()
        .map(|(name, task, contents)| format!("{} {name}", memo_key(task, contents, &[])))
        .collect();
    assert_eq!(now, known);
}

#[test]
fn two_numbers_of_ranks_say_the_third() {
    let ranks = |nodes, total, each| match Ranks::of(nodes, total, each) {
        Ok(ranks) => format!("{} x {}", ranks.nodes, ranks.per_node),
        Err(error) => error,
    };
    assert_eq!(ranks(None, Some(8), None), "1 x 8");
    assert_eq!(ranks(Some(2), Some(8), None), "2 x 4");
    assert_eq!(ranks(Some(2), None, Some(4)), "2 x 4");
    assert_eq!(ranks(Some(2), Some(8), Some(4)), "2 x 4");
    assert_eq!(ranks(Some(3), Some(8), None), "8 ranks cannot be spread evenly over 3 nodes");
    assert_eq!(ranks(Some(2), Some(9), Some(4)), "9 ranks are not 4 on each of 2 nodes");
    assert!(ranks(Some(2), None, None).contains("how many ranks"));
    assert!(ranks(None, Some(0), None).contains("at least one"));
    assert!(Ranks::new(8).on_this_machine().is_ok());
    let refused = Ranks { nodes: 2, per_node: 4 }.on_this_machine().unwrap_err();
    assert!(refused.contains("2 nodes") && refused.contains("8 ranks"), "{refused}");
}

#[test]
fn the_encoding_is_the_documented_one() {
    let mut bytes = b"keelboat-memo-key\0\x01".to_vec();
    for (name, value) in [("shell", "/bin/sh -e -c"), ("command", "true")] {
        bytes.push(1);
        for text in [name, value] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
    assert_eq!(memo_key(&shell("true"), &[], &[]).0, Digest::of(&bytes));
}

#[test]
fn each_example_has_a_key_of_its_own() {
    let mut seen = BTreeMap::new();
    for (name, task, contents) in examples() {
        let twin = seen.insert(memo_key(&task, &contents, &[]), name);
        assert_eq!(twin, None, "{name} has the key of another one");
    }
}

#[test]
fn what_is_not_the_computation_is_not_in_the_key() {
    let base = with_output(with_input(shell("make"), "a"), "o", Kind::File, false);
    let contents = [Some(held("hello", Kind::File))];
    let key = memo_key(&base, &contents, &[]);
    type Change = (&'static str, fn(&mut TaskSpec));
    let changes: [Change; 15] = [
        ("name", |task| task.name = "other".into()),
        ("source", |task| {
            task.inputs[0].source = Source::Urls(Arc::new(["https://host/else".into()]));
        }),
        ("declared digest", |task| task.inputs[0].sha256 = Some(Digest::of(b"hello"))),
        ("input's label", |task| task.inputs[0].label = "other".into()),
        ("whether it is optional", |task| task.inputs[0].optional = false),
        ("place of the output", |task| task.outputs[0].path = "else/where".into()),
        ("address of the output", |task| task.outputs[0].deliver_to = Some("s3://b/o".into())),
        ("retries", |task| Arc::make_mut(&mut task.options_mut().retry).retries = 7),
        ("resources", |task| {
            task.options_mut().resources =
                Resources { cores: 8, memory: 1 << 33, gpus: 1, disk: 9 };
        }),
        ("timeout", |task| task.options_mut().timeout = Some(Duration::from_secs(1))),
        ("executors", |task| task.options_mut().executors = ["cluster".into()].into()),
        ("priority", |task| task.options_mut().priority = 3),
        ("memoize", |task| task.options_mut().memoize = Memoize::Refresh),
        ("after", |task| task.after.push("before".into())),
        ("generates", |task| task.options_mut().generates = true),
    ];
    for (what, change) in changes {
        let mut task = base.clone();
        change(&mut task);
        assert_ne!(task, base, "{what} was changed");
        assert_eq!(memo_key(&task, &contents, &[]), key, "{what} is not in the key");
    }
}

#[test]
fn what_makes_no_difference_is_not_in_the_key() {
    let mut task = with_input(with_input(with_env(shell("make"), "THREADS", "4"), "a"), "b");
    task.takes = vec!["one".into(), "two".into()];
    let ignored = Uncounted {
        env: ["THREADS".to_owned()].into(),
        takes: [1].into(),
        inputs: ["b".into()].into(),
    };
    let file = |bytes: &str| Some(held(bytes, Kind::File));
    let value = |bytes: &str| Some(Digest::of(bytes.as_bytes()));
    let plain = key_parts(&task, &[file("1"), file("2")], &[value("1"), value("2")]);
    assert_eq!(plain.len(), 7);
    task.options_mut().uncounted = ignored.shared();
    let parts =
        |task: &TaskSpec, b, two| key_parts(task, &[file("1"), file(b)], &[value("1"), value(two)]);
    let before = parts(&task, "2", "2");
    let names: Vec<&str> = before.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["shell", "command", "value 0", "input a"]);
    task.options_mut().env = with_env(shell(""), "THREADS", "8").options.env.clone();
    assert_eq!(parts(&task, "3", "3"), before);
    assert!(Uncounted::default().shared().is_none());
}

#[test]
fn the_order_of_declaration_is_not_in_the_key() {
    let forth = with_input(with_input(shell("cat"), "a"), "b");
    let back = with_input(with_input(shell("cat"), "b"), "a");
    let key = memo_key(&forth, &[Some(held("1", Kind::File)), Some(held("2", Kind::File))], &[]);
    assert_eq!(
        key,
        memo_key(&back, &[Some(held("2", Kind::File)), Some(held("1", Kind::File))], &[])
    );
    let write = |task, name| with_output(task, name, Kind::File, false);
    let key = memo_key(&write(write(shell("w"), "x"), "y"), &[], &[]);
    assert_eq!(key, memo_key(&write(write(shell("w"), "y"), "x"), &[], &[]));
}

/// What is made late, and functions, find their files by labels that their texts do not show.
#[test]
fn labels_are_in_the_key_of_what_is_made_late() {
    let late = || late(Some(&["/bin/sh"]), &["{{ inputs.a }}"]);
    let two = |task| with_input(with_input(task, "x"), "y");
    let contents = [Some(held("1", Kind::File)), Some(held("2", Kind::File))];
    let key = |task: &TaskSpec| memo_key(task, &contents[..task.inputs.len()], &[]);
    let read = |labels| key(&labelled(two(late()), labels));
    assert_ne!(read(["a", "b"]), read(["b", "a"]));
    let mut turned = labelled(two(late()), ["a", "a"]);
    turned.inputs.reverse();
    let [first, second] = contents;
    assert_ne!(memo_key(&turned, &[second, first], &[]), read(["a", "a"]), "their order in a list");
    let write = |task, name| with_output(task, name, Kind::File, false);
    for task in [late(), called("f")] {
        let written = |labels| key(&labelled(write(write(task.clone(), "x"), "y"), labels));
        assert_ne!(written(["a", "b"]), written(["b", "a"]));
    }
    let plain = |labels| key(&labelled(two(shell("cat x y")), labels));
    assert_eq!(plain(["a", "b"]), plain(["b", "a"]), "their text is what it is");
}

#[test]
fn parts_can_be_read_and_compared() {
    let before = with_input(argv(&["join", "a b", "c"]), "x");
    let after = with_env(with_input(argv(&["join", "a b", "d"]), "x"), "T", "1");
    let (old, new) = (
        key_parts(&before, &[Some(held("1", Kind::File))], &[]),
        key_parts(&after, &[Some(held("1", Kind::File))], &[]),
    );
    assert_eq!((old[0].name.as_str(), old[0].value.as_str()), ("argv", "join 'a b' c"));
    let changes = key_changes(&old, &new);
    let told: Vec<_> = changes.iter().map(|c| (c.part.as_str(), c.old.as_deref())).collect();
    assert_eq!(told, [("argv", Some("join 'a b' c")), ("env T", None)]);
}

proptest! {
    #[test]
    fn different_arguments_have_different_keys(
        a in prop::collection::vec("[ab' \\\\\0]{0,3}", 1..4),
        b in prop::collection::vec("[ab' \\\\\0]{0,3}", 1..4),
    ) {
        let key = |arguments: &[String]| {
            memo_key(&TaskSpec::new("t", Command::Argv(arguments.into())), &[], &[])
        };
        prop_assert_eq!(a == b, key(&a) == key(&b));
    }

    #[test]
    fn quoted_arguments_are_what_a_shell_reads(
        arguments in prop::collection::vec("[a-z' \"$\\\\é]{0,6}", 1..5),
    ) {
        let task = TaskSpec::new("t", Command::Argv(arguments.as_slice().into()));
        let value = key_parts(&task, &[], &[])[0].value.clone();
        prop_assert_eq!(unquoted(&value), arguments);
    }

    #[test]
    fn each_part_counts(
        script in "[a-c]{0,2}", other in "[a-c]{0,2}",
        name in "[a-c]{1,2}", value in "[a-c]{0,2}", value2 in "[a-c]{0,2}",
    ) {
        let key = |script: &str, value: &str| {
            memo_key(&with_env(with_input(shell(script), &name), &name, value), &[Some(held(value, Kind::File))], &[])
        };
        let same = script == other && value == value2;
        prop_assert_eq!(same, key(&script, &value) == key(&other, &value2));
    }
}

/// Reads single quotes and `\'` as a POSIX shell does.
fn unquoted(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let word = words.last_mut().expect("there is one from the start");
        match letter {
            '\'' => quoted = !quoted,
            '\\' if !quoted => word.extend(letters.next()),
            ' ' if !quoted => words.push(String::new()),
            _ => word.push(letter),
        }
    }
    words
}
