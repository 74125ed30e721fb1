//! Records of budgets, and what applying a file to them changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spendfuse_domain::Timezone;
use spendfuse_domain::amount::Amount;
use spendfuse_domain::budget::diff::{Change, Missing, Plan};
use spendfuse_domain::budget::file::BudgetsFile;
use spendfuse_domain::budget::{
    Action, BasisPoints, Budget, BudgetId, BudgetsRecord, OnStale, ReserveRule, Step,
};
use spendfuse_domain::finding::{
    ContextBloat, Detector, DetectorAction, DetectorRule, Parameters, RateBasis, RetryLoop,
    Severity, TokenAcceleration, ToolAmplification,
};
use spendfuse_domain::money::Nanos;
use spendfuse_domain::scope::{Dimension, Filter, Pattern, ScopeTemplate};
use spendfuse_domain::time::UnixMillis;
use spendfuse_domain::window::WindowKind;

const BEFORE: &str = r#"
budgets:
  - {id: moved, scope: {workspace: acme}, limit: 5, window: day}
  - {id: raised, scope: {workspace: acme}, limit: 5, window: month}
  - {id: same, scope: {}, limit_calls: 10, window: hour}
  - {id: gone, scope: {workspace: old}, limit: 1, window: day}
detectors:
  - {id: loops, detector: retry_loop}
"#;
const AFTER: &str = r#"
budgets:
  - {id: moved, scope: {workspace: acme, customer: "*"}, limit: 5, window: day}
  - {id: raised, scope: {workspace: acme}, limit: 7, window: month, message: "Ask Ann."}
  - {id: same, scope: {}, limit_calls: 10, window: hour}
  - {id: new, scope: {workspace: acme}, where: {plan: free}, limit: "0.10", window: day}
detectors:
  - {id: loops, detector: retry_loop, repeats: 4}
"#;

const FIRST: UnixMillis = UnixMillis(1_790_000_000_000);
const SECOND: UnixMillis = UnixMillis(1_790_000_600_000);

fn file(yaml: &str) -> BudgetsFile {
    BudgetsFile::parse(yaml).expect("the file is right")
}

/// The records in force after `plan`, read back from the bytes that it writes.
fn apply(current: &[BudgetsRecord], plan: &Plan) -> Vec<BudgetsRecord> {
    let mut records = current.to_vec();
    for (key, value) in plan.writes() {
        records.retain(|record| record.key() != key);
        if let Some(value) = value {
            records.push(BudgetsRecord::parse(&key, &value).expect("a record reads back"));
        }
    }
    records
}

fn applied_before() -> Vec<BudgetsRecord> {
    apply(&[], &Plan::new(&[], &file(BEFORE), FIRST, Missing::Keep))
}

#[test]
fn a_plan_says_what_changes_and_what_keeps_its_count() {
    let plan = Plan::new(&applied_before(), &file(AFTER), SECOND, Missing::Remove);
    // To accept a deliberate change of wording: write the text into plan.txt.
    let text = plan.to_string();
    assert_eq!(
        text,
        include_str!("../budgets/plan.txt"),
        "planned:\n{text}"
    );
}

/// Since when a budget counts.
fn counted_from(records: &[BudgetsRecord], id: &str) -> Option<UnixMillis> {
    records.iter().find_map(|record| match record {
        BudgetsRecord::Budget(budget) if budget.id.as_str() == id => Some(budget.counted_from),
        _ => None,
    })
}

#[test]
fn budgets_of_a_topic_that_was_made_anew_go_on_with_counts_that_readers_know() {
    let mut plan = Plan::new(&[], &file(BEFORE), SECOND, Missing::Keep);
    plan.go_on_with(&BTreeMap::from([("same".to_owned(), FIRST)]));
    let records = apply(&[], &plan);
    assert_eq!(counted_from(&records, "same"), Some(FIRST));
    assert_eq!(counted_from(&records, "raised"), Some(SECOND));
}

#[test]
fn a_budget_that_counts_something_else_starts_anew_and_others_go_on() {
    let records = applied_before();
    let plan = Plan::new(&records, &file(AFTER), SECOND, Missing::Remove);
    let records = apply(&records, &plan);
    let counted_from = |id: &str| counted_from(&records, id);
    assert_eq!(counted_from("moved"), Some(SECOND));
    assert_eq!(counted_from("raised"), Some(FIRST));
    assert_eq!(counted_from("same"), Some(FIRST));
    assert_eq!(counted_from("new"), Some(SECOND));
    assert_eq!(counted_from("gone"), None);
}

