//! From the dimensions of a `foreach` to the values of each instance.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use keelboat_engine::Digest;
use minijinja::value::Value;

use super::declaration::{Declaration, Item, Scalar};

/// The most instances that one task may have.
pub(super) const INSTANCES_MAX: usize = 10_000_000;
/// A value that is longer is shortened in names of tasks.
const NAME_VALUE_BYTES_MAX: usize = 80;

/// The items of one variable.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    pub(super) items: Vec<Item>,
    /// For rows: the columns that are enough to tell them apart.
    telling: usize,
}

impl Column {
    pub(super) fn new(name: Arc<str>, items: Vec<Item>) -> Self {
        let telling = telling_columns(&items);
        Self { name, items, telling }
    }
}

/// Variables that advance together; all of one length.
pub(super) type Group = Vec<Column>;

/// All combinations, the last dimension fastest.
#[derive(Debug)]
pub(super) struct Product {
    groups: Vec<Group>,
    len: usize,
}

impl Product {
    /// `None`: too many.
    pub(super) fn new(groups: Vec<Group>) -> Option<Self> {
        let mut lengths =
            groups.iter().map(|group| group.first().map_or(0, |column| column.items.len()));
        let len = lengths.try_fold(1_usize, usize::checked_mul)?;
        (len <= INSTANCES_MAX).then_some(Self { groups, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn variables(&self) -> Vec<Arc<str>> {
        self.groups.iter().flatten().map(|column| column.name.clone()).collect()
    }

    /// The items of one instance, in the order of [`Self::variables`].
    fn items(&self, mut index: usize) -> Vec<(&Column, &Item)> {
        let mut picked = Vec::new();
        for group in self.groups.iter().rev() {
            let len = group.first().map_or(1, |column| column.items.len().max(1));
            let at = index % len;
            index /= len;
            picked.extend(
                group.iter().rev().filter_map(|column| Some((column, column.items.get(at)?))),
            );
        }
        picked.reverse();
        picked
    }

    /// The name and the values of one instance.
    pub(super) fn instance(
        &self,
        declaration: &Declaration,
        index: usize,
    ) -> (Arc<str>, Vec<Value>) {
        if self.groups.is_empty() {
            return (declaration.name.clone(), Vec::new());
        }
        let items = self.items(index);
        let mut name = String::with_capacity(declaration.name.len() + 24 * items.len());
        name.push_str(&declaration.name);
        name.push('[');
        for (at, (column, item)) in items.iter().enumerate() {
            if at > 0 {
                name.push(',');
            }
            push_item(&mut name, column, item);
        }
        name.push(']');
        (name.into(), items.iter().map(|(_, item)| item.to_value()).collect())
    }
}

fn push_item(name: &mut String, column: &Column, item: &Item) {
    match item {
        Item::Scalar(Scalar::Integer(number)) => {
            // Writing to a string cannot fail.
            write!(name, "{}={number}", column.name).unwrap_or_default();
        }
        Item::Scalar(scalar) => push_value(name, &column.name, &scalar.to_string()),
        Item::Path(path) => push_value(name, &column.name, path),
        Item::Row(row) => {
            for (at, cell) in row.cells.iter().enumerate().take(column.telling) {
                if at > 0 {
                    name.push(',');
                }
                let key = row.columns.get(at).map_or("", |name| name.as_ref());
                push_value(name, key, &cell.to_string());
            }
        }
    }
}

/// Adds `key=value`; what would make names ambiguous or unprintable is percent-encoded.
fn push_value(name: &mut String, key: &str, value: &str) {
    name.push_str(key);
    name.push('=');
    let shortened = value.len() > NAME_VALUE_BYTES_MAX;
    for (at, c) in value.char_indices() {
        if shortened && at > NAME_VALUE_BYTES_MAX / 2 {
            break;
        }
        if c.is_control() || matches!(c, '%' | ',' | '[' | ']') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                write!(name, "%{byte:02X}").unwrap_or_default();
            }
        } else {
            name.push(c);
        }
    }
    if shortened {
        name.push('~');
        name.push_str(&Digest::of(value.as_bytes()).short());
    }
}

/// How many leading columns tell all rows apart: at least one.
fn telling_columns(items: &[Item]) -> usize {
    let rows = || {
        items.iter().filter_map(|item| match item {
            Item::Row(row) => Some(row),
            _ => None,
        })
    };
    let most = rows().map(|row| row.cells.len()).max().unwrap_or(0);
    let apart = |count: usize| {
        let mut seen = HashSet::new();
        rows().all(|row| {
            let cells: Vec<String> =
                row.cells.iter().take(count).map(ToString::to_string).collect();
            seen.insert(cells)
        })
    };
    (1..most).find(|count| apart(*count)).unwrap_or_else(|| most.max(1))
}
