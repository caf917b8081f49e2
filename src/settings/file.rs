//! What a file of settings can say, and how one is put over another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::flow::Durability;

use keelboat_executors::{ContainerTool, MpiLauncher};

/// One file, or several put over one another. What is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) staging: Staging,
    /// Collections whose files are on this machine.
    pub(super) collections: Option<Vec<Collection>>,
    /// Pools of slots of this machine, by name.
    pub(super) executors: BTreeMap<String, Executor>,
    /// When the disk is told of results.
    pub(super) durability: Option<Durability>,
    pub(super) containers: Containers,
    pub(super) mpi: Mpi,
}

/// What starts MPI programs. What is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mpi {
    pub(super) launcher: Option<MpiLauncher>,
    pub(super) args: Option<Vec<String>>,
}

/// What runs containers. What is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Containers {
    pub(super) tool: Option<ContainerTool>,
    pub(super) args: Option<Vec<String>>,
}

/// Slots of this machine that are given out together. What is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Executor {
    pub(crate) cores: Option<u32>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) gpus: Option<Gpus>,
    /// Bytes.
    pub(crate) disk: Option<u64>,
}

/// Which GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gpus {
    /// So many of those that no other one names.
    Count(u32),
    /// These, as their driver knows them.
    Named(Vec<String>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Staging {
    pub(super) connections: Option<u32>,
    pub(super) connections_per_host: Option<u32>,
    /// Bytes per second.
    pub(super) bandwidth: Option<u64>,
    /// Bytes.
    pub(super) space_max: Option<u64>,
    /// Bytes.
    pub(super) unpacked_max: Option<u64>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) first_byte_timeout: Option<Duration>,
    pub(super) stall_timeout: Option<Duration>,
    pub(super) rate_min: Option<u64>,
    pub(super) tries: Option<u32>,
    pub(super) retry_for: Option<Duration>,
    pub(super) private_addresses: Option<Private>,
    pub(super) certificates: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    /// By names in lower case.
    pub(super) schemes: BTreeMap<String, OneLimit>,
    /// By names in lower case.
    pub(super) hosts: BTreeMap<String, OneLimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Private {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OneLimit {
    pub(super) connections: Option<u32>,
    /// Bytes per second.
    pub(super) bandwidth: Option<u64>,
}

/// A collection whose files are on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collection {
    pub(super) id: String,
    /// The directory on this machine.
    pub(super) path: PathBuf,
    /// What that directory is called on the collection.
    pub(super) root: String,
}

impl File {
    /// What this file says, and where it says nothing, what `under` does: key by key, but for the
    /// list of collections.
    pub(super) fn over(self, under: Self) -> Self {
        let (over, under_staging) = (self.staging, under.staging);
        Self {
            staging: Staging {
                connections: over.connections.or(under_staging.connections),
                connections_per_host: over
                    .connections_per_host
                    .or(under_staging.connections_per_host),
                bandwidth: over.bandwidth.or(under_staging.bandwidth),
                space_max: over.space_max.or(under_staging.space_max),
                unpacked_max: over.unpacked_max.or(under_staging.unpacked_max),
                connect_timeout: over.connect_timeout.or(under_staging.connect_timeout),
                first_byte_timeout: over.first_byte_timeout.or(under_staging.first_byte_timeout),
                stall_timeout: over.stall_timeout.or(under_staging.stall_timeout),
                rate_min: over.rate_min.or(under_staging.rate_min),
                tries: over.tries.or(under_staging.tries),
                retry_for: over.retry_for.or(under_staging.retry_for),
                private_addresses: over.private_addresses.or(under_staging.private_addresses),
                certificates: over.certificates.or(under_staging.certificates),
                known_hosts: over.known_hosts.or(under_staging.known_hosts),
                schemes: one_over(over.schemes, under_staging.schemes),
                hosts: one_over(over.hosts, under_staging.hosts),
            },
            collections: self.collections.or(under.collections),
            executors: executors_over(self.executors, under.executors),
            durability: self.durability.or(under.durability),
            containers: Containers {
                tool: self.containers.tool.or(under.containers.tool),
                args: self.containers.args.or(under.containers.args),
            },
            mpi: Mpi {
                launcher: self.mpi.launcher.or(under.mpi.launcher),
                args: self.mpi.args.or(under.mpi.args),
            },
        }
    }
}

fn one_over(
    over: BTreeMap<String, OneLimit>,
    mut under: BTreeMap<String, OneLimit>,
) -> BTreeMap<String, OneLimit> {
    for (name, OneLimit { connections, bandwidth }) in over {
        let limit = under.entry(name).or_default();
        limit.connections = connections.or(limit.connections);
        limit.bandwidth = bandwidth.or(limit.bandwidth);
    }
    under
}

fn executors_over(
    over: BTreeMap<String, Executor>,
    mut under: BTreeMap<String, Executor>,
) -> BTreeMap<String, Executor> {
    for (name, Executor { cores, memory, gpus, disk }) in over {
        let executor = under.entry(name).or_default();
        executor.cores = cores.or(executor.cores);
        executor.memory = memory.or(executor.memory);
        executor.gpus = gpus.or_else(|| executor.gpus.take());
        executor.disk = disk.or(executor.disk);
    }
    under
}
