//! Names of the processor's metrics, all in one place.

/// Events counted, by `kind` (usage, revenue, session_end).
pub const EVENTS_COUNTED: &str = "spendfuse_events_counted_total";
/// Events that were counted before.
pub const EVENTS_DUPLICATE: &str = "spendfuse_events_duplicate_total";
/// Events of a known identity with other content.
pub const EVENTS_CONFLICT: &str = "spendfuse_events_conflict_total";
/// Events in the DLQ, by `reason`.
pub const EVENTS_REJECTED: &str = "spendfuse_events_rejected_total";
/// Events handed over to their home partition.
pub const EVENTS_REROUTED: &str = "spendfuse_events_rerouted_total";
/// Unknown members that were removed from events on their way to the DLQ or their home partition.
pub const MEMBERS_REMOVED: &str = "spendfuse_members_removed_total";
/// Live sessions, by `partition`.
pub const SESSIONS: &str = "spendfuse_meter_sessions";
/// Remembered identities, by `partition`.
pub const DEDUPE_IDS: &str = "spendfuse_meter_dedupe_ids";
/// Accounts (budget, scope, window), by `partition`.
pub const ACCOUNTS: &str = "spendfuse_ledger_accounts";
/// Sessions that ended because a partition had no room for more.
pub const SESSIONS_ENDED_EARLY: &str = "spendfuse_meter_sessions_ended_early_total";
/// Sums without an account, because a partition had no room for more.
pub const WITHOUT_ACCOUNT: &str = "spendfuse_ledger_without_account_total";
/// Deltas that did not follow the ones before; must stay 0.
pub const BROKEN_LINKS: &str = "spendfuse_delta_chain_broken_total";
/// Seconds from the broker's acceptance of the oldest event not yet counted to now, by `stage` and
/// `partition`.
pub const WATERMARK_LAG: &str = "spendfuse_stage_watermark_lag_seconds";
