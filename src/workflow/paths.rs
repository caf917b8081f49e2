//! Paths, and the names that files get in a task's scratch directory.
//!
//! Deliberately absent: looking at the disk. All here is text.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

const PATH_BYTES_MAX: usize = 4000;
pub(super) const SEGMENT_BYTES_MAX: usize = 255;
/// The engine's own directory, which tasks have no business in.
const OWN_DIRECTORY: &str = ".keelboat";

/// Why a text is not a path or address that can be used, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: Cow<'static, str>,
}

pub(super) fn complain<T>(
    message: impl Into<String>,
    help: impl Into<Cow<'static, str>>,
) -> Result<T, Complaint> {
    Err(Complaint { message: message.into(), help: help.into() })
}

/// The project directory, as the start of absolute paths.
#[derive(Debug, Clone)]
pub(super) struct Project {
    /// Absolute, with a `/` at the end; `None`: not UTF-8, so that no path of ours begins with it.
    prefix: Option<String>,
}

impl Project {
    pub(super) fn new(directory: &Path) -> Self {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let prefix = absolute.to_str().map(|text| format!("{}/", text.trim_end_matches('/')));
        Self { prefix }
    }

    /// The path of an output: relative to the project or absolute, never with `..`.
    pub(super) fn output_path(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        let normal = self.normal(path)?;
        if normal.split('/').any(|segment| segment == "..") {
            return complain(
                format!("the output {path:?} leaves the project directory by `..`"),
                "write a path below the project directory, or an absolute one; \
                 to = \"…\" copies an output elsewhere",
            );
        }
        // A value that a table or a file has brought may not lead from out/ to somewhere else.
        if path.split('/').any(|segment| segment == "..") {
            return complain(
                format!("the output {path:?} goes up by `..`"),
                "write the path that is meant, without it; values from files and outputs may \
                 need cleaning",
            );
        }
        Ok(normal)
    }

    /// The path of an input: relative to the project or absolute; `..` only at its beginning.
    pub(super) fn input_path(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        self.normal(path)
    }

    /// A path as the project's own, absolute.
    pub(super) fn absolute(&self, path: &str) -> String {
        match &self.prefix {
            Some(prefix) if !path.starts_with('/') => format!("{prefix}{path}"),
            _ => path.to_owned(),
        }
    }

    fn normal(&self, path: &Arc<str>) -> Result<Arc<str>, Complaint> {
        check_text(path, "path")?;
        let inside = self.prefix.as_deref().and_then(|prefix| path.strip_prefix(prefix));
        let relative = inside.unwrap_or(path);
        let clean = relative.split('/').enumerate().all(|(at, segment)| {
            !matches!(segment, "." | "..") && (!segment.is_empty() || at == 0)
        });
        let normal =
            if clean && inside.is_none() { path.clone() } else { collapse(relative).into() };
        let is_project = self
            .prefix
            .as_deref()
            .is_some_and(|prefix| prefix.strip_suffix('/') == Some(normal.as_ref()));
        if normal.is_empty() || normal.as_ref() == "/" || is_project {
            return complain(
                format!("the path {path:?} names no file"),
                "write the path of a file, such as out/result.txt",
            );
        }
        if normal.split('/').next() == Some(OWN_DIRECTORY) {
            return complain(
                format!("the path {path:?} is in {OWN_DIRECTORY}, which belongs to the engine"),
                "choose another directory",
            );
        }
        Ok(normal)
    }
}

/// Without `.`, empty segments and, where something stands before it, `..`.
fn collapse(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_some_and(|last| *last != "..") => {
                segments.pop();
            }
            ".." if absolute => {}
            _ => segments.push(segment),
        }
    }
    let joined = segments.join("/");
    if absolute { format!("/{joined}") } else { joined }
}

pub(super) fn check_text(text: &str, noun: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return complain(format!("the {noun} is empty"), "write a path, such as out/result.txt");
    }
    if text.chars().any(char::is_control) {
        return complain(
            format!("the {noun} {text:?} has a newline, NUL or another control character"),
            "use names without them; values from files and outputs may need cleaning",
        );
    }
    if text.len() > PATH_BYTES_MAX
        || text.split('/').any(|segment| segment.len() > SEGMENT_BYTES_MAX)
    {
        return complain(
            format!("the {noun} is too long ({} bytes)", text.len()),
            "a name in a path may have 255 bytes, the whole path 4000",
        );
    }
    Ok(())
}

