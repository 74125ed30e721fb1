//! Names of the metrics of this crate.

/// Counter: rows loaded. Labels `table`.
pub const LOADER_ROWS_TOTAL: &str = "spendfuse_loader_rows_total";
/// Counter: inserts that are done. Labels `table`.
pub const LOADER_BATCHES_TOTAL: &str = "spendfuse_loader_batches_total";
/// Counter: bytes of Native blocks inserted. Labels `table`.
pub const LOADER_BYTES_TOTAL: &str = "spendfuse_loader_bytes_total";
/// Histogram: seconds that an insert took. Labels `table`.
pub const LOADER_INSERT_SECONDS: &str = "spendfuse_loader_insert_seconds";
/// Counter: inserts that failed and are tried again. Labels `table`.
pub const LOADER_RETRIES_TOTAL: &str = "spendfuse_loader_retries_total";
/// Gauge: milliseconds that the oldest record not yet in the warehouse has waited in this loader.
/// Labels `topic`, `partition`.
pub const LOADER_LAG_MILLIS: &str = "spendfuse_loader_lag_milliseconds";
/// Gauge: bytes of records that wait for their insert. Labels `topic`, `partition`.
pub const LOADER_BUFFERED_BYTES: &str = "spendfuse_loader_buffered_bytes";
/// Counter: blocks that do not continue their writer's chain; must stay 0. Labels `topic`,
/// `partition`, `kind` (`gap`, `overlap`).
pub const LOADER_BROKEN_LINKS_TOTAL: &str = "spendfuse_loader_broken_links_total";
/// Gauge: 1 where a partition is stopped until a person repairs it. Labels `topic`, `partition`.
pub const LOADER_STOPPED: &str = "spendfuse_loader_stopped";
/// Counter: interrupted inserts that were taken up again after a restart. Labels `topic`,
/// `outcome` (`replayed`, `complete`, `doubt`).
pub const LOADER_RECOVERIES_TOTAL: &str = "spendfuse_loader_recoveries_total";
/// Counter: inserts that ClickHouse remembered without their rows, mended. Labels `table`.
pub const LOADER_HEALED_TOTAL: &str = "spendfuse_loader_healed_total";

/// Tells the recorder what the metrics mean.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(LOADER_ROWS_TOTAL, "Rows loaded into ClickHouse");
    describe_counter!(LOADER_BATCHES_TOTAL, "Inserts done");
    describe_counter!(LOADER_BYTES_TOTAL, Unit::Bytes, "Native blocks inserted");
    describe_histogram!(LOADER_INSERT_SECONDS, Unit::Seconds, "Time of an insert");
    describe_counter!(LOADER_RETRIES_TOTAL, "Inserts that are tried again");
    describe_gauge!(
        LOADER_LAG_MILLIS,
        Unit::Milliseconds,
        "How long the oldest record not yet in the warehouse has waited"
    );
    describe_gauge!(
        LOADER_BUFFERED_BYTES,
        Unit::Bytes,
        "Records that wait for their insert"
    );
    describe_counter!(
        LOADER_BROKEN_LINKS_TOTAL,
        "Blocks that do not continue their writer's chain; must stay 0"
    );
    describe_gauge!(
        LOADER_STOPPED,
        "1 where a partition waits for a person to repair it"
    );
    describe_counter!(
        LOADER_RECOVERIES_TOTAL,
        "Interrupted inserts taken up again after a restart"
    );
    describe_counter!(
        LOADER_HEALED_TOTAL,
        "Inserts that ClickHouse remembered without their rows, put in after all"
    );
}
