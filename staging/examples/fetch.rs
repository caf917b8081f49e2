//! Fetches one address into a directory: `fetch ADDRESS DIRECTORY [BYTES_PER_SECOND]`.
//!
//! Killed at any moment and started again, it goes on where it was.

use std::io::Write as _;
use std::process::ExitCode;

use keelboat_staging::{FetchRequest, Fetched, Stager, StagingConfig};

#[tokio::main]
async fn main() -> ExitCode {
    match fetch().await {
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

async fn fetch() -> Result<String, String> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: fetch ADDRESS DIRECTORY [BYTES_PER_SECOND]";
    let (Some(address), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err(usage.into());
    };
    let mut config = StagingConfig::new(directory);
    if let Some(pace) = arguments.next() {
        config.limits.bytes_per_second = Some(pace.parse().map_err(|error| format!("{error}"))?);
    }
    let fetcher = Stager::new(config).map_err(|error| error.to_string())?;
    match fetcher.fetch(FetchRequest::new(address)).await {
        Ok(Fetched::Unchanged) => Ok("unchanged".into()),
        Ok(Fetched::New { path, content, transferred, .. }) => {
            Ok(format!("{} {transferred} {}", content.digest, path.display()))
        }
        Err(error) => {
            let hint = error.failure.hint.clone().unwrap_or_default();
            Err(format!("{error}\nhint: {hint}"))
        }
    }
}
