//! Names from outside, of the kinds that break programs: the right bytes come to the right place or
//! the name is refused; nothing of it is run, and nothing is written elsewhere.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use tar::{Builder, Header};

use crate::bout::{Bout, attack};
use crate::project::{Project, Run};
use crate::server::Server;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("names::of_files", of_files),
        attack("names::of_parameters", of_parameters),
        attack("names::of_addresses", of_addresses),
        attack("names::of_members", of_members),
    ]
}

/// Names as bytes. Where one runs something, that makes a file called `pwned`.
const NAMES: [&[u8]; 27] = [
    b"two words",
    b" before and behind ",
    b"it's",
    b"\"quoted\"",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"; touch pwned #",
    b"a & touch pwned & b",
    b"a | touch pwned",
    b"> pwned",
    b"line\nbreak; touch pwned",
    b"return\rtab\t",
    b"-rf",
    b"--help",
    b"$HOME ${PATH} ~",
    b"* ? [a-z] {a,b}",
    b"back\\slash \\n \\x41",
    b"{{ 7 * 6 }} {% raw %}",
    b"%2e%2e%2fpwned %00 %41",
    b"#fragment ?query=1 :colon",
    "\u{202e}txt.exe \u{200b}".as_bytes(),
    "e\u{301} is not \u{e9}".as_bytes(),
    b"\x1b[31mred\x1b]0;title\x07",
    b"!history \x7f",
    b"...",
    b".hidden",
    &[b'x'; 255],
];

/// Names that cannot be those of files in a directory, or are no text.
const REFUSED: [&[u8]; 6] =
    [b"..", b"../pwned", b"a/../../pwned", b"/tmp/keelboat-pwned", b".", b"\xff\xfe not text"];

fn path_of(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

fn text_of(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("text")
}

/// Files of a workflow are not called so.
fn has_control(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| name.contains(char::is_control))
}

/// A text as TOML and JSON write it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\0'..='\x1f' | '\x7f' => {
                quoted.extend(format!("\\u{:04x}", u32::from(letter)).chars());
            }
            _ => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// All of it, also what need not be.
