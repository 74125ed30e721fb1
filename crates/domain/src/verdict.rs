//! Verdicts: the values of topic `spendfuse.blocklist`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::{Count, SpentCount};
use crate::budget::BudgetId;
use crate::figures::{Fields, Figures, FiguresError};
use crate::money::Nanos;
use crate::percent::Percent;
use crate::time::UnixMillis;

/// What a scope's spend means for its next call, from mildest to strictest. Records hold the numbers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Under every step.
    #[default]
    Ok = 0,
    /// Tell, let through.
    Warn = 1,
    /// Use the cheaper model.
    Downgrade = 2,
    /// Refuse.
    Block = 3,
}

impl Verdict {
    /// Every verdict, by its number.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warn, Self::Downgrade, Self::Block];

    /// The verdict with this number in records; the strictest for later ones.
    pub fn from_number(number: u8) -> Self {
        let known = Self::ALL.get(usize::from(number));
        known.copied().unwrap_or(Self::Block)
    }

    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Downgrade => "downgrade",
            Self::Block => "block",
        }
    }
}

/// How what is spent may lag behind `complete_to`, for people: the rule by which states are
/// published (`docs/formats/blocklist.md`). Verdicts do not lag.
pub const FIGURES: &str = "what is spent lags complete_to by less than 1 % of what remains, for at most 5 s above half of the limit and 60 s below";

/// Which event caused a verdict or belongs to a finding's evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventRef {
    /// The event's `source`.
    pub source: String,
    /// The event's `id`.
    pub id: String,
    /// The event's own time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<UnixMillis>,
}

/// The value of a scope's blocklist entry; the key is `{budget}|{scope}`
/// (`finding|{detector}|{scope}` for a session block).
///
/// A value whose figures contradict themselves is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EntryFields")]
#[allow(missing_docs)]
pub struct BlocklistEntry {
    pub v: u32,
    /// Budget id; the detector's rule id for a session block.
    pub budget: String,
    pub scope: String,
    /// The budget's `where` as an object of field to value or list, null where there is none.
    #[serde(rename = "where")]
    pub filter: Option<serde_json::Value>,
    pub verdict: Verdict,
    /// The action of the step reached; `ok` verdicts say what the last step would do.
    pub action: String,
    #[serde(flatten)]
    pub figures: Figures,
    /// Spent as a percentage of the limit, one fraction digit, for display; null where limit is 0.
    pub percent: Option<Percent>,
    pub window: String,
    pub window_start: UnixMillis,
    pub resets_at: Option<UnixMillis>,
    /// After this time readers ignore the entry.
    pub expires_at: Option<UnixMillis>,
    pub counted_from: UnixMillis,
    /// Since when the count itself runs, where `counted_from` is earlier because spend of before is
    /// in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count_since: Option<UnixMillis>,
    pub downgrade_to: Option<String>,
    /// The writer partition's commit number.
    pub version: u64,
    pub decided_at: UnixMillis,
    pub caused_by: Option<EventRef>,
    /// Per partition of the usage topic, the offset of the last event that the figures count, as far
    /// as the entry says ([`Self::says_through`]); of events that arrived in another partition than
    /// their own it says nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub through: BTreeMap<u32, i64>,
}

impl BlocklistEntry {
    /// Whether the entry says which events it counts: from a quarter of the limit on. Below, a cost
    /// that a reader takes for still missing leaves room for half of the limit at least.
    pub fn says_through(&self) -> bool {
        let (spent, limit) = (self.figures.spent, self.figures.limit);
        let numbers = spent.zip(limit);
        numbers.is_some_and(|(spent, limit)| spent.number().saturating_mul(4) > limit.number())
    }
}

/// An entry as it is read: every reader of the topic reads millions, and serde would set aside each
/// value of a flattened struct before it looks for its fields.
#[derive(Deserialize)]
struct EntryFields {
    v: u32,
    budget: String,
    scope: String,
    #[serde(rename = "where")]
    filter: Option<serde_json::Value>,
    verdict: Verdict,
    action: String,
    spent_usd: Option<Nanos>,
    limit_usd: Option<Nanos>,
    spent_tokens: Option<SpentCount>,
    limit_tokens: Option<Count>,
    spent_calls: Option<SpentCount>,
    limit_calls: Option<Count>,
    percent: Option<Percent>,
    window: String,
    window_start: UnixMillis,
    resets_at: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    counted_from: UnixMillis,
    #[serde(default)]
    count_since: Option<UnixMillis>,
    downgrade_to: Option<String>,
    version: u64,
    decided_at: UnixMillis,
    caused_by: Option<EventRef>,
    #[serde(default)]
    through: BTreeMap<u32, i64>,
}

impl TryFrom<EntryFields> for BlocklistEntry {
    type Error = FiguresError;

