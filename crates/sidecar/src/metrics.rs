//! Every metric of the sidecar.

use metrics::{counter, gauge};

use crate::keys::Keyring;

/// A decision is some lookups in memory; what takes a millisecond was waiting for a processor.
const CHECK_TIMES: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2,
];

/// A place in the log takes some milliseconds.
const ROUND_TRIPS: &[f64] = &[
    0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

spendfuse_metrics::table! {
    /// Answered checks, by `decision` and `endpoint`.
    counter CHECKS = "spendfuse_checks_total";
    /// Questions that were answered or refused although something is wrong with them, by
    /// `fault` (`unknown_field`, `no_workspace`, `nothing_named`) and `endpoint`.
    counter CHECK_FAULTS = "spendfuse_check_faults_total";
    /// Seconds from the parsed request to the decision.
    histogram(CHECK_TIMES) CHECK_SECONDS = "spendfuse_check_seconds";
    /// Unknown members of events that were removed before they were stored.
    counter MEMBERS_REMOVED = "spendfuse_members_removed_total";
    /// Events given to `/v1/usage`, by `outcome` (`broker`, `spool`, `rejected`, `refused`).
    counter USAGE_EVENTS = "spendfuse_sidecar_events_total";
    /// Reservations, by what they came to: `outcome` (`held`, `settled`, `released`). Those that
    /// nobody settled or released in time have a counter of their own.
    counter RESERVATIONS = "spendfuse_reservations_total";
    /// Reservations of calls under way.
    gauge RESERVATIONS_OPEN = "spendfuse_reservations_open";
    /// Settled reservations that no figure shows yet, as far as they are kept one by one.
    gauge RESERVATIONS_PENDING = "spendfuse_reservations_pending";
    /// Records sent to topic `inflight`, by `kind` (`heartbeat`, `held`): none of `held` far from
    /// limits.
    counter IN_FLIGHT_SENT = "spendfuse_inflight_records_total";
    /// Reservations that waited for the log, because a limit was near.
    counter IN_FLIGHT_ASKED = "spendfuse_inflight_asked_total";
    /// Reservations that were judged by what is known here alone, because the log was not heard.
    counter IN_FLIGHT_UNSURE = "spendfuse_inflight_unsure_total";
    /// Seconds from such a question to its answer.
    histogram(ROUND_TRIPS) IN_FLIGHT_SECONDS = "spendfuse_inflight_wait_seconds";
    /// Records of topic `inflight` that could not be read.
    counter IN_FLIGHT_BAD = "spendfuse_inflight_bad_records_total";
    /// Requests that wait for a change of the blocklist.
    gauge BLOCKLIST_WAITING = "spendfuse_blocklist_waiting";
    /// Bytes in the spool.
    gauge SPOOL_BYTES = "spendfuse_spool_bytes";
    /// Spooled events that the broker has taken since.
    counter SPOOL_REPLAYED = "spendfuse_spool_replayed_total";
    /// Entries in the replica, expired ones included.
    gauge GUARD_ENTRIES = "spendfuse_guard_entries";
    /// Budgets in force in the replica.
    gauge GUARD_BUDGETS = "spendfuse_guard_budgets";
    /// Age of the replica's state in seconds; absent while unknown.
    gauge GUARD_STATE_AGE = "spendfuse_guard_state_age_seconds";
    /// 1 for the `state` that the replica is in, 0 for the others.
    gauge GUARD_STATE = "spendfuse_guard_state";
    /// Records that the replica could not read, by `topic`.
    counter GUARD_BAD_RECORDS = "spendfuse_guard_bad_records_total";
    /// Open connections, of all addresses.
    gauge CONNECTIONS = "spendfuse_http_connections";
    /// Connections ended because others needed the room or the client took too long, by `reason`.
    counter CONNECTIONS_CUT = "spendfuse_http_connections_cut_total";
    /// Requests refused before they were read, by `reason`.
    counter REQUESTS_REFUSED = "spendfuse_http_requests_refused_total";
    /// Requests of other products' clients whose key is unknown: they are told nothing, and nothing is
    /// counted for them.
    counter COMPAT_UNKNOWN_KEYS = "spendfuse_compat_unknown_keys_total";
    /// Answers made for other products' clients that could not say all that is so, by `client`: a cheaper
    /// model, or blocks that a list has no place for.
    counter COMPAT_INEXPRESSIBLE_TOTAL = "spendfuse_compat_inexpressible_total";
    /// Blocks that a list for other products' clients has no place for, by `client`: of a session, a
    /// user, a model, a customer's feature.
    gauge COMPAT_INEXPRESSIBLE = "spendfuse_compat_inexpressible_blocks";
    /// Requests to a sidecar or proxy without a right key or token, by `reason`: `missing`, `wrong`,
    /// `limited` (too many wrong ones from this address), `no_right` (a right key that may not do this).
    counter FAILED_LOGINS = "spendfuse_sidecar_failed_logins_total";
    /// Keys in force.
    gauge KEYS = "spendfuse_keys";
    /// 1 while the files of keys cannot be read, and those from before stay in force.
    gauge KEYS_UNREADABLE = "spendfuse_keys_unreadable";
}

/// What should not grow, or is compared with something, by the values of its label.
const LABELLED: [(&str, &str, &[&str]); 5] = [
    (
        FAILED_LOGINS,
        "reason",
        &["missing", "wrong", "limited", "no_right"],
    ),
    (CONNECTIONS_CUT, "reason", &["no_room", "too_slow"]),
    (USAGE_EVENTS, "outcome", &["rejected", "refused"]),
    (RESERVATIONS, "outcome", &["held", "settled", "released"]),
    (IN_FLIGHT_SENT, "kind", &["heartbeat", "held"]),
];

/// Shows counters before there is anything to count: a series that begins with its first increase
/// shows no increase. The keys were read before there was anything to show them by.
pub(crate) fn show(keys: &Keyring) {
    gauge!(KEYS).set(keys.keys().len() as f64);
    gauge!(KEYS_UNREADABLE).increment(0.0);
    counter!(spendfuse_guard::metrics::ENTRIES_LEFT_OUT).increment(0);
    counter!(spendfuse_guard::metrics::RESERVATIONS_EXPIRED).increment(0);
    counter!(MEMBERS_REMOVED).increment(0);
    counter!(COMPAT_UNKNOWN_KEYS).increment(0);
    for client in ["margint", "margindash"] {
        counter!(COMPAT_INEXPRESSIBLE_TOTAL, "client" => client).increment(0);
    }
    counter!(IN_FLIGHT_ASKED).increment(0);
    counter!(IN_FLIGHT_UNSURE).increment(0);
    counter!(IN_FLIGHT_BAD).increment(0);
    for (name, label, values) in LABELLED {
        for value in values {
            counter!(name, label => *value).increment(0);
        }
    }
    for fault in ["unknown_field", "no_workspace", "nothing_named"] {
        for endpoint in ["check", "authz", "state"] {
            counter!(CHECK_FAULTS, "fault" => fault, "endpoint" => endpoint).increment(0);
        }
    }
}
