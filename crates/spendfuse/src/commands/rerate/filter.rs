//! Which entries are re-rated, as `--where NAME=VALUE` says: a value for each column that may be named,
//! never a piece of SQL.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::{Dimension, Dimensions, FixedDimension};
use spendfuse_warehouse::client::quoted;
use spendfuse_warehouse::conditions;

use super::super::correct::entry::Standing;

/// What an entry may be chosen by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Dimension(Dimension),
    Source,
    Priced,
    PricedAs,
    PriceVersion,
}

impl Key {
    fn named(name: &str) -> Option<Self> {
        match name {
            "source" => Some(Self::Source),
            "priced" => Some(Self::Priced),
            "priced_as" => Some(Self::PricedAs),
            "price_version" => Some(Self::PriceVersion),
            name => Dimension::from_name(name).map(Self::Dimension),
        }
    }

    fn column(&self) -> String {
        match self {
            Self::Dimension(dimension) => conditions::column(dimension),
            Self::Source => "source".to_owned(),
            Self::Priced => "priced".to_owned(),
            Self::PricedAs => "priced_as".to_owned(),
            Self::PriceVersion => "price_version".to_owned(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Dimension(dimension) => dimension.name().into_owned(),
            other => other.column(),
        }
    }

    /// Whether a re-rating may change it.
    fn is_of_price(&self) -> bool {
        matches!(self, Self::Priced | Self::PricedAs | Self::PriceVersion)
    }

    fn value<'s>(&self, standing: &'s Standing) -> &'s str {
        match self {
            Self::Dimension(dimension) => standing.event.attribution.value(dimension),
            Self::Source => &standing.event.source,
            Self::Priced => standing.priced.name(),
            Self::PricedAs => &standing.priced_as,
            Self::PriceVersion => &standing.price_version,
        }
    }
}

/// One `--where`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    key: Key,
    value: String,
}

/// Reads `model=gpt-9`.
pub fn condition(text: &str) -> Result<Condition, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write NAME=VALUE, such as model=gpt-9".to_owned());
    };
    let Some(key) = Key::named(name) else {
        return Err(format!(
            "entries have no {name:?}; known are {}, tags.NAME, source, priced, priced_as and price_version",
            FixedDimension::NAMES.join(", ")
        ));
    };
    match (&key, PriceBasis::named(value)) {
        (Key::Priced, None) => return Err("priced is book or ceiling".to_owned()),
        (Key::Priced, Some(PriceBasis::Reported)) => {
            return Err(
                "what somebody reported or said is a cost, not a price: it is never re-rated"
                    .to_owned(),
            );
        }
        _ => {}
    }
    Ok(Condition {
        key,
        value: value.to_owned(),
    })
}

/// All conditions: of one column any value, of several columns each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(BTreeMap<Key, BTreeSet<String>>);

impl Filter {
    /// Those of the command line.
    pub fn of(conditions: &[Condition]) -> Self {
        let mut all = Self::default();
        for one in conditions {
            let values = all.0.entry(one.key.clone()).or_default();
            values.insert(one.value.clone());
        }
        all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The condition on rows of table `spend`.
    pub fn sql(&self) -> String {
        let terms = self.0.iter().map(|(key, values)| {
            let values = conditions::listed(values.iter().map(|value| quoted(value)));
            format!("{} IN ({values})", key.column())
        });
        conditions::all_of(&terms.collect::<Vec<_>>())
    }

    /// Whether re-ratings may change who meets it.
    pub fn is_of_price(&self) -> bool {
        self.0.keys().any(Key::is_of_price)
    }

    /// Whether what stands for an entry meets it: its first row may say otherwise.
    pub fn admits(&self, standing: &Standing) -> bool {
        let mut terms = self.0.iter();
        terms.all(|(key, values)| values.contains(key.value(standing)))
    }

    /// The same text for the same conditions, in any order.
    pub fn text(&self) -> String {
        let terms = self.0.iter().flat_map(|(key, values)| {
            let name = key.name();
            values.iter().map(move |value| format!("{name}={value:?}"))
        });
        terms.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(texts: &[&str]) -> Filter {
        let read = texts.iter().map(|text| condition(text).unwrap());
        Filter::of(&read.collect::<Vec<_>>())
    }

    #[test]
    fn values_of_one_column_are_alternatives_and_nothing_of_them_is_sql() {
        let one = filter(&[
            "model=gpt-9",
            "tags.team=a'b\\",
            "user=u-1",
            "priced=ceiling",
            "model=o-9",
        ]);
        let wanted = "`user_id` IN ('u-1') AND `model` IN ('gpt-9', 'o-9') \
                      AND tags['team'] IN ('a\\'b\\\\') AND priced IN ('ceiling')";
        let terms =
            |text: &str| -> BTreeSet<String> { text.split(" AND ").map(str::to_owned).collect() };
        assert_eq!(terms(&one.sql()), terms(wanted));
        assert!(one.is_of_price() && !filter(&["model=m"]).is_of_price());
        assert_eq!(Filter::default().sql(), "1");
        let again = filter(&[
            "priced=ceiling",
            "model=o-9",
            "model=gpt-9",
            "user=u-1",
            "tags.team=a'b\\",
        ]);
        assert_eq!(one.text(), again.text());
    }

    #[test]
    fn what_no_entry_has_is_refused_by_name() {
        for (text, wanted) in [
            ("model", "NAME=VALUE"),
            ("colour=red", "\"colour\""),
            ("tags.=x", "\"tags.\""),
            ("priced=guess", "book or ceiling"),
            ("priced=reported", "never re-rated"),
        ] {
            let said = condition(text).unwrap_err();
            assert!(said.contains(wanted), "{text}: {said}");
        }
        assert!(condition("customer=").is_ok(), "those without a customer");
    }
}
