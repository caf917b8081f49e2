//! `keelboat fetch` by itself: what is there already, and what is stopped.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::wait_until;
use crate::project::{Project, Run, Running};
use crate::server::Server;

/// How soon a program must have gone that was told to stop.
const STOP_MAX: Duration = Duration::from_secs(15);

fn project() -> Project {
    Project::new("[workflow]\nname = \"none\"\n")
}

fn fetch(project: &Project, arguments: &[&str]) -> Run {
    project.start(project.command(&[&["fetch"], arguments].concat())).wait()
}

fn server(names: &[&str]) -> (Server, Vec<String>) {
    let server = Server::start(0, 0);
    let put = |name: &&str| {
        server.put(&format!("/{name}"), format!("{name}\n"));
        format!("{}/{name}", server.base())
    };
    let urls = names.iter().map(put).collect();
    (server, urls)
}

#[test]
fn the_same_command_again_knows_its_own_files_and_moves_nothing() {
    let (server, urls) = server(&["a", "b", "c"]);
    let project = project();
    let arguments = [&urls[0], &urls[1], &urls[2], "-d", "in"].map(AsRef::<str>::as_ref);
    let first = fetch(&project, &arguments);
    first.assert_code(0);
    first.assert_said(&["3 files, 6 B in"]);
    // As after a crash in which some files came.
    std::fs::remove_file(project.path("in/b")).unwrap();
    let again = fetch(&project, &arguments);
    again.assert_code(0);
    again.assert_said(&["1 file, 2 B, 2 there already in"]);
    let sorted = |run: &Run| {
        let mut lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(&first), "all are told with their digests");
    let single = fetch(&project, &[&urls[0], "-d", "in"]);
    single.assert_code(0);
    single.assert_said(&["in/a is already there, as it is at its source"]);
    assert_eq!(server.parts(), Vec::<usize>::new());
    assert!(!project.exists("in/.keelboat-partial"));
}

#[test]
fn what_is_not_known_to_be_the_sources_content_is_neither_taken_for_it_nor_replaced() {
    let (server, urls) = server(&["a", "b", "c", "d"]);
    let project = project();
    let arguments: Vec<&str> = urls.iter().map(String::as_str).chain(["-d", "in"]).collect();
    fetch(&project, &[&urls[0], &urls[1], "-d", "in"]).assert_code(0);
    // One was changed here, one there, and one is of somebody else.
    project.write("in/a", "mine\n");
    server.put("/b", "another b\n");
    project.write("in/c", "c\n");
    let run = fetch(&project, &arguments);
    run.assert_code(2);
    run.assert_said(&[
        "in/a is there already, and is not as it came",
        "in/b is there already, and its source has changed",
        "in/c is there already, and nothing tells that it came from this address",
        "`--force` replaces it",
        "3 of 4 files did not come",
    ]);
    let read = || ["a", "b", "c", "d"].map(|name| project.read(format!("in/{name}")));
    assert_eq!(read(), ["mine\n", "b\n", "c\n", "d\n"]);
    for (url, said) in urls.iter().zip(["not as it came", "has changed since", "nothing tells"]) {
        let run = fetch(&project, &[url, "-d", "in"]);
        run.assert_code(2);
        run.assert_said(&[said, "`--force` replaces it"]);
    }
    let forced = fetch(&project, &[arguments.as_slice(), &["--force"]].concat());
    forced.assert_code(0);
    forced.assert_said(&["4 files, ", "4 replaced"]);
    assert_eq!(read(), ["a\n", "another b\n", "c\n", "d\n"]);
}

#[test]
fn a_directory_is_replaced_only_by_force_and_says_so() {
    let project = project();
    project.write("from/data/a", "a\n");
    project.write("from/data/deep/b", "b\n");
    project.write("in/data/thesis", "precious\n");
    let refused = fetch(&project, &["from/data/", "-d", "in"]);
    refused.assert_code(2);
    refused.assert_said(&["in/data is there already", "`--force` replaces it"]);
    let file = fetch(&project, &["from/data/a", "-o", "in/data", "--force"]);
    file.assert_code(2);
    file.assert_said(&["in/data is there already, and is a directory", "`-d in/data`"]);
    assert_eq!(project.read("in/data/thesis"), "precious\n");
    let forced = fetch(&project, &["from/data/", "-d", "in", "--force"]);
    forced.assert_code(0);
    forced.assert_said(&["instead of a directory with 1 file (9 B)", "(4 bytes) in 2 files"]);
    assert_eq!(project.files("in/data").len(), 2);
    fetch(&project, &["from/data/", "-d", "in"]).assert_code(0);
    project.write("from/data/a", "other\n");
    let changed = fetch(&project, &["from/data/", "-d", "in"]);
    changed.assert_code(2);
    changed.assert_said(&["in/data is there already, and its source has changed"]);
    assert!(!project.exists("in/.keelboat-partial"), "nothing is left");
}

/// Starts a fetch of a file of which a half comes, slowly, and ends it with a signal.
fn stop_in_the_middle(arguments: &[&str], end: impl FnOnce(&mut Running)) {
    let server = Server::start(0, 0);
    let whole: Vec<u8> = (0..6_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    server.put("/held/large.bin", whole.clone());
    server.put("/small.bin", "small\n");
    let project = project();
    let urls = ["held/large.bin", "small.bin"].map(|name| format!("{}/{name}", server.base()));
    let urls: Vec<&str> = urls.iter().map(String::as_str).take(arguments.len()).collect();
    let all = [&["fetch"], urls.as_slice(), arguments].concat();
    let all: Vec<&str> = all.into_iter().filter(|argument| !argument.is_empty()).collect();
    let mut running = project.start(project.command(&all));
    wait_until("half of the file is here", Duration::from_secs(30), || {
        assert!(!running.has_ended(), "{}", running.said());
        let files = project.files(".keelboat-partial");
        files.values().any(|bytes| bytes.len() >= 2_900_000).then_some(())
    });
    end(&mut running);
    let stopped = running.wait_at_most(STOP_MAX);
    stopped.assert_code(130);
    stopped.assert_said(&["stopped: what came so far is kept in", "the same command goes on"]);
    let again = project.start(project.command(&all)).wait();
    again.assert_code(0);
    let large = std::fs::read(project.path("large.bin")).expect("the output");
    assert!(large == whole, "other bytes");
    let parts = server.parts();
    assert!(parts.len() == 1 && parts[0] >= 2_900_000, "it began again at {parts:?}");
}

#[test]
fn an_interrupted_fetch_keeps_what_came_and_goes_on() {
    stop_in_the_middle(&[""], |running| running.signal(Signal::SIGINT));
}

#[test]
fn a_terminated_fetch_of_several_files_keeps_what_came_and_goes_on() {
    stop_in_the_middle(&["", ""], |running| running.signal(Signal::SIGTERM));
}
