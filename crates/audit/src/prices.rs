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
        }
    }

    /// A short name for a version.
    pub fn number_of(&mut self, version: &str) -> u32 {
        let known = self.books.iter().position(|(name, _)| name == version);
        let place = known.unwrap_or_else(|| {
            self.books.push((version.to_owned(), State::Named));
            self.books.len() - 1
        });
        place as u32
    }

    /// What a call costs by this version; `None` where the version is not known.
    pub fn price(&mut self, version: u32, event: &Event<'_>) -> Option<Nanos> {
        let Body::Usage(call) = &event.body else {
            return Some(Nanos::ZERO);
        };
        self.open(version as usize);
        let Some((_, State::Here(pricer))) = self.books.get_mut(version as usize) else {
            return None;
        };
        let who = &event.attribution;
        let priced = pricer.price(&who.provider, &who.account, call, &who.model, event.time);
        priced.ok().map(|priced| priced.parts.total())
    }

    /// What a call costs by the version named last, for an event that has no row.
    pub fn latest_price(&mut self, event: &Event<'_>) -> Nanos {
        let Some(latest) = self.books.len().checked_sub(1) else {
            return Nanos::ZERO;
        };
        self.price(latest as u32, event).unwrap_or_default()
    }

    /// The versions that were named and not found.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let unknown = self.books.iter();
        unknown
            .filter(|(_, state)| matches!(state, State::Unknown))
            .map(|(version, _)| version.as_str())
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
