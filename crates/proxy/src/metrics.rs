//! Every metric of the proxy.

/// What a proxy adds to a call; beyond a millisecond it was waiting for a processor.
const ADDED_TIMES: &[f64] = &[2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1];

spendfuse_metrics::table! {
    /// Calls to upstreams, by `upstream` and `outcome`: `metered` (the upstream's own counts),
    /// `estimated` (none came), `refused` (by a budget), `failed` (the upstream's answer was an error,
    /// or none), `wrong` (the request cannot be metered), `unmetered` (nothing of it
    /// can be metered; `requests` is its kind). Each line of a batch's results is one, too: `metered`,
    /// `failed` (there is no answer, or a free one), or `unmetered` as `batch-lines` (it does not say
    /// what it costs).
    counter CALLS = "spendfuse_proxy_calls_total";
    /// Seconds from a whole request to its first byte on the way upstream.
    histogram(ADDED_TIMES) ADDED_SECONDS = "spendfuse_proxy_added_seconds";
    /// Streams that are read to their end although their clients have gone.
    gauge DRAINING = "spendfuse_proxy_draining_streams";
    /// Calls that a killed proxy has left open, named in the log of the next one.
    counter LOST_CALLS = "spendfuse_proxy_lost_calls_total";
    /// Events of calls that are not safe yet.
    gauge UNSAFE_EVENTS = "spendfuse_proxy_unsafe_events";
}
