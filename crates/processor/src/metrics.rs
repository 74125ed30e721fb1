//! Every metric of the processor.

spendfuse_metrics::table! {
    /// Events counted, by `kind` (usage, revenue, session_end).
    counter EVENTS_COUNTED = "spendfuse_events_counted_total";
    /// Events that were counted before.
    counter EVENTS_DUPLICATE = "spendfuse_events_duplicate_total";
    /// Events of a known identity with other content.
    counter EVENTS_CONFLICT = "spendfuse_events_conflict_total";
    /// Events of a known call with more than was counted of it: the difference is counted.
    counter EVENTS_GROWN = "spendfuse_events_grown_total";
    /// Events of a known call with less than was counted of it: nothing is.
    counter EVENTS_ECHO = "spendfuse_events_echo_total";
    /// Counted events whose usage holds a number that looks billed and that no rule reads.
    counter EVENTS_PARTLY_READ = "spendfuse_events_partly_read_total";
    /// Events in the DLQ, by `reason`.
    counter EVENTS_REJECTED = "spendfuse_events_rejected_total";
    /// Corrections of counted entries that were applied.
    counter CORRECTIONS_APPLIED = "spendfuse_corrections_applied_total";
    /// Corrections that change nothing, by `reason`: `conflict`, `late`, `no_entry`, `malformed`,
    /// `internal_error`.
    counter CORRECTIONS_REFUSED = "spendfuse_corrections_refused_total";
    /// Events that meters of earlier topics had counted, remembered again after `spendfuse recover`.
    counter EVENTS_RECOVERED = "spendfuse_events_recovered_total";
    /// Events handed over to their home partition.
    counter EVENTS_REROUTED = "spendfuse_events_rerouted_total";
    /// Counted calls that named a reservation, told to the sidecar that gave it.
    counter RESERVATIONS_TOLD = "spendfuse_reservations_told_total";
    /// Unknown members that were removed from events on their way to the DLQ or their home partition.
    counter MEMBERS_REMOVED = "spendfuse_members_removed_total";
    /// Live sessions, by `partition`.
    gauge SESSIONS = "spendfuse_meter_sessions";
    /// Remembered identities, by `partition`.
    gauge DEDUPE_IDS = "spendfuse_meter_dedupe_ids";
    /// Accounts (budget, scope, window), by `partition`.
    gauge ACCOUNTS = "spendfuse_ledger_accounts";
    /// Counts of budgets that wait for what was spent before them, by `partition`.
    gauge OPENINGS_WANTED = "spendfuse_ledger_openings_wanted";
    /// Sessions that ended because a partition had no room for more.
    counter SESSIONS_ENDED_EARLY = "spendfuse_meter_sessions_ended_early_total";
    /// Accounts of session budgets that were given up, because their session had too many.
    counter SESSION_ACCOUNTS_GIVEN_UP = "spendfuse_meter_session_accounts_given_up_total";
    /// Sums without an account, because a partition had no room for more.
    counter WITHOUT_ACCOUNT = "spendfuse_ledger_without_account_total";
    /// Records of budgets that cannot be read, for the moment: what was known of them stays.
    gauge BUDGETS_UNREADABLE = "spendfuse_budgets_unreadable";
    /// Records of budgets and prices that could not be read, by `topic`.
    counter TABLE_BAD_RECORDS = "spendfuse_processor_bad_records_total";
    /// Deltas that did not follow the ones before; must stay 0.
    counter BROKEN_LINKS = "spendfuse_delta_chain_broken_total";
    /// Seconds from the broker's acceptance of the oldest event not yet counted to now, by `stage` and
    /// `partition`.
    gauge WATERMARK_LAG = "spendfuse_stage_watermark_lag_seconds";
}
