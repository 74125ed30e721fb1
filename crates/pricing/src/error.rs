//! What can go wrong with prices, and what to do about it.

use spendfuse_domain::Nanos;

/// A call that cannot be priced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// The call costs a million dollars or more, which no real call does; the event is rejected
    /// as `bad_money`.
    #[error(
        "a call of {provider}/{model} would cost {cost} US dollars, and 1000000 or more is refused; check its counts, its reported cost, and the rate in the price book"
    )]
    TooDear {
        /// Provider as the call names it.
        provider: String,
        /// Model as the call names it.
        model: String,
        /// What it would cost; the largest amount where that does not fit.
        cost: Nanos,
    },
}

/// A setting of prices that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a factor.
    #[error(
        "\"{text}\" is not a price multiplier; write a decimal from 0 to 10 with at most six fraction digits, such as 0.85"
    )]
    Multiplier {
        /// The text.
        text: String,
    },
}

/// A price book that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A line of its canonical text is not what it should be.
    #[error("line {line} of the price book: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A label that cannot be part of a version's name.
    #[error("\"{label}\" cannot name a price book; use 1 to 40 of a-z, 0-9, dot and dash")]
    Label {
        /// The label.
        label: String,
    },
    /// A record of topic `spendfuse.prices` is not what it should be.
    #[error("price record {key}: {reason}")]
    Record {
        /// The record's key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A source file of prices cannot be read.
    #[error("price file: {reason}")]
    Source {
        /// What is wrong, where.
        reason: String,
    },
}
