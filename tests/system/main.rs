//! Whole-system tests: the program itself, its processes killed, its files damaged, its input bad.
//!
//! Nothing here looks inside: what counts is what a user sees. Exit codes, texts, events as JSON,
//! files, and how often a task ran, which the tasks count themselves.

#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/project.rs"]
mod project;
#[path = "../common/server.rs"]
mod server;

mod asking;
mod bad_input;
mod checkpoints;
mod containers;
mod disk;
mod examples;
mod fetching;
mod interrupt;
mod kept;
mod mpi;
mod options;
mod outputs;
mod programs;
mod putting;
mod space;
mod staging;
mod transfers;
