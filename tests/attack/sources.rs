//! What the sources say of themselves: where `unsafe` is, and why dependencies are excepted.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use toml::{Table, Value};
use walkdir::WalkDir;

use crate::bout::{Bout, attack};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        attack("sources::unsafe_is_in_one_file", unsafe_is_in_one_file),
        attack("sources::exceptions_have_reasons", exceptions_have_reasons),
    ]
}

/// The only file that may.
const UNSAFE_FILE: &str = "executors/src/sys.rs";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_toml(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap();
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of the project itself.
fn files(name_ends: &str) -> Vec<PathBuf> {
    let walk = WalkDir::new(root()).into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_str().unwrap_or_default();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target")
    });
    let files = walk.flatten().filter(|entry| entry.file_type().is_file());
    let files = files.map(walkdir::DirEntry::into_path);
    files.filter(|path| path.to_str().is_some_and(|path| path.ends_with(name_ends))).collect()
}

fn unsafe_is_in_one_file(_: &mut Bout) -> String {
    let level = |table: &Table| {
        let lints = table.get("lints").or_else(|| table.get("workspace")?.get("lints"));
        lints.and_then(|lints| lints.get("rust")?.get("unsafe_code")).cloned()
    };
    let manifests = files("Cargo.toml");
    for path in &manifests {
        let table = read_toml(path);
        let below = path.strip_prefix(root()).unwrap();
        let of_workspace = table.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if below == Path::new("executors/Cargo.toml") {
            assert_eq!(level(&table), Some("deny".into()), "{}", below.display());
        } else {
            assert_eq!(of_workspace, Some(true), "{} has lints of its own", below.display());
        }
    }
    let workspace = read_toml(&root().join("Cargo.toml"));
    let forbids = workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str();
    assert_eq!(forbids, Some("forbid"));
    // Where it is denied, a file may except itself.
    let lint = ["unsafe", "_code"].concat();
    let sources = files(".rs");
    for path in &sources {
        let below = path.strip_prefix(root()).unwrap();
        let names_it = std::fs::read_to_string(path).unwrap().contains(&lint);
        let may = below == Path::new(UNSAFE_FILE);
        let is_this = below == Path::new("tests/attack/sources.rs");
        assert!(names_it == may || is_this, "{} excepts itself", below.display());
    }
    format!(
        "{} manifests and {} sources: `unsafe` in {UNSAFE_FILE} only",
        manifests.len(),
        sources.len()
    )
}

fn exceptions_have_reasons(_: &mut Bout) -> String {
    let deny = read_toml(&root().join("deny.toml"));
    let security = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    assert!(security.contains("Who is trusted with what"));
    let lists =
        [("advisories", "ignore"), ("bans", "deny"), ("bans", "skip"), ("bans", "skip-tree")];
    let mut count = 0;
    for (table, list) in lists {
        for entry in deny[table][list].as_array().unwrap() {
            let reason = entry.get("reason").and_then(Value::as_str).unwrap_or_default();
            assert!(reason.len() > 5, "{table}.{list}: {entry} has no reason");
            if list == "ignore" {
                assert!(reason.contains("watched"), "{entry}: what watches it?");
            }
            count += 1;
        }
    }
    format!("{count} exceptions, each with its reason")
}
