//! Every metric of the audit.

spendfuse_metrics::table! {
    /// By how much money the compared sides differ, nano-dollars, added up; must stay 0.
    gauge DRIFT_NANODOLLARS = "spendfuse_audit_drift_nanodollars";
    /// How many events the differences are about, added up; must stay 0.
    gauge DRIFT_EVENTS = "spendfuse_audit_drift_events";
    /// Events of the input that were compared with their rows.
    counter COMPARED_EVENTS = "spendfuse_audit_compared_events_total";
    /// Rounds, by `outcome` (compared, behind, failed).
    counter ROUNDS = "spendfuse_audit_rounds_total";
    /// Seconds that the last round took.
    gauge ROUND_SECONDS = "spendfuse_audit_round_seconds";
}
