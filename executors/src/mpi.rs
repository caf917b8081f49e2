//! Commands of several processes that talk by MPI: what starts them.

use std::ffi::OsStr;

use keelboat_engine::{Failure, FailureClass, Ranks};

use crate::search::program_in;

/// A program that starts the processes of an MPI program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MpiLauncher {
    /// Of Open MPI, MPICH and others.
    Mpirun,
    /// The same by the name that the standard gives it.
    Mpiexec,
    /// Slurm's.
    Srun,
}

impl MpiLauncher {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Mpirun, Self::Mpiexec, Self::Srun];

    /// The name of its program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mpirun => "mpirun",
            Self::Mpiexec => "mpiexec",
            Self::Srun => "srun",
        }
    }
}

/// Which launcher, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MpiConfig {
    /// The launcher; the first one that is there when not said.
    pub launcher: Option<MpiLauncher>,
    /// Put behind the numbers in its command line. Without white space.
    pub args: Vec<String>,
}

impl MpiConfig {
    /// What comes before a program so that it runs as so many processes, each with so many cores.
    /// `found_by`: the `PATH` to look for a launcher in; `None`: it is not on this machine.
    ///
    /// # Errors
    /// There is no launcher.
    pub fn prefix(
        &self,
        ranks: Ranks,
        cores: u32,
        found_by: Option<&OsStr>,
    ) -> Result<Vec<String>, Failure> {
        let is_here = |launcher: &MpiLauncher| {
            found_by.is_none_or(|path| program_in(launcher.name(), path).is_some())
        };
        let launcher = match self.launcher {
            Some(launcher) if is_here(&launcher) => launcher,
            Some(launcher) => return Err(missing(launcher)),
            None => MpiLauncher::ALL.into_iter().find(is_here).ok_or_else(none)?,
        };
        let mut words = vec![launcher.name().to_owned()];
        match launcher {
            MpiLauncher::Mpirun | MpiLauncher::Mpiexec => {
                words.extend(["-n".to_owned(), ranks.total().to_string()]);
            }
            MpiLauncher::Srun => words.extend([
                format!("--nodes={}", ranks.nodes),
                format!("--ntasks={}", ranks.total()),
                format!("--ntasks-per-node={}", ranks.per_node),
                format!("--cpus-per-task={}", cores.max(1)),
            ]),
        }
        words.extend(self.args.iter().cloned());
        Ok(words)
    }
}

fn none() -> Failure {
    let cause =
        "there is nothing to start an MPI program by: none of mpirun, mpiexec and srun is in PATH";
    Failure::new(FailureClass::Permanent, cause).with_hint(
        "install one of them, such as MPICH (`apt-get install mpich`), and see that it is in PATH",
    )
}

fn missing(launcher: MpiLauncher) -> Failure {
    let name = launcher.name();
    let cause =
        format!("there is no {name} in PATH, and the settings say to start MPI programs by it");
    Failure::new(FailureClass::Permanent, cause)
        .with_hint("install it, or name another one in keelboat.toml: [mpi] launcher = \"mpirun\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(launcher: Option<MpiLauncher>, args: &[&str], path: Option<&OsStr>) -> String {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let config = MpiConfig { launcher, args };
        match config.prefix(Ranks { nodes: 2, per_node: 4 }, 3, path) {
            Ok(words) => words.join(" "),
            Err(failure) => format!("{failure}: {:?}", failure.hint),
        }
    }

    #[test]
    fn each_launcher_is_told_the_numbers() {
        assert_eq!(prefix(None, &[], None), "mpirun -n 8");
        assert_eq!(
            prefix(Some(MpiLauncher::Mpiexec), &["--bind-to", "core"], None),
            "mpiexec -n 8 --bind-to core"
        );
        assert_eq!(
            prefix(Some(MpiLauncher::Srun), &["--mpi=pmix"], None),
            "srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=3 --mpi=pmix"
        );
    }

    #[test]
    fn a_launcher_that_is_not_there_is_an_error() {
        let nowhere = Some(OsStr::new("/no/such/directory"));
        let told = prefix(None, &[], nowhere);
        for part in ["mpirun, mpiexec and srun", "apt-get install mpich"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(prefix(Some(MpiLauncher::Srun), &[], nowhere).contains("no srun in PATH"));
    }
}
