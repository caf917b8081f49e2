//! Inputs out of archives and texts, and outputs that go out: to a real OpenSSH server.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and say what they skip"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::processes::wait_until;
use crate::project::Project;

/// The status with which a script of `tests/services` says that its server is not installed.
const LACKS_SOMETHING: i32 = 77;

/// sshd on a free port, until it is dropped.
pub(crate) struct Ssh {
    dir: tempfile::TempDir,
    values: BTreeMap<String, String>,
}

impl Ssh {
    pub(crate) fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let output = service("start", dir.path()).output().expect("bash");
        if output.status.code() == Some(LACKS_SOMETHING) {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let values = text.lines().filter_map(|line| line.split_once('='));
        let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some(Self { dir, values })
    }

    fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{key} is not among {:?}", self.values))
    }

    /// A directory on the server, by its address and its path.
    pub(crate) fn directory(&self, name: &str) -> (String, PathBuf) {
        let path = Path::new(self.value("SSH_ROOT")).join("data").join(name);
        let (user, port) = (self.value("SSH_USER"), self.value("SSH_PORT"));
        (format!("sftp://{user}@127.0.0.1:{port}{}", path.display()), path)
    }

    /// Settings and credentials for a project.
    pub(crate) fn introduce(&self, project: &Project) {
        let known_hosts = self.value("SSH_KNOWN_HOSTS");
        project.write("keelboat.toml", format!("[staging]\nknown_hosts = {known_hosts:?}\n"));
        let (key, port) = (format!("{}/id", self.value("SSH_KEYS")), self.value("SSH_PORT"));
        let text =
            format!("[[credential]]\nscope = \"sftp://127.0.0.1:{port}\"\nkey_file = {key:?}\n");
        project.write("credentials.toml", text);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(project.path("credentials.toml"), private).expect("a mode");
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let stopped = service("stop", self.dir.path()).status();
        assert!(
            std::thread::panicking() || stopped.is_ok_and(|status| status.success()),
            "the server does not stop"
        );
    }
}

fn service(verb: &str, dir: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/sshd.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(verb).arg(dir.join("server")).env("SSH_PORT", "auto");
    command.env("SVC_TOOLS", std::env::temp_dir().join("keelboat-ports"));
    command
}

pub(crate) fn with_credentials(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("KEELBOAT_CREDENTIALS", project.path("credentials.toml"));
    command
}

#[test]
fn outputs_go_out_once_whatever_is_killed() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("out");
    let text = r#"
[workflow]
name = "out"
[task.quick]
foreach = { at = { range = [0, 5] } }
outputs = { out = { path = "out/{{ at }}.txt", to = "@to/{{ at }}.txt" } }
run = "@count quick; echo {{ at }} > {{ outputs.out }}"
[task.tree]
outputs = { dir = { path = "tree/", to = "@to/tree" } }
run = "mkdir -p {{ outputs.dir }}/a; echo x > {{ outputs.dir }}/a/x; echo y > '{{ outputs.dir | raw }}/a y'"
[task.slow]
inputs = { first = { from = "quick.out" } }
outputs = { out = { path = "slow.txt", to = "@to/slow.txt" } }
run = "@count slow; sleep 3; cat {{ inputs.first }} > {{ outputs.out }}"
"#;
    let project = Project::new(&text.replace("@to", &address));
    ssh.introduce(&project);
    let engine = project.start(with_credentials(&project, &["run", "flow.toml", "--json"]));
    wait_until("five files and a directory are there", Duration::from_mins(1), || {
        let files = (0..5).all(|at| there.join(format!("{at}.txt")).exists());
        (files && there.join("tree/a/x").exists() && project.count("slow") == 1).then_some(())
    });
    engine.kill();
    let inodes = || -> Vec<u64> {
        let of = |at: u32| there.join(format!("{at}.txt")).metadata().expect("a file").ino();
        (0..5).map(of).collect()
    };
    let before = inodes();
    let again = project.start(with_credentials(&project, &["run", "flow.toml", "--json"])).wait();
    again.assert_code(0);
    assert_eq!(std::fs::read_to_string(there.join("slow.txt")).unwrap(), "0\n1\n2\n3\n4\n");
    assert_eq!(std::fs::read_to_string(there.join("tree/a y")).unwrap(), "y\n");
    assert_eq!(inodes(), before, "what was there was not sent again");
    assert_eq!(project.count("quick"), 5);
    let names = std::fs::read_dir(&there).unwrap();
    let hidden = names.filter(|name| {
        name.as_ref().is_ok_and(|name| name.file_name().to_string_lossy().starts_with('.'))
    });
    assert_eq!(hidden.count(), 0, "nothing is left beside");
    // What the server lost meanwhile is no business of a run in which nothing is new.
    let third = project.start(with_credentials(&project, &["run", "flow.toml", "--json"])).wait();
    third.assert_code(0);
    assert_eq!(inodes(), before);
}

