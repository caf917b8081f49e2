//! From the name beside into the place.
//!
//! What a server does not replace in one step is renamed aside first, and removed when the new one
//! stands. For that moment nothing has the name; if the new one cannot get it, the old one has it
//! again. A file never takes the place of a directory.

use keelboat_engine::Kind;

use super::standing::is_directory;
use super::tree::Tree;
use super::{Way, hidden};
use crate::protocol::{Renamed, TransferError};
use crate::redact;

/// Replaced ones that could not be removed, of one address.
const LEFT_MAX: u32 = 9;

/// By what it is known that something has its new name, when the answer was lost.
#[derive(Clone, Copy)]
pub(super) enum Sign<'a> {
    /// Something has it.
    Name,
    /// The file of this delivery has it.
    File,
    /// All of the directory of this delivery is there.
    Tree(&'a Tree),
}

impl Way<'_> {
    /// What has a name now.
    pub(super) async fn kind(&self, address: &str) -> Result<Option<Kind>, TransferError> {
        let mut tries = self.tries(address);
        loop {
            match self.protocol.kind(address).await {
                Ok(kind) => return Ok(kind),
                Err(error) => tries.wait(error).await?,
            }
        }
    }

    /// What has the name that is to be written. Where a crash left nothing but the old one aside,
    /// that has it again.
    pub(super) async fn occupant(&self) -> Result<Option<Kind>, TransferError> {
        let address = &*self.delivery.address;
        let occupant = match self.kind(address).await {
            // Whoever may write need not be allowed to look; nothing is removed by that.
            Err(TransferError::Forbidden { .. }) => return Ok(None),
            occupant => occupant?,
        };
        let aside = aside(address);
        if occupant.is_some() || self.kind(&aside).await?.is_none() {
            return Ok(occupant);
        }
        self.rename(&aside, address, Sign::Name).await?;
        self.kind(address).await
    }

    /// Gives what was written beside its name. The sign is that it has it.
    pub(super) async fn put_in_place(
        &self,
        beside: &str,
        sign: Sign<'_>,
    ) -> Result<(), TransferError> {
        match self.rename(beside, &self.delivery.address, sign).await? {
            Renamed::Done => Ok(()),
            Renamed::InTheWay(refusal) => self.replace(beside, refusal, sign).await,
        }
    }

    async fn replace(
        &self,
        beside: &str,
        refusal: TransferError,
        sign: Sign<'_>,
    ) -> Result<(), TransferError> {
        let address = &*self.delivery.address;
        match (self.kind(address).await?, self.delivery.content.kind) {
            (None, _) => return Err(refusal),
            (Some(Kind::Directory), Kind::File) => return Err(is_directory()),
            (Some(_), _) => {}
        }
        let aside = aside(address);
        self.clear(&aside).await?;
        done(self.rename(address, &aside, Sign::Name).await?)?;
        let Err(error) = self.rename(beside, address, sign).await.and_then(done) else {
            if let Err(error) = self.remove(&aside).await {
                let aside = redact(&aside);
                tracing::warn!(%error, "what was replaced cannot be removed: {aside}");
            }
            return Ok(());
        };
        match self.rename(&aside, address, Sign::Name).await {
            Ok(Renamed::Done) => Err(error),
            Ok(Renamed::InTheWay(_)) | Err(_) => Err(kept_aside(&error, &aside)),
        }
    }

    /// Removes what is left aside: it has been replaced since. What cannot be removed gets another
    /// name, so that this one is always of the latest.
    async fn clear(&self, aside: &str) -> Result<(), TransferError> {
        let Err(error) = self.remove(aside).await else { return Ok(()) };
        if error.is_retryable() {
            return Err(error);
        }
        for number in 2..=LEFT_MAX {
            let other = hidden(&self.delivery.address, &format!("old-{number}"));
            if self.rename(aside, &other, Sign::Name).await? == Renamed::Done {
                return Ok(());
            }
        }
        Err(TransferError::Refused {
            found: format!("what was replaced cannot be removed ({}: {error})", redact(aside)),
            hint: "remove it by other means".into(),
        })
    }

    /// Gives one name for another. An earlier try may have done it, and its answer been lost.
    async fn rename(&self, from: &str, to: &str, sign: Sign<'_>) -> Result<Renamed, TransferError> {
        let mut tries = self.tries(to);
        loop {
            match self.protocol.rename(from, to).await {
                Ok(renamed) => return Ok(renamed),
                Err(TransferError::Missing { .. }) if tries.is_repeated() => {
                    if self.shows(to, sign).await? {
                        return Ok(Renamed::Done);
                    }
                    let found = "what was written is gone".into();
                    return Err(TransferError::Changed { found });
                }
                Err(error) => tries.wait(error).await?,
            }
        }
    }

    async fn shows(&self, address: &str, sign: Sign<'_>) -> Result<bool, TransferError> {
        match sign {
            Sign::Name => Ok(self.kind(address).await?.is_some()),
            Sign::File => self.is_there(&address.into()).await,
            Sign::Tree(tree) => tree.is_whole(self, address).await,
        }
    }

    pub(super) async fn remove(&self, address: &str) -> Result<(), TransferError> {
        let mut tries = self.tries(address);
        while let Err(error) = self.protocol.remove(address).await {
            tries.wait(error).await?;
        }
        Ok(())
    }
}

/// What could have been in the way is aside.
fn done(renamed: Renamed) -> Result<(), TransferError> {
    match renamed {
        Renamed::Done => Ok(()),
        Renamed::InTheWay(error) => Err(error),
    }
}

fn kept_aside(error: &TransferError, aside: &str) -> TransferError {
    TransferError::Refused {
        found: format!("{error}; what stood there before is kept as {}", redact(aside)),
        hint: "run the same command again, or rename it back by other means".into(),
    }
}

/// Where the old one is while the new one takes its place.
fn aside(address: &str) -> String {
    hidden(address, "old")
}
