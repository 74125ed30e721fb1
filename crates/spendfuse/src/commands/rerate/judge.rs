//! What a re-rating does to an entry.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use spendfuse_domain::Nanos;
use spendfuse_domain::correction::{EntryPlace, rerate_id};
use spendfuse_domain::row::PriceBasis;
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

use super::super::correct::entry::{Entry, Standing};
use super::filter::Filter;

/// An entry that gets another price.
pub struct Rerated {
    pub entry: Entry,
    pub before: Standing,
    pub after: Standing,
}

impl Rerated {
    /// What it costs more.
    pub fn more(&self) -> Nanos {
        self.after.cost.total() - self.before.cost.total()
    }
}

/// What becomes of an entry.
pub enum Judged {
    Change(Box<Rerated>),
    /// Its price is that of the book.
    Same,
    /// This job has corrected it before.
    Done,
    /// What stands for it does not meet the filter any more.
    Elsewhere,
    LeftOut(Why),
}

/// Why an entry stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was taken back.
    Void,
    /// Its cost was reported by the app, or said by whoever amended it.
    Reported,
    /// Parts of it have prices of their own, and no column has their tokens.
    Parts,
    /// The book has no price for it, or for no more of it than the one before.
    NoPrice,
    /// Which part of it is at a ceiling says a price book that is not known any more.
    BookUnknown,
    /// Its rows do not add up to one call, or the call would be too dear.
    Unclear,
    /// Events still tell more of it.
    Growing,
}

impl Why {
    /// In words, after a number of entries.
    pub fn text(self) -> &'static str {
        match self {
            Self::Void => "are void",
            Self::Reported => "have a cost that was reported or said, not a price",
            Self::Parts => {
                "have parts at prices of their own, whose tokens are in no column: spendfuse correct amend --cost"
            }
            Self::NoPrice => "have no price in that book, or no more of one than before",
            Self::BookUnknown => {
                "have units at a ceiling of a price book that is not in the prices topic any more"
            }
            Self::Unclear => "have rows that do not add up to one call: spendfuse audit",
            Self::Growing => "may still grow: the same command again looks at them anew",
        }
    }
}

/// The price book of a version, where it is known.
type FindBook<'a> = Box<dyn Fn(&str) -> Option<Arc<PriceBook>> + 'a>;

/// Judges entries by one price book.
pub struct Judge<'a> {
    /// Name of the job.
    pub job: &'a str,
    pub filter: &'a Filter,
    pricer: Pricer,
    policy: Arc<PricingPolicy>,
    /// The books that entries were priced by, where they must be asked.
    former: HashMap<String, Option<Pricer>>,
    find_book: FindBook<'a>,
}

impl<'a> Judge<'a> {
    /// One by `book`; `find_book` knows others by their versions.
    pub fn new(
        job: &'a str,
        filter: &'a Filter,
        book: Arc<PriceBook>,
        policy: Arc<PricingPolicy>,
        find_book: impl Fn(&str) -> Option<Arc<PriceBook>> + 'a,
    ) -> Self {
        Self {
            job,
            filter,
            pricer: Pricer::new(book, Arc::clone(&policy)),
            policy,
            former: HashMap::new(),
            find_book: Box::new(find_book),
        }
    }

    /// The id of what this job does to an entry.
    pub fn id(&self, entry: EntryPlace) -> String {
        rerate_id(self.job, entry, self.pricer.version())
    }

    /// What becomes of `entry`.
    pub fn judge(&mut self, entry: Entry) -> Judged {
        if entry.corrections.contains(&self.id(entry.place)) {
            return Judged::Done;
        }
        let mut before = match entry.standing() {
            Ok(Some(standing)) => standing,
            Ok(None) => return Judged::LeftOut(Why::Void),
            Err(_) => return Judged::LeftOut(Why::Unclear),
        };
        if !self.filter.admits(&before) {
            return Judged::Elsewhere;
        }
        if before.priced == PriceBasis::Reported {
            return Judged::LeftOut(Why::Reported);
        }
        if entry.has_parts() {
            return Judged::LeftOut(Why::Parts);
        }
        if before.may_be_partly_at_ceiling() {
            let former = self.former(&before.price_version.clone());
            let found = former.map(|pricer| before.find_ceiling(pricer));
            if !matches!(found, Some(Ok(()))) {
                return Judged::LeftOut(Why::BookUnknown);
            }
        }
        let mut after = before.clone();
        if after.price_by(&mut self.pricer).is_err() {
            return Judged::LeftOut(Why::Unclear);
        }
        let knows_more = is_unknown(&before) && !is_unknown(&after);
        if after.priced == PriceBasis::Ceiling && !knows_more {
            return Judged::LeftOut(Why::NoPrice);
        }
        let is_same = (after.cost, after.priced, after.at_ceiling)
            == (before.cost, before.priced, before.at_ceiling);
        match is_same {
            true => Judged::Same,
            false => Judged::Change(Box::new(Rerated {
                entry,
                before,
                after,
            })),
        }
    }

