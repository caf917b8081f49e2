//! The workflow file and those that it includes: no task may write them.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::addresses;
use super::declaration::OutputItem;
use super::paths::Project;
use super::problem::{Place, Problems, Sources};
use super::producers::Made;

#[derive(Debug)]
struct OwnFile {
    /// The directory without links, and what the file really is: both would be lost.
    spellings: [PathBuf; 2],
    place: Place,
    label: &'static str,
}

/// The files that the workflow was read from.
#[derive(Debug, Default)]
pub(super) struct OwnFiles {
    files: Vec<OwnFile>,
    /// All names in their paths: an output with another name is none of them, nor holds one.
    names: HashSet<String>,
}

impl OwnFiles {
    /// Adds a file; `included`: where it was included, when it was.
    pub(super) fn add(&mut self, path: &Path, file: u32, included: Option<Place>) {
        let Some(spelled) = without_links(path) else { return };
        let real = path.canonicalize().unwrap_or_else(|_| spelled.clone());
        for component in spelled.components().chain(real.components()) {
            if let Component::Normal(name) = component {
                self.names.extend(name.to_str().map(ToOwned::to_owned));
            }
        }
        let (place, label) = match included {
            Some(place) => (place, "it is included here"),
            None => (Place { file, start: 0, end: 1 }, "it is this file"),
        };
        self.files.push(OwnFile { spellings: [spelled, real], place, label });
    }

    /// Reports an output that would replace one of these files, at its path or where it is sent.
    pub(super) fn check(
        &self,
        (declaration, tasks): Made<'_>,
        (project, project_dir): (&Project, &Path),
        sources: &Sources,
        problems: &mut Problems,
    ) {
        for task in tasks {
            for output in &task.outputs {
                let sent = output.deliver_to.as_ref().map(|to| addresses::place_of(to, project));
                let (path, verb) = if self.hit(&output.path, project_dir).is_some() {
                    (&output.path, "writes it")
                } else if let Some(to) = &sent {
                    (to, "sends it there")
                } else {
                    continue;
                };
                let Some(file) = self.hit(path, project_dir) else { continue };
                let mut named = declaration.outputs.iter();
                let named = named.find(|named| named.label == output.label);
                let mut items = named.into_iter().flat_map(|named| &named.items);
                let place = match (items.next(), items.next()) {
                    (Some(OutputItem { to: Some(to), .. }), None)
                        if sent.as_ref() == Some(path) =>
                    {
                        to.place
                    }
                    (Some(only), None) => only.path.place,
                    _ => named.map_or(declaration.place, |named| named.place),
                };
                let message = format!("the output {:?} would replace a workflow file", output.path);
                let problem = sources
                    .problem(place, message)
                    .labelled(&format!("`{}` {verb}", task.name))
                    .help("choose another path");
                problems.push(sources.also(problem, file.place, file.label));
                return;
            }
        }
    }

    /// The file that would be lost when something else took the place of this path.
    fn hit(&self, path: &str, project_dir: &Path) -> Option<&OwnFile> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if !self.names.contains(name) || addresses::scheme_of(path).is_some() {
            return None;
        }
        let path = without_links(&project_dir.join(path))?;
        let lost = |file: &&OwnFile| file.spellings.iter().any(|own| own.starts_with(&path));
        self.files.iter().find(lost)
    }
}

/// The path with the links of its directories followed, but not its own.
fn without_links(path: &Path) -> Option<PathBuf> {
    let parent = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    Some(parent.canonicalize().ok()?.join(path.file_name()?))
}
