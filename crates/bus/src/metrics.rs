//! Names of every metric of this crate. Prefix, subject, unit; `_total` counts.

/// Committed batches. Label `stage`.
pub const STAGE_COMMITS: &str = "spendfuse_stage_commits_total";
/// Seconds from a batch's end to its commit. Label `stage`.
pub const STAGE_COMMIT_SECONDS: &str = "spendfuse_stage_commit_seconds";
/// Input records of committed batches. Label `stage`.
pub const STAGE_RECORDS: &str = "spendfuse_stage_records_total";
/// Times a worker gave up its state and started again. Labels `stage`, `reason`.
pub const STAGE_RESTARTS: &str = "spendfuse_stage_restarts_total";
/// Seconds from assignment to the first record. Label `stage`.
pub const STAGE_RESTORE_SECONDS: &str = "spendfuse_stage_restore_seconds";
/// Records read to restore state. Label `stage`.
pub const STAGE_RESTORED_RECORDS: &str = "spendfuse_stage_restored_records_total";
/// Records that made a batch fail and were rejected. Label `stage`.
pub const STAGE_REJECTED: &str = "spendfuse_stage_rejected_total";
/// Offsets of a partition's inputs that are not processed yet, at the last tick. Labels `stage`,
/// `partition`.
pub const STAGE_BACKLOG: &str = "spendfuse_stage_backlog_offsets";
/// Partitions that a worker processes. Labels `stage`, `worker`.
pub const STAGE_PARTITIONS: &str = "spendfuse_stage_partitions";
/// Batches of a log that could not be read and were passed by. Label `topic`.
pub const UNREADABLE_BATCHES: &str = "spendfuse_unreadable_batches_total";
/// Times a follower lost its brokers. Label `follower`.
pub const FOLLOWER_FAILURES: &str = "spendfuse_follower_failures_total";
/// Records that a follower handed on. Label `follower`.
pub const FOLLOWER_RECORDS: &str = "spendfuse_follower_records_total";
/// Records that a producer could not deliver. Label `topic`.
pub const PRODUCER_FAILURES: &str = "spendfuse_producer_failures_total";
