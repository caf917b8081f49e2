//! Keelboat: a workflow engine that moves data as carefully as it runs tasks.
//!
//! The root package introduces the parts to each other: the [`workflow`] file becomes tasks, the
//! [`driver`] runs them with the decisions of `keelboat-engine` and the deeds of the edge crates,
//! and [`cli`] shows people what happens.
//!
//! Programs that are workflows themselves begin at [`flow`].

pub mod cli;
mod demo;
mod diagnosis;
pub mod driver;
pub mod flow;
mod project;
mod recent;
mod settings;
mod size;
pub mod workflow;

/// To be called first in `main` of a program that runs commands by a [`flow::Flow`].
///
/// A small process starts and ends the commands, so that none is left when the program is killed.
/// It is the program itself, started once more: this call is where it turns off. So nothing should
/// come before it, not even a runtime. Programs that run no commands do not need it.
///
/// ```no_run
/// use keelboat::flow::{Config, Flow};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     keelboat::init();
///     let flow = Flow::open(Config::new("."))?;
///     let made = flow.command("date > {{ outputs.now }}").output("now", "now.txt").submit();
///     println!("{}", made.output("now").wait()?.display());
///     Ok(())
/// }
/// ```
pub fn init() {
    driver::turn_off_if_warden();
}

/// Gives a function the options that it is a task by.
///
/// ```
/// use keelboat::flow::{Config, Flow};
///
/// /// Counts bases, by as many threads as it is told.
/// #[keelboat::task(version = "2", memory = "64 MiB", timeout = "10 min", retries = 3, ignore = ["threads"])]
/// fn count(bases: String, threads: u32) -> Result<usize, String> {
///     if threads == 0 {
///         return Err("it needs a thread".to_owned());
///     }
///     Ok(bases.len())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let flow = Flow::open(Config::new(directory))?;
/// let counted = count::task(&flow).try_call(("acgt", 4));
/// assert_eq!(counted.wait()?, 4);
/// // It is a function like any other, and what it makes is a task like any other.
/// assert_eq!(count("acgt".to_owned(), 1)?, 4);
/// let urgent = count::task(&flow).priority(9).try_call(("ac", 1));
/// assert_eq!(urgent.wait()?, 2);
/// # Ok(())
/// # }
/// ```
///
/// A mistake in it is an error of the compiler, where it stands:
///
/// ```compile_fail
/// #[keelboat::task(memory = "2 gigs")]
/// fn large() {}
/// ```
pub use keelboat_macros::task;
pub use project::{Project, RunDir};
pub use settings::{Settings, SettingsError};

/// What the documents say in Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/from-parsl.md")]
#[derive(Debug)]
pub struct Documents;
