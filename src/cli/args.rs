//! What can be said on the command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

/// Runs workflows that move data as carefully as they run tasks.
///
/// Kill it at any moment, type the same command again, and only unfinished work is done.
#[derive(Debug, Parser)]
#[command(name = "keelboat", version, max_term_width = 100, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow, or go on with one that was interrupted
    Run(RunArgs),
    /// Show what would run and why, before anything runs
    Plan(PlanArgs),
    /// Tell why a task ran or did not run
    Why(WhyArgs),
    /// Show how the last run stands, also while it is at work
    Status(StatusArgs),
    /// Show what a task wrote to its standard output and error
    Log(LogArgs),
    /// Draw the graph of tasks
    Graph(GraphArgs),
    /// Look after the cache of results
    Cache(CacheArgs),
    /// Fetch files, verified, with resume and retries
    Fetch(FetchArgs),
    /// Send files out, verified at their addresses
    Put(PutArgs),
    /// List a directory that is elsewhere
    Ls(LsArgs),
    /// Log in to a service by way of a browser
    Login(LoginArgs),
    /// Start a project: write a small workflow file
    Init(InitArgs),
    /// Print the JSON Schema of workflow files, for editors
    Schema,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// See it work: a workflow with remote files, killed half way, resumed, and reused
    Demo(DemoArgs),
}

/// The workflow file when none is named.
const WORKFLOW_FILE: &str = "flow.toml";

/// Which workflow, and with which parameters.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WorkflowArgs {
    /// The workflow file; what is no TOML file is a target of `flow.toml`
    #[arg(default_value = "flow.toml", value_name = "FILE")]
    pub(crate) workflow: PathBuf,
    /// Work in this directory
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Set a parameter of the workflow
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub(crate) set: Vec<(String, String)>,
}

impl WorkflowArgs {
    /// Goes to the directory that was asked for, and takes what is no workflow file for a target.
    pub(crate) fn settle(&mut self, targets: Option<&mut Vec<String>>) -> std::io::Result<()> {
        if let Some(directory) = &self.directory {
            std::env::set_current_dir(directory)?;
        }
        if self.workflow.is_dir() {
            self.workflow.push(WORKFLOW_FILE);
            return Ok(());
        }
        let is_toml = self.workflow.extension().is_some_and(|extension| extension == "toml");
        if let Some(targets) = targets
            && !is_toml
            && Path::new(WORKFLOW_FILE).is_file()
            && let Some(target) = self.workflow.to_str()
        {
            targets.insert(0, target.to_owned());
            self.workflow = PathBuf::from(WORKFLOW_FILE);
        }
        Ok(())
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("expected NAME=VALUE, such as min_quality=40")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Tasks, declarations or output paths that are asked for [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Cores to use at one time [default: all of the machine]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) jobs: Option<u32>,
    /// After a failure, go on with all that does not depend on it
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// Read all bytes again instead of trusting size and times of files
    #[arg(long)]
    pub(crate) strict: bool,
    /// Use no network: remote files must be in the cache
    #[arg(long)]
    pub(crate) offline: bool,
    /// Run this task (or all of a declaration) although it has a result
    #[arg(long, value_name = "TASK")]
    pub(crate) force: Vec<String>,
    /// Print events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a line for each task, also for those that are reused
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Tasks, declarations or output paths that are asked for [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Read all bytes again instead of trusting size and times of files
    #[arg(long)]
    pub(crate) strict: bool,
    /// Plan as if this task (or all of a declaration) had to run
    #[arg(long, value_name = "TASK")]
    pub(crate) force: Vec<String>,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// List every task, also those that are up to date
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Which project, and which of its runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PastArgs {
    /// The project directory: the one with the workflow file
    #[arg(short = 'C', long, default_value = ".", value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The run [default: the last one]
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// The task, such as `align[sample=a]`
    pub(crate) task: String,
    #[command(flatten)]
    pub(crate) past: PastArgs,
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) past: PastArgs,
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// List all runs of the project
    #[arg(long, conflicts_with = "run")]
    pub(crate) all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// The task, such as `align[sample=a]`
    pub(crate) task: String,
    #[command(flatten)]
    pub(crate) past: PastArgs,
    /// Which attempt [default: the last one]
    #[arg(long, value_name = "N")]
    pub(crate) attempt: Option<u32>,
    /// Only the standard output
    #[arg(long, conflicts_with = "err")]
    pub(crate) out: bool,
    /// Only the standard error
    #[arg(long)]
    pub(crate) err: bool,
    /// Print the path of the file instead of what it holds
    #[arg(long)]
    pub(crate) path: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// The form of the drawing
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub(crate) format: GraphFormat,
    /// Draw files too, not only tasks
    #[arg(long)]
    pub(crate) files: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Graphviz
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
    /// A picture that needs no other program
    Svg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
    /// The project directory: the one with the workflow file
    #[arg(short = 'C', long, default_value = ".", value_name = "DIR", global = true)]
    pub(crate) directory: PathBuf,
    /// Print it as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Count what is in the cache
    Stats,
    /// Read all that is kept and tell what is damaged
    Verify,
    /// Set aside what is damaged, and make whole what can be: what cannot is made again by a run
    Repair,
    /// Remove what was not used for the longest time
    Gc {
        /// Keep at most so much, such as 20GiB
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
        /// Keep what was used in the last days
        #[arg(long, value_name = "DAYS")]
        keep_days: Option<u32>,
        /// Only tell what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// Where the files are; a directory ends with `/`
    #[arg(required_unless_present = "list", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Where to put one file [default: the last part of the URL, in this directory]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Put files into this directory
    #[arg(short = 'd', long, value_name = "DIR", conflicts_with = "output")]
    pub(crate) into: Option<PathBuf>,
    /// Another address of the same file, tried when the others fail
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Vec<String>,
    /// Read URLs from a file (`-`: standard input), one a line; a tab and a file name may follow
    #[arg(short, long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// The digest that it must have
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Fetch directories, with all that is in them
    #[arg(long)]
    pub(crate) directory: bool,
    /// Replace what is there
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Connections at once [default: 16, and 4 with one host]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    /// Print only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// Files and directories of this machine
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where they go; with a `/` at its end, or with several files, they keep their names below it
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Replace what is there
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Connections at once [default: 16, and 4 with one host]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    /// Print only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// The directory, bucket or prefix, a file, or a place in an archive (`tar:URL!/DIR/`)
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// All that is below it
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The service
    #[arg(value_enum)]
    pub(crate) service: Service,
    /// A further permission, as an error has named it
    #[arg(long, value_name = "SCOPE")]
    pub(crate) consent: Vec<String>,
}

/// What people log in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Service {
    /// Globus, which moves files between collections
    Globus,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The directory of the project
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Where to work [default: a temporary directory, removed at the end]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}
