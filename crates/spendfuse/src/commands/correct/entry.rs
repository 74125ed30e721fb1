//! An entry as the warehouse knows it: its own row, and those of its corrections.

use std::collections::BTreeMap;

use spendfuse_domain::correction::{EntryPlace, Stands};
use spendfuse_domain::event::{Body, Event, Flags};
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::units::{Quantity, UnitKind};
use spendfuse_domain::{Attribution, Identity, Nanos, TokenClass, TokenClasses, UnixMillis};
use spendfuse_pricing::{Pricer, PricingError};
use spendfuse_warehouse::client::quoted;

use super::rows::{Row, ask, number, rows};
use super::warehouse::Connection;
use super::{Failure, Which};
use crate::settings::Settings;

/// A counted entry.
pub struct Entry {
    /// Where it was counted.
    pub place: EntryPlace,
    /// When its event arrived.
    pub received_at: UnixMillis,
    /// Version of the budgets that it was counted with.
    pub budget_version: u64,
    rows: Vec<Row>,
    /// What events that counted nothing tell of whose call it is.
    pub told_again: Vec<Attribution<'static>>,
    /// Ids of its corrections, in the order of their numbers.
    pub corrections: Vec<String>,
    /// The correction that the command named instead of the entry.
    pub named_correction: Option<String>,
}

/// What stands for an entry, owned.
#[derive(Clone)]
pub struct Standing {
    /// The event.
    pub event: Event<'static>,
    /// What it costs.
    pub cost: CostParts,
    /// Of it, what is charged at a ceiling.
    pub at_ceiling: Nanos,
    /// Where the price comes from.
    pub priced: PriceBasis,
    /// Version of the price book.
    pub price_version: String,
    /// The entry of the price book that was used.
    pub priced_as: String,
}

impl Standing {
    /// Prices it by another price book.
    pub fn price_by(&mut self, pricer: &mut Pricer) -> Result<(), PricingError> {
        let (who, at) = (&self.event.attribution, self.event.time);
        let Body::Usage(call) = &self.event.body else {
            return Ok(());
        };
        let priced = pricer.price(&who.provider, &who.account, call, &who.model, at)?;
        let told = pricer.told(&who.provider, &who.account, call, &who.model, at);
        self.priced_as = told.priced_as.to_owned();
        self.price_version = told.version.to_owned();
        self.cost = priced.parts;
        self.at_ceiling = priced.at_ceiling;
        self.priced = priced.basis;
        for flag in [Flags::UNPRICED, Flags::AMBIGUOUS_PRICE] {
            self.event.flags.remove(flag);
        }
        self.event.flags.insert(priced.flags);
        Ok(())
    }

    /// Whether only the price book says which part of its cost is charged at a ceiling: rows do not.
    pub fn may_be_partly_at_ceiling(&self) -> bool {
        self.priced == PriceBasis::Ceiling && self.cost.units != Nanos::ZERO
    }

    /// Looks into the price book that it was priced by.
    pub fn find_ceiling(&mut self, pricer: &mut Pricer) -> Result<(), PricingError> {
        let mut again = self.clone();
        again.price_by(pricer)?;
        if again.at_ceiling == again.cost.units {
            self.at_ceiling = self.cost.units;
        }
        Ok(())
    }

    /// The same, borrowed.
    pub fn stands(&self) -> Stands<'_> {
        Stands {
            event: self.event.clone(),
            cost: self.cost,
            at_ceiling: self.at_ceiling,
            priced: self.priced,
            price_version: &self.price_version,
            priced_as: &self.priced_as,
        }
    }
}

/// Finds the entry that the command names.
pub(super) fn find(
    settings: &Settings,
    connection: &Connection,
    which: &Which,
    epoch: u32,
) -> Result<Entry, Failure> {
    let (mut place, mut named_correction) = (place_of(connection, which, epoch)?, None);
    if place.epoch != epoch {
        return Err(Failure::work(format!(
            "{place} is an entry of epoch {}, and the topics are those of epoch {epoch}: the meters of these topics do not have it in their sums, so that it cannot be corrected",
            place.epoch
        )));
    }
    let named = ask(
        connection,
        &format!(
            "SELECT kind, event_id, src_topic, toString(amends_epoch), toString(amends_partition), \
                    toString(amends_seq), toString(amends_index) FROM spend WHERE {}",
            is_at(place)
        ),
    )?;
    let Some(row) = named.first() else {
        return Err(Failure::work(format!(
            "ClickHouse has no row at {place}; it may not be loaded yet, or be older than spend is kept"
        )));
    };
    match row[0].as_str() {
        "usage" => {}
        "correction" | "rerate" => {
            let amended = row[3..7].join("/");
            place = amended.parse().map_err(Failure::work)?;
            if row[2] == settings.topics().corrections {
                named_correction = Some(row[1].clone());
            }
        }
        kind => {
            return Err(Failure::work(format!(
                "{place} is a row of kind {kind}: only entries of usage can be corrected; what a customer paid is set right by a further revenue event, which may be negative"
            )));
        }
    }
    let original = ask(
        connection,
        &format!(
            "SELECT event_id, toString(toUnixTimestamp64Milli(time)) FROM spend WHERE {}",
            is_at(place)
        ),
    )?;
    let gone = || Failure::work(format!("ClickHouse has no row at {place} any more"));
    let Some([id, time]) = original.first().map(Vec::as_slice) else {
        return Err(gone());
    };
    let rows = rows(connection, settings, place, id, number(time)?)?;
    let entry = Entry::of(rows, named_correction);
    entry.ok_or_else(gone)
}

