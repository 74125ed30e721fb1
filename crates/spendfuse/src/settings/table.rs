//! Every setting: its key, its type, its default and what it is for. The one place that lists them.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use spendfuse_domain::budget::ReserveRule;
use spendfuse_guard::ColdStart;
use spendfuse_notify::{QuietHours, Security};
use spendfuse_proxy::OnDowngrade;
use spendfuse_sidecar::MargintDowngrade;
use spendfuse_sidecar::RefusalStatus;

use super::kinds::{
    Horizon, InstanceName, KafkaName, Millis, Months, Names, Patience, Secret, read,
};
use super::{ResolvedSettings, SettingsError};

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
pub const FREE_TABLES: [(&str, &str); 7] = [
    (
        "kafka.properties.",
        "any librdkafka setting, such as security.protocol or sasl.password",
    ),
    (
        "pricing.price_multiplier.",
        "factor on list prices per account, such as \"0.85\"",
    ),
    (
        "proxy.upstreams.",
        "NAME.base_url, NAME.shape (openai, anthropic, gemini, azure, bedrock), NAME.provider (whose prices hold; NAME itself by default), NAME.key or NAME.key_file (sent in place of callers' keys), NAME.inject_stream_usage (auto, always, never); openai, anthropic, gemini, azure and bedrock are there already",
    ),
    (
        "proxy.attribution.",
        "which member of a call's body (user, safety_identifier, metadata.NAME, or bearer for a hash of the caller's key) is which dimension, such as user = \"customer\"",
    ),
    (
        "proxy.on_disconnect.",
        "drain_for (15s) and drain_max_bytes (4194304): how far a stream is read whose client has gone; 64 at once, others are charged by estimate",
    ),
    (
        "notifier.channels.",
        "NAME.kind (webhook, slack, teams, pagerduty, alertmanager), NAME.url, NAME.secret",
    ),
    (
        "notifier.routes.",
        "NAME.to (channels and mailto: addresses, the next where the one before fails), what it takes: NAME.workspace, .severity, .kinds, .budgets; how it tells, where not as all: NAME.fall_back_after, .remind_every, .quiet_hours, .storm",
    ),
];

/// Settings that a later release brings, and what serves until then.
const NOT_YET: [(&str, &str); 1] = [(
    "sidecar.otlp_grpc_listen",
    "telemetry over OTLP is not supported yet; send calls as events to /v1/usage",
)];

/// Why the setting that `is_meant` has to wait, where it has.
pub fn not_yet(is_meant: impl Fn(&str) -> bool) -> Option<&'static str> {
    let mut known = NOT_YET.iter();
    known.find(|one| is_meant(one.0)).map(|one| one.1)
}