/// Where an input from a path appears in the scratch directory.
pub(super) fn scratch_of_path(path: &Arc<str>) -> Arc<str> {
    if path.starts_with('/') || path.starts_with("../") || path.as_ref() == ".." {
        let last = path.rsplit('/').find(|segment| !segment.is_empty());
        return last.filter(|last| *last != "..").unwrap_or("input").into();
    }
    path.clone()
}

/// A name given by `as`.
pub(super) fn check_rename(name: &Arc<str>) -> Result<Arc<str>, Complaint> {
    check_text(name, "name")?;
    let outside = name.starts_with('/') || name.split('/').any(|segment| segment == "..");
    let normal = collapse(name);
    if outside || normal.is_empty() {
        return complain(
            format!("an input cannot be called {name:?}"),
            "write a name such as reads.fq, or a path below the task's own directory",
        );
    }
    Ok(normal.into())
}

/// The name of a checkpoint directory.
pub(super) fn check_checkpoint(name: &Arc<str>) -> Result<Arc<str>, Complaint> {
    const HELP: &str = "write a directory of its own in the task's directory, such as state/";
    check_text(name, "checkpoint directory")?;
    if name.contains("{{") || name.contains("{%") {
        return complain(
            format!("the checkpoint directory {name:?} looks like a template"),
            "write a plain name, such as state/: each task has a directory of its own",
        );
    }
    if name.starts_with('/') {
        return complain(
            format!("the checkpoint directory {name:?} is absolute"),
            "write a path in the task's directory, such as state/; \
             the task finds the absolute one in $KEELBOAT_CHECKPOINT_DIR",
        );
    }
    if name.split('/').any(|segment| segment == "..") {
        return complain(
            format!("the checkpoint directory {name:?} leaves the task's directory by `..`"),
            HELP,
        );
    }
    let normal = collapse(name);
    if normal.is_empty() {
        return complain(
            format!("the checkpoint directory {name:?} is the task's directory itself"),
            HELP,
        );
    }
    Ok(normal.into())
}

/// The directories above a path, the nearest first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    fn parent(path: &str) -> Option<&str> {
        path.rsplit_once('/').map(|(parent, _)| parent)
    }
    std::iter::successors(parent(path), |path| parent(path)).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &str) -> Result<String, String> {
        let project = Project::new(Path::new("/srv/flow"));
        let path = project.output_path(&path.into());
        path.map(|path| path.to_string()).map_err(|complaint| complaint.message)
    }

    #[test]
    fn paths_of_outputs_are_normal_and_inside() {
        for (path, normal) in [
            ("out/a", "out/a"),
            ("./out//a/", "out/a"),
            ("/srv/flow/out/a", "out/a"),
            ("/srv/flow2/a", "/srv/flow2/a"),
            ("/else/./a", "/else/a"),
            ("with space é", "with space é"),
            ("-x", "-x"),
        ] {
            assert_eq!(output(path).as_deref(), Ok(normal), "{path}");
        }
        for path in [
            "",
            ".",
            "/",
            "..",
            "../a",
            "a/../../b",
            "a/../b",
            "a\nb",
            "a\0b",
            ".keelboat/x",
            "/srv/flow",
        ] {
            assert!(output(path).is_err(), "{path:?}");
        }
        assert!(output(&"x".repeat(256)).is_err());
    }

    #[test]
    fn scratch_names_stay_inside() {
        let scratch = |path: &str| scratch_of_path(&path.into()).to_string();
        assert_eq!(scratch("data/a.fq"), "data/a.fq");
        assert_eq!(scratch("/data/a.fq"), "a.fq");
        assert_eq!(scratch("../../a.fq"), "a.fq");
        assert_eq!(scratch("../.."), "input");
    }

    #[test]
    fn ancestors_are_directories() {
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a"]);
        assert_eq!(ancestors("a").count(), 0);
    }
}
