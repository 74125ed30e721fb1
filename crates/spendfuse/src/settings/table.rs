//! Every setting: its key, its default and what it is for. The one place that lists them.

/// One setting of `spendfuse.toml`; the environment variable is `SPENDFUSE_` and the key in upper
/// case with `_` for `.`; the same with `_FILE` names a file that holds the value.
#[derive(Debug)]
pub struct Setting {
    /// Dotted key.
    pub key: &'static str,
    /// Value where nothing is given.
    pub default: &'static str,
    /// What it is for, in a few words.
    pub help: &'static str,
}

/// Tables whose keys are free: every entry is passed on.
pub const FREE_TABLES: [(&str, &str); 2] = [
    (
        "kafka.properties.",
        "any librdkafka setting, such as security.protocol or sasl.password",
    ),
    (
        "pricing.price_multiplier.",
        "factor on list prices per account, such as \"0.85\"",
    ),
];

/// Shorthand for the table below.
const fn setting(key: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, help }
}

/// All settings with a fixed key.
pub const SETTINGS: &[Setting] = &[
    setting(
        "topic_prefix",
        "spendfuse.",
        "begins the name of every topic",
    ),
    setting(
        "transactional_id_prefix",
        "spendfuse",
        "begins transactional ids and consumer groups",
    ),
    setting(
        "instance_id",
        "",
        "this process's name, different for every process of a role; empty = host name and command",
    ),
    setting("partitions", "4", "partitions of every stage topic"),
    setting("log.format", "text", "text or json"),
    setting(
        "log.level",
        "info",
        "error, warn, info, debug or trace, or a filter such as spendfuse_bus=debug",
    ),
    setting(
        "admin.listen",
        "127.0.0.1:4118",
        "address of /healthz, /readyz and /metrics",
    ),
    setting(
        "kafka.brokers",
        "127.0.0.1:9092",
        "Kafka bootstrap servers, separated by commas",
    ),
    setting(
        "kafka.replication_factor",
        "-1",
        "of new topics; -1 = the broker's default",
    ),
    setting(
        "clickhouse.url",
        "http://127.0.0.1:8123",
        "ClickHouse's HTTP interface",
    ),
    setting(
        "clickhouse.ca_file",
        "",
        "PEM file of a CA of your own, believed besides those of the system",
    ),
    setting("clickhouse.database", "spendfuse", "database of all tables"),
    setting("clickhouse.user", "default", "ClickHouse user"),
    setting("clickhouse.password", "", "ClickHouse password"),
    setting(
        "clickhouse.retention_months",
        "13",
        "how long rows of spend are kept; rollups stay",
    ),
    setting(
        "clickhouse.replicated",
        "false",
        "use Replicated table engines",
    ),
    setting("processor.meter_workers", "1", "threads that count events"),
    setting(
        "processor.ledger_workers",
        "1",
        "threads that add up budgets",
    ),
    setting(
        "processor.dedupe_horizon",
        "24h",
        "how long event identities are remembered; older events are late, for the sidecar too",
    ),
    setting(
        "processor.dedupe_capacity",
        "20000000",
        "identities remembered per partition at most",
    ),
    setting(
        "processor.session_idle",
        "1h",
        "a session without events for this long has ended",
    ),
    setting(
        "processor.publish_rate",
        "2000",
        "figures that moved by spend alone are told to enforcement points at most this often, a second and ledger partition, nearest to a limit first",
    ),
    setting(
        "processor.session_capacity",
        "500000",
        "live sessions per partition at most; beyond, those idle for the longest end early",
    ),
    setting(
        "processor.account_capacity",
        "2000000",
        "accounts (budget, scope, window) per partition at most; beyond, new scopes have none",
    ),
    setting(
        "processor.commit_min",
        "5ms",
        "a batch is committed no earlier than this after its first event; a fifth of it in the ledger",
    ),
    setting(
        "processor.commit_interval",
        "20ms",
        "and at the latest this long after it; where events have waited, after half their wait, or as long as the last commit took, at most 200ms",
    ),
    setting(
        "processor.batch_max_events",
        "40000",
        "events in one batch at most",
    ),
    setting(
        "processor.accept_lost_input",
        "false",
        "true for one start: go on behind input that retention removed before it was counted; the place is noted in the DLQ, and an alert says so",
    ),
    setting(
        "processor.heartbeat",
        "1s",
        "how often an idle partition tells how far it has come",
    ),
    setting(
        "loader.flush_interval",
        "500ms",
        "rows wait for more rows at most this long",
    ),
    setting(
        "sidecar.listen",
        "127.0.0.1:4117",
        "TCP address of the check API; empty = none",
    ),
    setting(
        "sidecar.socket",
        "",
        "path of a Unix socket for the check API; empty = none",
    ),
    setting(
        "sidecar.token",
        "",
        "bearer token that callers must send; required on other addresses than loopback",
    ),
    setting(
        "sidecar.max_connections",
        "1024",
        "connections of each address at once; beyond, the client waited for longest is cut",
    ),
    setting(
        "sidecar.header_timeout",
        "15s",
        "a request's head must be there after this; idle connections are closed after it too",
    ),
    setting(
        "sidecar.body_timeout",
        "15s",
        "a request's body must be there after this",
    ),
    setting(
        "sidecar.max_body_memory",
        "67108864",
        "what the bodies of all requests hold together beyond 64 KiB each, bytes; more is answered 503",
    ),
    setting(
        "sidecar.default_workspace",
        "",
        "workspace of usage events that name none",
    ),
    setting(
        "sidecar.source",
        "sidecar",
        "source of usage events that name none, and come without header x-spendfuse-source",
    ),
    setting(
        "sidecar.spool_dir",
        "",
        "folder for events that the broker cannot take; empty = no spool",
    ),
    setting(
        "sidecar.spool_max_bytes",
        "1073741824",
        "size of the spool at most, bytes",
    ),
    setting(
        "sidecar.stale_after",
        "10s",
        "state older than this follows each budget's on_stale",
    ),
    setting(
        "sidecar.entry_capacity",
        "4000000",
        "entries of the replica at most; beyond, new scopes whose verdict is ok are left out",
    ),
    setting(
        "sidecar.cold_start",
        "allow",
        "allow or block, until the state is known",
    ),
    setting(
        "sidecar.refusal_status",
        "429",
        "HTTP status of calls that /v1/authz refuses: 429, 402, 403, or auto (402 for clients that try 429 again)",
    ),
    setting(
        "sidecar.strict",
        "false",
        "refuse checks with unknown fields or without a workspace, and events with unknown fields, instead of warning",
    ),
    setting(
        "sidecar.url",
        "http://127.0.0.1:4117",
        "where commands find a running sidecar",
    ),
    setting(
        "pricing.trust_reported_cost",
        "",
        "providers whose reported_cost_usd is taken, separated by commas",
    ),
    setting(
        "fingerprint.key",
        "",
        "the workspace key of prompt and tool fingerprints",
    ),
];

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("SPENDFUSE_{}", key.to_uppercase().replace('.', "_"))
}
