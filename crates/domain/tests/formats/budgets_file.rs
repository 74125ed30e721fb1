//! The budgets file: what it says, and what is said about a wrong one.

use proptest::prelude::*;
use spendfuse_domain::Amount;
use spendfuse_domain::budget::file::{BudgetsFile, Mistake};
use spendfuse_domain::budget::{Action, BasisPoints, OnStale, ReserveRule};
use spendfuse_domain::finding::{
    ContextBloat, DetectorAction, Parameters, RateBasis, RetryLoop, Severity, TokenAcceleration,
    ToolAmplification,
};
use spendfuse_domain::money::Nanos;
use spendfuse_domain::time::UnixMillis;
use spendfuse_domain::window::WindowKind;

const RIGHT: &str = include_str!("../budgets/right.yaml");

fn mistakes(yaml: &str) -> String {
    let found = BudgetsFile::parse(yaml).expect_err("the file is wrong");
    found.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// A file with one budget, in which `line` stands.
fn with_line(line: &str) -> String {
    format!("budgets:\n  - id: one\n    scope: {{workspace: acme}}\n    {line}\n")
}

#[test]
fn a_right_file_is_read_to_the_letter() {
    let file = BudgetsFile::parse(RIGHT).unwrap();
    let budgets: Vec<_> = file
        .budgets
        .iter()
        .map(|draft| draft.counting_from(UnixMillis(0)))
        .collect();
    let steps = |index: usize| -> Vec<(u32, &str)> {
        let name = |action: &Action| match action {
            Action::Warn => "warn",
            Action::Downgrade(_) => "downgrade",
            Action::Block => "block",
        };
        let steps = budgets[index].steps.iter();
        steps.map(|step| (step.at.0, name(&step.action))).collect()
    };

    assert_eq!(budgets[0].scope.to_string(), "acme");
    assert_eq!(budgets[0].limit, Amount::Usd(Nanos::from_dollars(1000)));
    assert_eq!(budgets[0].window, WindowKind::Month);
    assert_eq!(budgets[0].timezone.as_str(), "America/New_York");
    assert_eq!(
        steps(0),
        [
            (5000, "warn"),
            (8000, "warn"),
            (10000, "downgrade"),
            (12000, "block")
        ]
    );
    assert_eq!(
        budgets[0].steps[2].action,
        Action::Downgrade("gpt-4o-mini".into())
    );
    assert_eq!(budgets[1].scope.to_string(), "acme/customer=*");
    assert_eq!(budgets[1].limit, Amount::Usd(Nanos::new(100_000_000)));
    assert_eq!(steps(1), [(8000, "warn"), (10000, "block")]);
    assert_eq!(steps(2), [(8000, "warn"), (10000, "block")]);
    assert_eq!(budgets[2].scope.to_string(), "*/tags.team=growth");
    assert_eq!(budgets[2].limit, Amount::Tokens(2_000_000));
    assert_eq!(
        steps(3),
        [(3330, "warn"), (9000, "warn"), (10000, "downgrade")]
    );
    assert_eq!(
        budgets[3].on_stale,
        OnStale::AllowUpTo(Nanos::from_dollars(2))
    );
    assert!(budgets[3].unpriced_blocks);
    assert_eq!(budgets[3].publish_from, BasisPoints(1000));
    assert_eq!(
        serde_json::Value::from(budgets[3].filter.to_json().unwrap()),
        serde_json::json!({"model": ["gpt-4o", "o3"], "plan": "free"})
    );

    let loops = &file.detectors[0];
    assert_eq!(loops.action, DetectorAction::BlockSession);
    assert_eq!(
        (loops.parameters, loops.cooldown_millis),
        (Parameters::RetryLoop(RetryLoop::default()), 900_000)
    );
    let bloat = &file.detectors[1];
    assert_eq!(
        (bloat.parameters, bloat.at),
        (
            Parameters::ContextBloat(ContextBloat {
                growth_basis_points: 3000,
                ..ContextBloat::default()
            }),
            Severity::Critical
        )
    );
    assert_eq!((bloat.order, bloat.action), (1, DetectorAction::Warn));
    let floods = ToolAmplification {
        factor_hundredths: 640,
        within: 8,
        min_tokens: 500,
    };
    let tools = RetryLoop {
        tool_repeats: 6,
        tool_within: 30,
        ..RetryLoop::default()
    };
    let fast = TokenAcceleration {
        factor_hundredths: 300,
        basis: RateBasis::Second,
        ..TokenAcceleration::default()
    };
    let rest = file.detectors[2..].iter().map(|rule| rule.parameters);
    assert_eq!(
        rest.collect::<Vec<_>>(),
        [
            Parameters::ToolAmplification(floods),
            Parameters::RetryLoop(tools),
            Parameters::TokenAcceleration(fast)
        ]
    );
}

#[test]
fn the_samples_that_are_shipped_are_right() {
    for sample in [
        include_str!("../../../../deploy/budgets.yaml"),
        include_str!("../../../../deploy/sample/budgets.yaml"),
    ] {
        let file = BudgetsFile::parse(sample).unwrap();
        assert!(!file.budgets.is_empty());
    }
}

#[test]
fn every_mistake_of_a_wrong_file_is_named_with_its_line_and_a_suggestion() {
    let found = mistakes(include_str!("../budgets/wrong.yaml"));
    // To accept a deliberate change of wording: write `found` into wrong.txt.
    assert_eq!(
        found,
        include_str!("../budgets/wrong.txt"),
        "found:\n{found}"
    );
}

#[test]
fn a_text_that_is_not_such_a_file_is_named_as_what_it_is() {
    for (yaml, expected) in [
        ("", "1:1: the file has neither `budgets` nor `detectors`"),
        ("budgets:", "1:1: `budgets` has no value"),
        ("- a", "1:1: the file must begin with `budgets:`"),
        ("budgets: [*, 1]", "quote the star: \"*\""),
        (
            "budgets: []\n---\nbudgets: []",
            "2:1: the file holds more than one",
        ),
        ("budgets: &a []\ndetectors: *a", "1:13: anchors and aliases"),
        ("budgets: !x []", "1:13: tags such as"),
        (
            "budgets: []\nbudgets: []",
            "2:1: `budgets` is there twice, first in line 1",
        ),
        ("? [a]\n: b", "a field's name must be a text"),
        ("budgets:\n\t- a", "2:2: this is not YAML: tabs"),
    ] {
        let found = mistakes(yaml);
        assert!(found.contains(expected), "{yaml:?} gave {found}");
        assert_eq!(found.lines().count(), 1, "{yaml:?} gave {found}");
    }
}

#[test]
fn money_that_yaml_would_make_a_float_is_refused_and_whole_dollars_are_not() {
    let budget =
        |limit: &str| BudgetsFile::parse(&with_line(&format!("limit: {limit}\n    window: day")));
    for right in ["\"0.10\"", "5", "'5'", "0", "\"0\""] {
        assert!(budget(right).is_ok(), "{right}");
    }
    for (wrong, suggestion) in [
        ("0.10", "write `limit: \"0.10\"`"),
        ("\"$5\"", "write `limit: \"5\"`"),
        ("1e3", "write dollars as a decimal number"),
        ("\"0.00000000001\"", "write `limit: \"0.000000001\"`"),
        ("-1", "write 0 to refuse every call"),
        ("\"99999999999999999999\"", "leave the budget out"),
    ] {
        let found = budget(wrong).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].suggestion.as_ref().unwrap().contains(suggestion),
            "{found:?}"
        );
    }
}

