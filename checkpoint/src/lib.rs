//! What Keelboat remembers: journal, memo store, object cache, digest cache, snapshots of what
//! tasks save for their next attempts, and the lock that keeps two engines apart.
//!
//! The [journal] is the truth of a run. Everything else can be lost: the [memo] store is rebuilt
//! from journals, the [digest cache](digests) by hashing again, the [object cache](objects) by
//! running again. Whatever is read back is checked first; what is damaged is named, set aside and
//! never used. Formats are described in `docs/formats.md`.
//!
//! Deliberately absent: decisions (they are the engine's) and async. Threads of this crate are the
//! flush thread of a journal and the feeding thread of the memo store.

pub mod digests;
mod error;
mod files;
mod frame;
pub mod journal;
pub mod lock;
pub mod memo;
pub mod objects;
pub mod snapshots;

pub use digests::{DigestCache, stamp_of};
pub use error::IoError;
pub use journal::{
    Damage, DamageKind, FlushStats, Journal, JournalError, JournalReader, Mended, Position,
    Recovered, TornTail, mend_journal, read_journal,
};
pub use lock::{Holder, LockError, ProjectLock, host_name};
pub use memo::{
    CheckReport, FailureRecord, IndexError, MemoError, MemoNotice, MemoStore, RebuildReport,
    SourceRecord,
};
pub use objects::{
    BadObject, CacheStats, GcPolicy, GcReport, Inserted, ObjectCache, ObjectError, Restore,
    Restored, VerifyReport, is_executable,
};
pub use snapshots::{
    CHECKPOINTS_KEPT, DamagedSnapshot, Forgotten, Lease, Origin, Restoration, Saved, SnapshotError,
    SnapshotStore, Snapshots, Verdict,
};
