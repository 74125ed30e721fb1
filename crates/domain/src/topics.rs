//! The topics of spendfuse: their names, and what each keeps.
//!
//! The table below is the only place that lists them. What a broker must be set to for a
//! [`Keeps`] is said by the crate `processor`.

/// How long a tombstone stays readable for those who follow a compacted topic, milliseconds.
pub const TOMBSTONE_MILLIS: i64 = 14 * 24 * 60 * 60 * 1000;

/// What a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Every record, for this many days.
    Days(u8),
    /// Every record, until identities are forgotten and a day longer.
    DedupeHorizon,
    /// The latest record of every key.
    Latest,
    /// The latest record of every key, for so many days after it was written.
    LatestForDays(u8),
    /// The latest record of every key, for so many hours after it was written.
    LatestForHours(u8),
    /// The latest record of every key, in one partition, whatever the others have.
    LatestInOnePartition,
}

/// What a topic must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// Its whole name.
    pub name: &'a str,
    /// What it keeps.
    pub keeps: Keeps,
    /// How large its records may be, bytes.
    pub max_record_bytes: u32,
}

/// Records of stage outputs may be this large, bytes; larger ones are split before.
const OUTPUT: u32 = 8 * 1024 * 1024;
/// Usage events themselves are bounded to 64 KiB; batches and headers need some room.
const USAGE: u32 = 1024 * 1024;
/// A rejected record carries more headers than it came with.
const DLQ: u32 = USAGE + 64 * 1024;

macro_rules! topics {
    ($($field:ident = $name:literal, $keeps:expr, $max_record_bytes:ident;)*) => {
        /// The names of all topics under one prefix (`spendfuse.` by default).
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct Topics {
            $(pub $field: String,)*
        }

        impl Topics {
            /// The topics whose names begin with `prefix`.
            pub fn new(prefix: &str) -> Self {
                Self { $($field: format!("{prefix}{}", $name),)* }
            }

            /// All of them.
            pub fn all(&self) -> Vec<Topic<'_>> {
                vec![$(Topic {
                    name: &self.$field,
                    keeps: $keeps,
                    max_record_bytes: $max_record_bytes,
                },)*]
            }
        }
    };
}

topics! {
    usage = "usage", Keeps::Days(7), USAGE;
    rerouted = "usage.rerouted", Keeps::Days(7), USAGE;
    corrections = "corrections", Keeps::Days(30), USAGE;
    dlq = "usage.dlq", Keeps::Days(30), DLQ;
    deltas = "deltas", Keeps::Days(7), OUTPUT;
    rows = "rows", Keeps::Days(7), OUTPUT;
    rows_ledger = "rows.ledger", Keeps::Days(7), OUTPUT;
    alerts = "alerts", Keeps::Days(30), OUTPUT;
    findings = "findings", Keeps::LatestForDays(100), OUTPUT;
    blocklist = "blocklist", Keeps::Latest, OUTPUT;
    inflight = "inflight", Keeps::LatestForHours(1), OUTPUT;
    meter_changelog = "meter.changelog", Keeps::Latest, OUTPUT;
    ledger_changelog = "ledger.changelog", Keeps::Latest, OUTPUT;
    meter_ids = "meter.ids", Keeps::DedupeHorizon, OUTPUT;
    notifier_changelog = "notifier.changelog", Keeps::Latest, OUTPUT;
    notifier_requests = "notifier.requests", Keeps::Days(7), OUTPUT;
    budgets = "budgets", Keeps::LatestInOnePartition, OUTPUT;
    prices = "prices", Keeps::LatestInOnePartition, OUTPUT;
    installation = "installation", Keeps::LatestInOnePartition, OUTPUT;
}
