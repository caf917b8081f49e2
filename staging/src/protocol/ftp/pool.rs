//! Idle connections, kept a while for the next file of the same login.
//!
//! A connection is taken out while it is used and comes back only when all that was asked for has
//! been answered, so one that was given up in the middle is never used again.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::FtpConfig;
use super::address::Login;
use super::session::Session;
use super::tls::Tls;
use crate::protocol::{AddressPolicy, TransferError};

/// Idle connections in all.
const IDLE_MAX: usize = 64;

/// How long an idle connection may take to show that it is alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    tls: Tls,
    connect_timeout: Duration,
    policy: AddressPolicy,
    idle_per_login_max: usize,
    idle_timeout: Duration,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The longest idle first.
    idle: Vec<Idle>,
    is_swept: bool,
}

struct Idle {
    login: Login,
    session: Session,
    since: Instant,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Idle");
        debug.field("login", &self.login).field("since", &self.since).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(config: &FtpConfig) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            tls: Tls::with_extra(config.extra_ca.as_deref())?,
            connect_timeout: config.connect_timeout,
            policy: config.address_policy,
            idle_per_login_max: config.idle_per_login_max,
            idle_timeout: config.idle_timeout,
            shelf: Mutex::default(),
        }))
    }

    /// A connection that has just answered: an idle one, or a new one.
    pub(super) async fn take(&self, login: &Login) -> Result<Session, TransferError> {
        if let Some(mut session) = self.idle(login) {
            match timeout(PROBE_TIMEOUT, session.reset()).await {
                Ok(Ok(())) => return Ok(session),
                // What ended one idle connection has ended the others, too.
                _ => self.forget(login),
            }
        }
        let opened = Session::open(login, &self.tls, self.connect_timeout, self.policy).await;
        if matches!(opened, Err(TransferError::Busy { .. })) {
            // It may be the idle connections that are too many.
            self.forget(login);
        }
        opened
    }

    /// Keeps a connection that waits for no answer.
    pub(super) fn give_back(self: &Arc<Self>, login: &Login, session: Session) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let same = shelf.idle.iter().filter(|idle| idle.login == *login).count();
        if same >= self.idle_per_login_max {
            return;
        }
        if shelf.idle.len() >= IDLE_MAX {
            shelf.idle.remove(0);
        }
        shelf.idle.push(Idle { login: login.clone(), session, since: Instant::now() });
        if !shelf.is_swept {
            shelf.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    fn idle(&self, login: &Login) -> Option<Session> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let position = shelf.idle.iter().rposition(|idle| idle.login == *login)?;
        Some(shelf.idle.remove(position).session)
    }

    /// Closes all idle connections to this server.
    fn forget(&self, login: &Login) {
        let is_there =
            |idle: &Idle| (&idle.login.host, idle.login.port) == (&login.host, login.port);
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).idle.retain(|i| !is_there(i));
    }

    /// Closes what has been idle for too long, and says when to look again.
    fn expire(&self) -> Option<Instant> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.idle.retain(|idle| idle.since.elapsed() < self.idle_timeout);
        let next = shelf.idle.first().map(|idle| idle.since + self.idle_timeout);
        shelf.is_swept = next.is_some();
        next
    }
}

/// Servers count idle connections, so they are closed in time even when nothing else is asked for.
async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next).await;
        match pool.upgrade().and_then(|pool| pool.expire()) {
            Some(later) => next = later,
            None => return,
        }
    }
}
