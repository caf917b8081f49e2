//! The slots of this machine, in pools: what it has, and what the settings make of it.

use std::collections::BTreeSet;
use std::path::Path;

use keelboat_engine::core::{Admission, Pool};
use keelboat_engine::{Resources, Work};
use nix::sys::statvfs::statvfs;

use crate::settings::{Executor, Gpus, Settings};

/// The pool of those who name none.
pub(crate) const LOCAL: &str = "local";

/// Where the driver of Nvidia's GPUs lists them.
const NVIDIA_GPUS: &str = "/proc/driver/nvidia/gpus";

/// The variable that says which of them this program may use.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A pool of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalPool {
    pub(crate) pool: Pool,
    /// Its GPUs by number, as their driver knows them.
    pub(crate) gpus: Vec<String>,
}

/// What the machine has.
#[derive(Debug, Clone)]
struct Machine {
    slots: Resources,
    gpus: Vec<String>,
}

/// The pools of this machine: `local` first, then those of the settings.
pub(crate) fn pools(settings: &Settings, cores: Option<u32>, project: &Path) -> Vec<LocalPool> {
    divide(&machine(project), settings, cores)
}

/// The names of all pools of the settings, and `local`.
pub(crate) fn labels(settings: &Settings) -> Vec<String> {
    let others = settings.executors().keys().filter(|name| *name != LOCAL);
    std::iter::once(LOCAL.to_owned()).chain(others.cloned()).collect()
}

/// Those of a project. Settings that cannot be read say nothing here: a run would say so.
pub(crate) fn labels_of(project: &Path) -> Vec<String> {
    Settings::load(Some(project)).map(|settings| labels(&settings)).unwrap_or_default()
}

/// GPUs that are named go to those who name them, then others in order go to those who say how
/// many; the rest is left to `local`, unless it says how many itself.
fn divide(machine: &Machine, settings: &Settings, cores: Option<u32>) -> Vec<LocalPool> {
    let executors = settings.executors();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for executor in executors.values() {
        if let Some(Gpus::Named(names)) = &executor.gpus {
            taken.extend(names.iter().cloned());
        }
    }
    let mut made = Vec::new();
    let others = executors.iter().filter(|(name, _)| *name != LOCAL);
    for (name, executor) in others {
        let gpus = match &executor.gpus {
            Some(Gpus::Named(names)) => names.clone(),
            Some(Gpus::Count(count)) => take(machine, *count, &mut taken),
            None => Vec::new(),
        };
        let mut pool = Pool::new(name.as_str(), slots(machine, executor, &gpus));
        (pool.only, pool.admission) = (Some(Work::Commands), Admission::WhoAsks);
        made.push(LocalPool { pool, gpus });
    }
    let executor = executors.get(LOCAL).cloned().unwrap_or_default();
    let gpus = match &executor.gpus {
        Some(Gpus::Named(names)) => names.clone(),
        Some(Gpus::Count(count)) => take(machine, *count, &mut taken),
        None => machine.gpus.iter().filter(|name| !taken.contains(*name)).cloned().collect(),
    };
    let executor = Executor { cores: cores.or(executor.cores), ..executor };
    let pool = Pool::new(LOCAL, slots(machine, &executor, &gpus));
    made.insert(0, LocalPool { pool, gpus });
    made
}

fn slots(machine: &Machine, executor: &Executor, gpus: &[String]) -> Resources {
    Resources {
        cores: executor.cores.unwrap_or(machine.slots.cores).max(1),
        memory: executor.memory.unwrap_or(machine.slots.memory),
        gpus: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
        disk: executor.disk.unwrap_or(machine.slots.disk),
    }
}

/// The next GPUs that nobody has; where the machine does not tell of so many, by number.
fn take(machine: &Machine, count: u32, taken: &mut BTreeSet<String>) -> Vec<String> {
    let numbers = (0_u32..).map(|number| number.to_string());
    let free = machine.gpus.iter().cloned().chain(numbers).filter(|name| !taken.contains(name));
    let mut names = Vec::new();
    for name in free {
        if names.len() == count as usize {
            break;
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    taken.extend(names.iter().cloned());
    names
}

fn machine(project: &Path) -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let free = statvfs(project)
        .map(|found| found.blocks_available().saturating_mul(found.fragment_size()));
    let slots =
        Resources { cores, memory: memory(), disk: free.unwrap_or(u64::MAX), ..Resources::NONE };
    let visible = std::env::var(VISIBLE).ok();
    let present = std::fs::read_dir(NVIDIA_GPUS).map_or(0, |entries| entries.flatten().count());
    Machine { slots, gpus: visible_gpus(visible.as_deref(), present) }
}

/// Those that this program may use, of so many that are there.
fn visible_gpus(visible: Option<&str>, present: usize) -> Vec<String> {
    match visible {
        Some(list) => {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            // What comes behind a number that means none is not used either.
            names.take_while(|name| *name != "-1").map(str::to_owned).collect()
        }
        None => (0..present).map(|number| number.to_string()).collect(),
    }
}

fn memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim();
        kib.parse::<u64>().ok()
    });
    total.map_or(u64::MAX, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("keelboat.toml"), text).unwrap();
        Settings::load(Some(dir.path())).unwrap()
    }

    fn divided(text: &str, gpus: &[&str]) -> Vec<(String, Resources, String)> {
        let slots = Resources { cores: 8, memory: 64, gpus: 0, disk: 100 };
        let gpus = gpus.iter().map(|name| (*name).to_owned()).collect();
        let pools = divide(&Machine { slots, gpus }, &settings(text), None).into_iter();
        pools.map(|p| (p.pool.label.to_string(), p.pool.capacity, p.gpus.join(","))).collect()
    }

    #[test]
    fn without_settings_all_of_the_machine_is_one_pool() {
        let all = Resources { cores: 8, memory: 64, gpus: 2, disk: 100 };
        assert_eq!(divided("", &["0", "1"]), [("local".into(), all, "0,1".into())]);
    }

    #[test]
    fn no_two_pools_have_one_gpu() {
        let text = "[executors.a]\ngpus = 2\n[executors.b]\ngpus = [\"1\"]\ncores = 2\n\
                    [executors.local]\ndisk = \"7B\"\n";
        let found = divided(text, &["0", "1", "2", "3"]);
        let names: Vec<_> = found
            .iter()
            .map(|(name, slots, gpus)| {
                (name.as_str(), slots.cores, slots.gpus, slots.disk, gpus.as_str())
            })
            .collect();
        let expected = [("local", 8, 1, 7, "3"), ("a", 8, 2, 100, "0,2"), ("b", 2, 1, 100, "1")];
        assert_eq!(names, expected);
    }

    #[test]
    fn gpus_that_no_driver_tells_of_have_numbers() {
        let found = divided("[executors.local]\ngpus = 3\n", &[]);
        assert_eq!((found[0].1.gpus, found[0].2.as_str()), (3, "0,1,2"));
    }

    #[test]
    fn what_this_program_may_not_use_is_not_given_to_tasks() {
        assert_eq!(visible_gpus(None, 2), ["0", "1"]);
        assert_eq!(visible_gpus(Some("3, GPU-5f"), 8), ["3", "GPU-5f"]);
        assert!(visible_gpus(Some(""), 2).is_empty());
        assert_eq!(visible_gpus(Some("1,-1,0"), 2), ["1"]);
    }
}
