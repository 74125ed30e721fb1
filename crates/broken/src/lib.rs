//! Guarantees that can be broken on purpose, one at a time, to show that the fault runs notice.
//!
//! A check that cannot fail is worth nothing. With the feature `enabled` a process reads from
//! `SPENDFUSE_BREAK` which guarantee it breaks; without it, as in everything that users get,
//! [`is_broken`] is `false` at compile time, and what hangs on it is not in the program. Called at
//! the few places where a guarantee is made; `chaos --variants` builds and runs them all, but for the
//! notifier's, which `notify --variants` does, and those of holds: `holds --variants`.

#[cfg(all(feature = "enabled", not(debug_assertions)))]
compile_error!("broken guarantees do not belong into an optimised release: drop the feature");

/// A way in which a guarantee can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    /// A stage commits its input offsets by the consumer, not in the transaction.
    OffsetsOutsideTransaction,
    /// A stage writes its changelog with a producer without transactions.
    ChangelogOutsideTransaction,
    /// A transaction of a tick carries no offsets, so nothing fences it.
    TimerWithoutOffsets,
    /// A restored meter does not know which events it has counted.
    DedupeNotRestored,
    /// A meter takes its memory of identities for complete, whatever the log has lost.
    DedupeClaimsMore,
    /// A partition's heartbeats begin in 1970, and a guard takes their word for it.
    HeartbeatBegunAnew,
    /// Duplicates are looked for where an event arrives, not where it is at home.
    DedupeBeforeRerouting,
    /// A restore ends at the last stable offset instead of the log's end.
    RestoreToLastStableOffset,
    /// A worker fences its predecessor only after it has restored.
    InitAfterRestore,
    /// A failed transaction is aborted, and the worker goes on with the state it has.
    AbortAndGoOn,
    /// The loader inserts without writing down before what it is about to insert.
    LoaderWithoutIntent,
    /// An insert's token names the number of records, not the range.
    TokenNotTiedToRange,
    /// A loader without offsets begins at the log's start, whatever the warehouse has.
    LoaderTrustsOffsetsOnly,
    /// An insert's token does not name its content.
    TokenWithoutContent,
    /// Addresses of rows are those of the first set of topics, whichever is counted in.
    AddressesWithoutEpoch,
    /// The position of an idle partition stays in front of the last transaction's marker.
    IdlePositionStays,
    /// ClickHouse remembers one insert only.
    DeduplicationWindowTooSmall,
    /// Views count a repeated insert again.
    ViewDeduplicationOff,
    /// A verdict that expired is never published again.
    ExpiredVerdictNotRepublished,
    /// The sidecar answers before an event is safe.
    SidecarAcksEarly,
    /// A proxy writes down nowhere which calls are under way.
    StartsForgotten,
    /// A stream that its provider breaks off costs nothing.
    BrokenStreamNotCharged,
    /// A budget whose record cannot be read counts as removed.
    UnreadableBudgetRemoved,
    /// The notifier writes what it knows after the transaction that moved its offsets.
    DeliveryStateOutsideTransaction,
    /// What a call has cost is held by nobody until an entry shows it.
    PendingDroppedTooEarly,
    /// A call that one budget refuses stays held in those that were asked before.
    RollbackForgotten,
    /// A sidecar that has just started reserves by what it knows.
    NewcomerAdmitsAlone,
}

impl Break {
    /// Every one.
    pub const ALL: [Self; 27] = [
        Self::OffsetsOutsideTransaction,
        Self::ChangelogOutsideTransaction,
        Self::TimerWithoutOffsets,
        Self::DedupeNotRestored,
        Self::DedupeClaimsMore,
        Self::HeartbeatBegunAnew,
        Self::DedupeBeforeRerouting,
        Self::RestoreToLastStableOffset,
        Self::InitAfterRestore,
        Self::AbortAndGoOn,
        Self::LoaderWithoutIntent,
        Self::TokenNotTiedToRange,
        Self::LoaderTrustsOffsetsOnly,
        Self::TokenWithoutContent,
        Self::AddressesWithoutEpoch,
        Self::IdlePositionStays,
        Self::DeduplicationWindowTooSmall,
        Self::ViewDeduplicationOff,
        Self::ExpiredVerdictNotRepublished,
        Self::SidecarAcksEarly,
        Self::StartsForgotten,
        Self::BrokenStreamNotCharged,
        Self::UnreadableBudgetRemoved,
        Self::DeliveryStateOutsideTransaction,
        Self::PendingDroppedTooEarly,
        Self::RollbackForgotten,
        Self::NewcomerAdmitsAlone,
    ];

    /// Its name in `SPENDFUSE_BREAK`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OffsetsOutsideTransaction => "offsets-outside-transaction",
            Self::ChangelogOutsideTransaction => "changelog-outside-transaction",
            Self::TimerWithoutOffsets => "timer-without-offsets",
            Self::DedupeNotRestored => "dedupe-not-restored",
            Self::DedupeClaimsMore => "dedupe-claims-more",
            Self::HeartbeatBegunAnew => "heartbeat-begun-anew",
            Self::DedupeBeforeRerouting => "dedupe-before-rerouting",
            Self::RestoreToLastStableOffset => "restore-to-last-stable-offset",
            Self::InitAfterRestore => "init-after-restore",
            Self::AbortAndGoOn => "abort-and-go-on",
            Self::LoaderWithoutIntent => "loader-without-intent",
            Self::TokenNotTiedToRange => "token-not-tied-to-range",
            Self::LoaderTrustsOffsetsOnly => "loader-trusts-offsets-only",
            Self::TokenWithoutContent => "token-without-content",
            Self::AddressesWithoutEpoch => "addresses-without-epoch",
            Self::IdlePositionStays => "idle-position-stays",
            Self::DeduplicationWindowTooSmall => "deduplication-window-too-small",
            Self::ViewDeduplicationOff => "view-deduplication-off",
            Self::ExpiredVerdictNotRepublished => "expired-verdict-not-republished",
            Self::SidecarAcksEarly => "sidecar-acks-early",
            Self::StartsForgotten => "starts-forgotten",
            Self::BrokenStreamNotCharged => "broken-stream-not-charged",
            Self::UnreadableBudgetRemoved => "unreadable-budget-removed",
            Self::DeliveryStateOutsideTransaction => "delivery-state-outside-transaction",
            Self::PendingDroppedTooEarly => "pending-dropped-too-early",
            Self::RollbackForgotten => "rollback-forgotten",
            Self::NewcomerAdmitsAlone => "newcomer-admits-alone",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// Whether this guarantee is broken on purpose: never.
#[cfg(not(feature = "enabled"))]
#[inline(always)]
pub const fn is_broken(_: Break) -> bool {
    false
}

/// Whether this process breaks this guarantee on purpose.
///
/// # Panics
/// Where `SPENDFUSE_BREAK` names none.
#[cfg(feature = "enabled")]
pub fn is_broken(one: Break) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Break>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("SPENDFUSE_BREAK").ok()?;
        let known = Break::named(&name);
        Some(known.unwrap_or_else(|| panic!("SPENDFUSE_BREAK={name}: there is no such guarantee")))
    });
    *chosen == Some(one)
}