fn place_of(connection: &Connection, which: &Which, epoch: u32) -> Result<EntryPlace, Failure> {
    if let Some(place) = which.address {
        return Ok(place);
    }
    let text = |one: &Option<String>| one.clone().unwrap_or_default();
    let (workspace, source, id) = (text(&which.workspace), text(&which.source), text(&which.id));
    let found = ask(
        connection,
        &format!(
            "SELECT toString(epoch), toString(meter_partition), toString(meter_seq), \
                    toString(meter_index) \
             FROM spend WHERE event_id = {} AND workspace = {} AND source = {} AND kind IN ('usage', 'revenue') \
             ORDER BY epoch DESC, time LIMIT 20",
            quoted(&id),
            quoted(&workspace),
            quoted(&source)
        ),
    )?;
    let addresses: Vec<String> = found.iter().map(|row| row.join("/")).collect();
    let is_here = |address: &&String| address.starts_with(&format!("{epoch}/"));
    let here: Vec<String> = addresses.iter().filter(is_here).cloned().collect();
    match (&here[..], &addresses[..]) {
        ([one], _) | ([], [one]) => one.parse().map_err(Failure::work),
        ([], []) => Err(Failure::work(format!(
            "ClickHouse has no entry of event {id} of {source} in {workspace}; it may not be loaded yet (spendfuse audit), or its source be another one: SELECT source FROM spend WHERE event_id = {}",
            quoted(&id)
        ))),
        _ => Err(Failure::work(format!(
            "event {id} of {source} in {workspace} was counted {} times; name one of them by --address: {}",
            addresses.len(),
            addresses.join(", ")
        ))),
    }
}

fn is_at(place: EntryPlace) -> String {
    format!(
        "epoch = {} AND meter_partition = {} AND meter_seq = {} AND meter_index = {}",
        place.epoch, place.partition, place.seq, place.index
    )
}

impl Entry {
    /// The entry whose own row is the first of these, in the order of counting.
    pub fn of(rows: Vec<Row>, named_correction: Option<String>) -> Option<Self> {
        let is_told_again = |row: &Row| row.flags.contains(Flags::TOLD_AGAIN);
        let (told_again, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_told_again);
        let told_again = told_again.into_iter().map(|row| row.attribution).collect();
        let own = rows.first()?;
        let (place, received_at, budget_version) = (own.entry, own.received_at, own.budget_version);
        let mut corrections: Vec<String> = Vec::new();
        for id in rows.iter().filter_map(|row| row.correction.as_ref()) {
            if corrections.last() != Some(id) {
                corrections.push(id.clone());
            }
        }
        Some(Self {
            place,
            received_at,
            budget_version,
            rows,
            told_again,
            corrections,
            named_correction,
        })
    }

    /// When an event last told of the call.
    pub fn last_received_at(&self) -> UnixMillis {
        let told = self.rows.iter().filter(|row| row.correction.is_none());
        let last = told.map(|row| row.received_at).max();
        last.unwrap_or(self.received_at)
    }

    /// Whether somebody else than `who` has corrected it.
    pub fn is_corrected_by_others(&self, who: &str) -> bool {
        let said = format!("{who}: ");
        let mut corrected = self.rows.iter().filter(|row| row.correction.is_some());
        corrected.any(|row| !row.price_detail.starts_with(&said))
    }

    /// Whether events have told more of the call than its first one.
    pub fn has_grown(&self) -> bool {
        let told = self.rows.iter().filter(|row| row.correction.is_none());
        told.count() > 1
    }

