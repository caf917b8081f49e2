//! Running attempts: processes that die with the engine.
//!
//! [`Executor`] is the port, [`LocalExecutor`] runs attempts as processes of this machine, through
//! a small process of its own, the warden ([`warden_main`]). Deliberately absent: how many
//! attempts run at once, which ones, and whether a failed one is tried again; the engine decides.

mod container;
mod leftovers;
mod local;
mod mark;
mod mpi;
mod oom;
mod outcome;
mod port;
mod procfs;
mod search;
mod sys;
mod warden;
mod wire;

pub use container::{ContainerConfig, ContainerError, ContainerTool, Containers, container_hint};
pub use leftovers::kill_leftovers;
pub use local::{ExecutorError, LocalConfig, LocalExecutor, WardenCommand};
pub use mark::MARK_VARIABLE;
pub use mpi::{MpiConfig, MpiLauncher};
pub use port::{Executor, LaunchSpec, Sink};
pub use warden::{warden, warden_main};
