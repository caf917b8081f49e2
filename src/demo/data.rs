//! What the demo ships: the files that its server serves, and its workflow.
//!
//! They are part of the program, so that the demo runs from the built binary alone.

/// One file that the demo's server serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataFile {
    /// Its path on the server, without a leading `/`.
    pub(super) path: &'static str,
    /// What it holds.
    pub(super) bytes: &'static [u8],
}

/// The workflow: `examples/demo/flow.toml`.
pub(super) const FLOW: &str = include_str!("../../examples/demo/flow.toml");

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(DataFile {
            path: $path,
            bytes: include_bytes!(concat!("../../examples/demo/data/", $path)),
        }),*]
    };
}

/// All of `examples/demo/data`, sorted by path.
pub(super) const FILES: &[DataFile] = shipped![
    "readings/alder.csv",
    "readings/birch.csv",
    "readings/cedar.csv",
    "readings/dogwood.csv",
    "readings/elm.csv",
    "readings/fir.csv",
    "readings/ginkgo.csv",
    "readings/hazel.csv",
    "readings/ivy.csv",
    "readings/juniper.csv",
    "readings/kauri.csv",
    "readings/larch.csv",
    "readings/maple.csv",
    "readings/nutmeg.csv",
    "stations.csv",
];

/// The stations that are closed: the list has them, and the workflow does not ask for their readings.
const CLOSED: [&str; 2] = ["readings/hazel.csv", "readings/maple.csv"];

/// Bytes that the workflow has to fetch when it has nothing.
pub(super) fn bytes_needed() -> u64 {
    let needed = FILES.iter().filter(|file| !CLOSED.contains(&file.path));
    needed.map(|file| file.bytes.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keelboat_engine::Digest;

    use super::*;

    #[test]
    fn every_file_of_the_example_is_shipped() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo/data");
        let mut there: Vec<String> = walkdir::WalkDir::new(&folder)
            .into_iter()
            .map(|entry| entry.expect("the example's data can be read"))
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let path = entry.path().strip_prefix(&folder).expect("a path below the folder");
                path.to_str().expect("a name in UTF-8").to_owned()
            })
            .collect();
        there.sort();
        let shipped: Vec<&str> = FILES.iter().map(|file| file.path).collect();
        assert_eq!(shipped, there);
    }

    #[test]
    fn the_digest_that_the_workflow_declares_is_that_of_the_list() {
        let list = FILES.iter().find(|file| file.path == "stations.csv").expect("a list");
        assert!(FLOW.contains(&format!("sha256 = \"{}\"", Digest::of(list.bytes))));
    }

    #[test]
    fn the_stations_that_are_not_active_are_the_closed_ones() {
        let list = FILES.iter().find(|file| file.path == "stations.csv").expect("a list");
        let list = std::str::from_utf8(list.bytes).expect("text");
        let closed: Vec<String> = list
            .lines()
            .skip(1)
            .filter(|line| !line.ends_with(",active"))
            .map(|line| format!("readings/{}.csv", line.split(',').next().unwrap_or_default()))
            .collect();
        assert_eq!(closed, CLOSED);
    }
}
