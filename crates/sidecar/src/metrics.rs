//! Names of the sidecar's metrics.

/// Counter: answered checks, by `decision` and `endpoint`.
pub const CHECKS: &str = "spendfuse_checks_total";
/// Counter: questions that were answered or refused although something is wrong with them, by
/// `fault` (`unknown_field`, `no_workspace`, `nothing_named`) and `endpoint`.
pub const CHECK_FAULTS: &str = "spendfuse_check_faults_total";
/// Histogram: seconds from the parsed request to the decision.
pub const CHECK_SECONDS: &str = "spendfuse_check_seconds";
/// Counter: unknown members of events that were removed before they were stored.
pub const MEMBERS_REMOVED: &str = "spendfuse_members_removed_total";
/// Counter: events given to `/v1/usage`, by `outcome` (`broker`, `spool`, `rejected`, `refused`).
pub const USAGE_EVENTS: &str = "spendfuse_sidecar_events_total";
/// Gauge: bytes in the spool.
pub const SPOOL_BYTES: &str = "spendfuse_spool_bytes";
/// Counter: spooled events that the broker has taken since.
pub const SPOOL_REPLAYED: &str = "spendfuse_spool_replayed_total";
/// Gauge: entries in the replica, expired ones included.
pub const GUARD_ENTRIES: &str = "spendfuse_guard_entries";
/// Gauge: budgets in force in the replica.
pub const GUARD_BUDGETS: &str = "spendfuse_guard_budgets";
/// Gauge: age of the replica's state in seconds; absent while unknown.
pub const GUARD_STATE_AGE: &str = "spendfuse_guard_state_age_seconds";
/// Gauge: 1 for the `state` that the replica is in, 0 for the others.
pub const GUARD_STATE: &str = "spendfuse_guard_state";
/// Counter: records that the replica could not read, by `topic`.
pub const GUARD_BAD_RECORDS: &str = "spendfuse_guard_bad_records_total";
/// Gauge: open connections, of all addresses.
pub const CONNECTIONS: &str = "spendfuse_http_connections";
/// Counter: connections ended because others needed the room or the client took too long, by `reason`.
pub const CONNECTIONS_CUT: &str = "spendfuse_http_connections_cut_total";
/// Counter: requests refused before they were read, by `reason`.
pub const REQUESTS_REFUSED: &str = "spendfuse_http_requests_refused_total";
/// Counter: requests without the right token, by `reason` (`missing`, `wrong`).
pub const FAILED_LOGINS: &str = "spendfuse_sidecar_failed_logins_total";
