//! One blocklist entry in the replica: the published value in a compact form, a million of which
//! took 0.6 GB with all indexes.

use std::borrow::Cow;

use serde_json::Value;
use spendfuse_domain::verdict::{BlocklistEntry, EventRef};
use spendfuse_domain::{Amount, Figures, Nanos, Percent, UnixMillis, Verdict};

use crate::error::GuardError;

/// A budget's or a session block's entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    key: Box<str>,
    budget: Box<str>,
    filter: Option<Box<Value>>,
    /// Strictest step reached, as its writer judged.
    pub verdict: Verdict,
    action: Cow<'static, str>,
    /// What is spent and the limit that its writer judged by; no limit for session blocks.
    pub figures: Figures,
    percent: Option<Percent>,
    /// Name of the window for people.
    pub window: Box<str>,
    window_start: UnixMillis,
    /// When the count starts again.
    pub resets_at: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
    counted_from: UnixMillis,
    downgrade_to: Option<Box<str>>,
    version: u64,
    decided_at: UnixMillis,
    caused_by: Option<Box<EventRef>>,
    /// Most entries say nothing.
    through: Box<[(u32, i64)]>,
}

impl Entry {
    /// Reads the value of `key`.
    ///
    /// # Errors
    /// [`GuardError::Entry`] where it is not the JSON of `docs/formats/blocklist.md`.
    pub(crate) fn parse(key: &str, value: &[u8]) -> Result<Self, GuardError> {
        let bad = |detail: String| GuardError::Entry {
            key: key.to_owned(),
            detail,
        };
        let read: BlocklistEntry =
            serde_json::from_slice(value).map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            key: key.into(),
            budget: read.budget.into(),
            filter: read.filter.map(Box::new),
            verdict: read.verdict,
            action: known_action(read.action),
            figures: read.figures,
            percent: read.percent,
            window: read.window.into(),
            window_start: read.window_start,
            resets_at: read.resets_at,
            expires_at: read.expires_at,
            counted_from: read.counted_from,
            downgrade_to: read.downgrade_to.map(Box::from),
            version: read.version,
            decided_at: read.decided_at,
            caused_by: read.caused_by.map(Box::new),
            through: read.through.into_iter().collect(),
        })
    }

    /// The key in the topic.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The scope's text.
    pub fn scope(&self) -> &str {
        self.key.rsplit_once('|').map_or("", |(_, scope)| scope)
    }

    /// The budget's id; for a session block the id of the detector rule.
    pub fn budget(&self) -> &str {
        &self.budget
    }

    /// The detector, where this is a session block.
    pub fn detector(&self) -> Option<&str> {
        let rest = self.key.strip_prefix("finding|")?;
        rest.split_once('|').map(|(detector, _)| detector)
    }

    /// Whether only some calls of its scope count against its budget.
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether readers must ignore it at `now`: its window is over.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// After this time readers ignore it.
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.expires_at
    }

    /// What is spent of `limit`: nothing, where the entry counts in another unit.
    pub(crate) fn counted_by(&self, limit: Amount) -> Amount {
        let spent = self.figures.spent;
        let same_unit = spent.filter(|spent| spent.unit() == limit.unit());
        same_unit.unwrap_or(limit.with(0))
    }

    /// Dollars spent, where the entry says.
    pub fn cost(&self) -> Option<Nanos> {
        self.figures.spent?.usd()
    }

    /// The time of the event that caused it.
    pub fn caused_at(&self) -> Option<UnixMillis> {
        self.caused_by.as_ref().and_then(|event| event.time)
    }

    /// Per partition of the usage topic, the last event that the figures count, where the entry says.
    pub(crate) fn through(&self) -> impl Iterator<Item = (u32, i64)> {
        self.through.iter().copied()
    }

    /// Whether it says that the event at this place in the usage topic is in its figures.
    pub(crate) fn counts(&self, partition: u32, offset: i64) -> bool {
        self.through()
            .any(|(counted, last)| counted == partition && last >= offset)
    }

    /// The value as it was published.
    pub fn to_published(&self) -> BlocklistEntry {
        BlocklistEntry {
            v: 1,
            budget: self.budget.to_string(),
            scope: self.scope().to_owned(),
            filter: self.filter.as_deref().cloned(),
            verdict: self.verdict,
            action: self.action.clone().into_owned(),
            figures: self.figures,
            percent: self.percent,
            window: self.window.to_string(),
            window_start: self.window_start,
            resets_at: self.resets_at,
            expires_at: self.expires_at,
            counted_from: self.counted_from,
            count_since: None,
            downgrade_to: self.downgrade_to.as_deref().map(str::to_owned),
            version: self.version,
            decided_at: self.decided_at,
            caused_by: self.caused_by.as_deref().cloned(),
            through: self.through.iter().copied().collect(),
        }
    }
}

/// The usual actions without an allocation an entry.
fn known_action(action: String) -> Cow<'static, str> {
    let known = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.name() == action);
    known.map_or(Cow::Owned(action), |verdict| Cow::Borrowed(verdict.name()))
}

#[cfg(test)]
impl Entry {
    /// An entry of a budget of one dollar.
    pub(crate) fn of_spend(
        spent_usd: &str,
        verdict: Verdict,
        expires_at: Option<UnixMillis>,
    ) -> Self {
        let value = serde_json::json!({
            "v": 1, "budget": "b", "scope": "acme", "where": null, "verdict": verdict,
            "action": "block", "spent_usd": spent_usd, "limit_usd": "1.00", "percent": null,
            "window": "lifetime", "window_start": UnixMillis(0), "resets_at": null,
            "expires_at": expires_at, "counted_from": UnixMillis(0), "downgrade_to": null,
            "version": 1, "decided_at": UnixMillis(0), "caused_by": null,
        });
        Self::parse("b|acme", value.to_string().as_bytes()).expect("an entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"{"v":1,"budget":"cap-per-customer","scope":"acme/customer=c-42","where":{"plan":"free"},"verdict":"block","action":"block","spent_usd":"5.000123","limit_usd":"5.00","percent":100.0,"window":"day:2026-11-22","window_start":"2026-11-22T05:00:00Z","resets_at":"2026-11-23T05:00:00Z","expires_at":"2026-11-23T05:00:00Z","counted_from":"2026-11-22T05:00:00Z","downgrade_to":null,"version":184467,"decided_at":"2026-11-22T10:15:30.2Z","caused_by":{"source":"checkout-api","id":"chatcmpl-9x","time":"2026-11-22T10:15:30Z"},"through":{"0":918272,"11":4}}"#;

    #[test]
    fn an_entry_is_given_out_as_it_was_published() {
        let key = "cap-per-customer|acme/customer=c-42";
        let entry = Entry::parse(key, CONTRACT.as_bytes()).unwrap();
        let published: BlocklistEntry = serde_json::from_str(CONTRACT).unwrap();
        assert_eq!(entry.to_published(), published);
        assert_eq!(entry.scope(), published.scope);
        let end = published.expires_at.unwrap();
        assert!(entry.is_expired(end) && !entry.is_expired(end.plus(-1)));
    }

    #[test]
    fn a_value_that_is_no_entry_is_an_error_with_its_key() {
        let contradiction = CONTRACT.replace("spent_usd", "spent_tokens");
        for value in ["{\"v\":1}", &contradiction.replace("\"5.000123\"", "5")] {
            let error = Entry::parse("cap|acme", value.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("cap|acme"), "{error}");
        }
    }
}
