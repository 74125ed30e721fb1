//! Every metric of this crate.

/// A commit takes as long as the broker's disk and the slowest replica.
const COMMITS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// From nothing to restore to ten million entries.
const RESTORES: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

spendfuse_metrics::table! {
    /// Committed batches. Label `stage`.
    counter STAGE_COMMITS = "spendfuse_stage_commits_total";
    /// Seconds from a batch's end to its commit. Label `stage`.
    histogram(COMMITS) STAGE_COMMIT_SECONDS = "spendfuse_stage_commit_seconds";
    /// Input records of committed batches. Label `stage`.
    counter STAGE_RECORDS = "spendfuse_stage_records_total";
    /// Times a worker gave up its state and started again. Labels `stage`, `reason`.
    counter STAGE_RESTARTS = "spendfuse_stage_restarts_total";
    /// Seconds from assignment to the first record. Label `stage`.
    histogram(RESTORES) STAGE_RESTORE_SECONDS = "spendfuse_stage_restore_seconds";
    /// Records read to restore state. Label `stage`.
    counter STAGE_RESTORED_RECORDS = "spendfuse_stage_restored_records_total";
    /// Seconds by which the broker's stamps have jumped without being believed. Label `stage`.
    gauge STAGE_CLOCK_JUMP = "spendfuse_stage_clock_jump_seconds";
    /// Records that made a batch fail and were rejected. Label `stage`.
    counter STAGE_REJECTED = "spendfuse_stage_rejected_total";
    /// Offsets of a partition's inputs that are not processed yet, at the last tick. Labels `stage`,
    /// `partition`.
    gauge STAGE_BACKLOG = "spendfuse_stage_backlog_offsets";
    /// 1 where a partition stands still because its input is lost, until that is accepted. Labels
    /// `stage`, `partition`.
    gauge STAGE_STOPPED = "spendfuse_stage_stopped";
    /// Partitions that a worker processes. Labels `stage`, `worker`.
    gauge STAGE_PARTITIONS = "spendfuse_stage_partitions";
    /// Batches of a log that could not be read and were passed by. Label `topic`.
    counter UNREADABLE_BATCHES = "spendfuse_unreadable_batches_total";
    /// Times a follower lost its brokers. Label `follower`.
    counter FOLLOWER_FAILURES = "spendfuse_follower_failures_total";
    /// Records that a follower handed on. Label `follower`.
    counter FOLLOWER_RECORDS = "spendfuse_follower_records_total";
    /// Records that a producer could not deliver. Label `topic`.
    counter PRODUCER_FAILURES = "spendfuse_producer_failures_total";
}