    fn try_from(fields: EntryFields) -> Result<Self, FiguresError> {
        Ok(Self {
            v: fields.v,
            budget: fields.budget,
            scope: fields.scope,
            filter: fields.filter,
            verdict: fields.verdict,
            action: fields.action,
            figures: Figures::try_from(Fields {
                spent_usd: fields.spent_usd,
                limit_usd: fields.limit_usd,
                spent_tokens: fields.spent_tokens,
                limit_tokens: fields.limit_tokens,
                spent_calls: fields.spent_calls,
                limit_calls: fields.limit_calls,
            })?,
            percent: fields.percent,
            window: fields.window,
            window_start: fields.window_start,
            resets_at: fields.resets_at,
            expires_at: fields.expires_at,
            counted_from: fields.counted_from,
            count_since: fields.count_since,
            downgrade_to: fields.downgrade_to,
            version: fields.version,
            decided_at: fields.decided_at,
            caused_by: fields.caused_by,
            through: fields.through,
        })
    }
}

/// Value of the keys `heartbeat|meter|{p}` and `heartbeat|ledger|{p}`.
///
/// A ledger's heartbeat says up to which broker time its deltas are applied; a meter's, up to which
/// broker time its events are counted. Guards derive `complete_to` from both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Heartbeat {
    pub v: u32,
    pub partition: u32,
    /// Everything that the broker had accepted before this time, on every input of the partition,
    /// is in. Of what a meter handed over to another one, the other's heartbeat speaks.
    pub complete_to: UnixMillis,
    /// How old `complete_to` was when this was written; guards age it on their own clock.
    pub lag_ms: u64,
    /// The writer's commit number.
    pub version: u64,
    /// A meter's: every event of its partition of the usage topic before this offset is counted,
    /// set aside or handed over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage_offset: Option<i64>,
    /// Version of the budgets in force: one more than the offset of the last record of the budgets
    /// topic that was read. 0 where the writer is older than this field.
    #[serde(default)]
    pub budget_version: u64,
    /// A ledger's: counts that wait for what was spent before them, a hundred at most.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub openings: Vec<WantedOpening>,
}

/// A count that a ledger partition wants to know the past of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WantedOpening {
    /// The budget.
    pub budget: String,
    /// What was counted by older budgets than this version is wanted.
    pub below_version: u64,
}

/// The key of a budget's entry for `scope`.
pub fn budget_key(budget: &BudgetId, scope: &str) -> String {
    format!("{budget}|{scope}")
}

/// The key of a session block.
pub fn finding_key(detector: &str, scope: &str) -> String {
    format!("finding|{detector}|{scope}")
}

/// A blocklist key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BlocklistKey<'a> {
    Budget { budget: &'a str, scope: &'a str },
    Finding { detector: &'a str, scope: &'a str },
    Heartbeat { stage: Stage, partition: u32 },
}

/// The two stages of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Stage {
    Meter,
    Ledger,
}

impl<'a> BlocklistKey<'a> {
    /// Takes `key` apart; `None` where it is none of the known forms.
    pub fn parse(key: &'a str) -> Option<Self> {
        let (first, rest) = key.split_once('|')?;
        match first {
            "heartbeat" => {
                let (stage, partition) = rest.split_once('|')?;
                let stage = match stage {
                    "meter" => Stage::Meter,
                    "ledger" => Stage::Ledger,
                    _ => return None,
                };
                let partition = partition.parse().ok()?;
                Some(Self::Heartbeat { stage, partition })
            }
            "finding" => {
                let (detector, scope) = rest.split_once('|')?;
                Some(Self::Finding { detector, scope })
            }
            budget => Some(Self::Budget {
                budget,
                scope: rest,
            }),
        }
    }
}

/// The key of the heartbeat of `partition` in `stage`.
pub fn heartbeat_key(stage: Stage, partition: u32) -> String {
    match stage {
        Stage::Meter => format!("heartbeat|meter|{partition}"),
        Stage::Ledger => format!("heartbeat|ledger|{partition}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_ordered_by_strictness() {
        assert!(Verdict::Ok < Verdict::Warn);
        assert!(Verdict::Warn < Verdict::Downgrade);
        assert!(Verdict::Downgrade < Verdict::Block);
        for (number, verdict) in (0..).zip(Verdict::ALL) {
            assert_eq!(
                (verdict as u8, Verdict::from_number(number)),
                (number, verdict)
            );
        }
        assert_eq!(Verdict::from_number(9), Verdict::Block);
    }

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        assert_eq!(
            BlocklistKey::parse("cap|acme/customer=a%7Cb"),
            Some(BlocklistKey::Budget {
                budget: "cap",
                scope: "acme/customer=a%7Cb"
            })
        );
        assert_eq!(
            BlocklistKey::parse(&heartbeat_key(Stage::Ledger, 3)),
            Some(BlocklistKey::Heartbeat {
                stage: Stage::Ledger,
                partition: 3
            })
        );
        assert_eq!(BlocklistKey::parse("heartbeat|other|3"), None);
    }
}
