//! Every metric of this crate.

/// From a quick webhook to the end of the patience.
const ATTEMPTS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

spendfuse_metrics::table! {
    /// Alerts that came to the notifier.
    counter ALERTS = "spendfuse_notifier_alerts_total";
    /// Records of its inputs that were no alerts, findings or requests of a kind that it knows.
    counter UNKNOWN_RECORDS = "spendfuse_notifier_unknown_records_total";
    /// Attempts to bring a message to its place. Labels `channel`, `outcome` (`delivered`, `later`,
    /// `refused`).
    counter ATTEMPTS_TOTAL = "spendfuse_notifier_attempts_total";
    /// Seconds that an attempt took. Label `channel`.
    histogram(ATTEMPTS) ATTEMPT_SECONDS = "spendfuse_notifier_attempt_seconds";
    /// Messages that are still to be told. Label `partition`.
    gauge OPEN_MESSAGES = "spendfuse_notifier_open_messages";
    /// Messages that no place has taken, and that are not tried any more; should stay 0.
    counter FAILED_MESSAGES = "spendfuse_notifier_failed_total";
}
