//! The command line.

mod args;
mod cache;
mod demo;
mod exit;
mod fetch;
mod graph;
mod init;
mod log;
mod login;
mod ls;
mod past;
mod plan;
mod put;
mod reason;
mod run;
mod show;
mod staging;
mod status;
mod stop;
mod terminal;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use exit::Exit;

use self::args::{Args, Command};
use self::terminal::Terminal;
use crate::driver::WARDEN_COMMAND;

/// Runs the program that was called with these arguments.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == WARDEN_COMMAND) {
        return keelboat_executors::warden_main();
    }
    let args = Args::parse();
    let mut terminal = Terminal::new();
    init_tracing();
    raise_open_files();
    let exit = dispatch(args.command, &mut terminal);
    if terminal::result_was_lost() {
        terminal.error("the result cannot be written to the standard output", None);
        return Exit::Broken.into();
    }
    exit.into()
}

fn dispatch(mut command: Command, terminal: &mut Terminal) -> Exit {
    let settled = match &mut command {
        Command::Run(args) => args.workflow.settle(Some(&mut args.targets)),
        Command::Plan(args) => args.workflow.settle(Some(&mut args.targets)),
        Command::Graph(args) => args.workflow.settle(None),
        _ => Ok(()),
    };
    if let Err(error) = settled {
        terminal.error(format_args!("cannot work in that directory: {error}"), None);
        return Exit::BadInput;
    }
    match command {
        Command::Run(args) => run::run(&args, terminal),
        Command::Plan(args) => plan::plan(&args, terminal),
        Command::Why(args) => why::why(&args, terminal),
        Command::Status(args) => status::status(&args, terminal),
        Command::Log(args) => log::log(&args, terminal),
        Command::Graph(args) => graph::graph(&args, terminal),
        Command::Cache(args) => cache::cache(&args, terminal),
        Command::Fetch(args) => fetch::fetch(&args, terminal),
        Command::Put(args) => put::put(&args, terminal),
        Command::Ls(args) => ls::ls(&args, terminal),
        Command::Login(args) => login::login(&args, terminal),
        Command::Init(args) => init::init(&args, terminal),
        Command::Schema => {
            terminal.line(format_args!("{:#}", crate::workflow::schema()));
            Exit::Success
        }
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Args::command(), "keelboat", &mut script);
            terminal.raw(&script);
            Exit::Success
        }
        Command::Demo(args) => demo::demo(&args, terminal),
    }
}

/// Lets this program have more files open than the 1,024 that are usual: each transfer that was
/// asked for has one. Not as many as there may be, since tasks inherit this, and some programs
/// close each file that could be open.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const OPEN_FILES_MAX: u64 = 16_384;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(OPEN_FILES_MAX);
        if soft >= wanted { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) }
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

/// Diagnostics for developers, when `KEELBOAT_LOG` asks for them.
fn init_tracing() {
    use tracing_subscriber::EnvFilter;
    let Ok(filter) = EnvFilter::try_from_env("KEELBOAT_LOG") else { return };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
