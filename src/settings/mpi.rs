//! Reading `[mpi]`.

use keelboat_executors::{MpiConfig, MpiLauncher};

use super::file::Mpi;
use super::read::Reading;
use crate::workflow::near::suggestion;
use crate::workflow::reader::Spot;

const HELP: &str = "write [mpi] on a line of its own, and below it launcher = \"mpirun\" or \
                    args = [\"--bind-to\", \"core\"]";

const ARGS: &str = "write one word in each item, such as args = [\"--bind-to\", \"core\"]";

impl Reading<'_> {
    pub(super) fn mpi(&mut self, value: &Spot<'_>) -> Mpi {
        let Some(table) = self.reader.table(value, "mpi", HELP) else { return Mpi::default() };
        self.reader.check_keys(table, &["launcher", "args"], "[mpi]");
        Mpi {
            launcher: table.get("launcher").and_then(|value| self.launcher(value)),
            args: table.get("args").and_then(|value| self.words(value, "args", ARGS)),
        }
    }

    /// They are put into a variable that a shell cuts into words.
    fn words(&mut self, value: &Spot<'_>, key: &str, help: &str) -> Option<Vec<String>> {
        let words = self.strings(value, key, help)?;
        let odd =
            |word: &&String| word.is_empty() || word.contains([' ', '\t', '\n', '*', '?', '[']);
        if let Some(word) = words.iter().find(odd) {
            self.report(value, format!("{word:?} is no single word for a shell"), help);
            return None;
        }
        Some(words)
    }

    fn launcher(&mut self, value: &Spot<'_>) -> Option<MpiLauncher> {
        let help = "write for example launcher = \"mpirun\"";
        let name = self.reader.string(value, "launcher", help)?;
        let found = MpiLauncher::ALL.into_iter().find(|launcher| launcher.name() == &*name);
        if found.is_none() {
            let known = MpiLauncher::ALL.map(MpiLauncher::name);
            let message = format!("MPI programs cannot be started by `{name}`");
            self.report(value, message, &suggestion(&name, known, "launcher"));
        }
        found
    }
}

impl Mpi {
    pub(super) fn config(&self) -> MpiConfig {
        MpiConfig { launcher: self.launcher, args: self.args.clone().unwrap_or_default() }
    }
}
