//! Bringing local files and directories to where others see them: whole, verified, retried.
//!
//! What is there is looked at first, so that a copy that a crash kept from being recorded is not
//! sent again. Where files come to be byte by byte, they are written under a name beside the
//! final one, read back, and renamed; elsewhere the server keeps them from showing until they are
//! whole, and they are read back unless it has computed a checksum itself.

mod error;
mod known;
mod leftover;
mod place;
mod standing;
mod tree;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use keelboat_engine::{Content, Digest, Digester, Kind};

pub use self::error::DeliverError;
pub(crate) use self::leftover::Swept;
pub use self::standing::Over;
use self::standing::{Standing, is_directory, stands};
use self::watch::{Watched, tell_resumed};
use crate::address::{address_digest, redact, scheme_of};
use crate::fetch::{Inner, Progress, Stager, TransferEvent, unknown_scheme};
use crate::gate::Turn;
use crate::local::{Delivered, DigestMemory, Forgetful, LocalError, deliver, digest_path};
use crate::protocol::{
    Condition, Errand, OpenRequest, Opened, Proof, Protocol, PutRequest, Sent, TransferError,
    Validators, Writing, local_path,
};
use crate::retry::{Retries, insist};

/// One file or directory that is to be elsewhere.
#[derive(Clone)]
pub struct Delivery {
    /// Where it is.
    pub source: PathBuf,
    /// What it holds.
    pub content: Content,
    /// Where it is to be. May hold secrets.
    pub address: Arc<str>,
    /// What may become of something else that is there.
    pub over: Over,
    /// Who wants to see it advance.
    pub progress: Option<Arc<dyn Progress>>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Delivery");
        debug.field("source", &self.source).field("content", &self.content);
        debug.field("address", &redact(&self.address)).finish_non_exhaustive()
    }
}

impl Stager {
    /// Brings one file or directory to an address, or finds that it is there.
    ///
    /// A reader at the other end sees the old file or the new one. `memory` knows digests of
    /// local files.
    ///
    /// # Errors
    /// It cannot be written there, or does not arrive as it is.
    pub async fn deliver<M>(&self, delivery: Delivery, memory: M) -> Result<Delivered, DeliverError>
    where
        M: DigestMemory + Send + 'static,
    {
        let shown = redact(&delivery.address);
        let fail = |error| DeliverError { address: shown.clone(), error };
        if crate::address::member_of(&delivery.address).is_some() {
            return Err(fail(TransferError::cannot_write(&scheme_of(&delivery.address))));
        }
        if self.inner.config.offline && !crate::address::is_local(&delivery.address) {
            return Err(fail(TransferError::Refused {
                found: "the network is not to be used".into(),
                hint: "run once without --offline".into(),
            }));
        }
        if scheme_of(&delivery.address) == "file" {
            return local(delivery, memory).await.map_err(fail);
        }
        self.inner.send(&delivery).await.map_err(fail)
    }
}

async fn local<M>(delivery: Delivery, memory: M) -> Result<Delivered, TransferError>
where
    M: DigestMemory + Send + 'static,
{
    let done = crate::fetch::blocking(move || {
        let Delivery { source, content, address, over, .. } = &delivery;
        let to = local_path(address)?;
        if content.kind == Kind::File && to.is_dir() {
            return Err(is_directory());
        }
        if *over != Over::Same
            && let Some(found) = stands(&to)
        {
            if digest_path(&to, content.kind, &memory, false).is_ok_and(|there| there == *content) {
                return Ok(Delivered::AlreadyThere);
            }
            delivery.over(&found)?;
        }
        deliver(source, content, address, &memory).map_err(|error| at_home(&error))
    });
    done.await.unwrap_or_else(|error| Err(at_home(&error)))
}

/// What went wrong on this side.
fn at_home(error: &LocalError) -> TransferError {
    TransferError::Local { class: error.class(), found: error.to_string(), hint: error.hint() }
}

impl Inner {
    async fn send(&self, delivery: &Delivery) -> Result<Delivered, TransferError> {
        let scheme = scheme_of(&delivery.address);
        if let Some(courier) = self.courier(&scheme)? {
            let errand = Errand {
                address: Arc::clone(&delivery.address),
                local: delivery.source.clone(),
                kind: delivery.content.kind,
                progress: delivery.progress.clone(),
            };
            let mut retries = self.retries(&address_digest(&delivery.address));
            let shown = redact(&delivery.address);
            let tell = |event: &TransferEvent<'_>| {
                if let Some(progress) = &delivery.progress {
                    progress.on_event(event);
                }
            };
            let sent = insist(&mut retries, &shown, &tell, || courier.send(&errand)).await;
            return sent.map(|()| Delivered::Copied);
        }
        let protocol = self.protocol(&scheme).ok_or_else(|| unknown_scheme(&scheme))?;
        let way = Way { stager: self, protocol: &*protocol, delivery };
        let delivered = match (protocol.writing(), delivery.content.kind) {
            (Writing::Never, _) => Err(TransferError::cannot_write(&scheme)),
            (Writing::Whole, Kind::File) => way.send_whole(&delivery.address).await,
            (Writing::Renamed, Kind::File) => way.send_beside().await,
            (writing, Kind::Directory) => tree::send(&way, writing).await,
        }?;
        if protocol.writing() == Writing::Renamed {
            leftover::sweep(&way).await;
        }
        Ok(delivered)
    }
}

