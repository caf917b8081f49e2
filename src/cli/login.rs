//! `keelboat login`: access to services by way of a browser.

use std::io::Write as _;
use std::path::Path;

use keelboat_staging::{TransferError, globus_login};

use super::args::{LoginArgs, Service};
use super::exit::Exit;
use super::staging::MoveError;
use super::terminal::Terminal;
use crate::Settings;

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Setup(#[from] MoveError),
    #[error("cannot log in: {0}")]
    Login(#[from] TransferError),
}

pub(super) fn login(args: &LoginArgs, terminal: &Terminal) -> Exit {
    let LoginArgs { service: Service::Globus, consent } = args;
    match log_in(consent, terminal) {
        Ok(()) => {
            terminal.note(format_args!("logged in; globus:// addresses can be used now"));
            Exit::Success
        }
        Err(Problem::Setup(error)) => {
            terminal.error(&error, error.hint().as_deref());
            error.exit()
        }
        Err(Problem::Login(error)) => {
            terminal.error(format_args!("cannot log in: {error}"), Some(&error.hint()));
            Exit::Failed
        }
    }
}

fn log_in(consents: &[String], terminal: &Terminal) -> Result<(), Problem> {
    let settings = Settings::load(Some(Path::new("."))).map_err(MoveError::from)?;
    let config = settings.globus(crate::settings::state_directory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(MoveError::from)?;
    let ask = |url: &str| {
        terminal.note(format_args!("open this address in a browser and log in:\n\n  {url}\n"));
        let mut prompt = std::io::stderr();
        prompt.write_all(b"paste the code that it shows: ").and_then(|()| prompt.flush())?;
        let mut code = String::new();
        std::io::stdin().read_line(&mut code)?;
        Ok(code.trim().to_owned())
    };
    Ok(runtime.block_on(globus_login(&config, consents, ask))?)
}