#[test]
fn only_sessions_may_have_their_limit_told() {
    let budget =
        |rest: &str| BudgetsFile::parse(&with_line(&format!("{rest}\n    limit_from: event")));
    for window in ["session", "root_session"] {
        let file = budget(&format!("limit: 5\n    window: {window}")).unwrap();
        let budget = file.budgets[0].counting_from(UnixMillis(0));
        assert!(budget.limit_from_event);
        let again = spendfuse_domain::Budget::from_record("one", &budget.to_record());
        assert_eq!(again.unwrap(), budget);
    }
    for rest in [
        "limit: 5\n    window: day",
        "limit_calls: 5\n    window: session",
    ] {
        let found = budget(rest).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].message.contains("limits in dollars in windows"),
            "{found:?}"
        );
    }
    let record = br#"{"v":1,"scope":{},"limit":"5","limit_from":"event","window":"day","steps":[{"at":100,"do":"block"}],"counted_from":"2026-11-01T00:00:00Z"}"#;
    let refused = spendfuse_domain::Budget::from_record("one", record).unwrap_err();
    assert!(
        refused.detail.contains("limits in dollars in windows"),
        "{refused}"
    );
}

#[test]
fn an_opening_is_in_the_unit_of_the_limit_and_for_one_scope() {
    let of_budget = |limit: &str, window: &str, opening: &str| {
        let line = format!("{limit}: 5\n    window: {window}\n    opening: {opening}");
        let file = BudgetsFile::parse(&with_line(&line))?;
        Ok::<_, Vec<Mistake>>(file.budgets[0].counting_from(UnixMillis(0)).opening)
    };
    for (limit, opening, amount) in [
        ("limit", "\"3.50\"", Amount::Usd(Nanos::new(3_500_000_000))),
        ("limit_tokens", "350", Amount::Tokens(350)),
        ("limit_calls", "7", Amount::Calls(7)),
    ] {
        assert_eq!(of_budget(limit, "month", opening).unwrap(), Some(amount));
    }
    for (limit, window, opening, says) in [
        ("limit", "month", "3.50", "\"3.50\""),
        ("limit", "month", "\"-1\"", "negative"),
        ("limit_calls", "month", "\"1.5\"", "whole number"),
        (
            "limit",
            "session",
            "\"3.50\"",
            "nothing was spent before a session began",
        ),
    ] {
        let found = of_budget(limit, window, opening).unwrap_err();
        let found = format!("{}", found[0]);
        assert!(found.contains(says), "{opening}: {found}");
    }
    let template = "budgets:\n  - id: one\n    scope: {customer: \"*\"}\n    limit: 5\n    window: day\n    opening: 3\n";
    let found = BudgetsFile::parse(template).unwrap_err();
    let found = format!("{}", found[0]);
    assert!(
        found.contains("6:14") && found.contains("one scope"),
        "{found}"
    );
}

