//! Names of the audit's metrics.

/// Gauge: by how much money the compared sides differ, nano-dollars, added up; must stay 0.
pub const DRIFT_NANODOLLARS: &str = "spendfuse_audit_drift_nanodollars";
/// Gauge: how many events the differences are about, added up; must stay 0.
pub const DRIFT_EVENTS: &str = "spendfuse_audit_drift_events";
/// Counter: events of the input that were compared with their rows.
pub const COMPARED_EVENTS: &str = "spendfuse_audit_compared_events_total";
/// Counter: rounds, by `outcome` (compared, behind, failed).
pub const ROUNDS: &str = "spendfuse_audit_rounds_total";
/// Gauge: seconds that the last round took.
pub const ROUND_SECONDS: &str = "spendfuse_audit_round_seconds";
