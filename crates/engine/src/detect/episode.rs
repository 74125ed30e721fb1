//! Episodes: a finding opens once, grows while its condition holds, and closes.

use minicbor::{Decode, Encode};
use spendfuse_domain::finding::MAX_EVIDENCE;
use spendfuse_domain::verdict::EventRef;
use spendfuse_domain::{Nanos, Severity, UnixMillis};

use super::{Observation, StepFacts};
use crate::codec;

/// One open episode of one detector rule in a lane.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Episode {
    /// When the condition was first met.
    #[n(0)]
    #[cbor(with = "codec::millis")]
    pub opened_at: UnixMillis,
    /// When it was last met.
    #[n(1)]
    #[cbor(with = "codec::millis")]
    pub last_at: UnixMillis,
    /// The highest severity so far, by its place in the order.
    #[n(2)]
    severity: u8,
    /// The last measured value.
    #[n(3)]
    pub measured: f64,
    /// What it was held against.
    #[n(4)]
    pub threshold: f64,
    /// Money wasted so far.
    #[n(5)]
    #[cbor(with = "codec::nanos")]
    pub wasted: Nanos,
    /// The first events of the episode.
    #[n(6)]
    #[cbor(with = "codec::event_refs")]
    pub evidence: Vec<EventRef>,
    /// How many steps in a row met the condition.
    #[n(7)]
    pub in_a_row: u32,
    /// Whether its alert was raised.
    #[n(8)]
    pub alerted: bool,
    /// Until when the session is refused because of it.
    #[n(9)]
    #[cbor(with = "codec::optional_millis", default)]
    pub blocked_until: Option<UnixMillis>,
    /// Customer and feature of the step that opened it.
    #[n(10)]
    pub customer: String,
    /// See [`Self::customer`].
    #[n(11)]
    pub feature: String,
    /// Id of the rule that it was judged by.
    #[n(12)]
    pub rule: String,
}

impl Episode {
    /// The highest severity so far.
    pub fn severity(&self) -> Severity {
        Severity::from_number(self.severity)
    }
}

/// Who a step belongs to, for the finding.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The step's customer, empty = none.
    pub customer: &'a str,
    /// The step's feature, empty = none.
    pub feature: &'a str,
    /// Id of the rule in force.
    pub rule: &'a str,
}

/// What a step did to an episode.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing to tell.
    None,
    /// It opened or grew.
    Grew,
    /// It ended; here is its last state.
    Closed(Box<Episode>),
}

/// Applies what a detector observed in `step` to its episode.
pub fn apply(
    episode: &mut Option<Box<Episode>>,
    observation: Observation,
    step: &StepFacts<'_>,
    owner: Owner<'_>,
) -> Change {
    match observation {
        Observation::Silent => Change::None,
        Observation::Quiet => episode.take().map_or(Change::None, Change::Closed),
        Observation::Fires(measurement) => {
            let open = episode.get_or_insert_with(|| {
                Box::new(Episode {
                    opened_at: step.time,
                    last_at: step.time,
                    severity: 0,
                    measured: 0.0,
                    threshold: measurement.threshold,
                    wasted: Nanos::ZERO,
                    evidence: Vec::new(),
                    in_a_row: 0,
                    alerted: false,
                    blocked_until: None,
                    customer: owner.customer.to_owned(),
                    feature: owner.feature.to_owned(),
                    rule: owner.rule.to_owned(),
                })
            });
            open.last_at = open.last_at.max(step.time);
            open.severity = open.severity.max(measurement.severity as u8);
            open.measured = measurement.measured;
            open.wasted += measurement.wasted;
            open.in_a_row += 1;
            if open.evidence.len() < MAX_EVIDENCE {
                open.evidence.push(step.event_ref());
            }
            Change::Grew
        }
    }
}
