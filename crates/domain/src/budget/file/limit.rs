//! `limit`, `limit_tokens` and `limit_calls`: exactly one of them.

use super::fields::Fields;
use super::mistake::Mistakes;
use super::values::{dollars, whole_number};
use crate::amount::Amount;

const NAMES: [&str; 3] = ["limit", "limit_tokens", "limit_calls"];
/// Far above any budget; keeps every product of limit and share within `i128`.
const MAX_COUNT: u64 = 1_000_000_000_000_000_000;

pub(super) fn read(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Amount> {
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
        let mut count = |unit: fn(i128) -> Amount| {
            whole_number(node, name, 0..=MAX_COUNT, mistakes).map(|count| unit(count.into()))
        };
        limit = match name {
            "limit_tokens" => count(Amount::Tokens),
            "limit_calls" => count(Amount::Calls),
            _ => dollars(node, name, mistakes).map(Amount::Usd),
        };
    }
    limit
}
