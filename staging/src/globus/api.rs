//! Calls of the Transfer API and of Auth: paced, tried again, with a fresh token when the one in
//! use is refused.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Method, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::account::Account;
use super::answer::{CallError, Refusal};
use crate::credentials::Secret;
use crate::protocol::{TransferError, describe, retry_after, send_error};
use crate::retry::{Retries, RetryBudget};

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Fresh tokens that one call may be refused with.
const TOKENS_MAX: u32 = 2;

/// One call of the Transfer API.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    url: Url,
    body: Option<Value>,
}

/// The services of Globus.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    auth: Url,
    transfer: Url,
    pace: Pace,
    retry: RetryBudget,
    timeout: Duration,
    seed: u64,
}

/// What [`Api`] is made of.
#[derive(Debug)]
pub(super) struct ApiConfig<'a> {
    pub(super) client: Client,
    pub(super) auth_url: &'a str,
    pub(super) transfer_url: &'a str,
    pub(super) requests_per_second_max: u32,
    pub(super) retry: RetryBudget,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
}

impl Api {
    /// # Errors
    /// An address of a service is none.
    pub(super) fn new(config: ApiConfig<'_>) -> Result<Self, TransferError> {
        Ok(Self {
            client: config.client,
            auth: service(config.auth_url)?,
            transfer: service(config.transfer_url)?,
            pace: Pace::new(config.requests_per_second_max),
            retry: config.retry,
            timeout: config.timeout,
            seed: config.seed,
        })
    }

    /// `path` is a list of segments, each of them escaped here.
    pub(super) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Call {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Call { method: Method::GET, url, body: None }
    }

    pub(super) fn post(&self, path: &[&str], body: Value) -> Call {
        Call { method: Method::POST, url: self.url(path), body: Some(body) }
    }

    /// The page of Auth where people log in.
    pub(super) fn authorize_url(&self) -> Url {
        at(&self.auth, &["v2", "oauth2", "authorize"])
    }

    /// Where Auth shows the code that people paste.
    pub(super) fn code_url(&self) -> Url {
        at(&self.auth, &["v2", "web", "auth-code"])
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = at(&self.transfer, &["v0.10"]);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }

