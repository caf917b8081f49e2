//! What a sweep must have seen to be worth its time.

use std::collections::BTreeMap;

macro_rules! marks {
    ($($name:ident),* $(,)?) => {
        /// A situation that the sweep must visit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Mark { $($name),* }

        pub(super) const ALL: &[Mark] = &[$(Mark::$name),*];
    };
}

marks! {
    GpusBesideOthers, FirstChoice, OtherChoice, TakenOver, UrgentFirst,
    Contention, NoRoom, PassedOver, AloneOnItsSite, TooLarge,
    SiteJoinedLate, SiteLostWithRunning, SiteLostWithPublishing, SiteLostWithFetching,
    SiteLostWithOnlyReplica, ResultRevived, ResultMadeAgain,
    RetriedTransient, RetriedOutOfResources, RetriedInfrastructureLost, RetriedInputMissing,
    RanOutOfMemory, RetriedWithMore,
    RetriedPermanent, RetriedAtHalf, RetriedFree, LossCharged, FailedByRule, SkippedItself,
    RetriesUsedUp, FailedPermanently, FailedToPublish, WaitedForBackoff,
    WaitedAfterLosses,
    CrashedWhileRecalling, CrashedWhileFetching, CrashedWhileQueued, CrashedWhileRunning,
    CrashedWhilePublishing, CrashedInBackoff, CrashedWhileExpanding, CrashedWhileDelivering,
    CrashedAmongActions, PowerCutLostFacts, FailuresRememberedAfterCrash,
    Grown, GrownAfterCrash, GrownUnderFailure, GrowthRefused, GrowthFailed,
    RecalledInPlace, RecalledRestored, MissedAtFirst, MissedDamaged, RecalledKnownOfUncached,
    RecalledKnownOfForced, RecalledKnownOfReadOnly, EarlyCutoff,
    AbsentSource, AbsentOutput, InsideDirectory, DeclaredDigestBrought, DeclaredDigestWrong,
    SourceMissing, SourceBroken,
    TransferRetried, TransferFromSite, TransferSourceGone, TransferDamaged, TransferForMany,
    ReadWhileDirectoryRewritten, NotInDirectoryAgain,
    LackedRoom, BeyondTheBound, HostWentDown, LastMissingFirst, Prefetched, HostsAtTheirShares, Evicted, FetchedAgainAfterEviction,
    DuplicateDropped, LateEventOfEarlierAttempt,
    Drained, StoppedNow, StoppedWhilePublishing, StoppedWhileRecalling, KilledAttempt,
    SkippedLong, FailedFast, Cancelled,
    Delivered, DeliveryFailed, DeliveryRetried, NotDeliveredTwice, FoundDelivered, DeliveredUnrecorded,
    DeliveredAnew, DeliveryOutdated,
    Snapshotted, SnapshotGivenUp, SavedAtEnd, SavedByNextEngine, RestoredOnRetry,
    RestoredByNextEngine, CheckpointOfAnotherKey, CheckpointForgotten, CrashedBeforeForgetting,
    SubmittedWhileRunning, SubmittedAfterCrash, SubmittedWhileStopping, SubmissionRefused,
    TookWhatWasDone, TookWhatHadFailed, ClosedBefore, ClosedAfterAll, CancelledWhilePublishing,
    Joined, JoinFailed, JoinCancelled, JoinGivenUp, HandlerSkips, ValueLost,
    LaunchedAhead, AdmittedFromLine, KilledInLine,
    LeftAnotherValue, SavedWhenKilled, RestoredInProgram,
    ContentChangedForWaiting, ContentChangedForRunning,
}

/// How often each was seen.
#[derive(Debug, Default)]
pub(super) struct Marks(pub(super) BTreeMap<Mark, u64>);

impl Marks {
    pub(super) fn hit(&mut self, mark: Mark) {
        *self.0.entry(mark).or_default() += 1;
    }

    pub(super) fn hit_if(&mut self, condition: bool, mark: Mark) {
        if condition {
            self.hit(mark);
        }
    }

    pub(super) fn missing(&self) -> Vec<Mark> {
        ALL.iter().copied().filter(|mark| !self.0.contains_key(mark)).collect()
    }
}
