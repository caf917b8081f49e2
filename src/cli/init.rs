//! `keelboat init`: a small workflow that runs as it is, to be changed.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::args::InitArgs;
use super::exit::Exit;
use super::past::quoted;
use super::terminal::Terminal;

/// What a new workflow file says: the one that README shows. Needs nothing but a POSIX shell.
const WORKFLOW: &str = r#"# Run it with `keelboat run`; `keelboat why all` tells why a task ran or did not.
[workflow]
name = "hello"

[task.names]
outputs = { list = "out/names.txt" }          # appears when the task has succeeded
run = "printf 'ada\\ngrace\\nbarbara\\n' > {{ outputs.list }}"

[task.greet]
foreach = { who = { from = "names.list" } }   # a task for each line that `names` writes
outputs = { text = "out/{{ who }}.txt" }
run = "echo hello {{ who }} > {{ outputs.text }}"

[task.all]
inputs = { texts = { from = "greet.text" } }  # all of them, in order; a URL may stand here, too
outputs = { all = "out/all.txt" }
run = "cat {{ inputs.texts }} > {{ outputs.all }}"
"#;

const IGNORED: &str = ".keelboat/";

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{} is there already, and is not overwritten", .0.display())]
    Exists(PathBuf),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

pub(super) fn init(args: &InitArgs, terminal: &mut Terminal) -> Exit {
    match write_project(&args.directory) {
        Ok(file) => {
            terminal.line(format_args!("wrote {}", file.display()));
            let file = if args.directory == Path::new(".") {
                String::new()
            } else {
                format!(" {}", quoted(&file.to_string_lossy()))
            };
            terminal.line(format_args!("next: keelboat run{file}"));
            Exit::Success
        }
        Err(error @ InitError::Exists(_)) => {
            terminal.error(&error, Some("name another directory: keelboat init DIR"));
            Exit::BadInput
        }
        Err(error) => {
            terminal.error(&error, None);
            Exit::Broken
        }
    }
}

fn write_project(directory: &Path) -> Result<PathBuf, InitError> {
    std::fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let path = directory.join("flow.toml");
    let mut file = match File::create_new(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(InitError::Exists(path));
        }
        file => file.map_err(failed("write", &path))?,
    };
    file.write_all(WORKFLOW.as_bytes()).map_err(failed("write", &path))?;
    ignore_state(&directory.join(".gitignore"))?;
    Ok(path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path))
}

/// Keeps what Keelboat remembers out of version control; what else the file says stays.
fn ignore_state(path: &Path) -> Result<(), InitError> {
    let before = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(failed("read", path))?,
    };
    let ignores = |line: &[u8]| {
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"/").unwrap_or(line);
        line == IGNORED.as_bytes() || line == b".keelboat"
    };
    if before.split(|byte| *byte == b'\n').any(ignores) {
        return Ok(());
    }
    let mut file =
        File::options().append(true).create(true).open(path).map_err(failed("write", path))?;
    let new_line = if before.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    file.write_all(format!("{new_line}{IGNORED}\n").as_bytes()).map_err(failed("write", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_shows_what_is_written() {
        assert!(include_str!("../../README.md").contains(WORKFLOW));
    }
}
