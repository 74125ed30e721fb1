//! Every metric of this crate.

/// From a small block to one that waits for merges.
const INSERTS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

spendfuse_metrics::table! {
    /// Rows loaded. Labels `table`.
    counter LOADER_ROWS_TOTAL = "spendfuse_loader_rows_total";
    /// Inserts that are done. Labels `table`.
    counter LOADER_BATCHES_TOTAL = "spendfuse_loader_batches_total";
    /// Bytes of Native blocks inserted. Labels `table`.
    counter LOADER_BYTES_TOTAL = "spendfuse_loader_bytes_total";
    /// Seconds that an insert took. Labels `table`.
    histogram(INSERTS) LOADER_INSERT_SECONDS = "spendfuse_loader_insert_seconds";
    /// Inserts that failed and are tried again. Labels `table`.
    counter LOADER_RETRIES_TOTAL = "spendfuse_loader_retries_total";
    /// Seconds since the broker took the oldest record that was read and is not yet in the warehouse.
    /// Labels `topic`, `partition`.
    gauge LOADER_LAG_SECONDS = "spendfuse_loader_lag_seconds";
    /// Bytes of records that wait for their insert. Labels `topic`, `partition`.
    gauge LOADER_BUFFERED_BYTES = "spendfuse_loader_buffered_bytes";
    /// Blocks that do not continue their writer's chain; must stay 0. Labels `topic`,
    /// `partition`, `kind` (`gap`, `overlap`).
    counter LOADER_BROKEN_LINKS_TOTAL = "spendfuse_loader_broken_links_total";
    /// 1 where a partition is stopped until a person repairs it. Labels `topic`, `partition`.
    gauge LOADER_STOPPED = "spendfuse_loader_stopped";
    /// Interrupted inserts that were taken up again after a restart. Labels `topic`,
    /// `outcome` (`replayed`, `complete`, `doubt`).
    counter LOADER_RECOVERIES_TOTAL = "spendfuse_loader_recoveries_total";
    /// Inserts that ClickHouse remembered without their rows, mended. Labels `table`.
    counter LOADER_HEALED_TOTAL = "spendfuse_loader_healed_total";
    /// Identities that have several rows in the warehouse.
    counter LOADER_COUNTED_TWICE_TOTAL = "spendfuse_loader_counted_twice_total";
    /// Pairs of workspaces with an event of the same source and id; should stay 0.
    counter LOADER_SHARED_IDS_TOTAL = "spendfuse_loader_shared_ids_total";
    /// Looks for both. Labels `outcome` (`done`, `failed`).
    counter LOADER_IDENTITY_LOOKS_TOTAL = "spendfuse_loader_identity_looks_total";
    /// Budgets whose spend of before their count the ledger was told. Labels `outcome` (`told`,
    /// `unknown`, `failed`).
    counter LOADER_OPENINGS_TOTAL = "spendfuse_loader_openings_total";
}