/// One delivery on its way.
struct Way<'a> {
    stager: &'a Inner,
    protocol: &'a dyn Protocol,
    delivery: &'a Delivery,
}

impl Way<'_> {
    /// Where a file shows only when it is whole.
    async fn send_whole(&self, address: &Arc<str>) -> Result<Delivered, TransferError> {
        if !self.makes_way(address).await? {
            return Ok(Delivered::AlreadyThere);
        }
        let said = self.write(address).await?;
        self.remember(address, &said).await;
        Ok(Delivered::Copied)
    }

    /// Where a file is seen growing.
    async fn send_beside(&self) -> Result<Delivered, TransferError> {
        let address = &self.delivery.address;
        // A file never takes the place of a directory, which may hold what nobody else has.
        if self.occupant().await? == Some(Kind::Directory) {
            return Err(is_directory());
        }
        if !self.makes_way(address).await? {
            return Ok(Delivered::AlreadyThere);
        }
        let beside: Arc<str> = beside(address, &self.delivery.content.digest).into();
        self.write(&beside).await?;
        self.put_in_place(&beside, place::Sign::File).await?;
        Ok(Delivered::Copied)
    }

    /// Whether the file is to be written; not, when it is there.
    async fn makes_way(&self, address: &Arc<str>) -> Result<bool, TransferError> {
        match self.standing(address).await? {
            Standing::Same => return Ok(false),
            Standing::Nothing => {}
            Standing::Other(found) => self.delivery.over(&found)?,
        }
        Ok(true)
    }

    /// Writes the file until it is proven to be there, with as many tries as the budget has. What
    /// was said of it with the proof.
    async fn write(&self, address: &Arc<str>) -> Result<Validators, TransferError> {
        let Delivery { source, content, .. } = self.delivery;
        let mut tries = self.tries(address);
        let mut resume = true;
        let mut sent = Sent::default();
        loop {
            sent = sent.again();
            let request = PutRequest {
                address: Arc::clone(address),
                source: source.clone(),
                content: *content,
                resume,
                sent: sent.clone(),
            };
            let watched = Watched::begin(self.delivery, &sent);
            let put = self.protocol.put(&request).await;
            watched.end();
            tell_resumed(self.delivery, &sent);
            let error = match put {
                Ok(Proof::Checked(said)) => return Ok(said),
                Ok(Proof::Unchecked) => match self.read_back(address, &mut tries).await? {
                    (Standing::Same, said) => return Ok(said),
                    (found, _) => {
                        // Once more from the beginning, but not for ever.
                        resume = false;
                        TransferError::Malformed {
                            found: format!(
                                "expected SHA-256 {}, read back {}",
                                content.digest.short(),
                                match found {
                                    Standing::Other(found) => found,
                                    _ => "nothing".to_owned(),
                                }
                            ),
                        }
                    }
                },
                Err(error) => {
                    if !error.spoils_partial() {
                        tries.on_progress(&sent);
                    }
                    error
                }
            };
            if error.spoils_partial() {
                self.check_source().await?;
            }
            tries.wait(error).await?;
        }
    }

    /// Where other bytes arrive than were meant to, they may be what is here by now: another try
    /// is of no use then.
    async fn check_source(&self) -> Result<(), TransferError> {
        let Delivery { source, content, .. } = self.delivery;
        let (path, expected) = (source.clone(), *content);
        let found = crate::fetch::blocking(move || {
            digest_path(&path, Kind::File, &Forgetful, true).map(|found| found == expected)
        });
        match found.await.and_then(|found| found) {
            Ok(true) => Ok(()),
            Ok(false) => Err(at_home(&LocalError::Changed { path: source.clone() })),
            Err(error) => Err(at_home(&error)),
        }
    }

    /// Whether the file is at an address already. Only one of the same length is read.
    async fn is_there(&self, address: &Arc<str>) -> Result<bool, TransferError> {
        Ok(self.standing(address).await? == Standing::Same)
    }

    async fn read_back(
        &self,
        address: &Arc<str>,
        tries: &mut Tries<'_>,
    ) -> Result<(Standing, Validators), TransferError> {
        loop {
            match self.look(address, Condition::Always).await {
                Ok(found) => return Ok(found),
                Err(error) => tries.wait(error).await?,
            }
        }
    }

    /// What is at an address, and what tells it from later versions. It is read if it has the right
    /// length, and the server does not say that it is the one that it is asked about.
    async fn look(
        &self,
        address: &Arc<str>,
        condition: Condition,
    ) -> Result<(Standing, Validators), TransferError> {
        let Content { bytes: expected, digest, .. } = self.delivery.content;
        let request = OpenRequest {
            address: Arc::clone(address).into(),
            offset: 0,
            end: None,
            condition,
            turn: Turn::default(),
        };
        let nothing = || Ok((Standing::Nothing, Validators::default()));
        let (metadata, mut stream) = match (self.protocol.open(&request).await, request.condition) {
            (Err(TransferError::Missing { .. }), _) => return nothing(),
            (Ok(Opened::Unchanged), Condition::IfChanged(known)) => {
                return Ok((Standing::Same, known));
            }
            (Ok(Opened::Unchanged), _) => return nothing(),
            (Ok(Opened::Body { metadata, stream, .. }), _) => (metadata, stream),
            (Err(error), _) => return Err(error),
        };
        let other = |found: String| {
            let other = Standing::Other(format!("a file of other content ({found})"));
            Ok((other, Validators::default()))
        };
        if let Some(length) = metadata.length.filter(|length| *length != expected) {
            return other(format!("{length} bytes"));
        }
        let mut digester = Digester::new();
        let mut bytes = 0;
        while let Some(piece) = stream.next().await? {
            digester.update(&piece);
            bytes += piece.len() as u64;
            if bytes > expected {
                return other(format!("more than {expected} bytes"));
            }
        }
        let found = digester.finish();
        if bytes == expected && found == digest {
            return Ok((Standing::Same, metadata.validators));
        }
        other(format!("{bytes} bytes, SHA-256 {}", found.short()))
    }

    fn tries(&self, address: &str) -> Tries<'_> {
        let retries = self.stager.retries(&address_digest(address));
        Tries { retries, delivery: self.delivery, repeated: false, reached: (0, 0) }
    }
}