    /// Whether parts of the call have prices of their own, which no column holds.
    pub fn has_parts(&self) -> bool {
        let mut counted = self.rows.iter().filter(|row| row.correction.is_none());
        counted.any(|row| spendfuse_pricing::has_parts(&row.price_detail))
    }

    /// What stands for it; `None` where it is void.
    pub fn standing(&self) -> Result<Option<Standing>, Failure> {
        self.standing_of(self.rows.iter())
    }

    /// What stood for it before its last correction.
    pub fn standing_before_last(&self) -> Result<Option<Standing>, Failure> {
        let last = self.corrections.last();
        let before = self.rows.iter();
        self.standing_of(before.filter(|row| row.correction.as_ref() != last))
    }

    fn standing_of<'r>(
        &'r self,
        rows: impl Iterator<Item = &'r Row>,
    ) -> Result<Option<Standing>, Failure> {
        let mut sums: Vec<(&Attribution<'_>, Sums<'_>)> = Vec::new();
        for row in rows {
            let known = sums.iter().position(|(who, _)| **who == row.attribution);
            let place = known.unwrap_or_else(|| {
                sums.push((&row.attribution, Sums::default()));
                sums.len() - 1
            });
            sums[place].1.add(row);
        }
        sums.retain(|(_, sum)| !sum.is_nothing());
        match &sums[..] {
            [] => Ok(None),
            [(_, sum)] if sum.calls == 1 => self.standing_from(sum).map(Some),
            _ => Err(Failure::work(format!(
                "the rows of {} do not add up to one call, so that it cannot be corrected; spendfuse audit shows whether rows are missing",
                self.place
            ))),
        }
    }

    fn standing_from(&self, sum: &Sums<'_>) -> Result<Standing, Failure> {
        let wrong = || {
            Failure::work(format!(
                "the rows of {} add up to less than nothing",
                self.place
            ))
        };
        let (Some(last), Some(first)) = (sum.last, self.rows.first()) else {
            return Err(wrong());
        };
        let mut tokens = TokenClasses::default();
        for (class, count) in TokenClass::ALL.into_iter().zip(sum.tokens) {
            tokens[class] = u64::try_from(count).map_err(|_| wrong())?;
        }
        let mut call = last.call.clone();
        call.tokens = tokens;
        call.tool_calls = u32::try_from(sum.tool_calls).map_err(|_| wrong())?;
        for (name, quantity) in sum.units.iter().filter(|(_, quantity)| **quantity != 0) {
            let kind = UnitKind::from_name(name);
            let quantity = u64::try_from(*quantity).map_err(|_| wrong())?;
            if let Some(kind) = kind {
                call.units.raise(kind, Quantity(quantity));
            }
        }
        let [input, cache_read, cache_write, output, units, reported] = sum.costs;
        call.reported_cost = (reported != Nanos::ZERO).then_some(reported);
        let cost = CostParts {
            input,
            cache_read,
            cache_write,
            output,
            units,
        };
        Ok(Standing {
            event: Event {
                identity: Identity(0),
                content: 0,
                source: first.source.clone().into(),
                id: first.event_id.clone().into(),
                time: first.time,
                flags: last.flags,
                attribution: last.attribution.clone(),
                body: Body::Usage(call),
            },
            cost,
            at_ceiling: match last.priced {
                PriceBasis::Ceiling => cost.total(),
                PriceBasis::Book | PriceBasis::Reported => Nanos::ZERO,
            },
            priced: last.priced,
            price_version: last.price_version.clone(),
            priced_as: last.priced_as.clone(),
        })
    }
}

/// Sums of rows with one attribution.
#[derive(Default)]
struct Sums<'r> {
    calls: i128,
    tokens: [i128; TokenClass::COUNT],
    units: BTreeMap<&'r str, i128>,
    tool_calls: i128,
    costs: [Nanos; 6],
    last: Option<&'r Row>,
}

impl<'r> Sums<'r> {
    fn add(&mut self, row: &'r Row) {
        self.calls += row.calls;
        self.tool_calls += row.tool_calls;
        let tokens = self.tokens.iter_mut().zip(row.tokens);
        tokens.for_each(|(sum, count)| *sum += count);
        let costs = self.costs.iter_mut().zip(row.costs);
        costs.for_each(|(sum, cost)| *sum += cost);
        for (name, quantity) in &row.units {
            *self.units.entry(name).or_default() += quantity;
        }
        self.last = Some(row);
    }

    fn is_nothing(&self) -> bool {
        self.calls == 0
            && self.tool_calls == 0
            && self.tokens.iter().all(|count| *count == 0)
            && self.costs.iter().all(|cost| *cost == Nanos::ZERO)
            && self.units.values().all(|quantity| *quantity == 0)
    }
}
