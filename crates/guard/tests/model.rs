//! The replica's decisions against a naive model: lists of records, scopes as texts, no hashes.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use spendfuse_domain::budget::{BasisPoints, Spend};
use spendfuse_domain::scope::{FilterMatch, Pattern, scope_text};
use spendfuse_domain::verdict::{BlocklistEntry, Heartbeat, Stage, heartbeat_key};
use spendfuse_domain::{
    Action, Amount, Attribution, Budget, BudgetId, Dimension, Figures, Filter, Nanos, OnStale,
    ScopeTemplate, Step, Timezone, UnixMillis, Verdict, WindowKind,
};
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, GuardWriter, Now};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

#[derive(Clone, Debug)]
struct Record {
    key: String,
    value: Option<BlocklistEntry>,
}

fn values(dimension: &Dimension) -> Vec<&'static str> {
    match dimension {
        Dimension::Workspace => vec!["acme", "b/ö"],
        Dimension::Plan => vec!["free", "pro"],
        Dimension::Model => vec!["big", "small"],
        Dimension::Session | Dimension::RootSession => vec!["s1", "s2"],
        _ => vec!["x", "x|y"],
    }
}

fn dimensions() -> Vec<Dimension> {
    let tag = Dimension::Tag("te am".to_owned());
    let mut all = vec![
        Dimension::Workspace,
        Dimension::Customer,
        Dimension::Feature,
    ];
    all.extend([Dimension::Session, Dimension::RootSession, tag]);
    all
}

fn template() -> impl Strategy<Value = ScopeTemplate> {
    let parts = dimensions().into_iter().map(|dimension| {
        let exact = select(values(&dimension)).prop_map(|value| Pattern::Exactly(value.to_owned()));
        let pattern = prop_oneof![exact, Just(Pattern::Each)];
        let wanted = if dimension <= Dimension::Customer {
            0.7
        } else {
            0.15
        };
        proptest::option::weighted(
            wanted,
            pattern.prop_map(move |one| (dimension.clone(), one)),
        )
    });
    let parts: Vec<_> = parts.collect();
    parts.prop_map(|parts| ScopeTemplate::new(parts.into_iter().flatten().collect()))
}

fn filter() -> impl Strategy<Value = Filter> {
    let condition = |dimension: Dimension| {
        let one = select(values(&dimension)).prop_map(|value| vec![value.to_owned()]);
        proptest::option::weighted(0.2, one.prop_map(move |one| (dimension.clone(), one)))
    };
    (condition(Dimension::Plan), condition(Dimension::Model))
        .prop_map(|(plan, model)| Filter::new(plan.into_iter().chain(model).collect()))
}

fn budget(id: &'static str) -> impl Strategy<Value = Budget> {
    let limit = prop_oneof![
        (0..4_i128).prop_map(|limit| Amount::Usd(Nanos::new(limit * 3))),
        (0..10_i128).prop_map(Amount::Tokens),
        (0..10_i128).prop_map(Amount::Calls),
    ];
    let window = select(vec![
        WindowKind::Session,
        WindowKind::RootSession,
        WindowKind::Day,
        WindowKind::Lifetime,
    ]);
    let action = select(vec![
        Action::Warn,
        Action::Downgrade("small".into()),
        Action::Block,
    ]);
    let step = (select(vec![3333, 5000, 8000, 10_000, 12_000]), action).prop_map(|(at, action)| {
        let at = BasisPoints(at);
        Step { at, action }
    });
    let steps = proptest::collection::vec(step, 1..4).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.at);
        steps.dedup_by_key(|step| step.at);
        steps
    });
    let on_stale = prop_oneof![
        Just(OnStale::Allow),
        Just(OnStale::Block),
        (0..9_i128).prop_map(|most| OnStale::AllowUpTo(Nanos::new(most))),
    ];
    let counted = (template(), filter(), limit, window);
    (counted, steps, on_stale, any::<bool>()).prop_map(move |(counted, steps, on_stale, blocks)| {
        let (scope, filter, limit, window) = counted;
        Budget {
            id: BudgetId::new(id).unwrap(),
            scope: scope.counted_in(window),
            filter,
            limit,
            limit_from_event: false,
            window,
            timezone: Timezone::default(),
            steps,
            on_stale,
            reserve_rule: None,
            unpriced_blocks: blocks,
            publish_from: BasisPoints(0),
            message: None,
            help_url: None,
            alert: Vec::new(),
            opening: None,
            counted_from: UnixMillis(0),
        }
    })
}

