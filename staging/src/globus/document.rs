//! What is submitted: one document for many files.

use keelboat_engine::{Digest, Kind};
use serde::{Deserialize, Serialize};

/// Files whose checksums differ are moved, others are not.
const SYNC_BY_CHECKSUM: u8 = 3;

/// From where to where a task moves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) source: String,
    pub(super) destination: String,
}

/// One file or directory of a task. Fields are in the order of Globus's documents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    #[serde(rename = "DATA_TYPE")]
    data_type: ItemType,
    pub(super) source_path: String,
    pub(super) destination_path: String,
    pub(super) recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ItemType {
    TransferItem,
}

/// The submission, the same each time that it is made.
#[expect(clippy::struct_excessive_bools, reason = "the fields are those of Globus's document")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(rename = "DATA_TYPE")]
    data_type: DocumentType,
    pub(super) submission_id: String,
    source_endpoint: String,
    destination_endpoint: String,
    pub(super) label: String,
    pub(super) deadline: String,
    sync_level: u8,
    verify_checksum: bool,
    skip_source_errors: bool,
    fail_on_quota_errors: bool,
    notify_on_succeeded: bool,
    notify_on_failed: bool,
    notify_on_inactive: bool,
    #[serde(rename = "DATA")]
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DocumentType {
    Transfer,
}

impl Item {
    pub(super) fn new(source_path: String, destination_path: String, kind: Kind) -> Self {
        let recursive = kind == Kind::Directory;
        Self { data_type: ItemType::TransferItem, source_path, destination_path, recursive }
    }

    /// Whether this is the path of the item's source, or one below it.
    pub(super) fn has_source(&self, path: &str) -> bool {
        is_at_or_below(path, &self.source_path)
    }

    /// Whether this is a path of either side of the item, or one below it.
    pub(super) fn touches(&self, path: &str) -> bool {
        self.has_source(path) || is_at_or_below(path, &self.destination_path)
    }
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    let path = path.trim_end_matches('/');
    let rest = path.strip_prefix(top.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Document {
    pub(super) fn new(
        submission_id: String,
        route: &Route,
        deadline: jiff::Timestamp,
        items: Vec<Item>,
    ) -> Self {
        Self {
            data_type: DocumentType::Transfer,
            submission_id,
            source_endpoint: route.source.clone(),
            destination_endpoint: route.destination.clone(),
            label: label(route, &items),
            deadline: deadline.to_string(),
            sync_level: SYNC_BY_CHECKSUM,
            verify_checksum: true,
            // One missing file must not keep the others waiting for days; it is asked for later.
            skip_source_errors: true,
            fail_on_quota_errors: true,
            notify_on_succeeded: false,
            notify_on_failed: false,
            notify_on_inactive: false,
            items,
        }
    }

    pub(super) fn route(&self) -> Route {
        let (source, destination) =
            (self.source_endpoint.clone(), self.destination_endpoint.clone());
        Route { source, destination }
    }

    /// No moment: then it has no end that we know of.
    pub(super) fn ends(&self) -> Option<jiff::Timestamp> {
        self.deadline.parse().ok()
    }
}

/// What people see in the list of their tasks. Tasks that move the same have the same one.
fn label(route: &Route, items: &[Item]) -> String {
    let mut text = format!("{}\n{}\n", route.source, route.destination);
    for item in items {
        let kind = if item.recursive { "d" } else { "f" };
        for part in [kind, &item.source_path, &item.destination_path] {
            text.push_str(part);
            text.push('\n');
        }
    }
    let digest = Digest::of(text.as_bytes()).to_hex();
    let short: String = digest.chars().take(16).collect();
    let files = if items.len() == 1 { "item" } else { "items" };
    format!("keelboat {} {files} {short}", items.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_items_by_whole_parts() {
        let item = Item::new("/a/b".into(), "/c".into(), Kind::Directory);
        assert!(item.has_source("/a/b/x") && item.has_source("/a/b/"));
        assert!(!item.has_source("/a/bc") && !item.has_source("/a"));
        assert!(item.touches("/c/x") && !item.touches("/cd"));
    }

    #[test]
    fn labels_tell_what_moves_apart() {
        let route = Route { source: "s".into(), destination: "d".into() };
        let of = |path: &str, kind| label(&route, &[Item::new(path.into(), "/x".into(), kind)]);
        assert_eq!(of("/a", Kind::File), of("/a", Kind::File));
        assert_ne!(of("/a", Kind::File), of("/a", Kind::Directory));
        assert_ne!(of("/a", Kind::File), of("/b", Kind::File));
        assert!(of("/a", Kind::File).starts_with("keelboat 1 item "));
    }
}