#[test]
fn without_prune_what_the_file_lacks_stays_and_is_named() {
    let records = applied_before();
    let plan = Plan::new(&records, &file(AFTER), SECOND, Missing::Keep);
    let kept = |change: &&Change| matches!(change, Change::Kept(record) if record.key() == "gone");
    assert_eq!(plan.changes.iter().filter(kept).count(), 1);
    let after = apply(&records, &plan);
    assert!(after.iter().any(|record| record.key() == "gone"));
}

#[test]
fn applying_a_file_twice_writes_nothing_the_second_time() {
    for missing in [Missing::Keep, Missing::Remove] {
        for yaml in [BEFORE, AFTER, include_str!("../budgets/right.yaml")] {
            let records = applied_before();
            let first = Plan::new(&records, &file(yaml), SECOND, missing);
            let records = apply(&records, &first);
            let second = Plan::new(&records, &file(yaml), SECOND.plus(1), missing);
            assert_eq!(second.writes(), [], "{second}");
        }
    }
}

/// Two budgets of a year with the first opening, where there is one, and of a day.
fn opened(opening: &str) -> BudgetsFile {
    file(&format!(
        "budgets:\n  - {{id: year, scope: {{workspace: acme}}, limit: 5, window: year{opening}}}\n  - {{id: day, scope: {{workspace: acme}}, limit_calls: 50, window: day{}}}\n",
        opening.replace("\"3.50\"", "7")
    ))
}

#[test]
fn an_opening_is_changed_only_while_its_window_is_not_over() {
    let later = SECOND.plus(3 * 86_400_000);
    let plan = Plan::new(&[], &opened(", opening: \"3.50\""), FIRST, Missing::Keep);
    let text = plan.to_string();
    assert!(
        text.contains("counts $3.50 as spent before, in year:2026 alone"),
        "{text}"
    );
    assert!(
        text.contains("counts 7 calls as spent before, in day:2026-09-21 alone"),
        "{text}"
    );
    assert!(plan.openings_too_late(later).is_empty());
    let records = apply(&[], &plan);
    // It stays in the file when its window is over, and may be taken out.
    for kept in [", opening: \"3.50\"", ""] {
        let plan = Plan::new(&records, &opened(kept), later, Missing::Keep);
        assert!(plan.openings_too_late(later).is_empty(), "{plan}");
        assert!(!plan.to_string().contains("as spent before"), "{plan}");
    }
    let plan = Plan::new(&records, &opened(", opening: 4"), later, Missing::Keep);
    let too_late = plan.openings_too_late(later);
    assert_eq!(too_late.len(), 1, "{too_late:?}");
    assert!(
        too_late[0].contains("budget day: its count began in day:2026-09-21, which is over"),
        "{too_late:?}"
    );
    let text = plan.to_string();
    assert!(
        text.contains("counts $4.00 as spent before, in year:2026 alone"),
        "{text}"
    );
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 /|%\"ü._-]{1,12}"
}

fn dimension() -> impl Strategy<Value = Dimension> {
    prop_oneof![
        proptest::sample::select(Dimension::FIXED.to_vec()),
        name().prop_map(Dimension::Tag),
    ]
}

fn scope() -> impl Strategy<Value = ScopeTemplate> {
    let pattern = prop_oneof![Just(Pattern::Each), name().prop_map(Pattern::Exactly)];
    proptest::collection::btree_map(dimension(), pattern, 0..4)
        .prop_map(|parts| ScopeTemplate::new(parts.into_iter().collect()))
}

