//! Every metric of this crate.

/// From a commit's time to what people notice.
const LAGS: &[f64] = &[
    0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

spendfuse_metrics::table! {
    /// Entries with verdict ok that were not taken, because the replica is full.
    counter ENTRIES_LEFT_OUT = "spendfuse_guard_entries_left_out_total";
    /// Reservations whose time was over before their calls were settled or released.
    counter RESERVATIONS_EXPIRED = "spendfuse_reservations_expired_total";
    /// Models and features whose last calls' costs were forgotten, because too many others came.
    counter COSTS_FORGOTTEN = "spendfuse_reserve_costs_forgotten_total";
    /// Seconds from a model call's own time to the moment when a changed verdict is in force here,
    /// by `verdict`.
    histogram(LAGS) ENFORCEMENT_LAG_SECONDS = "spendfuse_enforcement_lag_seconds";
}
