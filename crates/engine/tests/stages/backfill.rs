//! History: counted once, whoever is killed and however often it is repeated; and nobody but rows and
//! windows learns of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use spendfuse_domain::budget::Budget;
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin, SpendRow, WindowLineKind};
use spendfuse_domain::{Identity, Nanos, UnixMillis, Verdict};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, LedgerOutputs, PUBLISH_RATE};
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, MeterOutputs, Rows};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 22 November 2026, noon.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

#[derive(Default)]
struct SeenFlags(Vec<Flags>);

impl Rows for SeenFlags {
    fn push(&mut self, row: &SpendRow<'_>) {
        self.0.push(row.flags);
    }
}

fn event(number: u32, time: UnixMillis) -> Event<'static> {
    let id = format!("e{number}");
    Event {
        identity: Identity::of("acme", "app", &id, "final"),
        content: number,
        source: Cow::Borrowed("app"),
        id: Cow::Owned(id),
        time,
        flags: Flags::default(),
        attribution: Attribution {
            workspace: Cow::Borrowed("acme"),
            session: Cow::Borrowed("s-1"),
            ..Attribution::default()
        },
        body: Body::Usage(Call {
            prompt_fingerprint: Some(7),
            ..Call::default()
        }),
    }
}

fn origin(arrival: UnixMillis) -> Origin {
    Origin {
        arrival,
        ..Origin::default()
    }
}

fn meter(book: &Arc<BudgetBook>, capacity: usize) -> Meter {
    let config = MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: HOUR,
        dedupe_capacity: capacity,
        session_idle_millis: HOUR,
        session_capacity: 10,
    };
    Meter::new(config, Arc::clone(book))
}

fn no_budgets() -> Arc<BudgetBook> {
    Arc::new(BudgetBook::compile(1, Vec::new(), DetectorRules::default()))
}

/// A meter, the warehouse behind it, and commands that backfill the same file.
struct World {
    book: Arc<BudgetBook>,
    meter: Meter,
    capacity: usize,
    now: UnixMillis,
    seq: u64,
    /// What a restart of the meter begins with.
    changelog: BTreeMap<Vec<u8>, Vec<u8>>,
    ids: Vec<Vec<u8>>,
    /// Counted and not loaded, with the arrival.
    unloaded: Vec<(UnixMillis, u32)>,
    warehouse: BTreeSet<u32>,
    times_counted: BTreeMap<u32, u32>,
    commands: [Command; 2],
}

