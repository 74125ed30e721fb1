//! `limit`, `limit_tokens` and `limit_calls`: exactly one of them.

use super::fields::Fields;
use super::mistake::Mistakes;
use super::values::{dollars, whole_number};
use crate::budget::Limit;

const NAMES: [&str; 3] = ["limit", "limit_tokens", "limit_calls"];
/// Far above any budget; keeps every product of limit and share within `i128`.
const MAX_COUNT: u64 = 1_000_000_000_000_000_000;

pub(super) fn read(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Limit> {
    let given: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| fields.get(name).is_some())
        .collect();
    match given.as_slice() {
        [] => {
            mistakes.add(
                fields.position(),
                "a budget needs a limit",
                Some("add `limit: \"10.00\"` in dollars, or `limit_tokens`, or `limit_calls`"),
            );
            return None;
        }
        [_] => {}
        [first, .., last] => mistakes.add(
            fields.position_of(last),
            format!("a budget has one limit, this one has `{first}` and `{last}`"),
            Some("make two budgets of it: both apply"),
        ),
    }
    let mut limit = None;
    for name in given {
        let node = fields.get(name)?;
        let count = 0..=MAX_COUNT;
        limit = match name {
            "limit" => dollars(node, name, mistakes).map(Limit::Usd),
            "limit_tokens" => whole_number(node, name, count, mistakes).map(Limit::Tokens),
            _ => whole_number(node, name, count, mistakes).map(Limit::Calls),
        };
    }
    limit
}
