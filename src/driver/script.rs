//! Scripts that are too long for an argument are given to the shell as a file.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use keelboat_engine::Command;
use keelboat_staging::LocalError;

/// Linux takes 128 KiB as one argument (`MAX_ARG_STRLEN`); some room is left.
const ARGUMENT_BYTES_MAX: usize = 100 << 10;

/// The command as it can be started: a long script is written to `file`, whatever the shell.
pub(super) fn startable(command: Command, file: &Path) -> Result<Command, LocalError> {
    let Command::Shell { shell, script } = &command else { return Ok(command) };
    let Some((last, before)) = shell.split_last() else { return Ok(command) };
    if script.len() <= ARGUMENT_BYTES_MAX || last != "-c" {
        return Ok(command);
    }
    std::fs::write(file, script.as_bytes()).map_err(|source| {
        let path = file.to_owned();
        LocalError::Io { action: "write the script", path, source }
    })?;
    let mut argv = before.to_vec();
    argv.push(file.display().to_string());
    Ok(Command::Argv(Arc::from(argv)))
}

/// Removes the file of a long script, if there is one.
pub(super) fn clear(command: &Command, file: &Path) {
    let may_be = match command {
        Command::Shell { script, .. } => script.len() > ARGUMENT_BYTES_MAX,
        Command::Template { shell, .. } => shell.is_some(),
        Command::Argv(_) | Command::Function { .. } => false,
    };
    if may_be
        && let Err(error) = std::fs::remove_file(file)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::debug!(%error, "the file of a long script stays");
    }
}