fn request() -> impl Strategy<Value = CheckRequest<'static>> {
    let value = |dimension| proptest::option::weighted(0.8, select(values(&dimension)));
    let value = move |dimension| {
        value(dimension).prop_map(|value| Cow::Borrowed(value.unwrap_or_default()))
    };
    let who = (
        value(Dimension::Workspace),
        value(Dimension::Customer),
        value(Dimension::Feature),
        value(Dimension::Session),
        value(Dimension::RootSession),
    );
    let what = (
        value(Dimension::Plan),
        value(Dimension::Model),
        value(Dimension::Agent),
    );
    (who, what, 0..4_i128).prop_map(|(who, what, estimate)| CheckRequest {
        attribution: Attribution {
            workspace: who.0,
            customer: who.1,
            feature: who.2,
            session: who.3,
            root_session: who.4,
            plan: what.0,
            model: what.1,
            tags: vec![(Cow::Borrowed("te am"), what.2)],
            ..Attribution::default()
        },
        estimate: Spend {
            cost: Nanos::new(estimate),
            tokens: estimate as i64,
            calls: 1,
        },
        ..CheckRequest::default()
    })
}

/// A request as a budget sees it: per root session, a session without a root is its own.
fn rooted(budget: &Budget, who: &Attribution<'static>) -> Attribution<'static> {
    let mut who = who.clone();
    if budget.window == WindowKind::RootSession && who.root_session.is_empty() {
        who.root_session = who.session.clone();
    }
    who
}

/// The budget's scope text for a request, by the contract's words; `None` = it does not apply.
fn scope_of(budget: &Budget, who: &Attribution<'static>) -> Option<String> {
    let who = rooted(budget, who);
    if !budget.scope.covers(&who) {
        return None;
    }
    let mut shape = budget.scope.shape();
    let session = match budget.window {
        WindowKind::Session => Some(Dimension::Session),
        WindowKind::RootSession => Some(Dimension::RootSession),
        _ => None,
    };
    shape.extend(session);
    shape.sort();
    shape.dedup();
    scope_text(&shape, &who)
}

/// A record about a scope that some request lies in, so that most of them matter.
fn record(
    budgets: &[Budget],
    who: &Attribution<'static>,
    random: (u8, u8, i64, u8),
) -> Option<Record> {
    let (choice, spent, expires_in, mode) = random;
    let who_text = scope_text(&[Dimension::Workspace, Dimension::Session], who);
    let (key, limit) = match budgets.get(usize::from(choice)) {
        Some(budget) => (
            format!("{}|{}", budget.id, scope_of(budget, who)?),
            budget.limit,
        ),
        None => (
            format!("finding|retry_loop|{}", who_text?),
            Amount::Calls(9),
        ),
    };
    // Some entries were judged by a limit that the budget no longer has.
    let limit = if mode & 1 == 0 {
        limit
    } else {
        Amount::Tokens(7)
    };
    let verdicts = [
        Verdict::Ok,
        Verdict::Warn,
        Verdict::Downgrade,
        Verdict::Block,
    ];
    let value = BlocklistEntry {
        v: 1,
        budget: "any".to_owned(),
        scope: key.rsplit_once('|').unwrap().1.to_owned(),
        filter: None,
        verdict: verdicts[usize::from(mode >> 1) % 4],
        action: "block".to_owned(),
        figures: Figures::new(limit.with(spent.into()), limit),
        percent: None,
        window: "day:2027-01-15".to_owned(),
        window_start: UnixMillis(0),
        resets_at: None,
        expires_at: (expires_in < 5).then(|| NOW.plus(expires_in)),
        counted_from: UnixMillis(0),
        count_since: None,
        downgrade_to: None,
        version: 1,
        decided_at: UnixMillis(0),
        caused_by: None,
        through: BTreeMap::new(),
    };
    let value = (mode < 240).then_some(value);
    Some(Record { key, value })
}

struct Model<'a> {
    budgets: &'a [Budget],
    records: &'a [Record],
    stale: bool,
}

