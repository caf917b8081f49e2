//! Keelboat: a workflow engine that moves data as carefully as it runs tasks.
//!
//! The root package introduces the parts to each other: the [`workflow`] file becomes tasks, the
//! [`driver`] runs them with the decisions of `keelboat-engine` and the deeds of the edge crates,
//! and [`cli`] shows people what happens.

pub mod cli;
mod demo;
mod diagnosis;
pub mod driver;
mod project;
mod settings;
mod size;
pub mod workflow;

pub use project::{Project, RunDir};
pub use settings::{Settings, SettingsError};
