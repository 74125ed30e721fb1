//! The JSON record of topic `spendfuse.budgets`, with the field names of the budgets file.
//!
//! One record a budget (key: its id) and one a detector rule (key: `detector|` and its id).
//! Unknown fields are ignored; a record of a later version `v` is refused.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{BasisPoints, Budget, BudgetId, OnStale, ReserveRule, Step};
use crate::amount::{Amount, Count, Unit};
use crate::finding::DetectorRule;
use crate::money::Nanos;
use crate::scope::{Filter, ScopeTemplate};
use crate::time::UnixMillis;
use crate::timezone::Timezone;
use crate::window::WindowKind;

/// The version of the records that this program writes, and the latest that it reads.
pub(super) const VERSION: u32 = 1;

/// Which budgets may have it.
pub(super) const LIMIT_FROM_EVENT: &str =
    "`limit_from: event` is for limits in dollars in windows `session` and `root_session`";

/// Which budgets may have it.
pub(super) const OPENING: &str =
    "`opening` is for budgets with one scope, in windows of the calendar";

const DETECTOR_PREFIX: &str = "detector|";

/// A record that is neither a budget nor a detector rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget record \"{key}\": {detail}")]
pub struct RecordError {
    /// The record's key.
    pub key: String,
    /// What was wrong.
    pub detail: String,
}

impl RecordError {
    pub(super) fn new(key: &str, detail: impl ToString) -> Self {
        Self {
            key: key.to_owned(),
            detail: detail.to_string(),
        }
    }
}

/// One record of topic `spendfuse.budgets`.
// Nearly all of them are budgets: boxes would only be one more allocation each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetsRecord {
    /// A budget; the key is its id.
    Budget(Budget),
    /// An entry of `detectors:`; the key is `detector|` and its id.
    Detector(DetectorRule),
}

impl BudgetsRecord {
    /// Reads a record. A tombstone has no value: tell it apart before.
    ///
    /// # Errors
    /// [`RecordError`] naming the key and what is wrong.
    pub fn parse(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        if key.starts_with(DETECTOR_PREFIX) {
            DetectorRule::from_record(key, value).map(Self::Detector)
        } else {
            Budget::from_record(key, value).map(Self::Budget)
        }
    }

    /// The record's key.
    pub fn key(&self) -> String {
        match self {
            Self::Budget(budget) => budget.id.to_string(),
            Self::Detector(rule) => detector_key(&rule.id),
        }
    }

    /// The record's value.
    pub fn to_record(&self) -> Vec<u8> {
        match self {
            Self::Budget(budget) => budget.to_record(),
            Self::Detector(rule) => rule.to_record(),
        }
    }
}

/// The record key of the detector rule called `id`.
pub fn detector_key(id: &str) -> String {
    format!("{DETECTOR_PREFIX}{id}")
}

/// The id in a detector rule's key.
pub(super) fn detector_id(key: &str) -> Option<&str> {
    key.strip_prefix(DETECTOR_PREFIX)
        .filter(|id| !id.is_empty())
}

