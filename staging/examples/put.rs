//! Delivers one file to an address: `put FILE ADDRESS DIRECTORY`.
//!
//! Killed at any moment and started again, it sends what is missing. The directory is for files on
//! their way.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use keelboat_engine::Kind;
use keelboat_staging::{Delivered, Delivery, Forgetful, Over, Stager, StagingConfig, digest_path};

#[tokio::main]
async fn main() -> ExitCode {
    match put().await {
        Ok(line) => {
            let written = writeln!(std::io::stdout(), "{line}");
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(line) => {
            let written = writeln!(std::io::stderr(), "{line}");
            if written.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

async fn put() -> Result<&'static str, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, address, directory] = &*arguments else {
        return Err("usage: put FILE ADDRESS DIRECTORY".into());
    };
    let content = digest_path(Path::new(file), Kind::File, &Forgetful, true);
    let delivery = Delivery {
        source: file.into(),
        content: content.map_err(|error| error.to_string())?,
        address: address.as_str().into(),
        over: Over::Same,
        progress: None,
    };
    let stager = Stager::new(StagingConfig::new(directory)).map_err(|error| error.to_string())?;
    match stager.deliver(delivery, Forgetful).await {
        Ok(Delivered::Copied) => Ok("copied"),
        Ok(Delivered::AlreadyThere) => Ok("already there"),
        Err(error) => Err(error.to_string()),
    }
}
