//! What a task costs: runs many times `sh -c :`, two at a time, and prints the processor time of
//! everything per task. Arguments: `executor` or `plain` (a loop around `std::process`), how many.
//!
//! `cargo run --release -p keelboat-executors --example task_cost -- executor 5000`

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use keelboat_engine::{AttemptId, AttemptOutcome, TaskId};
use keelboat_executors::{
    Executor as _, LaunchSpec, LocalConfig, LocalExecutor, Sink, WardenCommand,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

const AT_ONCE: u32 = 2;

struct Ends(Sender<AttemptOutcome>);

impl Sink for Ends {
    fn ended(&self, outcome: AttemptOutcome) {
        // Nobody listens any more at the end.
        self.0.send(outcome).ok();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or("expected `executor`, `plain` or `warden`")?;
    if mode == "warden" {
        keelboat_executors::warden_main();
        return Ok(());
    }
    let tasks: u32 = arguments.next().ok_or("expected the number of tasks")?.parse()?;
    let directory = tempfile::tempdir()?;
    let began = Instant::now();
    match mode.as_str() {
        "executor" => executor(tasks, directory.path())?,
        _ => plain(tasks, directory.path())?,
    }
    let cpu = |who| -> nix::Result<i64> {
        let usage = getrusage(who)?;
        Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
    };
    let (own, children) = (cpu(UsageWho::RUSAGE_SELF)?, cpu(UsageWho::RUSAGE_CHILDREN)?);
    let each = |micros: i64| micros / i64::from(tasks);
    writeln!(
        io::stdout(),
        "{mode}: per task {} µs of processor time ({} here, {} below), {} µs of wall time",
        each(own + children),
        each(own),
        each(children),
        began.elapsed().as_micros() / u128::from(tasks),
    )?;
    Ok(())
}

fn executor(tasks: u32, directory: &Path) -> Result<(), Box<dyn Error>> {
    let (sender, ends) = channel();
    let warden = WardenCommand { program: std::env::current_exe()?, args: vec!["warden".into()] };
    let token = format!("cost-{}", std::process::id());
    let executor = LocalExecutor::start(LocalConfig { warden, token }, Arc::new(Ends(sender)))?;
    let command = keelboat_engine::Command::Shell {
        shell: ["/bin/sh", "-c"].map(str::to_owned).into(),
        script: ":".into(),
    };
    let begin = |task: u32| {
        executor.begin(LaunchSpec {
            attempt: AttemptId { task: TaskId(task), ordinal: 1 },
            command: command.clone(),
            directory: directory.to_path_buf(),
            env: BTreeMap::new(),
            stdout: log(directory, task, "out"),
            stderr: log(directory, task, "err"),
            timeout: Some(Duration::from_mins(1)),
            memory: None,
            grace: Duration::from_secs(1),
            cleanup: Vec::new(),
        });
    };
    (0..AT_ONCE.min(tasks)).for_each(begin);
    for next in AT_ONCE..tasks + AT_ONCE.min(tasks) {
        ends.recv()?.result.map_err(|failure| failure.cause)?;
        if next < tasks {
            begin(next);
        }
    }
    executor.shutdown();
    Ok(())
}

fn plain(tasks: u32, directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut running: std::collections::VecDeque<Child> = std::collections::VecDeque::new();
    for task in 0..tasks {
        if running.len() as u64 == u64::from(AT_ONCE) {
            running.pop_front().ok_or("two are running")?.wait()?;
        }
        let child = Command::new("/bin/sh")
            .args(["-c", ":"])
            .stdin(Stdio::null())
            .stdout(File::create(log(directory, task, "out"))?)
            .stderr(File::create(log(directory, task, "err"))?)
            .spawn()?;
        running.push_back(child);
    }
    for mut child in running {
        child.wait()?;
    }
    Ok(())
}

fn log(directory: &Path, task: u32, stream: &str) -> PathBuf {
    directory.join(format!("{task}.{stream}"))
}