/// The tries at one step, with the waits between them.
struct Tries<'a> {
    retries: Retries,
    delivery: &'a Delivery,
    repeated: bool,
    /// The most bytes that were confirmed, and the furthest that were sent.
    reached: (u64, u64),
}

impl Tries<'_> {
    /// Waits before the next try, or says that there is none.
    async fn wait(&mut self, error: TransferError) -> Result<(), TransferError> {
        let wait = self.retries.on_failure(Instant::now(), error.retry_after());
        let Some(wait) = wait.filter(|_| error.is_retryable()) else { return Err(error) };
        if let Some(progress) = &self.delivery.progress {
            let (source, cause) = (redact(&self.delivery.address), error.to_string());
            let (source, cause, next) = (&*source, &*cause, Some(self.retries.next_try()));
            progress.on_event(&TransferEvent::Waiting { source, cause, wait, next });
        }
        self.repeated = true;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    const fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Where more is there than after any try before, or more went out.
    fn on_progress(&mut self, sent: &Sent) {
        let reached = (sent.confirmed(), sent.position());
        if reached.0 > self.reached.0 || reached.1 > self.reached.1 {
            self.reached = (reached.0.max(self.reached.0), reached.1.max(self.reached.1));
            self.retries.on_progress(Instant::now());
        }
    }
}

/// A hidden name beside an address, the same for the same content: what an earlier try or an
/// earlier run wrote there is gone on with.
fn beside(address: &str, digest: &Digest) -> String {
    hidden(address, &digest.short())
}

/// A name beside an address that only we use.
fn hidden(address: &str, what: &str) -> String {
    let (base, query) = match address.split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (address, String::new()),
    };
    let base = base.trim_end_matches('/');
    let (directory, name) = base.rsplit_once('/').unwrap_or(("", base));
    format!("{directory}/.{name}.keelboat-{what}{query}")
}

/// A local file and the address that it goes to.
fn of_file(delivery: &Delivery, source: &Path, content: Content, address: String) -> Delivery {
    Delivery {
        source: source.to_owned(),
        content,
        address: address.into(),
        over: delivery.over,
        progress: delivery.progress.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_are_hidden_and_of_the_content() {
        let digest = Digest::of(b"x");
        let short = digest.short();
        assert_eq!(
            beside("ftp://h/out/a%20b", &digest),
            format!("ftp://h/out/.a%20b.keelboat-{short}")
        );
        assert_eq!(beside("sftp://h/d/", &digest), format!("sftp://h/.d.keelboat-{short}"));
    }
}
