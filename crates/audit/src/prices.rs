//! Costs, worked out again by the price books that rows name.

use std::sync::Arc;

use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Event};
use spendfuse_pricing::Pricer;

use crate::context::Context;

/// The books that were named, each read once.
pub struct PriceBooks<'a> {
    context: &'a Context<'a>,
    books: Vec<(String, State)>,
    /// Whether a call's row named none.
    is_unnamed: bool,
}

enum State {
    /// Named by a row, not needed yet.
    Named,
    Here(Box<Pricer>),
    /// Neither in the topic nor in this program.
    Unknown,
}

impl<'a> PriceBooks<'a> {
    /// No book yet.
    pub fn new(context: &'a Context<'a>) -> Self {
        Self {
            context,
            books: Vec::new(),
            is_unnamed: false,
        }
    }

    /// A short name for a version; rows of payments name none.
    pub fn number_of(&mut self, version: &str) -> Option<u32> {
        if version.is_empty() {
            return None;
        }
        let known = self.books.iter().position(|(name, _)| name == version);
        let place = known.unwrap_or_else(|| {
            self.books.push((version.to_owned(), State::Named));
            self.books.len() - 1
        });
        Some(place as u32)
    }

    /// What a call costs by this version; `None` where the version is not known.
    pub fn price(&mut self, version: Option<u32>, event: &Event<'_>) -> Option<Nanos> {
        let Body::Usage(call) = &event.body else {
            return Some(Nanos::ZERO);
        };
        let Some(version) = version else {
            self.is_unnamed = true;
            return None;
        };
        self.open(version as usize);
        let Some((_, State::Here(pricer))) = self.books.get_mut(version as usize) else {
            return None;
        };
        let who = &event.attribution;
        let priced = pricer.price(&who.provider, &who.account, call, &who.model, event.time);
        priced.ok().map(|priced| priced.parts.total())
    }

    /// What a call costs by the version named last of those that are known, for an event that has no
    /// row.
    pub fn latest_price(&mut self, event: &Event<'_>) -> Nanos {
        let mut latest = (0..self.books.len()).rev();
        let price = latest.find_map(|place| self.price(Some(place as u32), event));
        price.unwrap_or_default()
    }

    /// The versions that were named and not found.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let unknown = self.books.iter();
        let unknown = unknown
            .filter(|(_, state)| matches!(state, State::Unknown))
            .map(|(version, _)| version.as_str());
        unknown.chain(self.is_unnamed.then_some("\"\""))
    }

    fn open(&mut self, place: usize) {
        let Some((version, state @ State::Named)) = self.books.get_mut(place) else {
            return;
        };
        let policy = Arc::clone(&self.context.policy);
        *state = match (self.context.book)(version) {
            Some(book) => State::Here(Box::new(Pricer::new(book, policy))),
            None => State::Unknown,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use spendfuse_bus::KafkaConfig;
    use spendfuse_domain::event::decode;
    use spendfuse_domain::{Topics, UnixMillis};
    use spendfuse_pricing::{PriceBook, PricingPolicy};
    use spendfuse_warehouse::{Warehouse, WarehouseConfig};
    use tokio::runtime::Runtime;

    use super::*;

    #[test]
    fn an_event_without_a_row_is_priced_by_the_last_book_that_is_known() {
        let warehouse = Warehouse::new(WarehouseConfig::default()).unwrap();
        let context = Context {
            kafka: KafkaConfig::new("", "test"),
            patience: Duration::ZERO,
            topics: Topics::new(""),
            epoch: 0,
            id_prefix: "test",
            warehouse: &warehouse,
            runtime: &Runtime::new().unwrap(),
            dedupe_horizon_millis: 0,
            kept_millis: 0,
            policy: Arc::new(PricingPolicy::default()),
            book: &|version| (version == "known").then(PriceBook::snapshot),
            warn: &|_| {},
            since: None,
            waited: Cell::default(),
        };
        let call = br#"{"specversion":"1.0","type":"spendfuse.usage","source":"s","id":"i","time":"2026-11-22T10:00:00Z","data":{"workspace":"w","provider":"openai","model":"gpt-4o","usage":{"input_tokens":1000}}}"#;
        let call = decode(call, &[], UnixMillis(1_795_341_600_000)).unwrap();
        let mut books = PriceBooks::new(&context);
        let known = books.number_of("known");
        let price = books.price(known, &call).unwrap();
        assert!(price > Nanos::ZERO);
        assert_eq!(books.number_of(""), None);
        assert_eq!(books.latest_price(&call), price);
        assert_eq!(books.unknown().count(), 0);

        books.number_of("gone");
        assert_eq!(books.latest_price(&call), price);
        assert_eq!(books.price(None, &call), None);
        assert_eq!(books.unknown().collect::<Vec<_>>(), ["gone", "\"\""]);
    }
}
