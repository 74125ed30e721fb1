//! Alerts: what people should be told, once. The value of topic `spendfuse.alerts`.

use serde::de::IntoDeserializer;
use serde::de::value::{Error as NotAKind, StrDeserializer};
use serde::{Deserialize, Serialize};
use spendfuse_domain::{Severity, UnixMillis};

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

    /// The kind of that name, where this version knows it.
    pub fn named(name: &str) -> Option<Self> {
        let text: StrDeserializer<'_, NotAKind> = name.into_deserializer();
        Self::deserialize(text).ok()
    }
}
