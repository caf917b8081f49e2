//! Who asks: where access tokens come from, and when a new one is needed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;

use super::answer::CallError;
use super::api::Api;
use super::tokens::Tokens;
use crate::credentials::{Credential, Secret};
use crate::protocol::TransferError;

/// The scope of the whole Transfer API.
pub(super) const TRANSFER_ALL: &str = "urn:globus:auth:scope:transfer.api.globus.org:all";

const TRANSFER_SERVER: &str = "transfer.api.globus.org";

/// How long before its end a token is renewed.
const RENEWED_BEFORE: Duration = Duration::from_mins(1);

/// One identity at Globus.
#[derive(Debug)]
pub(super) struct Account {
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
enum Source {
    /// The application itself.
    Client { id: String, secret: Secret },
    /// A person, by way of an application.
    Refresh { id: String, secret: Option<Secret>, refresh: Secret },
    /// A token, which somebody else renews, or nobody.
    Bearer(Box<Credential>),
    /// What `keelboat login globus` has left.
    Login(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// Consents that were asked for in mid-run.
    consents: BTreeSet<String>,
}

#[derive(Debug)]
struct Held {
    token: Secret,
    /// `None`: nobody knows.
    ends: Option<Instant>,
}

/// What Auth answers with.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: Secret,
    resource_server: Option<String>,
    expires_in: Option<u64>,
    pub(super) refresh_token: Option<Secret>,
    #[serde(default)]
    other_tokens: Vec<Granted>,
}

impl Granted {
    /// The one for the Transfer API.
    pub(super) fn for_transfer(self) -> Result<Self, TransferError> {
        let is_for_transfer =
            |one: &Self| one.resource_server.as_deref().is_none_or(|name| name == TRANSFER_SERVER);
        if is_for_transfer(&self) {
            return Ok(self);
        }
        self.other_tokens.into_iter().find(is_for_transfer).ok_or_else(|| TransferError::Refused {
            found: "Globus Auth gave no token for transfers".into(),
            hint: format!("log in again (keelboat login globus), with the scope {TRANSFER_ALL}"),
        })
    }
}

impl Account {
    /// Of an entry with credentials.
    ///
    /// # Errors
    /// There is nothing in it that Globus takes.
    pub(super) fn of(entry: &Credential) -> Result<Self, TransferError> {
        let source = match entry {
            Credential { refresh_token: Some(refresh), client_id: Some(id), .. } => {
                let secret = entry.client_secret.clone();
                Source::Refresh { id: id.clone(), secret, refresh: refresh.clone() }
            }
            Credential { client_secret: Some(secret), client_id: Some(id), .. } => {
                Source::Client { id: id.clone(), secret: secret.clone() }
            }
            Credential { token_file: Some(_), .. } | Credential { token: Some(_), .. } => {
                Source::Bearer(Box::new(entry.clone()))
            }
            _ => {
                return Err(TransferError::Refused {
                    found: format!("the credentials for {} do not suffice for Globus", entry.scope),
                    hint: "give `client_id` with `client_secret` or `refresh_token`, or `token`, \
                           or `token_file`"
                        .into(),
                });
            }
        };
        Ok(Self { source, state: Mutex::default() })
    }

    /// Of the person who has logged in.
    pub(super) fn login(tokens_file: PathBuf) -> Self {
        Self { source: Source::Login(tokens_file), state: Mutex::default() }
    }

    /// The token in use, or a new one.
    pub(super) async fn token(&self, api: &Api) -> Result<Secret, TransferError> {
        // Held while Auth is asked, so that all wait for one renewal.
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held
            && held.ends.is_none_or(|ends| Instant::now() + RENEWED_BEFORE < ends)
        {
            return Ok(held.token.clone());
        }
        let scope = scopes(&state.consents);
        let held = self.renew(api, &scope).await?;
        let token = held.token.clone();
        state.held = Some(held);
        Ok(token)
    }

    /// Globus does not take this token any more.
    pub(super) async fn on_refused(&self, token: &Secret) {
        let mut state = self.state.lock().await;
        if state.held.as_ref().is_some_and(|held| held.token == *token) {
            state.held = None;
        }
    }

