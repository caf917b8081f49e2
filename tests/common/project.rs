//! A project directory, and what the program does in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{self, MARK_VARIABLE, wait_until};

/// The longest that any run of a test may take.
const RUN_MAX: Duration = Duration::from_mins(2);

/// A project in a directory of its own. In its workflow file `@outside` is a directory beside it,
/// and with `@count NAME` tasks count how often they run.
#[derive(Debug)]
pub(crate) struct Project {
    directory: PathBuf,
    /// Beside the project, so that nothing in it depends on how often a task ran.
    outside: TempDir,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Project {
    /// A project with this workflow file.
    pub(crate) fn new(workflow: &str) -> Self {
        let outside =
            tempfile::Builder::new().prefix("keelboat-test-").tempdir().expect("a directory");
        let project = Self { directory: outside.path().join("project"), outside };
        std::fs::create_dir_all(project.counts()).expect("a directory for counts");
        std::fs::create_dir_all(&project.directory).expect("a project directory");
        project.set_workflow(workflow);
        project
    }

    /// Replaces the workflow file.
    pub(crate) fn set_workflow(&self, workflow: &str) {
        let text = workflow.replace("@count ", "echo x >> @outside/counts/");
        self.write("flow.toml", text.replace("@outside", &self.mark()));
    }

    /// Moves the project to another directory.
    pub(crate) fn move_to(&mut self, name: &str) {
        let target = self.outside.path().join(name);
        std::fs::rename(&self.directory, &target).expect("another place");
        self.directory = target;
    }

    fn counts(&self) -> PathBuf {
        self.outside.path().join("counts")
    }

    /// A path beside the project.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn read(&self, path: impl AsRef<Path>) -> String {
        let path = self.path(path);
        let bytes = std::fs::read(&path);
        let bytes = bytes.unwrap_or_else(|error| format!("{}: {error}", path.display()).into());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// How often a task ran, as it counted itself.
    pub(crate) fn count(&self, task: &str) -> usize {
        let counted = std::fs::read_to_string(self.counts().join(task)).unwrap_or_default();
        counted.lines().count()
    }

    /// How often each task ran.
    pub(crate) fn count_all(&self) -> BTreeMap<String, usize> {
        let entries = std::fs::read_dir(self.counts()).expect("counts").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.map(|name| (name.clone(), self.count(&name))).collect()
    }

    /// What all processes of this project carry.
    pub(crate) fn mark(&self) -> String {
        self.outside.path().display().to_string()
    }

    /// All files below a directory, with what they hold. Those that go away meanwhile are not among
    /// them: a program that runs puts a file in its place by another name.
    pub(crate) fn files(&self, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path(directory)];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().expect("a file type"));
                if kind.is_dir() {
                    open.push(path);
                    continue;
                }
                let bytes = match std::fs::read(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    bytes => bytes.expect("a file that can be read"),
                };
                let path = path.strip_prefix(&self.directory).expect("below");
                files.insert(path.to_owned(), bytes);
            }
        }
        files
    }

    /// The program with these arguments, in the project directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelboat"));
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// A shell script in the project directory, in which `"$KEELBOAT"` is the program.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        self.prepare(&mut command);
        command.arg("-ec").arg(script).env("KEELBOAT", env!("CARGO_BIN_EXE_keelboat"));
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.current_dir(&self.directory).env(MARK_VARIABLE, self.mark()).env("LC_ALL", "C");
        command.env("XDG_STATE_HOME", self.outside("state"));
        for variable in
            ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        {
            command.env_remove(variable);
        }
    }

    /// Starts a command with its output in files, which stay readable whoever is killed.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let number = std::fs::read_dir(self.outside.path()).expect("a directory").count();
        let stdout = self.outside(&format!("stdout.{number}"));
        let stderr = self.outside(&format!("stderr.{number}"));
        command.stdin(std::process::Stdio::null());
        command.stdout(File::create(&stdout).expect("a file for standard output"));
        command.stderr(File::create(&stderr).expect("a file for standard error"));
        Running { child: command.spawn().expect("the program starts"), stdout, stderr }
    }

    /// `keelboat run flow.toml --json` with further arguments, started.
    pub(crate) fn start_run(&self, arguments: &[&str]) -> Running {
        let all = [&["run", "flow.toml", "--json"], arguments].concat();
        self.start(self.command(&all))
    }

    /// `keelboat run flow.toml --json` with further arguments, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.start_run(arguments).wait()
    }

    /// A run that must succeed.
    pub(crate) fn run_well(&self, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code(), Some(0), "{}\n{}", run.stdout, run.stderr);
        run
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        for (pid, _) in processes::marked(&self.mark()) {
            processes::send(pid, Signal::SIGKILL);
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::send(self.pid(), signal);
    }

    /// `kill -9`, and its end.
    pub(crate) fn kill(mut self) -> Run {
        self.child.kill().expect("a process that can be killed");
        self.wait()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits until a task has begun, as the task itself counts.
    pub(crate) fn wait_for_count(&mut self, project: &Project, task: &str) {
        wait_until(&format!("{task} begins"), RUN_MAX, || {
            let begun = project.count(task) > 0;
            assert!(begun || !self.has_ended(), "ended too early: {}", self.said());
            begun.then_some(())
        });
    }

    /// All that it has written so far.
    pub(crate) fn said(&self) -> String {
        let [stdout, stderr] =
            [&self.stdout, &self.stderr].map(|path| std::fs::read(path).unwrap_or_default());
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Run {
        self.wait_at_most(RUN_MAX)
    }

    pub(crate) fn wait_at_most(mut self, at_most: Duration) -> Run {
        let status = wait_until("the program ends", at_most, || {
            self.child.try_wait().expect("a child that can be waited for")
        });
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|path| {
            String::from_utf8_lossy(&std::fs::read(path).expect("its output")).into_owned()
        });
        Run { status, stdout, stderr }
    }
}

impl Run {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The events on standard output. Of a killed program the last line may be half a line.
    pub(crate) fn events(&self) -> Vec<Value> {
        let whole = self.stdout.rfind('\n').and_then(|end| self.stdout.get(..end));
        let lines = whole.unwrap_or_default().lines();
        lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The tasks of events of one kind.
    pub(crate) fn tasks(&self, event: &str) -> Vec<String> {
        let events = self.events().into_iter().filter(|found| found["event"] == event);
        events.map(|found| found["task"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// All that was said, for a look at texts.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails unless each of these texts was said.
    #[track_caller]
    pub(crate) fn assert_said(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.said().contains(text), "{text:?} was not said:\n{}", self.said());
        }
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code(), Some(code), "{:?}\n{}", self.status, self.said());
    }
}