/// A run of `ingest --backfill`.
#[derive(Clone, Default)]
struct Command {
    judged_at: UnixMillis,
    /// Judged, and not sent yet.
    to_send: Vec<u32>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let book = no_budgets();
        Self {
            meter: meter(&book, capacity),
            book,
            capacity,
            now: NOON,
            seq: 0,
            changelog: BTreeMap::new(),
            ids: Vec::new(),
            unloaded: Vec::new(),
            warehouse: BTreeSet::new(),
            times_counted: BTreeMap::new(),
            commands: Default::default(),
        }
    }

    /// Odd events are of weeks ago, the others of the last hour.
    fn time_of(number: u32) -> UnixMillis {
        let age = if number % 2 == 1 { 20 * DAY } else { MINUTE };
        NOON.plus(-age)
    }

    fn count(&mut self, number: u32, judged_at: Option<UnixMillis>) -> Counted {
        self.seq += 1;
        self.meter.begin(self.seq);
        let (event, charge) = (event(number, Self::time_of(number)), Charge::default());
        let (origin, mut rows) = (origin(self.now), SeenFlags::default());
        let counted = match judged_at {
            Some(judged_at) => self
                .meter
                .count_history(&event, &charge, origin, judged_at, &mut rows),
            None => self.meter.count(&event, &charge, origin, &mut rows),
        };
        if let Counted::AtAddress(_) = counted {
            *self.times_counted.entry(number).or_default() += 1;
            self.unloaded.push((self.now, number));
        }
        let outputs = self.meter.finish();
        for (key, value) in outputs.told.changelog {
            match value {
                Some(value) => self.changelog.insert(key, value),
                None => self.changelog.remove(&key),
            };
        }
        self.ids.push(codec::encode(&outputs.ids));
        counted
    }

    fn restart_meter(&mut self) {
        self.meter = meter(&self.book, self.capacity);
        for (key, value) in &self.changelog {
            self.meter.restore(key, Some(value)).expect("own changelog");
        }
        for record in &self.ids {
            self.meter.restore_ids(record).expect("own ids");
        }
        self.meter.restored();
    }

    fn load(&mut self, most: usize) {
        let most = most.min(self.unloaded.len());
        let loaded = self.unloaded.drain(..most);
        self.warehouse.extend(loaded.map(|(_, number)| number));
    }

    /// A command judges a piece of the file: by then everything that was counted before `judged_at`
    /// is loaded.
    fn judge(&mut self, which: usize, file: impl Iterator<Item = u32>) {
        let first_unloaded = self.unloaded.first().map(|(arrival, _)| *arrival);
        let unknown = |number: &u32| !self.warehouse.contains(number);
        self.commands[which] = Command {
            judged_at: first_unloaded.unwrap_or(self.now).min(self.now),
            to_send: file.filter(unknown).collect(),
        };
    }

    fn send(&mut self, which: usize) -> Option<Counted> {
        let number = self.commands[which].to_send.pop()?;
        let judged_at = self.commands[which].judged_at;
        Some(self.count(number, Some(judged_at)))
    }

    /// One thing that happens, drawn from a number.
    fn happen(&mut self, bits: u64) {
        let (kind, value) = (bits % 16, bits / 16);
        let which = (value % 2) as usize;
        match kind {
            0..6 => {
                self.send(which);
            }
            6 | 7 => {
                let from = (value / 2 % 12) as u32;
                self.judge(which, from..from + 6);
            }
            8..10 => self.load((value % 9) as usize),
            // Killed: what was judged is not sent.
            10 => self.commands[which].to_send.clear(),
            11 => self.restart_meter(),
            // An app sends it itself.
            12 => {
                self.count((value % 18) as u32, None);
            }
            // Others fill the memory.
            13 => {
                let first = 1_000 + self.seq as u32 * 100;
                for number in first..first + (value % 12) as u32 {
                    self.count(number * 2, None);
                }
            }
            _ => {
                let minutes = [0, 1, 1, 7, 40, 90][(value % 6) as usize];
                self.now = self.now.plus(minutes * MINUTE + 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(20_261_128),
        failure_persistence: None,
        ..Config::default()
    })]
    #[test]
    fn history_is_counted_once_whoever_is_killed_and_repeated(
        capacity in 16_usize..200,
        happenings in proptest::collection::vec(any::<u64>(), 0..120),
    ) {
        let mut world = World::new(capacity);
        for bits in happenings {
            world.happen(bits);
            for (number, times) in &world.times_counted {
                prop_assert_eq!(*times, 1, "event {} was counted {} times", number, times);
            }
        }
        // Everything is loaded, and the whole file comes again: what a small memory turns away is
        // counted the next time.
        for _ in 0..3 {
            world.load(usize::MAX);
            world.now = world.now.plus(2 * MINUTE);
            world.judge(0, 0..18);
            while let Some(counted) = world.send(0) {
                let is_right = matches!(counted, Counted::AtAddress(_) | Counted::Late);
                prop_assert!(is_right, "{:?}", counted);
            }
        }
        for number in 0..18 {
            prop_assert_eq!(world.times_counted.get(&number), Some(&1));
        }
    }
}

fn budget(id: &str, window: &str, limit: &str) -> Budget {
    let record = format!(
        r#"{{"v":1,"scope":{{"workspace":"acme"}},"window":"{window}","limit":"{limit}","steps":[{{"at":50,"do":"warn"}},{{"at":100,"do":"block"}}],"counted_from":"2026-01-01T00:00:00Z"}}"#
    );
    Budget::from_record(id, record.as_bytes()).expect("a good record")
}

/// A dollar a call.
fn dollar() -> Charge<'static> {
    Charge {
        cost: CostParts {
            output: Nanos::new(1_000_000_000),
            ..CostParts::default()
        },
        ..Charge::default()
    }
}