#[derive(Serialize, Deserialize)]
struct BudgetRecord {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    scope: Map<String, Value>,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    filter: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_tokens: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_calls: Option<Count>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_from: Option<LimitFrom>,
    window: String,
    #[serde(default = "utc")]
    timezone: String,
    steps: Vec<Step>,
    #[serde(default)]
    on_stale: OnStale,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserve_rule: Option<ReserveRule>,
    #[serde(default)]
    count_unpriced: CountUnpriced,
    #[serde(default)]
    publish_from: BasisPoints,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help_url: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alert: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opening: Option<Opening>,
    counted_from: UnixMillis,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitFrom {
    Event,
}

/// Dollars as a text, tokens or calls as a number, as the limit is in.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Opening {
    Usd(Nanos),
    Count(Count),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CountUnpriced {
    #[default]
    Warn,
    Block,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Budget {
    /// The value of this budget's record; the key is the budget's id.
    pub fn to_record(&self) -> Vec<u8> {
        let mut record = BudgetRecord {
            v: VERSION,
            id: Some(self.id.to_string()),
            scope: self.scope.to_json(),
            filter: self.filter.to_json(),
            limit: None,
            limit_tokens: None,
            limit_calls: None,
            limit_from: self.limit_from_event.then_some(LimitFrom::Event),
            window: self.window.name().to_owned(),
            timezone: self.timezone.as_str().to_owned(),
            steps: self.steps.clone(),
            on_stale: self.on_stale,
            reserve_rule: self.reserve_rule,
            count_unpriced: match self.unpriced_blocks {
                true => CountUnpriced::Block,
                false => CountUnpriced::Warn,
            },
            publish_from: self.publish_from,
            message: self.message.clone(),
            help_url: self.help_url.clone(),
            alert: self.alert.clone(),
            opening: self.opening.map(|opening| match opening {
                Amount::Usd(nanos) => Opening::Usd(nanos),
                Amount::Tokens(count) | Amount::Calls(count) => Opening::Count(Count(count)),
            }),
            counted_from: self.counted_from,
        };
        match self.limit {
            Amount::Usd(nanos) => record.limit = Some(nanos),
            Amount::Tokens(count) => record.limit_tokens = Some(Count(count)),
            Amount::Calls(count) => record.limit_calls = Some(Count(count)),
        }
        serde_json::to_vec(&record).expect("a record of texts and numbers is always JSON")
    }

    /// Reads a budget's record.
    ///
    /// # Errors
    /// [`RecordError`] naming the key and what is wrong.
    pub fn from_record(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        let wrong = |detail: String| RecordError::new(key, detail);
        check_version(key, value)?;
        let record: BudgetRecord =
            serde_json::from_slice(value).map_err(|error| wrong(error.to_string()))?;
        let id = BudgetId::new(key).ok_or_else(|| wrong("the key is not a budget id".into()))?;
        if record.id.as_ref().is_some_and(|id| id != key) {
            return Err(wrong("the id in the value differs from the key".into()));
        }
        let window = WindowKind::from_name(&record.window).ok_or_else(|| {
            wrong(format!(
                "windows of kind `{}` are not supported yet",
                record.window
            ))
        })?;
        let timezone = Timezone::named(&record.timezone)
            .ok_or_else(|| wrong(format!("unknown time zone `{}`", record.timezone)))?;
        if record.steps.is_empty() {
            return Err(wrong("a budget without steps does nothing".into()));
        }
        let limit = record.limit().map_err(wrong)?;
        let limit_from_event = record.limit_from.is_some();
        if limit_from_event && (window.session().is_none() || limit.unit() != Unit::Usd) {
            return Err(wrong(LIMIT_FROM_EVENT.into()));
        }
        let opening = record.opening(limit.unit()).map_err(wrong)?;
        let filter = record.filter.as_ref().map(Filter::from_json).transpose();
        let mut steps = record.steps;
        steps.sort_by_key(|step| step.at);
        let scope = ScopeTemplate::from_json(&record.scope)
            .map_err(wrong)?
            .counted_in(window);
        if opening.is_some() && (scope.single().is_none() || window.is_session()) {
            return Err(wrong(OPENING.into()));
        }
        Ok(Self {
            id,
            scope,
            filter: filter.map_err(wrong)?.unwrap_or_default(),
            limit,
            limit_from_event,
            window,
            timezone,
            steps,
            on_stale: record.on_stale,
            reserve_rule: record.reserve_rule,
            unpriced_blocks: matches!(record.count_unpriced, CountUnpriced::Block),
            publish_from: record.publish_from,
            message: record.message,
            help_url: record.help_url,
            alert: record.alert,
            opening,
            counted_from: record.counted_from,
        })
    }
}

impl BudgetRecord {
    fn limit(&self) -> Result<Amount, String> {
        match (self.limit, self.limit_tokens, self.limit_calls) {
            (Some(nanos), None, None) if nanos >= Nanos::ZERO => Ok(Amount::Usd(nanos)),
            (Some(_), None, None) => Err("the limit is negative".into()),
            (None, Some(count), None) => Ok(Amount::Tokens(count.0)),
            (None, None, Some(count)) => Ok(Amount::Calls(count.0)),
            _ => Err("exactly one of limit, limit_tokens, limit_calls is needed".into()),
        }
    }

    fn opening(&self, unit: Unit) -> Result<Option<Amount>, String> {
        let opening = match (self.opening, unit) {
            (None, _) => return Ok(None),
            (Some(Opening::Usd(nanos)), Unit::Usd) => Amount::Usd(nanos),
            (Some(Opening::Count(count)), Unit::Tokens | Unit::Calls) => Amount::new(unit, count.0),
            (Some(_), _) => return Err("the opening is not in the unit of the limit".into()),
        };
        match opening.number() < 0 {
            true => Err("the opening is negative".into()),
            false => Ok(Some(opening)),
        }
    }
}

/// Refuses a record of a later version, before its fields are looked at.
pub(super) fn check_version(key: &str, value: &[u8]) -> Result<(), RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let found: Versioned =
        serde_json::from_slice(value).map_err(|error| RecordError::new(key, error))?;
    if found.v == VERSION {
        return Ok(());
    }
    Err(RecordError::new(
        key,
        format!(
            "version {} of the record is not known here ({VERSION} is); update spendfuse",
            found.v
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{ContextBloat, DetectorAction, Parameters};

    const BUDGET: &str = r#"{"v":1,"id":"free-plan","scope":{"workspace":"acme","customer":"*"},"where":{"plan":"free","tags.team":["a","b"]},"limit":"0.10","window":"day","timezone":"America/New_York","steps":[{"at":33.3,"do":"warn"},{"at":100,"do":"downgrade","to":"gpt-4o-mini"},{"at":120,"do":"block"}],"on_stale":{"allow_up_to":"2.00"},"count_unpriced":"block","publish_from":10,"message":"Slow down.","alert":["slack-ops","mailto:ops@example.com"],"counted_from":"2026-11-01T00:00:00Z"}"#;
    const OPENED: &str = r#"{"v":1,"id":"tokens","scope":{"workspace":"acme"},"limit_tokens":1000,"window":"month","timezone":"UTC","steps":[{"at":100,"do":"block"}],"on_stale":"allow","count_unpriced":"warn","publish_from":0,"opening":250,"counted_from":"2026-11-12T00:00:00Z"}"#;
    const DETECTOR: &str = r#"{"v":1,"id":"loops","detector":"retry_loop","order":2,"where":{"feature":"agent"},"action":"block_session","at":"warning","cooldown":"15m","repeats":4,"tool":{"repeats":6,"within":20}}"#;

    #[test]
    fn records_are_written_in_the_words_of_the_file() {
        for (key, text) in [
            ("free-plan", BUDGET),
            ("tokens", OPENED),
            ("detector|loops", DETECTOR),
        ] {
            let record = BudgetsRecord::parse(key, text.as_bytes()).unwrap();
            assert_eq!(record.key(), key);
            assert_eq!(String::from_utf8(record.to_record()).unwrap(), text);
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_have_their_defaults() {
        let text = r#"{"v":1,"shade":"blue","scope":{"workspace":"acme","session":"*"},"limit_calls":5,"window":"session","steps":[{"at":100,"do":"block","since":1}],"counted_from":"2026-11-01T00:00:00Z"}"#;
        let budget = Budget::from_record("calls", text.as_bytes()).unwrap();
        assert_eq!(budget.limit, Amount::Calls(5));
        assert_eq!(budget.scope.to_string(), "acme");
        assert_eq!(
            (budget.timezone.as_str(), budget.on_stale),
            ("UTC", OnStale::Allow)
        );

        let text = r#"{"v":1,"detector":"context_bloat","order":0,"growth_pct":30.5}"#;
        let rule = DetectorRule::from_record("detector|bloat", text.as_bytes()).unwrap();
        let bloat = ContextBloat {
            growth_basis_points: 3050,
            min_tokens: 1000,
        };
        assert_eq!(rule.parameters, Parameters::ContextBloat(bloat));
        assert_eq!(rule.action, DetectorAction::Warn);
    }

    #[test]
    fn what_this_version_cannot_count_is_refused_by_name() {
        let changed = |from: &str, to: &str| BUDGET.replace(from, to);
        for (text, detail) in [
            (changed(r#""v":1"#, r#""v":2"#), "version 2 of the record"),
            (
                changed(r#""day""#, r#""rolling:24h""#),
                "`rolling:24h` are not supported",
            ),
            (
                changed("America/New_York", "Mars/Olympus"),
                "unknown time zone",
            ),
            (
                changed(r#""limit":"0.10""#, r#""limit":0.10"#),
                "invalid type",
            ),
            (changed(r#""limit":"0.10","#, ""), "exactly one of limit"),
            (changed("free-plan", "other"), "differs from the key"),
            (
                changed(r#""steps":["#, r#""steps":[],"was":["#),
                "without steps",
            ),
            (changed(r#""do":"block""#, r#""do":"explode""#), "explode"),
            (changed(r#""plan""#, r#""colour""#), "where.colour"),
            (
                changed(r#""v":1"#, r#""v":1,"opening":"3.00""#),
                "for budgets with one scope",
            ),
            (
                changed(r#""v":1"#, r#""v":1,"opening":3"#),
                "not in the unit of the limit",
            ),
            (
                changed(r#""v":1"#, r#""v":1,"opening":"-3.00""#),
                "the opening is negative",
            ),
        ] {
            let error = Budget::from_record("free-plan", text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(detail), "{error}");
        }
    }
}
