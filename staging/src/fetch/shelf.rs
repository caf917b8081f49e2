//! Archives whose members are wanted: each comes once, and is read once for all of its members
//! that are wanted by then. One that nobody reads stays for further members until transfers lack
//! room.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use keelboat_engine::Kind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::arrived::{Arrived, Own};
use super::blocking;
use super::error::SourceError;
use super::flight::Flight;
use crate::archive::{Wanted, extract};
use crate::gate::Spare;
use crate::local::LocalError;

/// Archives that are kept although nobody reads them.
const IDLE_MAX: usize = 64;

/// Before an archive is read, others may join for so long; for a small one less.
const GATHER_MAX: Duration = Duration::from_secs(1);

/// Bytes of an archive for which others may join for a millisecond: a pass takes ten times that
/// and more.
const BYTES_PER_GATHERED_MS: u64 = 10 << 20;

/// The archives of a stager.
#[derive(Debug)]
pub(super) struct Archives {
    /// The one used last at the end.
    shelves: Mutex<VecDeque<Arc<Shelf>>>,
    /// Who unpacks or hashes has one of these.
    readers: Arc<Semaphore>,
    /// Whether the room is bounded, so that nothing stays that does not count.
    is_bounded: bool,
}

impl Archives {
    pub(super) fn new(space_max: Option<u64>) -> Self {
        let readers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shelves: Mutex::default(),
            readers: Arc::new(Semaphore::new(readers)),
            is_bounded: space_max.is_some(),
        }
    }

    /// Where the archive of an address is kept while this is held.
    pub(super) fn shelf(&self, format: &str, address: &str) -> Arc<Shelf> {
        let mut shelves = self.lock();
        let is_this = |shelf: &Arc<Shelf>| &*shelf.address == address && shelf.format == format;
        let shelf = shelves.iter().position(is_this).and_then(|at| shelves.remove(at));
        let shelf = shelf.unwrap_or_else(|| {
            let (address, format) = (address.into(), format.to_owned());
            Arc::new(Shelf { address, format, state: Mutex::default() })
        });
        shelves.push_back(Arc::clone(&shelf));
        let idle = (shelves.len() > IDLE_MAX).then(|| take_idle(&mut shelves)).flatten();
        drop(shelves);
        if let Some(idle) = idle {
            idle.empty(self.is_bounded);
        }
        shelf
    }

    /// Waits until one more may read an archive or what came out of it.
    pub(super) async fn reader(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).acquire_owned().await.ok()
    }

    /// Lets go of all of them, for good.
    pub(super) fn discard(&self) {
        let all = std::mem::take(&mut *self.lock());
        for shelf in all {
            shelf.empty(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Shelf>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare for Archives {
    fn give_up(&self) -> bool {
        let idle = take_idle(&mut self.lock());
        idle.map(|shelf| shelf.empty(true)).is_some()
    }
}

/// The one that nobody has used for longest. Who holds one got it from here.
fn take_idle(shelves: &mut VecDeque<Arc<Shelf>>) -> Option<Arc<Shelf>> {
    let idle = shelves.iter().position(|shelf| Arc::strong_count(shelf) == 1);
    idle.and_then(|idle| shelves.remove(idle))
}

/// One archive, here or on its way.
#[derive(Debug)]
pub(super) struct Shelf {
    address: Arc<str>,
    format: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) archive: Option<Arc<Arrived>>,
    /// The transfer that was begun last.
    pub(super) flight: Weak<Flight>,
    wishes: Vec<Wish>,
    is_read: bool,
}

/// A member that somebody waits for.
#[derive(Debug)]
struct Wish {
    member: String,
    kind: Kind,
    own: Own,
    unpacked: oneshot::Sender<Result<Unpacked, SourceError>>,
}

/// A member, and the archive that it came out of.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) own: Own,
    pub(super) archive: Arc<Arrived>,
}

/// How a shelf reads its archive.
pub(super) struct Reading<'a> {
    pub(super) archives: &'a Arc<Archives>,
    pub(super) archive: Arc<Arrived>,
    /// Bytes that one member may unpack to.
    pub(super) bytes_max: u64,
}

impl Shelf {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who wants the archive from now on begins a transfer of its own.
    pub(super) fn forget(&self, flight: &Arc<Flight>) {
        let mut state = self.lock();
        if std::ptr::eq(state.flight.as_ptr(), Arc::as_ptr(flight)) {
            state.flight = Weak::new();
        }
    }

