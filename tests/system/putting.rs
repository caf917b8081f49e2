//! `keelboat put` and `keelboat ls` by themselves.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::wait_until;
use crate::project::{Project, Run};
use crate::server::Server;
use crate::staging::{Ssh, with_credentials};

/// How soon a program must have gone that was told to stop.
const STOP_MAX: Duration = Duration::from_secs(15);

fn project() -> Project {
    Project::new("[workflow]\nname = \"none\"\n")
}

fn keelboat(project: &Project, arguments: &[&str]) -> Run {
    project.start(project.command(arguments)).wait()
}

#[test]
fn what_cannot_be_sent_is_told_and_the_rest_goes_out() {
    let project = project();
    for name in ["a", "b", "c"] {
        project.write(format!("from/{name}"), format!("{name}\n"));
    }
    project.write("tree/deep/d", "d\n");
    project.write("to/b", "mine\n");
    let arguments = ["put", "-j", "2", "from/a", "from/b", "from/c", "tree", "to"];
    let run = keelboat(&project, &arguments);
    run.assert_code(2);
    run.assert_said(&[
        "cannot write",
        "to/b: a file of other content (5 bytes) stands there",
        "`--force` replaces it",
        "3 files, 6 B sent and verified there in",
        "1 of 4 were not sent",
    ]);
    assert_eq!(run.stdout.lines().count(), 3, "{}", run.said());
    let read = |name: &str| project.read(format!("to/{name}"));
    assert_eq!(
        [read("a"), read("b"), read("c"), read("tree/deep/d")],
        ["a\n", "mine\n", "c\n", "d\n"]
    );
    let forced = keelboat(&project, &[arguments.as_slice(), &["--force"]].concat());
    forced.assert_code(0);
    forced.assert_said(&[
        "to/b is sent instead of a file of other content (5 bytes)",
        "1 file, 2 B sent and verified there, 3 there already, in",
    ]);
    assert_eq!(read("b"), "b\n");
}

#[test]
fn files_that_are_not_there_and_two_of_one_name_are_mistakes_of_the_command() {
    let project = project();
    project.write("a/x", "1\n");
    project.write("b/x", "2\n");
    let missing = keelboat(&project, &["put", "nofile", "to/"]);
    missing.assert_code(2);
    missing.assert_said(&["cannot read nofile: No such file", "check the path"]);
    let twice = keelboat(&project, &["put", "a/x", "b/x", "to"]);
    twice.assert_code(2);
    twice.assert_said(&["a/x", "b/x", "would both become"]);
    assert!(!project.exists("to"));
}

#[test]
fn a_put_is_stopped_in_order_and_goes_on_where_it_was() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("out");
    let project = project();
    ssh.introduce(&project);
    let bytes = 300_000_000;
    project.write("large", vec![7; bytes]);
    let put =
        || project.start(with_credentials(&project, &["put", "large", &format!("{address}/")]));
    let mut running = put();
    let so_far = || {
        let names = std::fs::read_dir(&there).into_iter().flatten().flatten();
        names.filter_map(|name| name.metadata().ok()).map(|found| found.len()).max().unwrap_or(0)
    };
    wait_until("some of it is there", Duration::from_mins(1), || {
        assert!(!running.has_ended(), "{}", running.said());
        (so_far() > 30_000_000).then_some(())
    });
    running.signal(Signal::SIGTERM);
    let stopped = running.wait_at_most(STOP_MAX);
    stopped.assert_code(130);
    stopped.assert_said(&["stopped: 0 of 1 went out; the same command goes on"]);
    assert!(!there.join("large").exists());
    let again = put().wait();
    again.assert_code(0);
    again.assert_said(&["out/large: resumed at ", "1 file, 286.1 MiB sent and verified there"]);
    assert_eq!(there.join("large").metadata().unwrap().len(), bytes as u64);
}

#[test]
fn a_directory_goes_out_over_another_only_by_force() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("results");
    let project = project();
    ssh.introduce(&project);
    project.write("results/a", "a\n");
    project.write("results/deep/b", "b\n");
    std::fs::create_dir_all(&there).unwrap();
    std::fs::write(there.join("thesis"), "precious").unwrap();
    let put = |more: &[&str]| {
        let arguments = [&["put", "results", address.as_str()], more].concat();
        project.start(with_credentials(&project, &arguments)).wait()
    };
    let refused = put(&[]);
    refused.assert_code(2);
    refused.assert_said(&["\"thesis\" is not in what is sent", "stands there", "`--force`"]);
    assert_eq!(std::fs::read_dir(&there).unwrap().count(), 1);
    let forced = put(&["--force"]);
    forced.assert_code(0);
    forced.assert_said(&["is sent instead of a directory of other content", "2 files, 4 B sent"]);
    assert!(!there.join("thesis").exists() && there.join("deep/b").exists());
}

#[test]
fn files_and_archives_are_listed() {
    let project = project();
    let server = Server::start(0, 0);
    project.write("all/a b", "one\n");
    project.write("all/deep/c", "three\n");
    let made = project.shell("tar czf all.tgz all; tar cf plain.tar all").status();
    assert!(made.expect("tar").success());
    server.put("/all.tgz", std::fs::read(project.path("all.tgz")).unwrap());
    let list = |arguments: &[&str]| {
        let run = keelboat(&project, &[&["ls"], arguments].concat());
        run.assert_code(0);
        let fields = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        run.stdout.lines().map(fields).collect::<Vec<_>>()
    };
    let archive = format!("tar:{}/all.tgz", server.base());
    assert_eq!(list(&[&format!("{archive}!/")]), ["- all/"]);
    assert_eq!(list(&[&format!("{archive}!/all/")]), ["4 a b", "- deep/"]);
    assert_eq!(list(&["-r", "tar:plain.tar!/all"]), ["4 a b", "- deep/", "6 deep/c"]);
    let file = format!("{}/all.tgz", server.base());
    let bytes = project.path("all.tgz").metadata().unwrap().len();
    assert_eq!(list(&[&file]), [format!("{bytes} all.tgz")]);
    assert_eq!(list(&["all/a b"]), ["4 a b"]);
    let missing = keelboat(&project, &["ls", &format!("{archive}!/nothing/")]);
    missing.assert_code(1);
    missing.assert_said(&["the archive has no \"nothing\""]);
    let left = std::fs::read_dir(project.outside("state/keelboat")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the archive is not kept");
}
