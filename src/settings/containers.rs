//! Reading `[containers]`.

use keelboat_executors::ContainerTool;

use super::file::Containers;
use super::read::Reading;
use crate::workflow::near::suggestion;
use crate::workflow::reader::Spot;

const HELP: &str = "write [containers] on a line of its own, and below it tool = \"podman\" or \
                    args = [\"--network=none\"]";

const ARGS: &str = "write for example args = [\"--network=none\"]";

impl Reading<'_> {
    pub(super) fn containers(&mut self, value: &Spot<'_>) -> Containers {
        let Some(table) = self.reader.table(value, "containers", HELP) else {
            return Containers::default();
        };
        self.reader.check_keys(table, &["tool", "args"], "[containers]");
        Containers {
            tool: table.get("tool").and_then(|value| self.tool(value)),
            args: table.get("args").and_then(|value| self.strings(value, "args", ARGS)),
        }
    }

    fn tool(&mut self, value: &Spot<'_>) -> Option<ContainerTool> {
        let name = self.reader.string(value, "tool", "write for example tool = \"podman\"")?;
        let found = ContainerTool::ALL.into_iter().find(|tool| tool.name() == &*name);
        if found.is_none() {
            let known = ContainerTool::ALL.map(ContainerTool::name);
            let message = format!("containers cannot be run by `{name}`");
            self.report(value, message, &suggestion(&name, known, "tool"));
        }
        found
    }
}
