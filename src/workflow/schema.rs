//! The JSON Schema of the workflow file, for editors.
//!
//! These types are never filled: the file is read by hand, for the sake of its errors. A test holds
//! their keys against those that are read.

#![expect(dead_code, reason = "the types are there for their schema")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};

/// The JSON Schema of the workflow file.
pub fn schema() -> serde_json::Value {
    schema_for!(WorkflowFile).to_value()
}

/// A Keelboat workflow.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkflowFile {
    /// The workflow as a whole.
    workflow: Option<WorkflowTable>,
    /// Options of all tasks that do not say otherwise.
    defaults: Option<OptionsTable>,
    /// Other workflow files whose tasks belong to this one, relative to this file.
    include: Option<OneOrMany<String>>,
    /// The tasks, by name.
    task: Option<BTreeMap<String, TaskTable>>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkflowTable {
    /// The name of the workflow; the file's own name when left out.
    name: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// Parameters with their defaults; `--set name=value` gives others.
    params: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct OptionsTable {
    /// Environment variables, part of the memo key.
    env: Option<BTreeMap<String, Scalar>>,
    /// Processor cores, 1 when left out.
    #[schemars(range(min = 1, max = 65536))]
    cores: Option<u32>,
    /// Memory with a unit, such as "4GiB", or the first and the most of it.
    memory: Option<Memory>,
    /// GPUs; no two tasks share one.
    #[schemars(range(max = 1024))]
    gpus: Option<u32>,
    /// Room for scratch files with a unit, such as "50GB".
    disk: Option<String>,
    /// Of tasks that wait for the same slots those with a higher one go first, 0 when left out.
    priority: Option<i32>,
    /// The longest that one attempt may run, such as "2h".
    timeout: Option<String>,
    /// Tries after the first one.
    #[schemars(range(max = 1000))]
    retries: Option<u32>,
    /// The exit codes that are worth another try; after any other one the task fails at once.
    retry_on: Option<OneOrMany<u8>>,
    /// Exit codes after which the task fails at once.
    fail_on: Option<OneOrMany<u8>>,
    /// Exit codes that mean that the task, and what needs it, is to be skipped.
    skip_on: Option<OneOrMany<u8>>,
    /// What failures cost of the retries, by exit code, signal, `timeout`, `oom` or `lost`.
    retry_cost: Option<BTreeMap<String, Cost>>,
    /// The wait before a retry, such as "5s", or the shortest and the longest one.
    backoff: Option<Backoff>,
    /// Whether earlier results are used and new ones remembered.
    cache: Option<Cache>,
    /// Version of what is run, part of the memo key.
    version: Option<String>,
    /// The image of a container that it runs in, part of the memo key; `false`: none.
    container: Option<Container>,
    /// The executor that it runs in, or several of which the first that is free is taken.
    executor: Option<OneOrMany<String>>,
    /// The shell for `run`, such as `["bash", "-euo", "pipefail", "-c"]`.
    shell: Option<Vec<String>>,
    /// A directory whose files are kept for the next attempt when one fails.
    checkpoint: Option<String>,
    /// How often they are saved while the task runs, such as "10m".
    checkpoint_every: Option<String>,
    /// Whether what attempts leave in their directories stays to be looked into.
    keep_scratch: Option<KeepScratch>,
}

/// A task, or with `foreach` as many as there are values.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct TaskTable {
    /// Variables and their values; each combination is a task.
    foreach: Option<BTreeMap<String, Values>>,
    /// Files that the task reads, by label.
    inputs: Option<BTreeMap<String, OneOrMany<Input>>>,
    /// Files that the task writes, by label.
    outputs: Option<BTreeMap<String, OneOrMany<Output>>>,
    /// What it prints on its standard output, as a file: an output with the label `stdout`.
    stdout: Option<Printed>,
    /// What it prints on its standard error, as a file: an output with the label `stderr`.
    stderr: Option<Printed>,
    /// A script for a shell; values are quoted.
    run: Option<String>,
    /// A program and its arguments, without a shell.
    argv: Option<Vec<String>>,
    /// Tasks that must have succeeded first.
    after: Option<OneOrMany<String>>,
    /// What the task is for.
    description: Option<String>,
    /// Environment variables, part of the memo key.
    env: Option<BTreeMap<String, Scalar>>,
    /// Processor cores, 1 when left out.
    #[schemars(range(min = 1, max = 65536))]
    cores: Option<u32>,
    /// Memory with a unit, such as "4GiB", or the first and the most of it.
    memory: Option<Memory>,
    /// GPUs; no two tasks share one.
    #[schemars(range(max = 1024))]
    gpus: Option<u32>,
    /// Room for scratch files with a unit, such as "50GB".
    disk: Option<String>,
    /// Of tasks that wait for the same slots those with a higher one go first, 0 when left out.
    priority: Option<i32>,
    /// The longest that one attempt may run, such as "2h".
    timeout: Option<String>,
    /// Tries after the first one.
    #[schemars(range(max = 1000))]
    retries: Option<u32>,
    /// The exit codes that are worth another try; after any other one the task fails at once.
    retry_on: Option<OneOrMany<u8>>,
    /// Exit codes after which the task fails at once.
    fail_on: Option<OneOrMany<u8>>,
    /// Exit codes that mean that the task, and what needs it, is to be skipped.
    skip_on: Option<OneOrMany<u8>>,
    /// What failures cost of the retries, by exit code, signal, `timeout`, `oom` or `lost`.
    retry_cost: Option<BTreeMap<String, Cost>>,
    /// The wait before a retry, such as "5s", or the shortest and the longest one.
    backoff: Option<Backoff>,
    /// Whether earlier results are used and new ones remembered.
    cache: Option<Cache>,
    /// Version of what is run, part of the memo key.
    version: Option<String>,
    /// The image of a container that it runs in, part of the memo key; `false`: none.
    container: Option<Container>,
    /// The executor that it runs in, or several of which the first that is free is taken.
    executor: Option<OneOrMany<String>>,
    /// The shell for `run`, such as `["bash", "-euo", "pipefail", "-c"]`.
    shell: Option<Vec<String>>,
    /// A directory whose files are kept for the next attempt when one fails.
    checkpoint: Option<String>,
    /// How often they are saved while the task runs, such as "10m".
    checkpoint_every: Option<String>,
    /// Whether what attempts leave in their directories stays to be looked into.
    keep_scratch: Option<KeepScratch>,
    /// Of how many processes it consists that talk by MPI.
    mpi: Option<Mpi>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(f64),
    Bool(bool),
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Cache {
    Both(bool),
    Half(PartOfTheCache),
    Part(PartOfTheKey),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct PartOfTheKey {
    /// Variables of env that make no difference to what the task writes.
    ignore: Vec<String>,
}

/// Two of the numbers say the third; without nodes there is one.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mpi {
    /// Machines.
    #[schemars(range(min = 1, max = 65536))]
    nodes: Option<u32>,
    /// All processes.
    #[schemars(range(min = 1, max = 65536))]
    ranks: Option<u32>,
    /// Processes on each machine.
    #[schemars(range(min = 1, max = 65536))]
    ranks_per_node: Option<u32>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Container {
    Image(String),
    None(bool),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum KeepScratch {
    Never,
    Failed,
    Always,
}

#[derive(JsonSchema)]
enum PartOfTheCache {
    #[serde(rename = "read-only")]
    ReadOnly,
    #[serde(rename = "failures")]
    Failures,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Cost {
    Retries(f64),
    All(AllOfThem),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AllOfThem {
    All,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Memory {
    Fixed(String),
    Growing(MemoryTable),
}

/// Memory that grows each time that it ran out.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct MemoryTable {
    /// What the first attempt asks for.
    first: String,
    /// The most; what the largest site has, when left out.
    max: Option<String>,
    /// By how much it grows, 2 when left out.
    #[schemars(range(min = 1.1, max = 100))]
    factor: Option<f64>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Backoff {
    Wait(String),
    Range(BackoffTable),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackoffTable {
    /// The wait before the first retry; doubled for each one after it.
    min: Option<String>,
    /// The longest wait.
    max: Option<String>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Input {
    /// A path or an address.
    Text(String),
    Table(InputTable),
}

/// One of path, url, urls, from and text.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct InputTable {
    /// A path, relative to the project directory.
    path: Option<String>,
    /// An address.
    url: Option<String>,
    /// Addresses of the same file, the preferred one first.
    urls: Option<Vec<String>>,
    /// The bytes themselves.
    text: Option<String>,
    /// Outputs of another task: "task.label".
    from: Option<String>,
    /// The digest that the file must have.
    sha256: Option<String>,
    /// Its name in the task's directory.
    r#as: Option<String>,
    /// Whether the task also runs without it.
    optional: Option<bool>,
    /// Whether it is a directory.
    directory: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Output {
    /// A path; one that ends with `/` is a directory.
    Text(String),
    Table(OutputTable),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct OutputTable {
    /// Where it appears after success.
    path: String,
    /// A path or file: address that it is copied to after success.
    to: Option<String>,
    /// Whether the task may leave it out.
    optional: Option<bool>,
    /// Whether it is a directory.
    directory: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Printed {
    /// A path.
    Text(String),
    Table(PrintedTable),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct PrintedTable {
    /// Where it appears after success.
    path: String,
    /// A path or an address that it is copied to after success.
    to: Option<String>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Values {
    /// The values themselves.
    List(Vec<serde_json::Value>),
    Source(SourceTable),
    /// `zip`: variables that advance together.
    Zip(BTreeMap<String, ZippedValues>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum ZippedValues {
    List(Vec<serde_json::Value>),
    Source(SourceTable),
}

/// One of csv, tsv, glob, range and from.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourceTable {
    /// A table with commas and a header.
    csv: Option<String>,
    /// A table with tabs and a header.
    tsv: Option<String>,
    /// A pattern of paths.
    glob: Option<String>,
    /// Whole numbers: an end, [start, end] or [start, end, step]; the end is not included.
    range: Option<Range>,
    /// An output of another task: "task.label".
    from: Option<String>,
    /// How that output is read.
    format: Option<Format>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
enum Range {
    End(i64),
    Numbers(Vec<i64>),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Lines,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::{load, read_files, read_foreach, read_task};

    fn keys(schema: &serde_json::Value) -> Vec<&str> {
        let properties = schema.get("properties").and_then(|value| value.as_object());
        let mut keys: Vec<&str> =
            properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema = schema();
        let sorted = |known: &[&'static str]| {
            let mut known = known.to_vec();
            known.sort_unstable();
            known
        };
        assert_eq!(keys(&schema), sorted(&load::ROOT_KEYS));
        for (definition, known) in [
            ("WorkflowTable", &load::WORKFLOW_KEYS[..]),
            ("OptionsTable", &read_task::OPTION_KEYS),
            ("TaskTable", &read_task::TASK_KEYS),
            ("InputTable", &read_files::INPUT_KEYS),
            ("OutputTable", &read_files::OUTPUT_KEYS),
            ("PrintedTable", &read_files::PRINTED_KEYS),
            ("SourceTable", &read_foreach::SOURCE_KEYS),
        ] {
            assert_eq!(keys(&schema["$defs"][definition]), sorted(known), "{definition}");
        }
    }
}
