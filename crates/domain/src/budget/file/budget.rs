//! One entry of `budgets:`.

use marked_yaml::Node;

use super::fields::Fields;
use super::mistake::Mistakes;
use super::values::{choice, dollars, hundredths, scalar, text, whole_number};
use super::{BudgetDraft, dimensions, steps};
use crate::alert_place::AlertPlace;
use crate::amount::{Amount, Unit};
use crate::budget::record::{LIMIT_FROM_EVENT, OPENING};
use crate::budget::{BasisPoints, Budget, BudgetId, OnStale, ReserveRule};
use crate::scope::ScopeTemplate;
use crate::spelling::{closest, suggest};
use crate::time::UnixMillis;
use crate::timezone::Timezone;
use crate::window::WindowKind;

const FIELDS: [&str; 21] = [
    "id",
    "scope",
    "where",
    "limit",
    "limit_tokens",
    "limit_calls",
    "limit_from",
    "window",
    "timezone",
    "steps",
    "warn_at",
    "action",
    "to",
    "on_stale",
    "reserve_rule",
    "count_unpriced",
    "publish_from",
    "message",
    "help_url",
    "alert",
    "opening",
];

/// The fields of which a budget has one.
const LIMITS: [&str; 3] = ["limit", "limit_tokens", "limit_calls"];
/// Far above any budget; keeps every product of limit and share within `i128`.
const MAX_COUNT: u64 = 1_000_000_000_000_000_000;

/// Reads a budget; `None` where the entry has a mistake.
pub(super) fn read(node: &Node, mistakes: &mut Mistakes) -> Option<BudgetDraft> {
    let before = mistakes.count();
    let fields = Fields::open(node, "a budget", &FIELDS, mistakes)?;
    let id = fields
        .required("id", "add a name such as `id: acme-monthly`", mistakes)
        .and_then(|node| id(node, mistakes));
    let scope = fields
        .required("scope", "add `scope: {}` to count everything", mistakes)
        .map(|node| dimensions::scope(node, mistakes));
    let filter = fields
        .get("where")
        .map(|node| dimensions::filter(node, None, mistakes));
    let limit = limit(&fields, mistakes);
    let window = fields
        .required("window", "add one such as `window: month`", mistakes)
        .and_then(|node| window(node, mistakes));
    let limit_from_event = fields
        .get("limit_from")
        .is_some_and(|node| limit_from_event(node, limit, window, mistakes));
    let timezone = fields
        .get("timezone")
        .and_then(|node| timezone(node, mistakes));
    let steps = steps::read(&fields, mistakes);
    let on_stale = fields
        .get("on_stale")
        .and_then(|node| on_stale(node, limit, mistakes));
    let reserve_rule = fields
        .get("reserve_rule")
        .and_then(|node| reserve_rule(node, limit, mistakes));
    let unpriced = [("warn", false), ("block", true)];
    let unpriced_blocks = fields
        .get("count_unpriced")
        .and_then(|node| choice(node, "count_unpriced", &unpriced, mistakes));
    let publish_from = fields
        .get("publish_from")
        .and_then(|node| hundredths(node, "publish_from", 0..=BasisPoints::FULL.0, mistakes));
    let message = fields
        .get("message")
        .and_then(|node| text(node, "message", mistakes));
    let help_url = fields
        .get("help_url")
        .and_then(|node| help_url(node, mistakes));
    let alert = alert(&fields, mistakes);
    let opening = fields
        .get("opening")
        .and_then(|node| opening(node, limit, mistakes));

    let (id, limit, window) = (id?, limit?, window?);
    let scope = scope?.counted_in(window);
    if let Some(node) = fields.get("opening") {
        refuse_opening_of_many(node, &scope, window, mistakes);
    }
    let draft = BudgetDraft(Budget {
        id,
        scope,
        filter: filter.unwrap_or_default(),
        limit,
        limit_from_event,
        window,
        timezone: timezone.unwrap_or_default(),
        steps,
        on_stale: on_stale.unwrap_or_default(),
        reserve_rule,
        unpriced_blocks: unpriced_blocks.unwrap_or(false),
        publish_from: BasisPoints(publish_from.unwrap_or(0)),
        message,
        help_url,
        alert,
        opening,
        counted_from: UnixMillis(0),
    });
    (mistakes.count() == before).then_some(draft)
}