    fn former(&mut self, version: &str) -> Option<&mut Pricer> {
        if !self.former.contains_key(version) {
            let book = (self.find_book)(version);
            let pricer = book.map(|book| Pricer::new(book, Arc::clone(&self.policy)));
            self.former.insert(version.to_owned(), pricer);
        }
        self.former.get_mut(version)?.as_mut()
    }
}

/// Whether no price of it is known, rather than only none of its units.
fn is_unknown(standing: &Standing) -> bool {
    standing.priced == PriceBasis::Ceiling && standing.at_ceiling == standing.cost.total()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use spendfuse_domain::event::{Call, Flags};
    use spendfuse_domain::{Attribution, TokenClass, UnixMillis};

    use super::super::super::correct::rows::Row;
    use super::super::filter::condition;
    use super::super::later::Later;
    use super::*;

    /// A call of 1,000 input tokens of a model of OpenAI.
    fn row(model: &str, dollars: &str, priced: PriceBasis) -> Row {
        let mut tokens = [0; TokenClass::COUNT];
        tokens[TokenClass::Input as usize] = 1_000;
        let mut costs = [Nanos::ZERO; 6];
        costs[0] = Nanos::parse_usd(dollars).unwrap().amount;
        let named = |name: &str| name.to_owned().into();
        Row {
            correction: None,
            entry: "1/0/7/0".parse().unwrap(),
            received_at: UnixMillis(0),
            budget_version: 0,
            price_detail: String::new(),
            attribution: Attribution {
                workspace: named("acme"),
                provider: named("openai"),
                model: named(model),
                ..Attribution::default()
            },
            event_id: "r-1".to_owned(),
            source: "app".to_owned(),
            time: UnixMillis(1_795_348_800_000),
            call: Call::default(),
            tokens,
            units: BTreeMap::new(),
            tool_calls: 0,
            calls: 1,
            costs,
            flags: Flags::default(),
            priced,
            price_version: "former".to_owned(),
            priced_as: String::new(),
        }
    }

    fn judged(rows: Vec<Row>, conditions: &[&str]) -> Judged {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|text| condition(text).unwrap())
            .collect();
        let filter = Filter::of(&conditions);
        let (book, policy) = (PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
        let mut judge = Judge::new("a-job", &filter, book, policy, |_| None);
        judge.judge(Entry::of(rows, None).unwrap())
    }

    fn left_out(judged: &Judged) -> Option<Why> {
        match judged {
            Judged::LeftOut(why) => Some(*why),
            _ => None,
        }
    }

    #[test]
    fn a_call_at_a_ceiling_gets_the_books_price_and_its_flags() {
        let mut at_ceiling = row("gpt-4o", "0.02", PriceBasis::Ceiling);
        at_ceiling.flags.insert(Flags::UNPRICED);
        let Judged::Change(one) = judged(vec![at_ceiling], &["priced=ceiling"]) else {
            panic!("it changes");
        };
        // 2.50 USD a million.
        assert_eq!(one.after.cost.total(), Nanos::new(2_500_000));
        assert_eq!(one.more(), Nanos::new(2_500_000 - 20_000_000));
        assert_eq!(one.before.at_ceiling, Nanos::new(20_000_000));
        assert_eq!(one.after.at_ceiling, Nanos::ZERO);
        assert!(!one.after.event.flags.contains(Flags::UNPRICED));
        assert_eq!(one.after.price_version, PriceBook::snapshot().version());
        let same = row("gpt-4o", "0.0025", PriceBasis::Book);
        assert!(matches!(judged(vec![same], &[]), Judged::Same));
        // It costs as much as at its ceiling, and is at none any more.
        let equal = row("gpt-4o", "0.0025", PriceBasis::Ceiling);
        assert!(matches!(judged(vec![equal], &[]), Judged::Change(_)));
    }

    #[test]
    fn what_may_still_grow_is_put_aside_until_nothing_more_is_told_of_it() {
        let first = || row("gpt-4o", "0.02", PriceBasis::Ceiling);
        let more = || Row {
            calls: 0,
            received_at: UnixMillis(8_000),
            ..first()
        };
        // Whether it changes at that time, and how many are put aside.
        let at = |rows: Vec<Row>, now: Option<i64>| {
            let mut later = Later::default();
            let judged = [judged(rows, &[])].into_iter();
            let changes = later.sift(judged, now.map(UnixMillis), |judged| match judged {
                Judged::Change(one) => Some(*one),
                _ => None,
            });
            (changes.len(), later.count())
        };
        assert_eq!(at(vec![first()], Some(4_999)), (0, 1));
        assert_eq!(at(vec![first()], Some(5_000)), (1, 0));
        assert_eq!(at(vec![first(), more()], Some(27_999)), (0, 1));
        assert_eq!(at(vec![first(), more()], Some(28_000)), (1, 0));
        assert_eq!(at(vec![first()], None), (1, 0), "nothing is corrected");
        // It does not grow any more.
        let corrected = Row {
            correction: Some("another".to_owned()),
            ..more()
        };
        assert_eq!(at(vec![first(), corrected], Some(0)), (1, 0));
        // What does not change is not waited for.
        let same = row("gpt-4o", "0.0025", PriceBasis::Book);
        assert_eq!(at(vec![same], Some(0)), (0, 0));
    }

    #[test]
    fn what_has_no_price_or_is_no_price_stays_as_it_is() {
        let why = |rows: Vec<Row>| left_out(&judged(rows, &[]));
        let unknown = row("gpt-nova-9", "0.02", PriceBasis::Ceiling);
        assert_eq!(why(vec![unknown]), Some(Why::NoPrice));
        let once_known = row("gpt-nova-9", "0.02", PriceBasis::Book);
        assert_eq!(why(vec![once_known]), Some(Why::NoPrice));
        let said = row("gpt-4o", "0.02", PriceBasis::Reported);
        assert_eq!(why(vec![said]), Some(Why::Reported));
        let mut parts = row("gpt-4o", "0.02", PriceBasis::Book);
        parts.price_detail = "input 5 2.50/M, input 9 5.00/M (part of o3)".to_owned();
        assert_eq!(why(vec![parts]), Some(Why::Parts));
        let mut units = row("gpt-4o", "0.02", PriceBasis::Ceiling);
        units.costs[4] = Nanos::new(1);
        assert_eq!(why(vec![units]), Some(Why::BookUnknown));
        let mut void = row("gpt-4o", "-0.02", PriceBasis::Book);
        (void.calls, void.tokens) = (-1, void.tokens.map(|count| -count));
        void.correction = Some("c".to_owned());
        let entry = row("gpt-4o", "0.02", PriceBasis::Book);
        assert_eq!(why(vec![entry, void]), Some(Why::Void));
    }

    #[test]
    fn what_stands_is_judged_and_once_by_a_job() {
        let id = rerate_id(
            "a-job",
            "1/0/7/0".parse().unwrap(),
            PriceBook::snapshot().version(),
        );
        let entry = || row("gpt-4o", "0.02", PriceBasis::Ceiling);
        let amended = || Row {
            correction: Some("another".to_owned()),
            calls: 0,
            tokens: [0; TokenClass::COUNT],
            ..row("gpt-4o", "0.01", PriceBasis::Book)
        };
        let elsewhere = judged(vec![entry(), amended()], &["priced=ceiling"]);
        assert!(matches!(elsewhere, Judged::Elsewhere));
        let Judged::Change(one) = judged(vec![entry(), amended()], &["priced=book"]) else {
            panic!("it changes");
        };
        assert_eq!(one.before.cost.total(), Nanos::new(30_000_000));
        assert_eq!(one.entry.corrections, ["another"]);
        let done = Row {
            correction: Some(id),
            ..amended()
        };
        assert!(matches!(judged(vec![entry(), done], &[]), Judged::Done));
    }
}