impl Model<'_> {
    fn entry(&self, key: &str) -> Option<&BlocklistEntry> {
        let last = self.records.iter().rev().find(|record| record.key == key)?;
        let entry = last.value.as_ref()?;
        entry.expires_at.is_none_or(|at| at > NOW).then_some(entry)
    }

    fn verdict(&self, request: &CheckRequest<'static>) -> Verdict {
        let who = &request.attribution;
        let by_budget = self.budgets.iter().filter_map(|budget| {
            let scope = scope_of(budget, who)?;
            let holds = budget.filter.evaluate(&rooted(budget, who)) == FilterMatch::Holds;
            let entry = self.entry(&format!("{}|{scope}", budget.id));
            holds.then(|| self.by_budget(budget, entry, request))
        });
        let session = scope_text(&[Dimension::Workspace, Dimension::Session], who);
        let stop = session.and_then(|scope| self.entry(&format!("finding|retry_loop|{scope}")));
        let stop = stop
            .map(|entry| entry.verdict)
            .filter(|verdict| *verdict == Verdict::Block);
        by_budget.chain(stop).max().unwrap_or_default()
    }

    fn by_budget(
        &self,
        budget: &Budget,
        entry: Option<&BlocklistEntry>,
        request: &CheckRequest<'static>,
    ) -> Verdict {
        let limit = budget.limit;
        let figures = entry.map(|entry| entry.figures).unwrap_or_default();
        let same_limit = figures.limit == Some(limit);
        let counted = figures.spent.filter(|spent| spent.unit() == limit.unit());
        let spent = counted.map_or(0, Amount::number);
        let strictest = |estimate: i128, at_most: Verdict| {
            let reached = budget.steps.iter().filter(|step| {
                let share = step.at.of(limit).number();
                let over = step.action == Action::Block && spent + estimate > share;
                (spent >= share || over) && step.action.verdict() <= at_most
            });
            reached.max_by_key(|step| (step.action.verdict(), step.at))
        };
        let by_spend =
            strictest(0, Verdict::Block).map_or(Verdict::Ok, |step| step.action.verdict());
        // The writer, with the same limit, was milder: the rest is spend at a ceiling price.
        let unpriced = entry.is_some_and(|entry| same_limit && by_spend > entry.verdict);
        let at_most = match entry {
            Some(entry) if unpriced && !budget.unpriced_blocks => entry.verdict,
            _ => Verdict::Block,
        };
        let step = strictest(request.estimate.counted(limit.unit()).number(), at_most);
        let verdict = match step.map(|step| &step.action) {
            Some(Action::Downgrade(model)) if *model == request.attribution.model => Verdict::Warn,
            action => action.map_or(Verdict::Ok, Action::verdict),
        };
        let cost = entry.map_or(Some(Nanos::ZERO), |entry| entry.figures.spent?.usd());
        let refused = match budget.on_stale {
            OnStale::Allow => false,
            OnStale::Block => true,
            OnStale::AllowUpTo(most) => cost.is_none_or(|cost| cost + request.estimate.cost > most),
        };
        if self.stale && refused {
            Verdict::Block
        } else {
            verdict
        }
    }
}

fn apply(writer: &mut GuardWriter, records: &[Record], now: Now) {
    for record in records {
        let value = record
            .value
            .as_ref()
            .map(|value| serde_json::to_vec(value).unwrap());
        writer
            .apply(&record.key, value.as_deref(), NOW, now)
            .unwrap();
    }
}

fn beat(writer: &mut GuardWriter, now: Now) {
    for (stage, to) in [(Stage::Meter, 1), (Stage::Ledger, 2)] {
        let heartbeat = Heartbeat {
            v: 1,
            partition: 0,
            complete_to: NOW.plus(to),
            lag_ms: 0,
            version: 1,
            usage_offset: None,
            budget_version: 0,
            openings: Vec::new(),
        };
        let value = serde_json::to_vec(&heartbeat).unwrap();
        let key = heartbeat_key(stage, 0);
        writer
            .apply(&key, Some(&value), NOW.plus(to - 1), now)
            .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_replica_decides_as_the_naive_model(
        budgets in (budget("a"), budget("b"), budget("c"), budget("d"), budget("e")),
        requests in proptest::collection::vec(request(), 6),
        random in proptest::collection::vec((0..6_u8, 0..14_u8, -2..8_i64, any::<u8>()), 30),
        stale in any::<bool>(),
        publish_every in 1..7_usize,
    ) {
        let budgets = [budgets.0, budgets.1, budgets.2, budgets.3, budgets.4];
        let around = random.iter().zip(requests.iter().cycle());
        let records: Vec<_> = around
            .filter_map(|(random, request)| record(&budgets, &request.attribution, *random))
            .collect();
        let (mut writer, guard) = Guard::new(GuardConfig::new(1));
        let start = Now { wall: NOW, monotonic_millis: 0 };
        for budget in &budgets {
            let id = budget.id.as_str();
            writer.apply_budget(id, Some(&budget.to_record()), 1).unwrap();
        }
        writer.caught_up();
        beat(&mut writer, start);
        for records in records.chunks(publish_every) {
            apply(&mut writer, records, start);
            writer.publish(NOW);
        }
        writer.publish(NOW);
        let now = Now { monotonic_millis: if stale { 10_001 } else { 10_000 }, ..start };
        let model = Model { budgets: &budgets, records: &records, stale };
        for request in &requests {
            let decision = guard.check(request, now);
            prop_assert_eq!(decision.verdict(), model.verdict(request), "{:?}", request);
            let response = guard.check_with_reasons(request, now).explain();
            prop_assert_eq!(response.decision, decision.verdict());
            prop_assert_eq!(response.state, if stale { "stale" } else { "live" });
            for line in response.budgets.iter().filter(|line| line.budget != "any") {
                let budget = budgets.iter().find(|one| one.id.as_str() == line.budget).unwrap();
                let scope = scope_of(budget, &request.attribution);
                prop_assert_eq!(Some(&line.scope), scope.as_ref());
            }
        }
    }
}