fn percent_encoded(name: &[u8]) -> String {
    let digit = |number: u8| char::from_digit(u32::from(number), 16).expect("a digit");
    name.iter().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Fails when something called `pwned` is anywhere, or something is beside the project that was not
/// there before.
fn check_nothing_escaped(project: &Project, name: &[u8], run: &Run) {
    let all = project.files("..").into_keys().chain(project.files("").into_keys());
    let made = all.filter(|path| path.file_name().is_some_and(|name| name == "pwned"));
    let made: Vec<PathBuf> = made.collect();
    let elsewhere = Path::new("/tmp/keelboat-pwned");
    assert!(made.is_empty() && !elsewhere.exists(), "{name:?} made {made:?}: {}", run.said());
    let beside = fs::read_dir(project.outside("")).unwrap().flatten();
    for entry in beside {
        let is_known = entry.file_name().to_str().is_some_and(|name| {
            ["project", "counts", "state", "stdout.", "stderr."]
                .iter()
                .any(|known| name.starts_with(known))
        });
        let path = entry.path();
        assert!(is_known, "{name:?} made {} beside the project", path.display());
    }
}

/// A terminal is not told to do anything by what is shown.
fn check_said(name: &[u8], run: &Run) {
    let harmful = |letter: char| letter.is_control() && letter != '\n';
    assert!(!run.stderr.contains(harmful), "{name:?}: {:?}", run.stderr);
}

/// Files are found by a pattern, and are inputs, values, names of tasks, and outputs by their names.
fn of_files(_: &mut Bout) -> String {
    const WORKFLOW: &str = r#"
[workflow]
name = "names"
[task.one]
foreach = { f = { glob = "in/*" } }
inputs = { one = "{{ f }}" }
outputs = { one = "out/{{ f.name }}" }
run = "cat {{ inputs.one }} > {{ outputs.one }}; printf %s {{ f.name }} >> {{ outputs.one }}"
[task.all]
inputs = { all = { from = "one.one" } }
outputs = { all = "out-all.txt" }
argv = ["sh", "-c", 'out=$1; shift; cat "$@" > "$out"', "sh", "{{ outputs.all }}", "{{ inputs.all }}"]
"#;
    let mut count = 0;
    for name in NAMES {
        let project = Project::new(WORKFLOW);
        let hidden = name.starts_with(b".");
        let pattern = if hidden { "in/.*" } else { "in/*" };
        project.set_workflow(&WORKFLOW.replace("in/*", pattern));
        project.write(Path::new("in").join(path_of(name)), "bytes ");
        let run = project.run(&[]);
        if has_control(name) {
            run.assert_code(2);
            run.assert_said(&["control character"]);
            check_nothing_escaped(&project, name, &run);
            check_said(name, &run);
            count += 1;
            continue;
        }
        run.assert_code(0);
        let output = project.read(Path::new("out").join(path_of(name)));
        assert_eq!(output, format!("bytes {}", text_of(name)), "{}", run.said());
        assert_eq!(project.read("out-all.txt"), output, "{name:?}");
        check_nothing_escaped(&project, name, &run);
        check_said(name, &run);
        let task = run.tasks("completed").into_iter().find(|task| task != "all").unwrap();
        for command in ["why", "log"] {
            let told = project.start(project.command(&[command, &task])).wait();
            assert_eq!(told.code(), Some(0), "{command} {task}: {}", told.said());
        }
        assert_eq!(project.run_well(&[]).tasks("reused").len(), 2, "{name:?}");
        count += 1;
    }
    for name in REFUSED {
        let Ok(text) = std::str::from_utf8(name) else {
            let project = Project::new(WORKFLOW);
            project.write(Path::new("in").join(path_of(name)), "bytes");
            let run = project.run(&[]);
            assert_ne!(run.code(), Some(0), "{name:?}: {}", run.said());
            run.assert_said(&["UTF-8"]);
            check_nothing_escaped(&project, name, &run);
            count += 1;
            continue;
        };
        let output = format!("out/{text}");
        let project = Project::new(&format!(
            "[task.t]\noutputs = {{ o = {} }}\nrun = \"echo x > {{{{ outputs.o }}}}\"\n",
            quoted(&output)
        ));
        let run = project.run(&[]);
        // `out//tmp/x` is `out/tmp/x`, and `out/.` is `out`.
        let climbs = text.split('/').any(|part| part == "..");
        assert_eq!(run.code(), Some(if climbs { 2 } else { 0 }), "{output:?}: {}", run.said());
        check_nothing_escaped(&project, name, &run);
        count += 1;
    }
    format!("{count} names of files: right bytes in the right place, or refused")
}

/// In a script, as an argument, in the environment, in the text of an input.
fn of_parameters(_: &mut Bout) -> String {
    const WORKFLOW: &str = r#"
[workflow]
name = "parameters"
params = { p = "", list = ["a"] }
[task.script]
outputs = { o = "script.txt" }
run = "printf %s {{ p }} > {{ outputs.o }}"
[task.argument]
outputs = { o = "argument.txt" }
argv = ["sh", "-c", 'printf %s "$1" > "$2"', "sh", "{{ p }}", "{{ outputs.o }}"]
[task.environment]
env = { P = "{{ p }}" }
outputs = { o = "environment.txt" }
run = 'printf %s "$P" > {{ outputs.o }}'
[task.text]
inputs = { t = { text = "{{ p }}" } }
outputs = { o = "text.txt" }
run = "cat {{ inputs.t }} > {{ outputs.o }}"
[task.family]
foreach = { v = "list" }
outputs = { o = "family.txt" }
run = "printf %s {{ v }} > {{ outputs.o }}"
"#;
    let mut count = 0;
    for name in NAMES.into_iter().chain(REFUSED) {
        let Ok(text) = std::str::from_utf8(name) else {
            let project = Project::new(WORKFLOW);
            let mut command = project.command(&["run", "flow.toml", "--set"]);
            command.arg(OsStr::from_bytes(&[b"p=", name].concat()));
            let run = project.start(command).wait();
            run.assert_code(2);
            count += 1;
            continue;
        };
        let list = format!("[{}]", quoted(text));
        let project = Project::new(&WORKFLOW.replace("\"list\"", &list));
        let run = project.run(&["--set", &format!("p={text}")]);
        assert_eq!(run.code(), Some(0), "{name:?}: {}", run.said());
        for file in ["script", "argument", "environment", "text", "family"] {
            assert_eq!(project.read(format!("{file}.txt")), text, "{file}: {}", run.said());
        }
        check_nothing_escaped(&project, name, &run);
        check_said(name, &run);
        count += 1;
    }
    format!("{count} values in 5 places each: the right bytes, or refused")
}

/// Percent-encoded, as the last part of an address, as an input and by `fetch`.
fn of_addresses(_: &mut Bout) -> String {
    let server = Server::start(0, 0);
    let mut count = 0;
    for name in NAMES.into_iter().chain(REFUSED) {
        let encoded = percent_encoded(name);
        server.put(&format!("/{encoded}"), "bytes");
        let project = Project::new(&format!(
            "[task.t]\ninputs = {{ i = \"{}/{encoded}\" }}\noutputs = {{ o = \"o.txt\" }}\n\
             run = \"cat {{{{ inputs.i }}}} > {{{{ outputs.o }}}}\"\n",
            server.base()
        ));
        let run = project.run(&[]);
        if run.code() == Some(0) {
            assert_eq!(project.read("o.txt"), "bytes", "{name:?}: {}", run.said());
        } else {
            assert!(!project.exists("o.txt"), "{name:?}: {}", run.said());
        }
        check_nothing_escaped(&project, name, &run);
        check_said(name, &run);
        let url = format!("{}/{encoded}", server.base());
        let fetched = project.start(project.command(&["fetch", &url, "-d", "got"])).wait();
        let got: Vec<PathBuf> = project.files("got").into_keys().collect();
        let got: Vec<&PathBuf> =
            got.iter().filter(|path| !path.starts_with("got/.keelboat-partial")).collect();
        if fetched.code() == Some(0) {
            assert_eq!(got.len(), 1, "{name:?}: {got:?}");
            assert_eq!(project.read(got[0]), "bytes", "{name:?}");
            assert_eq!(got[0].parent(), Some(Path::new("got")), "{name:?}");
        } else {
            assert_eq!(got.len(), 0, "{name:?}: {}", fetched.said());
        }
        let is_good = NAMES.contains(&name) && !has_control(name);
        if is_good {
            assert_eq!(
                (run.code(), fetched.code()),
                (Some(0), Some(0)),
                "{name:?}: {}{}",
                run.said(),
                fetched.said()
            );
        }
        check_nothing_escaped(&project, name, &fetched);
        check_said(name, &fetched);
        count += 1;
    }
    format!("{count} addresses: right bytes below the directory, or refused")
}

/// An archive with one member of this name, written as it is.
fn archive(name: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    if name.len() < 100 {
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, &b"bytes"[..]).unwrap();
    } else {
        builder.append_data(&mut header, path_of(name), &b"bytes"[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn of_members(_: &mut Bout) -> String {
    let mut count = 0;
    for name in NAMES.into_iter().chain(REFUSED) {
        let project = Project::new(
            "[task.t]\ninputs = { all = \"tar:all.tar!/\" }\noutputs = { o = \"out/\" }\n\
             run = \"cp -R {{ inputs.all }}/. {{ outputs.o }}\"\n",
        );
        project.write("all.tar", archive(name));
        let run = project.run(&[]);
        let members: BTreeSet<PathBuf> = project.files("out").into_keys().collect();
        if run.code() == Some(0) {
            let path = Path::new("out").join(path_of(name));
            assert_eq!(members, BTreeSet::from([path.clone()]), "{name:?}: {}", run.said());
            assert_eq!(project.read(path), "bytes");
        } else {
            assert!(members.is_empty(), "{name:?}: {}", run.said());
            assert!(!NAMES.contains(&name), "{name:?} was refused: {}", run.said());
        }
        let leads_out = REFUSED[..4].contains(&name);
        assert!(!(leads_out && run.code() == Some(0)), "{name:?} was taken: {members:?}");
        check_nothing_escaped(&project, name, &run);
        check_said(name, &run);
        count += 1;
    }
    format!("{count} members: right bytes below the directory, or the archive was refused")
}
