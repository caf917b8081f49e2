//! Logging in by a browser: the authorization code is pasted here, and PKCE (RFC 7636) proves that
//! it was asked for here.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelboat_engine::Digest;

use super::account::{Granted, no_token, scopes};
use super::answer::is_scope;
use super::api::Api;
use super::tokens::{Tokens, local};
use crate::credentials::Secret;
use crate::protocol::TransferError;

/// Random bytes of the verifier; as text it has 43 characters, the fewest that are allowed.
const VERIFIER_BYTES: usize = 32;

pub(super) async fn login(
    api: &Api,
    tokens_file: &Path,
    client_id: &str,
    consents: &[String],
    ask: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<(), TransferError> {
    if let Some(wrong) = consents.iter().find(|scope| !is_scope(scope)) {
        return Err(TransferError::Refused {
            found: format!("{wrong:?} is no scope"),
            hint: "copy the whole command that the error showed, with its quotes".into(),
        });
    }
    // Consents that were given before stay given.
    let mut all = Tokens::read(tokens_file).map(|tokens| tokens.consents).unwrap_or_default();
    all.extend(consents.iter().cloned());
    all.sort();
    all.dedup();

    let verifier = random()?;
    let challenge = URL_SAFE_NO_PAD.encode(Digest::of(verifier.reveal().as_bytes()).as_bytes());
    let state = random()?;
    let redirect = api.code_url();
    let mut url = api.authorize_url();
    url.query_pairs_mut().extend_pairs([
        ("client_id", client_id),
        ("redirect_uri", redirect.as_str()),
        ("scope", &scopes(&all)),
        ("response_type", "code"),
        ("access_type", "offline"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", state.reveal()),
        ("prefill_named_grant", "keelboat"),
    ]);
    let code = ask(url.as_str()).map_err(|error| TransferError::Refused {
        found: format!("no code was read: {error}"),
        hint: "run keelboat login globus in a terminal and paste the code that the page shows"
            .into(),
    })?;
    let granted: Granted = api
        .ask_auth(
            &[
                ("grant_type", "authorization_code"),
                ("code", code.trim()),
                ("redirect_uri", redirect.as_str()),
                ("client_id", client_id),
                ("code_verifier", verifier.reveal()),
            ],
            None,
        )
        .await
        .map_err(no_token)?;
    let refresh_token = granted.for_transfer()?.refresh_token;
    let refresh_token = refresh_token.ok_or_else(|| TransferError::Refused {
        found: "Globus Auth gave no refresh token".into(),
        hint: "register the application as a native one, which may have refresh tokens".into(),
    })?;
    let tokens = Tokens { client_id: client_id.to_owned(), refresh_token, consents: all };
    tokens.write(tokens_file)
}

fn random() -> Result<Secret, TransferError> {
    let mut bytes = [0; VERIFIER_BYTES];
    let source = Path::new("/dev/urandom");
    let read = File::open(source).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| local(source, "read", &error))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}
