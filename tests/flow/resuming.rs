//! A program that is killed and started again goes on where it was.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use keelboat::flow::{Config, Flow, Future, OnClose};
use libtest_mimic::Trial;

use super::{SOON, trial};

/// Names the directory in which this program is to be the child of a test.
const CHILD: &str = "KEELBOAT_TEST_CHILD";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("resuming::what_was_sent_before", what_was_sent_before_is_known_to_be_there),
        trial("resuming::a_killed_program_goes_on", a_killed_program_goes_on),
        trial("resuming::closures_of_another_start_are_others", closures_of_another_start),
    ]
}

/// Twenty steps, of which each notes that it ran; slowly enough to be killed between two.
pub(super) fn run_if_child() -> Option<ExitCode> {
    let directory = std::env::var_os(CHILD)?;
    fn step(before: u64, directory: String) -> u64 {
        let file = Path::new(&directory).join("ran");
        let mut ran = std::fs::read_to_string(&file).unwrap_or_default();
        ran.push_str(&before.to_string());
        ran.push('\n');
        std::fs::write(file, ran).expect("a note");
        std::thread::sleep(std::time::Duration::from_millis(100));
        before + 1
    }
    let directory = directory.to_str().expect("a name").to_owned();
    let flow = Flow::open(Config::new(&directory).name("steps")).expect("a flow");
    let mut last: Future<u64> = flow.call(step, (0, directory.clone()));
    for _ in 1..20 {
        last = flow.call(step, (last, directory.clone()));
    }
    let value = last.wait().expect("a value");
    flow.close().expect("the end");
    Some(ExitCode::from(u8::from(value != 20)))
}

fn start(directory: &Path) -> Child {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.env(CHILD, directory).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("a child")
}

fn a_killed_program_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let ran = || -> Vec<u64> {
        let text = std::fs::read_to_string(directory.path().join("ran")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let mut kills = 0;
    for at_least in [4, 9, 14] {
        let mut child = start(directory.path());
        let deadline = Instant::now() + SOON;
        while ran().len() < at_least {
            assert!(Instant::now() < deadline, "it does not go on: {:?}", ran());
            assert!(child.try_wait().unwrap().is_none(), "it ended: {:?}", ran());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let mut child = start(directory.path());
    assert!(child.wait().unwrap().success());
    let mut steps = ran();
    let all = steps.len();
    steps.dedup();
    assert_eq!(steps, (0..20).collect::<Vec<u64>>(), "in order");
    // At most the one that ran when it was killed, and the one before, not yet written down.
    assert!(all <= 20 + 2 * kills, "{all} steps for {kills} kills");
}

/// The end of the first start is told; the second one finds all in its place.
fn what_was_sent_before_is_known_to_be_there() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let there = elsewhere.path().join("there.txt");
    for _ in 0..2 {
        let flow = Flow::open(Config::new(directory.path())).expect("a flow");
        let made = flow.command("echo sent > {{ outputs.out }}").output("out", "out.txt");
        let made = made.to(there.to_str().unwrap()).submit();
        let size = |path: std::path::PathBuf| Ok::<_, std::io::Error>(path.metadata()?.len());
        let taken = flow.try_call(size, (made.output("out"),));
        assert_eq!(taken.wait_for(SOON).expect("it ends").unwrap(), 5);
        let (told, is_told) = std::sync::mpsc::channel();
        let out = made.output("out");
        std::thread::spawn(move || told.send(out.wait()).unwrap());
        is_told.recv_timeout(SOON).expect("it is known").expect("it is there");
        assert_eq!(std::fs::read_to_string(&there).unwrap(), "sent\n");
        let never = flow.call(async || std::future::pending::<u64>().await, ());
        flow.close_by(OnClose::Cancel).expect("an unfinished run");
        never.wait().unwrap_err();
    }
}

/// The program may have been built anew since, or call its closures in another order.
fn closures_of_another_start() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Flow::open(Config::new(directory.path())).expect("a flow");
    let flow = open();
    assert_eq!(flow.call(|x: u64| x + 10, (1,)).wait().unwrap(), 11);
    let never = flow.call(async || std::future::pending::<u64>().await, ());
    flow.close_by(OnClose::Cancel).expect("an unfinished run");
    never.wait().unwrap_err();
    let flow = open();
    assert_eq!(flow.call(|x: u64| x * 10, (1,)).wait().unwrap(), 10);
    flow.close().expect("the end");
}
