//! Reading `[executors.NAME]`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::file::{Executor, Gpus};
use super::read::Reading;
use crate::size::parse_size;
use crate::workflow::reader::{Spot, in_order, integer_of};

/// The most GPUs of one machine.
const GPUS_MAX: i64 = 1_024;

const HELP: &str =
    "write [executors.big] on a line of its own, and below it cores = 8 or memory = \"64GiB\"";

const GPUS: &str = "write how many, such as gpus = 2, or which, such as gpus = [\"0\", \"3\"]";

impl Reading<'_> {
    pub(super) fn executors(&mut self, value: &Spot<'_>) -> BTreeMap<String, Executor> {
        let mut executors = BTreeMap::new();
        let Some(table) = self.reader.table(value, "executors", HELP) else { return executors };
        for (name, value) in in_order(table) {
            let name: &str = name.get_ref();
            let what = format!("executors.{name}");
            if !is_label(name) {
                let message = format!("{name:?} cannot be the name of an executor");
                let help = "use letters, digits, `_` and `-`, at most 100 of them";
                self.report(value, message, help);
            }
            let Some(table) = self.reader.table(value, &what, HELP) else { continue };
            let keys = ["cores", "memory", "gpus", "disk"];
            self.reader.check_keys(table, &keys, &format!("[{what}]"));
            let executor = Executor {
                cores: self.count(table, "cores", 8),
                memory: self.parsed(table, "memory", "64GiB", parse_size),
                gpus: self.gpus(table),
                disk: self.parsed(table, "disk", "500GB", parse_size),
            };
            executors.insert(name.to_owned(), executor);
        }
        executors
    }

    fn gpus(&mut self, table: &DeTable<'_>) -> Option<Gpus> {
        let value = table.get("gpus")?;
        if let DeValue::Array(list) = value.get_ref() {
            let names = list.iter().filter_map(|item| {
                let name = self.reader.string(item, "each of gpus", GPUS)?;
                Some(name.as_ref().to_owned())
            });
            return Some(Gpus::Named(names.collect()));
        }
        let Some(count) = integer_of(value.get_ref()) else {
            self.reader.wrong_kind(value, "gpus", "a number or a list", GPUS);
            return None;
        };
        if !(0..=GPUS_MAX).contains(&count) {
            self.report(value, format!("gpus = {count} is out of range"), GPUS);
        }
        u32::try_from(count).ok().map(Gpus::Count)
    }
}

fn is_label(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 100 && name.chars().all(is_good)
}