    /// Lets go of the archive; its bytes may stay for the next run.
    fn empty(&self, for_good: bool) {
        if let Some(archive) = self.lock().archive.take()
            && for_good
        {
            archive.is_claimed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes a member to the place that it is given, in a pass with others that are wanted.
    pub(super) async fn unpack(
        self: &Arc<Self>,
        reading: Reading<'_>,
        member: &str,
        kind: Kind,
        own: Own,
    ) -> Result<Unpacked, SourceError> {
        let (unpacked, ended) = oneshot::channel();
        let is_read = {
            let mut state = self.lock();
            state.wishes.push(Wish { member: member.to_owned(), kind, own, unpacked });
            std::mem::replace(&mut state.is_read, true)
        };
        if !is_read {
            let Reading { archives, archive, bytes_max } = reading;
            tokio::spawn(Arc::clone(self).read(Arc::clone(archives), archive, bytes_max));
        }
        ended.await.unwrap_or_else(|_| Err(broken_off(&self.address)))
    }

    /// Reads the archive until nobody waits for a member.
    async fn read(self: Arc<Self>, archives: Arc<Archives>, archive: Arc<Arrived>, bytes_max: u64) {
        loop {
            let gathered = Duration::from_millis(archive.content.bytes / BYTES_PER_GATHERED_MS);
            tokio::time::sleep(gathered.min(GATHER_MAX)).await;
            let reader = archives.reader().await;
            let Some(wishes) = self.take_wishes() else { return };
            let (from, format) = (Arc::clone(&archive), self.format.clone());
            tracing::debug!(members = wishes.len(), "an archive is read");
            let pass = blocking(move || grant(wishes, &from, &format, bytes_max));
            if let Err(error) = pass.await {
                tracing::warn!(%error, "an archive was not read to its end");
            }
            drop(reader);
        }
    }

    /// Those who still wait; `None`: none does, and whoever comes next begins anew.
    fn take_wishes(&self) -> Option<Vec<Wish>> {
        let mut state = self.lock();
        let mut wishes = std::mem::take(&mut state.wishes);
        wishes.retain(|wish| !wish.unpacked.is_closed());
        state.is_read = !wishes.is_empty();
        state.is_read.then_some(wishes)
    }
}

fn grant(wishes: Vec<Wish>, archive: &Arc<Arrived>, format: &str, bytes_max: u64) {
    let wanted = wishes.iter().map(|Wish { member, kind, own, .. }| Wanted {
        member,
        kind: *kind,
        to: own.path(),
    });
    let wanted: Vec<_> = wanted.collect();
    let results = extract(archive.path(), format, &wanted, bytes_max);
    for (Wish { own, unpacked, .. }, result) in wishes.into_iter().zip(results) {
        let archive = Arc::clone(archive);
        let result = result.map(|()| Unpacked { own, archive }).map_err(SourceError::from);
        if unpacked.send(result).is_err() {
            tracing::debug!("a member of an archive was given up while it was unpacked");
        }
    }
}

fn broken_off(address: &str) -> SourceError {
    let error = std::io::Error::other("the archive was not read to its end by a fault");
    SourceError::Local(LocalError::io("read", Path::new(&crate::address::redact(address)), error))
}

#[cfg(test)]
mod tests {
    use keelboat_engine::{Content, Digest};

    use super::*;
    use crate::protocol::Validators;

    /// An archive with so many members, each of which holds its own name.
    fn arrived(dir: &Path, members: usize) -> Arc<Arrived> {
        let mut tar = tar::Builder::new(Vec::new());
        for member in 0..members {
            let name = member.to_string();
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            tar.append_data(&mut header, &name, name.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap();
        let own = Own::name(dir, &Digest::of(b"archive")).unwrap();
        std::fs::write(own.path(), &bytes).unwrap();
        let digest = Digest::of(&bytes);
        let content = Content { digest, bytes: bytes.len() as u64, kind: Kind::File };
        Arc::new(Arrived::own(own, content, Validators::default(), 0, "archive".into()))
    }

    #[tokio::test]
    async fn all_who_wait_by_then_are_served_in_one_pass() {
        let dir = tempfile::tempdir().unwrap();
        let archives = Arc::new(Archives::new(None));
        let readers = u32::try_from(archives.readers.available_permits()).unwrap();
        let shelf = archives.shelf("tar", "archive");
        let archive = arrived(dir.path(), 100);
        let busy = archives.readers.acquire_many(readers).await.unwrap();
        let mut all = tokio::task::JoinSet::new();
        for member in 0..100 {
            let own = Own::name(dir.path(), &Digest::of(b"member")).unwrap();
            let (archives, archive) = (Arc::clone(&archives), Arc::clone(&archive));
            let shelf = Arc::clone(&shelf);
            all.spawn(async move {
                let reading = Reading { archives: &archives, archive, bytes_max: 100 };
                let member = member.to_string();
                let unpacked = shelf.unpack(reading, &member, Kind::File, own).await.unwrap();
                assert_eq!(std::fs::read_to_string(unpacked.own.path()).unwrap(), member);
            });
        }
        while shelf.lock().wishes.len() < 100 {
            tokio::task::yield_now().await;
        }
        assert!(all.try_join_next().is_none(), "nothing is read while others are at it");
        drop(busy);
        let left = loop {
            tokio::task::yield_now().await;
            let left = shelf.lock().wishes.len();
            if left < 100 {
                break left;
            }
        };
        assert_eq!(left, 0, "the first pass takes all of them");
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
    }

    #[test]
    fn only_what_nobody_uses_goes() {
        let dir = tempfile::tempdir().unwrap();
        let archives = Archives::new(None);
        let shelf = |at: usize| archives.shelf("tar", &at.to_string());
        let used = shelf(0);
        used.lock().archive = Some(arrived(dir.path(), 1));
        shelf(1).lock().archive = Some(arrived(dir.path(), 1));
        for at in 2..IDLE_MAX + 2 {
            drop(shelf(at));
        }
        assert!(shelf(0).lock().archive.is_some(), "it is used");
        assert!(shelf(1).lock().archive.is_none(), "it was used longest ago");
        while archives.give_up() {}
        assert!(used.lock().archive.is_some(), "it is used");
        drop(used);
        assert!(archives.give_up());
        assert!(shelf(0).lock().archive.is_none());
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "what was given up is gone");
    }
}