#[test]
fn a_server_without_its_key_gets_nothing_and_says_why() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("out");
    let text = r#"
[workflow]
name = "out"
[task.one]
outputs = { out = { path = "one.txt", to = "@to/one.txt" } }
run = "echo one > {{ outputs.out }}"
"#;
    let project = Project::new(&text.replace("@to", &address));
    ssh.introduce(&project);
    project.write("keelboat.toml", "[staging]\nknown_hosts = \"/dev/null\"\n");
    let run = project.start(with_credentials(&project, &["run", "flow.toml", "--json"])).wait();
    run.assert_code(1);
    run.assert_said(&["one.txt", "ssh-keyscan"]);
    assert!(!there.exists());
    assert_eq!(project.read("one.txt"), "one\n", "the task itself is done");
}

#[test]
fn directories_and_mirrors_come_over_sftp() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("in");
    std::fs::create_dir_all(there.join("deep")).unwrap();
    std::fs::write(there.join("a b"), "first\n").unwrap();
    std::fs::write(there.join("deep/c"), "second\n").unwrap();
    let text = r#"
[workflow]
name = "in"
[task.all]
inputs = { dir = "@from/", one = { urls = ["http://127.0.0.1:1/none", "@from/deep/c"], as = "one" } }
outputs = { out = "out.txt" }
run = "cat {{ inputs.dir }}/*b {{ inputs.dir }}/deep/c {{ inputs.one }} > {{ outputs.out }}"
"#;
    let project = Project::new(&text.replace("@from", &address));
    ssh.introduce(&project);
    project.write("keelboat.toml", format!("{}tries = 2\n", project.read("keelboat.toml")));
    let run = || project.start(with_credentials(&project, &["run", "flow.toml", "--json"])).wait();
    run().assert_code(0);
    assert_eq!(project.read("out.txt"), "first\nsecond\nsecond\n");
    let again = run();
    again.assert_code(0);
    assert_eq!(again.tasks("reused").len(), 1, "{}", again.said());
    std::fs::write(there.join("deep/c"), "changed, and longer\n").unwrap();
    run().assert_code(0);
    assert_eq!(project.read("out.txt"), "first\nchanged, and longer\nchanged, and longer\n");
}

#[test]
fn archives_and_texts_are_inputs() {
    let project = Project::new(
        r#"
[workflow]
name = "archives"
params = { who = "ada" }
[task.join]
inputs = { a = "tar:data/all.tgz!/all/a.txt", dir = "tar:data/all.tgz!/all/deep/", note = { text = "hello {{ params.who }}\n" }, inline = { url = "data:,inline%0A", as = "inline" } }
outputs = { out = "out.txt" }
run = "cat {{ inputs.a }} {{ inputs.dir }}/b.txt {{ inputs.note }} {{ inputs.inline }} > {{ outputs.out }}"
"#,
    );
    project.write("all/a.txt", "a\n");
    project.write("all/deep/b.txt", "b\n");
    std::fs::create_dir_all(project.path("data")).unwrap();
    let tar = |project: &Project| {
        let status = project.shell("tar czf data/all.tgz all").status().expect("tar");
        assert!(status.success());
    };
    tar(&project);
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "a\nb\nhello ada\ninline\n");
    let again = project.run_well(&[]);
    assert_eq!(again.tasks("reused").len(), 1, "{}", again.said());
    project.write("all/deep/b.txt", "another\n");
    tar(&project);
    project.run_well(&[]);
    assert_eq!(project.read("out.txt"), "a\nanother\nhello ada\ninline\n");
    project.run_well(&["--set", "who=grace"]);
    assert_eq!(project.read("out.txt"), "a\nanother\nhello grace\ninline\n");
}

#[test]
fn a_file_never_takes_the_place_of_a_directory() {
    let Some(ssh) = Ssh::start() else { return };
    let (address, there) = ssh.directory("kept");
    std::fs::create_dir_all(there.join("deep")).unwrap();
    std::fs::write(there.join("deep/thesis"), "precious").unwrap();
    let project = Project::new("[workflow]\nname = \"none\"\n");
    ssh.introduce(&project);
    project.write("o.txt", "o\n");
    std::fs::create_dir_all(project.path("here/deep")).unwrap();
    let put = |to: &str| project.start(with_credentials(&project, &["put", "o.txt", to])).wait();
    for to in [address.as_str(), "here"] {
        let run = put(to);
        run.assert_code(2);
        run.assert_said(&["a directory stands there"]);
    }
    assert_eq!(std::fs::read_to_string(there.join("deep/thesis")).unwrap(), "precious");
    assert!(project.exists("here/deep"));
    put(&format!("{address}/")).assert_code(0);
    assert_eq!(std::fs::read_to_string(there.join("o.txt")).unwrap(), "o\n");
    let beside = std::fs::read_dir(there.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "nothing is left beside");
}
