//! Alerts: what people should be told, once. The value of topic `spendfuse.alerts`.

use serde::de::IntoDeserializer;
use serde::de::value::{Error as NotAKind, StrDeserializer};
use serde::{Deserialize, Serialize};
use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::rates::Rates;
use spendfuse_domain::verdict::EventRef;
use spendfuse_domain::{Figures, Severity, UnixMillis};
use xxhash_rust::xxh3::xxh3_64;

/// One alert. Two alerts with the same `key` are the same alert, to be told once; of those with a
/// `count` the last one holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Format version, 1.
    pub v: u32,
    /// What makes it the same alert, also the record's key.
    pub key: String,
    /// What kind of alert.
    pub kind: AlertKind,
    /// How urgent.
    pub severity: Severity,
    /// Scope text; the workspace where there is no narrower one.
    pub scope: String,
    /// Budget id, detector rule, model or source that it is about.
    pub subject: String,
    /// One sentence for people.
    pub message: String,
    /// When it was raised.
    pub at: UnixMillis,
    /// How many alerts it stands for, where it stands for others; see [`crate::alert_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What is known of it beyond the sentence.
    #[serde(flatten)]
    pub details: AlertDetails,
}

/// What an alert says beyond its sentence, each where it applies. In JSON fields of the alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertDetails {
    /// The budget, of a budget step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// The step that was reached, in percent of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<BasisPoints>,
    /// What happens from now on: `warn`, `downgrade`, `block`, `block_session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The window's label, `day:2026-11-22`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// When the window began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_start: Option<UnixMillis>,
    /// When it ends by itself: the window, or the block of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<UnixMillis>,
    /// Spent and limit.
    #[serde(flatten)]
    pub figures: Figures,
    /// How fast the scope of a budget step, or the session of a finding, spends.
    #[serde(flatten)]
    pub rates: Rates,
    /// When the limit is reached by the higher of both rates: see [`crate::recent::exhausts_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausts_at: Option<UnixMillis>,
    /// When a step of a budget was lifted; then `step` is the one that is still reached, and every
    /// higher one of the window is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_at: Option<UnixMillis>,
    /// The model, of a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The event that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<EventRef>,
    /// Who is told, the next one where the one before is not reached: `alert` of the budget.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
}

/// An alert as it is published: what follows from it is written out for those who read the topic.
#[derive(Serialize)]
struct Published<'a> {
    id: String,
    #[serde(flatten)]
    alert: &'a Alert,
    remedy: &'a str,
}

impl Alert {
    /// Its short name, the same for ever: 16 hexadecimal digits that follow from the key.
    pub fn id(&self) -> String {
        id_of(&self.key)
    }

    /// The value of its record.
    pub fn to_record(&self) -> Vec<u8> {
        let published = Published {
            id: self.id(),
            alert: self,
            remedy: self.kind.remedy(),
        };
        serde_json::to_vec(&published).expect("texts and whole numbers always become JSON")
    }
}

/// The id of the alert with this key.
pub fn id_of(key: &str) -> String {
    format!("{:016x}", xxh3_64(key.as_bytes()))
}

/// Kinds of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A budget's spend reached a step.
    BudgetStep,
    /// A detector opened a finding.
    Finding,
    /// A model has no price.
    UnpricedModel,
    /// A source sends counts that contradict their format.
    DisputedSource,
    /// A source sends numbers that look billed and that no rule reads.
    PartlyRead,
    /// Events are older than the dedupe memory and were set aside.
    LateSpend,
    /// Events cannot be counted and were set aside.
    RejectedSpend,
    /// A guard has been stale for long.
    StaleGuard,
    /// The audit has found that what should be equal differs.
    Drift,
    /// An event has the identity of another one.
    Conflict,
    /// An event has two rows in the warehouse.
    CountedTwice,
    /// Events of two workspaces have one source and id.
    SharedId,
    /// The dedupe memory is full: the horizon shrank.
    DedupeHorizon,
    /// Deltas of a meter partition arrived with a gap or an overlap.
    DeltaChain,
    /// An open transaction has held an input back for a minute.
    HeldTransaction,
    /// The loader does not load a partition of rows any more.
    LoaderStopped,
    /// Records of an input cannot be read by any client and were passed by.
    UnreadableInput,
    /// Row blocks arrived at the loader with a gap or an overlap.
    RowChain,
    /// A memory of names is full.
    Capacity,
    /// The broker's clock has jumped.
    Clock,
}

impl AlertKind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BudgetStep => "budget_step",
            Self::Finding => "finding",
            Self::UnpricedModel => "unpriced_model",
            Self::DisputedSource => "disputed_source",
            Self::PartlyRead => "partly_read",
            Self::LateSpend => "late_spend",
            Self::RejectedSpend => "rejected_spend",
            Self::StaleGuard => "stale_guard",
            Self::Drift => "drift",
            Self::Conflict => "conflict",
            Self::CountedTwice => "counted_twice",
            Self::SharedId => "shared_id",
            Self::DedupeHorizon => "dedupe_horizon",
            Self::DeltaChain => "delta_chain",
            Self::LoaderStopped => "loader_stopped",
            Self::RowChain => "row_chain",
            Self::HeldTransaction => "held_transaction",
            Self::UnreadableInput => "unreadable_input",
            Self::Capacity => "capacity",
            Self::Clock => "clock",
        }
    }

    /// What to do about it, in a sentence; the messages of alerts say more where it depends.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::BudgetStep => {
                "To let it go on, raise the limit in the budgets file and run: spendfuse budgets apply FILE. To see what it was spent on: spendfuse budgets status"
            }
            Self::Finding => "To see the calls that it is about, run: spendfuse findings list",
            Self::UnpricedModel => "To set its price, run: spendfuse prices set",
            Self::DisputedSource | Self::Conflict | Self::SharedId | Self::CountedTwice => {
                "Mend the sender, as the message says; no command of spendfuse does"
            }
            Self::PartlyRead => {
                "To see what of a usage object is charged and what is not read, run: spendfuse prices cost --usage JSON --format FORMAT"
            }
            Self::LateSpend => {
                "To count those that the warehouse does not know, run: spendfuse dlq replay --verify. To see them: spendfuse dlq list"
            }
            Self::RejectedSpend => {
                "To see them with the reason of each, run: spendfuse dlq list. When the sender is mended: spendfuse dlq replay"
            }
            Self::DedupeHorizon => "To see what was set aside as late, run: spendfuse dlq list",
            Self::DeltaChain | Self::Drift => "To see where sums differ, run: spendfuse audit",
            Self::RowChain | Self::LoaderStopped => {
                "To see what is missing, run: spendfuse audit; spendfuse gaps list"
            }
            Self::StaleGuard
            | Self::HeldTransaction
            | Self::UnreadableInput
            | Self::Capacity
            | Self::Clock => {
                "To see the state of everything that it stands on, run: spendfuse doctor"
            }
        }
    }

    /// Whether several partitions find out the same and tell it under one key. They tell it in one
    /// partition of the topic, where it is known again.
    pub fn is_found_by_several(self) -> bool {
        matches!(
            self,
            Self::LateSpend
                | Self::RejectedSpend
                | Self::UnpricedModel
                | Self::DisputedSource
                | Self::PartlyRead
        )
    }

    /// The kind of that name, where this version knows it.
    pub fn named(name: &str) -> Option<Self> {
        let text: StrDeserializer<'_, NotAKind> = name.into_deserializer();
        Self::deserialize(text).ok()
    }
}
