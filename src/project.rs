//! Where things lie in a project directory: `.keelboat/` beside the workflow file.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use keelboat_engine::Digest;

/// Runs whose directories are looked at when a task is searched in the past.
pub(crate) const RUNS_SEARCHED_MAX: usize = 1_000;

/// A project directory: the one that the workflow file lies in.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
}

/// The directory of one run, and its name: sortable text such as `20261122-103000-123-4567`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunDir {
    id: String,
    path: PathBuf,
}

impl Project {
    /// The project of a workflow file.
    pub fn of_workflow(file: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(file)?;
        let root = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        Ok(Self { root })
    }

    /// A project by its directory.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The project directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the workflow as a path of this machine.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// `.keelboat/`.
    pub fn state(&self) -> PathBuf {
        self.root.join(".keelboat")
    }

    /// Transfers under way.
    pub fn partial(&self) -> PathBuf {
        self.state().join("partial")
    }

    /// Working directories of attempts.
    pub fn scratch(&self) -> PathBuf {
        self.state().join("scratch")
    }

    /// Scratch directories that are kept for people to look into.
    pub fn kept(&self) -> PathBuf {
        self.state().join("kept")
    }

    /// Journals and logs, a directory for each run.
    pub fn runs(&self) -> PathBuf {
        self.state().join("runs")
    }

    /// Makes `.keelboat/` and what belongs in it, for the owner's eyes only.
    pub fn prepare(&self) -> io::Result<()> {
        for directory in [self.state(), self.partial(), self.scratch(), self.runs()] {
            private_directory(&directory)?;
        }
        Ok(())
    }

    /// All runs, the newest first.
    pub fn list_runs(&self) -> io::Result<Vec<RunDir>> {
        let entries = match std::fs::read_dir(self.runs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let (Ok(id), path) = (entry.file_name().into_string(), entry.path()) {
                runs.push(RunDir { id, path });
            }
        }
        runs.sort_by(|a, b| b.cmp(a));
        Ok(runs)
    }

    /// The run with this name, when its directory is there.
    pub fn run(&self, id: &str) -> Option<RunDir> {
        let path = self.runs().join(id);
        (!id.is_empty() && !id.contains('/') && path.is_dir())
            .then(|| RunDir { id: id.to_owned(), path })
    }

    /// The directory of a run that begins at this moment.
    pub fn new_run(&self, now: &jiff::Zoned) -> RunDir {
        // Local time is set back once a year, and names must sort by time.
        let moment = now.with_time_zone(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S-%3f");
        let id = format!("{moment}-{}", std::process::id());
        let path = self.runs().join(&id);
        RunDir { id, path }
    }
}

impl RunDir {
    /// The run's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Removes all that there is of it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.path)
    }

    /// Its journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Makes the directory and the one for logs.
    pub fn prepare(&self) -> io::Result<()> {
        private_directory(&self.path)?;
        private_directory(&self.path.join("log"))
    }

    /// A log file that no attempt has at present.
    pub(crate) fn free_log(&self, number: u64) -> PathBuf {
        // No task's name begins with a dot in a file name.
        self.path.join("log").join(format!(".free-{number}"))
    }

    /// Where something is kept that stood at the path of an output.
    pub(crate) fn replaced(&self, path: &str) -> PathBuf {
        self.path.join("replaced").join(path.trim_start_matches('/'))
    }

    /// The file that holds what an attempt wrote to its standard output (`out`) or error (`err`);
    /// absent when that is nothing.
    pub fn log(&self, task: &str, ordinal: u32, stream: &str) -> PathBuf {
        self.path.join("log").join(format!("{}.{ordinal}.{stream}", file_name_of(task)))
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A task's name as a file name: harmless bytes stay, others become `%XX`; long ones are cut and
/// told apart by a digest.
pub(crate) fn file_name_of(task: &str) -> String {
    const KEPT_MAX: usize = 160;
    let mut name = String::with_capacity(task.len());
    for byte in task.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"[]=,_-".contains(&byte)
            || (byte == b'.' && !name.is_empty())
        {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.extend(
                [byte >> 4, byte & 15]
                    .map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
            );
        }
    }
    if name.len() > KEPT_MAX {
        name.truncate(KEPT_MAX);
        name.push('~');
        name.push_str(&Digest::of(task.as_bytes()).short());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_make_harmless_file_names() {
        assert_eq!(file_name_of("align[sample=a]"), "align[sample=a]");
        assert_eq!(file_name_of("../x y\n"), "%2E.%2Fx%20y%0A");
        assert_eq!(file_name_of("ü"), "%C3%BC");
        let long = file_name_of(&"x".repeat(500));
        assert!(long.len() < 200 && long != file_name_of(&"x".repeat(501)), "{long}");
    }
}
