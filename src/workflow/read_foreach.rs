//! From `foreach` to dimensions.

use std::sync::Arc;

use super::declaration::{Dimension, Item, Row, Values, Variable};
use super::reader::{NameRule, Reader, Spot, in_order, integer_of, kind_of, scalar_of};

use toml::de::{DeTable, DeValue};

/// Names that mean something else in templates.
pub(super) const RESERVED: [&str; 24] = [
    "inputs",
    "outputs",
    "params",
    "name",
    "cores",
    "memory_mib",
    "loop",
    "zip",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "and",
    "or",
    "not",
    "is",
    "in",
    "if",
    "else",
    "for",
    "self",
    "range",
];

/// The keys of a variable that is a table.
pub(super) const SOURCE_KEYS: [&str; 6] = ["csv", "tsv", "glob", "range", "from", "format"];

const HELP: &str = "write foreach = { x = [\"a\", \"b\"] }, or in place of the list \
                    { csv = \"FILE\" }, { tsv = \"FILE\" }, { glob = \"PATTERN\" }, \
                    { range = [0, 10] } or { from = \"task.output\" }";

impl Reader<'_> {
    pub(super) fn foreach(&mut self, value: &Spot<'_>) -> Vec<Dimension> {
        let Some(table) = self.table(value, "foreach", HELP) else {
            return Vec::new();
        };
        let mut dimensions = Vec::new();
        for (key, value) in in_order(table) {
            if key.get_ref() == "zip" {
                dimensions.extend(self.zip(value));
            } else if let Some(variable) = self.variable(key, value) {
                dimensions.push(Dimension { variables: vec![variable] });
            }
        }
        if table.is_empty() {
            let problem = self.problem(value.span(), "foreach names no variable").help(HELP);
            self.problems.push(problem);
        }
        dimensions
    }

    /// Variables that advance together.
    fn zip(&mut self, value: &Spot<'_>) -> Option<Dimension> {
        let help = "write foreach = { zip = { a = [1, 2], b = [\"x\", \"y\"] } }";
        let table = self.table(value, "zip", help)?;
        let variables: Vec<Variable> = in_order(table)
            .into_iter()
            .filter_map(|(key, value)| self.variable(key, value))
            .collect();
        if table.is_empty() {
            let problem = self.problem(value.span(), "zip names no variable").help(help);
            self.problems.push(problem);
        }
        (!variables.is_empty()).then_some(Dimension { variables })
    }

    fn variable(
        &mut self,
        key: &toml::Spanned<std::borrow::Cow<'_, str>>,
        value: &Spot<'_>,
    ) -> Option<Variable> {
        let name = self.name(key, "a variable", NameRule::Identifier);
        if RESERVED.contains(&name.as_ref()) {
            let problem = self
                .problem(key.span(), format!("a variable cannot be called `{name}`"))
                .help("this name means something else in templates; choose another one");
            self.problems.push(problem);
            return None;
        }
        let values = match value.get_ref() {
            DeValue::Array(array) => {
                Values::List(array.iter().filter_map(|value| self.item(value)).collect())
            }
            DeValue::Table(table) => self.source(&name, value, table)?,
            _ => {
                self.wrong_kind(value, &format!("foreach.{name}"), "a list or a table", HELP);
                return None;
            }
        };
        Some(Variable { name, place: self.place(key.span()), values })
    }

    fn item(&mut self, value: &Spot<'_>) -> Option<Item> {
        if let Some(scalar) = scalar_of(value.get_ref()) {
            return Some(Item::Scalar(scalar));
        }
        if let DeValue::Table(table) = value.get_ref() {
            let entries = in_order(table);
            let mut cells = Vec::with_capacity(entries.len());
            for (key, value) in &entries {
                let Some(scalar) = scalar_of(value.get_ref()) else {
                    let what = format!("`{}` of a row", key.get_ref());
                    self.wrong_kind(
                        value,
                        &what,
                        "one value",
                        "write a string, a number, true or false",
                    );
                    return None;
                };
                cells.push(scalar);
            }
            let columns = entries.iter().map(|(key, _)| key.get_ref().as_ref().into()).collect();
            return Some(Item::Row(Arc::new(Row { columns, cells })));
        }
        self.wrong_kind(
            value,
            "an item of foreach",
            "one value",
            "write a string, a number or a table",
        );
        None
    }

    fn source(&mut self, name: &str, value: &Spot<'_>, table: &DeTable<'_>) -> Option<Values> {
        self.check_keys(table, &SOURCE_KEYS, &format!("foreach.{name}"));
        let given: Vec<_> = in_order(table)
            .into_iter()
            .filter(|(key, _)| SOURCE_KEYS[..5].contains(&key.get_ref().as_ref()))
            .collect();
        let [(key, source)] = given.as_slice() else {
            let message = format!("foreach.{name} must say one source of values");
            let problem = self.problem(value.span(), message).help(HELP);
            self.problems.push(problem);
            return None;
        };
        let key: &str = key.get_ref();
        if let Some(format) = table.get("format").filter(|_| key != "from") {
            let problem = self
                .problem(format.span(), format!("format means nothing beside {key}"))
                .help("format tells how another task's output is read: { from = \"task.output\", format = \"json\" }");
            self.problems.push(problem);
        }
        match key {
            "csv" => Some(Values::Table { path: self.text(source, "csv", HELP)?, delimiter: b',' }),
            "tsv" => {
                Some(Values::Table { path: self.text(source, "tsv", HELP)?, delimiter: b'\t' })
            }
            "glob" => Some(Values::Glob(self.text(source, "glob", HELP)?)),
            "range" => self.range(source),
            _ => {
                let output = self.text(source, "from", "write from = \"task.output\"")?;
                Some(Values::Output { output, json: self.json(table)? })
            }
        }
    }

    fn json(&mut self, table: &DeTable<'_>) -> Option<bool> {
        let help =
            "write format = \"lines\" (one value a line, the default) or \"json\" (an array)";
        let Some(value) = table.get("format") else {
            return Some(false);
        };
        match self.text(value, "format", help)?.value.as_ref() {
            "lines" => Some(false),
            "json" => Some(true),
            other => {
                let problem =
                    self.problem(value.span(), format!("there is no format {other:?}")).help(help);
                self.problems.push(problem);
                None
            }
        }
    }

    fn range(&mut self, value: &Spot<'_>) -> Option<Values> {
        let help = "write range = 10 (0 to 9), [1, 10] (1 to 9) or [0, 100, 5] (start, end, step)";
        let numbers: Option<Vec<i64>> = match value.get_ref() {
            DeValue::Array(array) => {
                array.iter().map(|value| integer_of(value.get_ref())).collect()
            }
            value => integer_of(value).map(|end| vec![end]),
        };
        let (start, end, step) = match numbers.as_deref() {
            Some([end]) if value.get_ref().is_integer() => (0, *end, 1),
            Some([start, end]) => (*start, *end, 1),
            Some([start, end, step]) if *step != 0 => (*start, *end, *step),
            Some([_, _, _]) => {
                let problem = self.problem(value.span(), "a range cannot step by 0").help(help);
                self.problems.push(problem);
                return None;
            }
            _ => {
                let problem = self
                    .problem(value.span(), "range must be one to three whole numbers")
                    .labelled(kind_of(value.get_ref()))
                    .help(help);
                self.problems.push(problem);
                return None;
            }
        };
        Some(Values::Range { start, end, step })
    }
}
