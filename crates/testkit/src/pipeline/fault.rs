//! Guarantees broken on purpose: a check that lets one of these pass is worth nothing.

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A restarted meter does not know the identities that it counted.
    RestoreWithoutIds,
    /// A restarted meter knows the identities, and not what it counted of their calls.
    RestoreWithoutCalls,
    /// A restarted meter has lost one record of its state changelog.
    RestoreWithoutOneRecord,
    /// Duplicates are not recognised.
    DedupeOff,
    /// The meter ignores the `where` of series.
    SeriesNotFiltered,
    /// Windows are chosen by arrival instead of the event's own time.
    WindowByArrival,
    /// Positions are committed outside the transaction: a crash loses the batch.
    PositionsOutsideTransaction,
    /// A delta record is delivered twice.
    DeltaTwice,
    /// A delta record is lost.
    DeltaLost,
    /// Tombstones of the blocklist are not written.
    NoTombstones,
    /// A scope that was published once is never published anew after its entry expired.
    ExpiredNotRepublished,
    /// Published states are throttled for a minute instead of a second.
    PublishedTooSeldom,
    /// Closed findings are not written.
    FindingsStayOpen,
    /// A row is written twice.
    RowTwice,
    /// Corrections that were applied are not remembered.
    CorrectionsForgotten,
    /// A correction changes rows and accounts by what stands from now on, and takes nothing back.
    NothingTakenBack,
    /// A call that was voided is counted when it is told again.
    VoidedCountsAgain,
    /// The ledger passes by what budgets say was spent before their counts began.
    OpeningIgnored,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 18] = [
        Self::RestoreWithoutIds,
        Self::RestoreWithoutCalls,
        Self::RestoreWithoutOneRecord,
        Self::DedupeOff,
        Self::SeriesNotFiltered,
        Self::WindowByArrival,
        Self::PositionsOutsideTransaction,
        Self::DeltaTwice,
        Self::DeltaLost,
        Self::NoTombstones,
        Self::ExpiredNotRepublished,
        Self::PublishedTooSeldom,
        Self::FindingsStayOpen,
        Self::RowTwice,
        Self::CorrectionsForgotten,
        Self::NothingTakenBack,
        Self::VoidedCountsAgain,
        Self::OpeningIgnored,
    ];
}