    /// Whether the next token may have these scopes: applications give their consent themselves.
    pub(super) async fn consent(&self, required: &[String]) -> bool {
        if !matches!(self.source, Source::Client { .. }) {
            return false;
        }
        let mut state = self.state.lock().await;
        let known = state.consents.len();
        state.consents.extend(required.iter().cloned());
        let is_new = state.consents.len() > known;
        if is_new {
            state.held = None;
        }
        is_new
    }

    async fn renew(&self, api: &Api, scope: &str) -> Result<Held, TransferError> {
        let granted: Result<Granted, CallError> = match &self.source {
            Source::Bearer(entry) => {
                let token = entry.bearer().map_err(|error| TransferError::Refused {
                    found: error.to_string(),
                    hint: error.hint,
                })?;
                let token = token.unwrap_or_else(|| Secret::new(""));
                return Ok(Held { token, ends: None });
            }
            Source::Client { id, secret } => {
                let form = [("grant_type", "client_credentials"), ("scope", scope)];
                api.ask_auth(&form, Some((id, secret))).await
            }
            Source::Refresh { id, secret, refresh } => {
                refreshed(api, id, secret.as_ref(), refresh).await
            }
            Source::Login(path) => {
                let tokens = Tokens::read(path)?;
                let granted = refreshed(api, &tokens.client_id, None, &tokens.refresh_token).await;
                if let Ok(Granted { refresh_token: Some(next), .. }) = &granted
                    && *next != tokens.refresh_token
                {
                    Tokens { refresh_token: next.clone(), ..tokens }.write(path)?;
                }
                granted
            }
        };
        let granted = granted.map_err(no_token)?.for_transfer()?;
        let ends = granted.expires_in.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Ok(Held { token: granted.access_token, ends })
    }
}

async fn refreshed(
    api: &Api,
    id: &str,
    secret: Option<&Secret>,
    refresh: &Secret,
) -> Result<Granted, CallError> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.reveal())];
    if let Some(secret) = secret {
        return api.ask_auth(&form, Some((id, secret))).await;
    }
    let [kind, token] = form;
    api.ask_auth(&[kind, token, ("client_id", id)], None).await
}

/// The scopes to ask for: that of transfers, with the consents inside of its brackets.
pub(super) fn scopes<'a>(consents: impl IntoIterator<Item = &'a String>) -> String {
    let inner: BTreeSet<&str> = consents
        .into_iter()
        .flat_map(|consent| {
            let inside = consent.strip_prefix(TRANSFER_ALL).unwrap_or(consent);
            let inside = inside.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            inside.unwrap_or(consent).split_whitespace()
        })
        .filter(|scope| *scope != TRANSFER_ALL)
        .collect();
    if inner.is_empty() {
        return TRANSFER_ALL.to_owned();
    }
    let inner: Vec<&str> = inner.into_iter().collect();
    format!("{TRANSFER_ALL}[{}]", inner.join(" "))
}

/// Why Auth gave none.
pub(super) fn no_token(error: CallError) -> TransferError {
    match error {
        CallError::Refused(refusal) => {
            let hint = match refusal.code.as_str() {
                "invalid_grant" => "the login has ended or was revoked: keelboat login globus",
                "invalid_client" | "unauthorized_client" => {
                    "check `client_id` and `client_secret`: app.globus.org shows applications \
                     under Settings, Developers"
                }
                _ => "log in again: keelboat login globus",
            };
            let (code, status) = (&refusal.code, refusal.status);
            let found = format!("Globus Auth gave no token: {code} (status {status})");
            TransferError::Refused { found, hint: hint.into() }
        }
        error => error.explain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consents_go_into_one_pair_of_brackets() {
        assert_eq!(scopes(&[]), TRANSFER_ALL);
        let asked = [format!("{TRANSFER_ALL}[*https://b *https://a]"), "*https://b".to_owned()];
        assert_eq!(scopes(&asked), format!("{TRANSFER_ALL}[*https://a *https://b]"));
    }

    #[test]
    fn entries_that_do_not_suffice_say_so() {
        let entry = Credential { user: Some("u".into()), ..Credential::default() };
        assert!(Account::of(&entry).is_err());
        let secret = Some(Secret::new("hidden"));
        let entry = Credential { client_id: Some("c".into()), client_secret: secret, ..entry };
        assert!(!format!("{:?}", Account::of(&entry).unwrap()).contains("hidden"));
    }
}