#[test]
fn a_budget_says_how_much_its_calls_hold() {
    let of_budget = |limit: &str, rule: &str| {
        let line = format!("{limit}: 5\n    window: day\n    reserve_rule: {rule}");
        let file = BudgetsFile::parse(&with_line(&line))?;
        Ok::<_, Vec<Mistake>>(file.budgets[0].counting_from(UnixMillis(0)).reserve_rule)
    };
    for (written, rule) in [
        ("learned", ReserveRule::Learned),
        ("max", ReserveRule::Max),
        ("\"0.05\"", ReserveRule::Fixed(Nanos::new(50_000_000))),
        ("2", ReserveRule::Fixed(Nanos::from_dollars(2))),
    ] {
        assert_eq!(
            of_budget("limit", written).unwrap(),
            Some(rule),
            "{written}"
        );
    }
    for (limit, wrong, says) in [
        ("limit", "learnt", "learned"),
        ("limit", "0.05", "\"0.05\""),
        ("limit", "0", "more than nothing"),
        ("limit_tokens", "\"0.05\"", "does not count dollars"),
    ] {
        let found = of_budget(limit, wrong).unwrap_err();
        let found = format!("{}", found[0]);
        assert!(found.contains(says), "{wrong}: {found}");
    }
}

#[test]
fn a_list_of_customers_is_no_condition() {
    let listing = |count: usize| {
        let customers: Vec<String> = (0..count)
            .map(|number| format!("          - c-{number}\n"))
            .collect();
        let budget = "budgets:\n  - id: one\n    scope: {}\n    limit: \"1.00\"\n    window: day\n";
        let yaml = format!(
            "{budget}    where:\n        customer:\n{}",
            customers.concat()
        );
        BudgetsFile::parse(&yaml)
    };
    assert!(listing(1_000).is_ok());
    let found = listing(1_001).unwrap_err();
    let text = found[0].to_string();
    assert!(text.contains("`where` lists 1001 values"), "{text}");
}

#[test]
fn a_time_zone_is_only_taken_for_another_place_of_a_similar_name() {
    for (wrong, suggestion) in [
        ("new york", "did you mean `America/New_York`?"),
        ("Europe/Berln", "did you mean `Europe/Berlin`?"),
        ("PST", "write a name such as"),
        ("GMT+2", "write a name such as"),
    ] {
        let zone = format!("limit: 5\n    window: day\n    timezone: {wrong}");
        let found = mistakes(&with_line(&zone));
        assert!(found.contains(suggestion), "{wrong} gave {found}");
    }
}

proptest! {
    /// Whatever is cut out of or put into a right file: the answer is a file or mistakes, each in one
    /// of its lines (an end of the text counts as a line), never a panic.
    #[test]
    fn damaged_files_never_panic(
        from in 0..RIGHT.len(),
        length in 0_usize..60,
        inserted in r#"[-:{}\[\],"'*&!|>%@` a0.\n\t#~]{0,12}"#,
    ) {
        let until = (from + length).min(RIGHT.len());
        let damaged = format!("{}{inserted}{}", &RIGHT[..from], &RIGHT[until..]);
        if let Err(found) = BudgetsFile::parse(&damaged) {
            prop_assert!(!found.is_empty());
            for mistake in found {
                prop_assert!((1..=damaged.lines().count() + 1).contains(&mistake.line));
            }
        }
    }
}
