//! Reading `[journal]`.

use toml::de::DeTable;

use super::read::{Reading, parse_span};
use crate::flow::Durability;
use crate::workflow::reader::Spot;

const HELP: &str = "write [journal] on a line of its own, and below it durability = \"grouped\"";

const DURABILITY: &str =
    "write durability = \"grouped\", \"each-task\" or \"at-close\", or how often, such as \"1m\"";

impl Reading<'_> {
    pub(super) fn journal(&mut self, value: &Spot<'_>) -> Option<Durability> {
        let table = self.reader.table(value, "journal", HELP)?;
        self.reader.check_keys(table, &["durability"], "[journal]");
        self.durability(table)
    }

    fn durability(&mut self, table: &DeTable<'_>) -> Option<Durability> {
        let value = table.get("durability")?;
        let text = self.reader.string(value, "durability", DURABILITY)?;
        let said = match &*text {
            "grouped" => Some(Durability::Grouped),
            "each-task" => Some(Durability::EachTask),
            "at-close" => Some(Durability::AtClose),
            span => parse_span(span).map(Durability::Every),
        };
        if said.is_none() {
            self.report(value, format!("durability cannot be {text:?}"), DURABILITY);
        }
        said
    }
}