macro_rules! settings {
    (
        $($name:ident: $type:ty = $default:literal, $help:literal;)*
        $(
            [$section:ident] $Section:ident {
                $($field:ident: $field_type:ty = $field_default:literal, $field_help:literal;)*
            }
        )*
    ) => {
        /// All settings with a fixed key.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: stringify!($name), default: $default, help: $help },)*
            $($(Setting {
                key: concat!(stringify!($section), ".", stringify!($field)),
                default: $field_default,
                help: $field_help,
            },)*)*
        ];

        /// The values in force.
        #[derive(Clone, Debug)]
        pub struct Values {
            $(#[doc = $help] pub $name: $type,)*
            $(#[doc = concat!("`", stringify!($section), ".…`")] pub $section: $Section,)*
        }

        $(
            #[doc = concat!("Settings of `", stringify!($section), "`.")]
            #[derive(Clone, Debug)]
            pub struct $Section {
                $(#[doc = $field_help] pub $field: $field_type,)*
            }
        )*

        impl Values {
            /// Reads every value, so that mistakes show at the start.
            ///
            /// # Errors
            /// [`SettingsError::Value`] for the first value that cannot be read.
            pub fn read(resolved: &ResolvedSettings) -> Result<Self, SettingsError> {
                Ok(Self {
                    $($name: read(resolved, stringify!($name))?,)*
                    $($section: $Section {
                        $($field: read(
                            resolved,
                            concat!(stringify!($section), ".", stringify!($field)),
                        )?,)*
                    },)*
                })
            }
        }
    };
}

settings! {
    topic_prefix: KafkaName = "spendfuse.",
        "begins the name of every topic";
    transactional_id_prefix: String = "spendfuse",
        "begins transactional ids and consumer groups";
    instance_id: InstanceName = "",
        "this process's name, different for every process of a role; empty = host name and command";
    partitions: NonZeroU32 = "4",
        "partitions of every stage topic";
    keys_file: Option<PathBuf> = "",
        "a file of [[keys]] (see spendfuse keys), besides those of spendfuse.toml; read again when it changes";
    [log] Log {
        format: String = "text",
            "text or json";
        level: String = "info",
            "error, warn, info, debug or trace, or a filter such as spendfuse_bus=debug";
    }
    [admin] Admin {
        listen: String = "127.0.0.1:4118",
            "address of /healthz, /readyz and /metrics";
    }
    [kafka] Kafka {
        brokers: String = "127.0.0.1:9092",
            "Kafka bootstrap servers, separated by commas";
        replication_factor: i32 = "-1",
            "of new topics; -1 = the broker's default";
    }
    [clickhouse] ClickHouse {
        url: String = "http://127.0.0.1:8123",
            "ClickHouse's HTTP interface";
        ca_file: Option<PathBuf> = "",
            "PEM file of a CA of your own, believed besides those of the system";
        database: String = "spendfuse",
            "database of all tables";
        user: String = "default",
            "ClickHouse user";
        password: Secret = "",
            "ClickHouse password";
        retention_months: Months = "13",
            "how many months rows of spend are kept, 1 to 600; rollups stay";
        history_retention_months: Months = "13",
            "how many months states of findings, verdicts and lines of budget windows are kept, 1 to 600";
        replicated: bool = "false",
            "use Replicated table engines";
    }
    [processor] Processor {
        meter_workers: u32 = "1",
            "threads that count events";
        ledger_workers: u32 = "1",
            "threads that add up budgets";
        dedupe_horizon: Horizon = "24h",
            "how long event identities are remembered; older events are late, for the sidecar too";
        dedupe_capacity: usize = "20000000",
            "identities remembered per partition at most";
        session_idle: Millis = "1h",
            "a session without events for this long has ended";
        publish_rate: u32 = "2000",
            "figures that moved by spend alone are told to enforcement points at most this often, a second and ledger partition, nearest to a limit first";
        session_capacity: usize = "500000",
            "live sessions per partition at most; beyond, those idle for the longest end early";
        account_capacity: usize = "2000000",
            "accounts (budget, scope, window) per partition at most; beyond, new scopes have none";
        commit_min: Duration = "5ms",
            "a batch is committed no earlier than this after its first event; a fifth of it in the ledger";
        commit_interval: Duration = "20ms",
            "and at the latest this long after it; where events have waited, after half their wait, or as long as the last commit took, at most 200ms";
        batch_max_events: usize = "40000",
            "events in one batch at most";
        heartbeat: Patience = "1s",
            "how often an idle partition tells how far it has come";
    }
    [loader] Loader {
        flush_interval: Duration = "500ms",
            "rows wait for more rows at most this long";
        settle_counted_twice: bool = "true",
            "whether a call that several instruments report with and without its session is taken back where it counted twice";
    }
    [sidecar] Sidecar {
        listen: Option<SocketAddr> = "127.0.0.1:4117",
            "TCP address of the check API; empty = none";
        socket: Option<PathBuf> = "",
            "path of a Unix socket for the check API; empty = none";
        token: Secret = "",
            "bearer token of callers that may do everything; it or [[keys]] are required on other addresses than loopback";
        max_connections: NonZeroUsize = "1024",
            "connections of each address at once; beyond, the client waited for longest is cut";
        header_timeout: Patience = "15s",
            "a request's head must be there after this; idle connections are closed after it too";
        body_timeout: Patience = "15s",
            "a request's body must be there after this";
        max_body_memory: usize = "67108864",
            "what the bodies of all requests hold together beyond 64 KiB each, bytes; more is answered 503";
        default_workspace: String = "",
            "workspace of usage events that name none";
        source: String = "sidecar",
            "source of usage events that name none, and come without header x-spendfuse-source";
        spool_dir: Option<PathBuf> = "",
            "folder for events that the broker cannot take; empty = no spool";
        spool_max_bytes: u64 = "1073741824",
            "size of the spool at most, bytes";
        stale_after: Patience = "10s",
            "state older than this follows each budget's on_stale";
        entry_capacity: usize = "4000000",
            "entries of the replica at most; beyond, new scopes whose verdict is ok are left out";
        max_reservations: usize = "100000",
            "reservations at most, with the settled ones that are not counted yet; beyond, asking for one is answered 503";
        reserve_rule: ReserveRule = "learned",
            "what a reservation holds where a budget says nothing: learned, given, max, or dollars such as 0.05";
        cold_start: ColdStart = "allow",
            "allow or block, until the state is known";
        refusal_status: RefusalStatus = "429",
            "HTTP status of calls that /v1/authz refuses: 429, 402, 403, or auto (402 for clients that try 429 again)";
        strict: bool = "false",
            "refuse checks with unknown fields or without a workspace, and events with unknown fields, instead of warning";
        url: String = "http://127.0.0.1:4117",
            "where commands find a running sidecar";
    }
    [compat] Compat {
        margint_downgrade: MargintDowngrade = "allow",
            "what clients of Margint are told of calls that a cheaper model should answer: allow or block";
        margindash_poll: Patience = "1s",
            "how often clients of MarginDash ask for what is blocked";
        margindash_widen: bool = "false",
            "whether a block of one feature of a customer blocks all of the customer for clients of MarginDash";
    }
    [proxy] Proxy {
        listen: SocketAddr = "127.0.0.1:4119",
            "address of the proxy; on others than loopback callers need [[keys]]";
        trust_headers: bool = "true",
            "whether x-spendfuse-* headers of calls say whom they count against";
        downgrade: OnDowngrade = "apply",
            "what happens to calls that a cheaper model should answer: apply, refuse or ignore";
        unmetered: spendfuse_proxy::OnUnmetered = "pass",
            "what happens to requests that may cost something, and nothing can be metered of: pass or refuse";
        max_connections: NonZeroUsize = "4096",
            "connections at once; beyond, the client waited for longest is cut";
        max_body_bytes: usize = "33554432",
            "largest call that is taken, and largest whole answer that is read, bytes";
        max_body_memory: usize = "268435456",
            "what the bodies of all calls hold together beyond 64 KiB each, bytes; more is answered 503";
        spool_dir: Option<PathBuf> = "",
            "folder for events that the broker cannot take, not that of a sidecar; empty = no spool";
        ca_file: Option<PathBuf> = "",
            "PEM file of a CA of your own, believed besides those of the system";
    }
    [notifier] Notifier {
        timeout: Patience = "10s",
            "an attempt to tell somebody may take this long";
        fall_back_after: Patience = "5m",
            "a place that has not taken a message for this long is given up for the next one of its route";
        remind_every: Option<Patience> = "24h",
            "people are reminded of what is critical and goes on after this time, again and again; empty = never";
        quiet_hours: Option<QuietHours> = "",
            "when only what is critical is told, such as 22:00-07:00 Europe/Berlin; a summary follows";
        storm: NonZeroUsize = "30",
            "messages of a route a minute and partition; what is more becomes a digest";
        ca_file: Option<PathBuf> = "",
            "PEM file of a CA of your own, believed besides those of the system";
        smtp_host: String = "",
            "mail server for mailto: addresses; empty = none";
        smtp_port: u16 = "587",
            "its port";
        smtp_security: Security = "starttls",
            "starttls, tls (from the beginning) or none";
        smtp_user: String = "",
            "user at the mail server; empty = none is named";
        smtp_password: Secret = "",
            "that user's password";
        mail_from: String = "spendfuse@localhost",
            "whom mails come from";
    }
    [pricing] Pricing {
        trust_reported_cost: Names = "",
            "providers whose reported_cost_usd is taken, separated by commas";
        free: Names = "",
            "what costs nothing, as provider or provider/model, separated by commas";
        sync_from: String = "",
            "price files or their addresses, separated by commas, that the loader reads by itself";
        sync_every: Duration = "24h",
            "how often";
        rerate_ceilings: bool = "false",
            "whether the loader re-rates what was counted at a ceiling when prices arrive";
    }
    [fingerprint] Fingerprint {
        key: Secret = "",
            "the workspace key of prompt and tool fingerprints";
    }
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("SPENDFUSE_{}", key.to_uppercase().replace('.', "_"))
}