/// Meter and ledger of one partition under budgets.
struct Pair {
    meter: Meter,
    ledger: Ledger,
    seq: u64,
    flags: SeenFlags,
}

impl Pair {
    fn new(budgets: Vec<Budget>) -> Self {
        let book = BudgetBook::compile(1, budgets, DetectorRules::default());
        let book = Arc::new(book);
        let config = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: 2 * DAY,
            publish_rate: PUBLISH_RATE,
            account_capacity: 100,
        };
        Self {
            meter: meter(&book, 1_000),
            ledger: Ledger::new(config, book),
            seq: 0,
            flags: SeenFlags::default(),
        }
    }

    /// Counts events, each with its time and whether it is history, in one commit of each stage.
    fn count(&mut self, events: &[(u32, UnixMillis, bool)]) -> (MeterOutputs, LedgerOutputs) {
        self.seq += 1;
        self.meter.begin(self.seq);
        self.ledger.begin(self.seq);
        for (number, time, is_history) in events {
            let (event, charge) = (event(*number, *time), dollar());
            let (origin, rows) = (origin(NOON), &mut self.flags);
            match is_history {
                true => self
                    .meter
                    .count_history(&event, &charge, origin, NOON, rows),
                false => self.meter.count(&event, &charge, origin, rows),
            };
        }
        let metered = self.meter.finish();
        for (_, deltas) in &metered.deltas {
            self.ledger.apply(deltas, NOON);
        }
        self.ledger.advance(NOON);
        (metered, self.ledger.finish())
    }
}

#[test]
fn history_reaches_open_windows_and_tells_nobody() {
    let mut pair = Pair::new(vec![
        budget("monthly", "month", "10.00"),
        budget("daily", "day", "2.00"),
        budget("a-session", "session", "1.00"),
    ]);
    let days_ago = |days: i64| NOON.plus(-days * DAY);
    let history: Vec<_> = (1..=11)
        .map(|day| (day as u32, days_ago(day), true))
        .collect();
    let (metered, told) = pair.count(&history);
    assert!(metered.told.findings.is_empty(), "a loop of one prompt");
    assert!(metered.told.blocklist.is_empty(), "no session is limited");
    assert!(metered.told.alerts.is_empty() && told.told.alerts.is_empty());
    assert!(told.told.findings.is_empty(), "{:?}", told.told.findings);
    let [(key, Some(entry))] = &told.told.blocklist[..] else {
        panic!("one window is open: {:?}", told.told.blocklist);
    };
    assert_eq!(
        (key.as_str(), entry.verdict),
        ("monthly|acme", Verdict::Block)
    );
    // Days that are closed are in the warehouse alone, those within their grace in an account too.
    let late = told.window_lines.iter();
    let late = late.filter(|line| line.kind == WindowLineKind::Late && line.budget == "daily");
    assert_eq!(late.count(), 9);
    assert!(
        pair.flags
            .0
            .iter()
            .all(|flags| flags.contains(Flags::BACKFILLED))
    );

    // What is spent from now on is told of as ever: the step that history reached is not, the finding
    // of what lies beyond it is.
    let (_, told) = pair.count(&[(100, NOON, false)]);
    let steps: Vec<&str> = told
        .told
        .alerts
        .iter()
        .map(|alert| &*alert.subject)
        .collect();
    assert_eq!(steps, ["daily"], "half of a day is spent");
    let opened: Vec<&str> = told
        .told
        .findings
        .iter()
        .map(|(_, one)| &*one.rule)
        .collect();
    assert_eq!(opened, ["monthly"]);
}

#[test]
fn a_step_that_is_reached_now_is_told_though_history_comes_with_it() {
    let mut pair = Pair::new(vec![budget("daily", "day", "4.00")]);
    let live = |number| (number, NOON, false);
    let (_, told) = pair.count(&[live(1), live(2), (3, NOON.plus(-HOUR), true)]);
    assert_eq!(told.told.alerts.len(), 1, "half was spent live");
    let (_, told) = pair.count(&[(4, NOON.plus(-HOUR), true)]);
    assert!(told.told.alerts.is_empty() && told.told.findings.is_empty());
    assert_eq!(told.told.verdict_changes.len(), 1, "blocks all the same");
}