fn filter(of: impl Strategy<Value = Dimension>) -> impl Strategy<Value = Filter> {
    let values = proptest::collection::vec(name(), 1..3);
    proptest::collection::btree_map(of, values, 0..3)
        .prop_map(|conditions| Filter::new(conditions.into_iter().collect()))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        Just(Action::Warn),
        Just(Action::Block),
        name().prop_map(Action::Downgrade)
    ];
    proptest::collection::btree_map(1_u32..50_000, action, 1..5).prop_map(|steps| {
        let step = |(at, action)| Step {
            at: BasisPoints(at),
            action,
        };
        steps.into_iter().map(step).collect()
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    let limit = prop_oneof![
        (0..i128::from(i64::MAX)).prop_map(|nanos| Amount::Usd(Nanos::new(nanos))),
        any::<u64>().prop_map(|count| Amount::Tokens(count.into())),
        any::<u64>().prop_map(|count| Amount::Calls(count.into())),
    ];
    let on_stale = prop_oneof![
        Just(OnStale::Allow),
        Just(OnStale::Block),
        (0..i128::from(u64::MAX)).prop_map(|nanos| OnStale::AllowUpTo(Nanos::new(nanos))),
    ];
    let reserve_rule = prop_oneof![
        Just(ReserveRule::Learned),
        Just(ReserveRule::Max),
        (1..1_000_000_i128).prop_map(|nanos| ReserveRule::Fixed(Nanos::new(nanos))),
    ];
    let id = "[a-g0-9][a-z0-9-]{0,62}".prop_map(|text| BudgetId::new(&text).expect("an id"));
    let window = proptest::sample::select(WindowKind::ALL.to_vec());
    let zone = proptest::sample::select(vec!["UTC", "Asia/Kolkata"]);
    let texts = (proptest::option::of(name()), proptest::option::of(name()));
    let rest = (
        zone,
        on_stale,
        proptest::option::of(reserve_rule),
        any::<[bool; 2]>(),
        0_u32..=10_000,
        texts,
        0..i64::from(u32::MAX),
    );
    (
        id,
        scope(),
        filter(dimension()),
        limit,
        window,
        steps(),
        rest,
    )
        .prop_map(|(id, scope, filter, limit, window, steps, rest)| {
            let (
                timezone,
                on_stale,
                reserve_rule,
                [unpriced_blocks, limit_from_event],
                publish_from,
                texts,
                counted_from,
            ) = rest;
            let scope = scope.counted_in(window);
            let may_open = scope.single().is_some() && !window.is_session();
            Budget {
                id,
                opening: (may_open && publish_from % 2 == 0).then_some(limit),
                scope,
                filter,
                limit,
                window,
                timezone: Timezone::named(timezone).expect("a known zone"),
                steps,
                on_stale,
                reserve_rule,
                unpriced_blocks,
                limit_from_event: limit_from_event
                    && window.session().is_some()
                    && limit.usd().is_some(),
                publish_from: BasisPoints(publish_from),
                message: texts.0,
                help_url: texts.1,
                alert: Vec::new(),
                counted_from: UnixMillis(counted_from),
            }
        })
}

fn detector_rule() -> impl Strategy<Value = DetectorRule> {
    let action = proptest::sample::select(vec![
        DetectorAction::Observe,
        DetectorAction::Warn,
        DetectorAction::BlockSession,
    ]);
    let at = proptest::sample::select(vec![Severity::Info, Severity::Warning, Severity::Critical]);
    let lane = proptest::sample::select(DetectorRule::DIMENSIONS.to_vec());
    let identity = ("[a-z]{1,8}", 0_u32..100, filter(lane), 1_i64..100_000_000);
    let numbers = (
        2_u32..50,
        2_u32..50,
        1_u32..50,
        1_u32..100_000,
        0_u64..1_000_000,
    );
    let detector = proptest::sample::select(Detector::ALL.to_vec());
    (detector, action, at, identity, numbers).prop_map(
        |(detector, action, at, (id, order, filter, cooldown_millis), numbers)| {
            let (repeats, tool_repeats, within, ratio, min_tokens) = numbers;
            let parameters = match detector {
                Detector::RetryLoop => Parameters::RetryLoop(RetryLoop {
                    repeats,
                    tool_repeats,
                    tool_within: within,
                }),
                Detector::ContextBloat => Parameters::ContextBloat(ContextBloat {
                    growth_basis_points: ratio,
                    min_tokens,
                }),
                Detector::TokenAcceleration => Parameters::TokenAcceleration(TokenAcceleration {
                    factor_hundredths: ratio,
                    min_tokens,
                    basis: RateBasis::Second,
                }),
                Detector::ToolAmplification => Parameters::ToolAmplification(ToolAmplification {
                    factor_hundredths: ratio,
                    within,
                    min_tokens,
                }),
                Detector::BudgetExceeded => Parameters::BudgetExceeded,
            };
            DetectorRule {
                id,
                order,
                filter,
                action,
                at,
                cooldown_millis,
                parameters,
            }
        },
    )
}

proptest! {
    #[test]
    fn records_read_back_as_they_were(budget in budget(), rule in detector_rule()) {
        for record in [BudgetsRecord::Budget(budget), BudgetsRecord::Detector(rule)] {
            let bytes = record.to_record();
            prop_assert_eq!(BudgetsRecord::parse(&record.key(), &bytes), Ok(record));
        }
    }
}