/// Reads the id of a budget or detector.
pub(super) fn id(node: &Node, mistakes: &mut Mistakes) -> Option<BudgetId> {
    let text = scalar(node, "id", mistakes)?.as_str();
    let id = BudgetId::new(text);
    if id.is_none() {
        let word = |one: char| {
            if one.is_ascii_alphanumeric() {
                one
            } else {
                '-'
            }
        };
        let plain: String = text.to_lowercase().chars().map(word).collect();
        let meant = BudgetId::new(plain.trim_matches('-'));
        mistakes.add(
            node.into(),
            format!("`{text}` cannot be an id"),
            Some(match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "use up to 63 of a–z, 0–9 and -, beginning with a letter or digit; \
                         `heartbeat` and `finding` are taken"
                    .to_owned(),
            }),
        );
    }
    id
}

fn limit(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Amount> {
    let given: Vec<&str> = LIMITS
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

fn limit_from_event(
    node: &Node,
    limit: Option<Amount>,
    window: Option<WindowKind>,
    mistakes: &mut Mistakes,
) -> bool {
    let is_event = choice(node, "limit_from", &[("event", true)], mistakes).is_some();
    let is_in_dollars = limit.is_none_or(|limit| limit.unit() == Unit::Usd);
    let is_of_sessions = window.is_none_or(|window| window.session().is_some());
    if !(is_in_dollars && is_of_sessions) {
        let suggestion =
            "write `window: session` and `limit: \"1.00\"`, which holds where an event tells none";
        mistakes.add(node.into(), LIMIT_FROM_EVENT, Some(suggestion));
    }
    is_event
}

fn window(node: &Node, mistakes: &mut Mistakes) -> Option<WindowKind> {
    let text = scalar(node, "window", mistakes)?.as_str();
    let kind = WindowKind::from_name(text);
    if kind.is_some() {
        return kind;
    }
    let names = WindowKind::ALL.map(WindowKind::name);
    if text == "rolling" || text.starts_with("rolling:") {
        mistakes.add(
            node.into(),
            "windows of kind `rolling` are not supported yet",
            Some(format!("use one of: {}", names.join(", "))),
        );
    } else {
        let message = format!("`window` cannot be `{text}`");
        mistakes.add(node.into(), message, Some(suggest(text, &names)));
    }
    None
}

/// The zone under the name that the database knows it by.
fn timezone(node: &Node, mistakes: &mut Mistakes) -> Option<Timezone> {
    let text = scalar(node, "timezone", mistakes)?.as_str();
    if let Some(zone) = Timezone::named(text) {
        return Timezone::named(zone.iana_name());
    }
    let known: Vec<String> = jiff::tz::db()
        .available()
        .map(|name| name.as_str().to_owned())
        // `Etc/GMT+2` is two hours *behind* UTC, and `EST` is near `PST` only by its letters: places
        // alone are proposed.
        .filter(|name| name.contains('/') && !name.starts_with("Etc/"))
        .collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let city = text.replace(' ', "_").to_lowercase();
    let of_city = |name: &&&str| name.to_lowercase().ends_with(&format!("/{city}"));
    let meant = known.iter().find(of_city).copied();
    let suggestion = match meant.or_else(|| closest(text, &known)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "write a name such as `America/New_York`, `Europe/Berlin` or `UTC`".to_owned(),
    };
    let message = format!("there is no time zone `{text}`");
    mistakes.add(node.into(), message, Some(suggestion));
    None
}

fn on_stale(node: &Node, limit: Option<Amount>, mistakes: &mut Mistakes) -> Option<OnStale> {
    if node.as_mapping().is_none() {
        let words = [("allow", OnStale::Allow), ("block", OnStale::Block)];
        let text = scalar(node, "on_stale", mistakes)?.as_str();
        if text == "allow_up_to" {
            mistakes.add(
                node.into(),
                "`on_stale: allow_up_to` needs an amount",
                Some("write `on_stale: {allow_up_to: \"2.00\"}`"),
            );
            return None;
        }
        return choice(node, "on_stale", &words, mistakes);
    }
    let fields = Fields::open(node, "`on_stale`", &["allow_up_to"], mistakes)?;
    let suggestion = "write `on_stale: {allow_up_to: \"2.00\"}`";
    let amount = fields.required("allow_up_to", suggestion, mistakes)?;
    let amount = dollars(amount, "allow_up_to", mistakes)?;
    if limit.is_some_and(|limit| limit.unit() != Unit::Usd) {
        mistakes.add(
            node.into(),
            "`allow_up_to` is in dollars, and this budget does not count dollars",
            Some("write `on_stale: allow` or `on_stale: block`"),
        );
    }
    Some(OnStale::AllowUpTo(amount))
}

fn reserve_rule(
    node: &Node,
    limit: Option<Amount>,
    mistakes: &mut Mistakes,
) -> Option<ReserveRule> {
    let text = scalar(node, "reserve_rule", mistakes)?.as_str();
    if let Some(rule) = ReserveRule::named(text) {
        return Some(rule);
    }
    let names = ReserveRule::NAMES;
    if !text.starts_with(|one: char| one.is_ascii_digit()) {
        let message = format!("`reserve_rule` cannot be `{text}`");
        mistakes.add(node.into(), message, Some(suggest(text, &names)));
        return None;
    }
    let amount = dollars(node, "reserve_rule", mistakes)?;
    if limit.is_some_and(|limit| limit.unit() != Unit::Usd) {
        mistakes.add(
            node.into(),
            "a fixed `reserve_rule` is in dollars, and this budget does not count dollars",
            Some("write `reserve_rule: learned`, `given` or `max`"),
        );
    }
    let rule = ReserveRule::fixed(amount);
    if rule.is_none() {
        mistakes.add(
            node.into(),
            format!("`reserve_rule` cannot be `{text}`: a hold is more than nothing and at most a million dollars"),
            Some("write what one call may cost, such as \"0.05\""),
        );
    }
    rule
}

/// In the unit of the limit.
fn opening(node: &Node, limit: Option<Amount>, mistakes: &mut Mistakes) -> Option<Amount> {
    match limit?.unit() {
        Unit::Usd => dollars(node, "opening", mistakes).map(Amount::Usd),
        unit => whole_number(node, "opening", 0..=MAX_COUNT, mistakes)
            .map(|count| Amount::new(unit, count.into())),
    }
}

/// One figure cannot be shared out among the scopes of a template, or among sessions.
fn refuse_opening_of_many(
    node: &Node,
    scope: &ScopeTemplate,
    window: WindowKind,
    mistakes: &mut Mistakes,
) {
    let suggestion = if window.is_session() {
        "leave it out: nothing was spent before a session began"
    } else if scope.single().is_none() {
        "make a budget with its own `opening` for each value that has one, or leave it out"
    } else {
        return;
    };
    mistakes.add(node.into(), OPENING, Some(suggestion));
}

fn help_url(node: &Node, mistakes: &mut Mistakes) -> Option<String> {
    let url = text(node, "help_url", mistakes)?;
    if url.starts_with("https://") || url.starts_with("http://") {
        return Some(url);
    }
    mistakes.add(
        node.into(),
        format!("`help_url` cannot be `{url}`"),
        Some("write a whole address that begins with https://"),
    );
    None
}

/// Most places that a budget may name.
const MOST_ALERTED: usize = 8;

fn alert(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Vec<String> {
    let entries = fields.entries("alert", mistakes);
    if entries.len() > MOST_ALERTED {
        mistakes.add(
            fields.position_of("alert"),
            format!("`alert` names more than {MOST_ALERTED} places"),
            Some("the next one is told only where the one before is not reached: keep a few"),
        );
    }
    let mut places = Vec::with_capacity(entries.len());
    for node in entries {
        let Some(place) = text(node, "alert", mistakes) else {
            continue;
        };
        match AlertPlace::parse(&place) {
            Some(_) => places.push(place),
            None => mistakes.add(
                node.into(),
                format!("`{place}` is no place for alerts"),
                Some(
                    "write the name of a channel of the notifier's settings (a–z, 0–9 and -), or `mailto:ops@example.com`",
                ),
            ),
        }
    }
    places
}
