//! Reading `mpi`: how many processes, on how many machines.

use keelboat_engine::Ranks;

use super::reader::{Reader, Spot};

const RANKS_MAX: i64 = 65_536;

const HELP: &str = "write mpi = { ranks = 8 }";

impl Reader<'_> {
    /// Two of nodes, ranks and ranks of each node say the third.
    pub(super) fn mpi(&mut self, value: &Spot<'_>) -> Option<Ranks> {
        let table = self.table(value, "mpi", HELP)?;
        self.check_keys(table, &["nodes", "ranks", "ranks_per_node"], "mpi");
        let before = self.problems.len();
        let mut number = |key| {
            let number = self.integer(table.get(key)?, key, 1..=RANKS_MAX)?;
            u32::try_from(number).ok()
        };
        let (nodes, ranks, per_node) = (number("nodes"), number("ranks"), number("ranks_per_node"));
        if self.problems.len() > before {
            return None;
        }
        let made = Ranks::of(nodes, ranks, per_node).and_then(Ranks::on_this_machine);
        made.map_err(|message| {
            let problem = self.problem(value.span(), message).help(HELP);
            self.problems.push(problem);
        })
        .ok()
    }
}