    /// Makes one call, as often as it takes.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        account: &Account,
        call: Call,
    ) -> Result<T, CallError> {
        let mut may_be_done = false;
        match self.insist(account, call, &mut may_be_done).await {
            Err(error) if may_be_done && !error.is_final() => {
                Err(CallError::InDoubt(error.explain()))
            }
            called => called,
        }
    }

    /// `may_be_done`: an answer was lost, or said nothing.
    async fn insist<T: DeserializeOwned>(
        &self,
        account: &Account,
        call: Call,
        may_be_done: &mut bool,
    ) -> Result<T, CallError> {
        let mut retries = Retries::new(&self.retry, self.seed, Instant::now());
        let mut tokens_refused = 0;
        let mut consents_added = 0;
        loop {
            let token = account.token(self).await.map_err(CallError::NoToken)?;
            self.pace.turn().await;
            let refusal = match self.try_call(&token, &call).await {
                Ok(document) => return Ok(document),
                Err(CallError::Refused(refusal)) => refusal,
                Err(CallError::GaveUp(error)) => {
                    *may_be_done = true;
                    self.wait_or_give_up(&mut retries, error, None).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            *may_be_done |= refusal.is_temporary() && refusal.status.is_server_error();
            if refusal.status.as_u16() == 401 && tokens_refused < TOKENS_MAX {
                tokens_refused += 1;
                account.on_refused(&token).await;
            } else if refusal.needs_consent()
                && consents_added < TOKENS_MAX
                && account.consent(&refusal.required_scopes).await
            {
                consents_added += 1;
            } else if refusal.is_temporary() {
                let retry_after = refusal.retry_after;
                if refusal.status.as_u16() == 429 {
                    self.pace.hold(retry_after.unwrap_or_default());
                }
                self.wait_or_give_up(&mut retries, refusal.explain(), retry_after).await?;
            } else {
                return Err(CallError::Refused(refusal));
            }
        }
    }

    async fn wait_or_give_up(
        &self,
        retries: &mut Retries,
        error: TransferError,
        retry_after: Option<Duration>,
    ) -> Result<(), CallError> {
        let Some(wait) = retries.on_failure(Instant::now(), retry_after) else {
            return Err(CallError::GaveUp(error));
        };
        tracing::debug!(%error, ?wait, "Globus is asked again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn try_call<T: DeserializeOwned>(
        &self,
        token: &Secret,
        call: &Call,
    ) -> Result<T, CallError> {
        let mut request = self.client.request(call.method.clone(), call.url.clone());
        request = request.bearer_auth(token.reveal()).header(ACCEPT, "application/json");
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    /// Asks Auth for tokens. Nobody is logged in yet, so nothing is to be refreshed.
    pub(super) async fn ask_auth<T: DeserializeOwned>(
        &self,
        form: &[(&str, &str)],
        client: Option<(&str, &Secret)>,
    ) -> Result<T, CallError> {
        let mut retries = Retries::new(&self.retry, self.seed, Instant::now());
        let mut url = at(&self.auth, &["v2", "oauth2", "token"]);
        url.query_pairs_mut().extend_pairs(form);
        let body = url.query().unwrap_or_default().to_owned();
        url.set_query(None);
        loop {
            let mut request = self.client.post(url.clone()).body(body.clone());
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            if let Some((id, secret)) = client {
                request = request.basic_auth(id, Some(secret.reveal()));
            }
            let (error, retry_after) = match self.answer(request).await {
                Err(CallError::Refused(refusal)) if refusal.is_temporary() => {
                    let retry_after = refusal.retry_after;
                    (refusal.explain(), retry_after)
                }
                Err(CallError::GaveUp(error)) => (error, None),
                other => return other,
            };
            self.wait_or_give_up(&mut retries, error, retry_after).await?;
        }
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, CallError> {
        let response = request.timeout(self.timeout).send().await;
        let response = response.map_err(|error| match send_error(&error) {
            refused @ TransferError::Refused { .. } => CallError::NoToken(refused),
            error => CallError::GaveUp(error),
        })?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), jiff::Timestamp::now());
        let body = read(response).await.map_err(CallError::GaveUp)?;
        if !status.is_success() {
            return Err(CallError::Refused(Refusal::read(status, &body, retry_after)));
        }
        serde_json::from_slice(&body).map_err(|error| {
            // Its text may hold a part of the document, and that a token.
            let (kind, column) = (error.classify(), error.column());
            let found = format!("not the expected document ({kind:?} at column {column})");
            CallError::GaveUp(TransferError::Malformed { found })
        })
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, TransferError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return Ok(body),
            Err(error) => return Err(TransferError::Unreachable { found: describe(&error) }),
        }
        if body.len() > ANSWER_BYTES_MAX {
            let found = format!("Globus answered with more than {ANSWER_BYTES_MAX} bytes");
            return Err(TransferError::Malformed { found });
        }
    }
}

fn service(url: &str) -> Result<Url, TransferError> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    parsed.ok_or_else(|| TransferError::Refused {
        found: "the address of a service of Globus is not a URL".into(),
        hint: "check GLOBUS_SDK_SERVICE_URL_AUTH and GLOBUS_SDK_SERVICE_URL_TRANSFER".into(),
    })
}

fn at(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// Requests evenly spaced: Globus allows a user so many a second.
#[derive(Debug)]
struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(requests_per_second_max: u32) -> Self {
        let gap = Duration::from_secs(1) / requests_per_second_max.max(1);
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + self.gap;
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }

    /// Nobody asks for so long.
    fn hold(&self, wait: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(Instant::now() + wait);
    }
}

/// A document with a list in it.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    #[serde(rename = "DATA")]
    pub(super) data: Vec<T>,
    /// Where the list goes on.
    #[serde(default)]
    pub(super) next_marker: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_keep_their_pace() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        for _ in 0..21 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(20));
        pace.hold(Duration::from_mins(1));
        assert!(*pace.next.lock().unwrap() >= start + Duration::from_mins(1));
    }

    #[test]
    fn paths_are_escaped() {
        let url = at(&Url::parse("https://h/").unwrap(), &["task", "a/../b?c"]);
        assert_eq!(url.as_str(), "https://h/task/a%2F..%2Fb%3Fc");
    }
}
