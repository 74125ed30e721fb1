//! What was spent before a count began, computed while everything goes on: each partition of the
//! meter learns of the budget at its own commit, ledgers at theirs, both crash, and the sums come
//! late, in parts and twice. In the end an account holds every row of its window, whatever the order.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spendfuse_domain::budget::{Budget, Spend};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::WantedOpening;
use spendfuse_domain::{BudgetId, Nanos, UnixMillis};
use spendfuse_engine::account::Opening;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::{CountedThen, DeltaEntry, Deltas};
use spendfuse_engine::ledger::{
    AccountKey, Ledger, LedgerConfig, OpeningEntry, Openings, PUBLISH_RATE,
};

const METERS: usize = 3;
const LEDGERS: u32 = 2;
const CASES: u64 = 4_000;
const NOW: &str = "2026-11-22T10:00:00Z";
const FREE: &str = r#""where":{"plan":"free"},"#;
const CUSTOMERS: [&str; 4] = ["c-1", "c-2", "c-3", "c-4"];

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The ledger counts whatever comes after it knows the budget.
    NoCut,
    /// Sums are computed before every meter has passed the cut.
    TooEarly,
    /// The ledger leaves corrections to the opening that is to come.
    CorrectionsIgnored,
    /// Rows of corrections name the budgets of their entry, not of their own commit.
    RowsNameTheEntry,
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % count
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A row of the warehouse.
#[derive(Clone, Debug)]
struct Row {
    meter: usize,
    version: u64,
    /// Of a correction: the version that its entry was counted with.
    corrects: Option<u64>,
    customer: &'static str,
    is_free: bool,
    cost: i128,
    unpriced: i128,
    calls: i64,
}

impl Row {
    fn tokens(&self) -> i64 {
        7 * self.calls
    }
}

fn budget(id: &str, filter: &str, limit: &str, counted_from: &str) -> Budget {
    let record = format!(
        r#"{{"v":1,"scope":{{"workspace":"acme","customer":"*"}},{filter}"limit":"{limit}","window":"month","steps":[{{"at":100,"do":"block"}}],"counted_from":"{counted_from}"}}"#
    );
    Budget::from_record(id, record.as_bytes()).unwrap()
}

/// Version 1: another budget, which may have a series of the budget's, or none; 2: the budget; 3: its
/// limit; 4: another count.
fn books(other: Option<&str>) -> Vec<Arc<BudgetBook>> {
    let first = "2026-11-22T09:00:00Z";
    let other = || {
        let filter = other.into_iter();
        filter.map(|filter| budget("other", filter, "1.00", first))
    };
    let caps = [
        None,
        Some(budget("cap", "", "1.00", first)),
        Some(budget("cap", "", "2.00", first)),
        Some(budget("cap", FREE, "2.00", "2026-11-22T09:30:00Z")),
    ];
    let numbered = (1..).zip(caps);
    let compile =
        |(version, cap): (u64, Option<Budget>)| book(version, other().chain(cap).collect());
    numbered.map(compile).collect()
}

struct Meter {
    version: usize,
    seq: u64,
    told: Vec<u64>,
}

struct Worker {
    ledger: Ledger,
    partition: u32,
    version: usize,
    seq: u64,
    changelog: BTreeMap<Vec<u8>, Vec<u8>>,
    deltas: Vec<VecDeque<Deltas>>,
    openings: VecDeque<Openings>,
    fault: Option<Fault>,
}

struct World {
    random: Random,
    fault: Option<Fault>,
    books: Vec<Arc<BudgetBook>>,
    meters: Vec<Meter>,
    workers: Vec<Worker>,
    rows: Vec<Row>,
    /// Everything that was ever asked for: late answers to old questions change nothing.
    asked: Vec<(usize, WantedOpening)>,
}

fn now() -> UnixMillis {
    UnixMillis::parse_rfc3339(NOW).unwrap()
}

fn ledger_config(partition: u32) -> LedgerConfig {
    LedgerConfig {
        partition,
        partitions: METERS as u32,
        grace_millis: 0,
        publish_rate: PUBLISH_RATE,
        account_capacity: 1_000,
    }
}

/// Without detectors.
fn book(version: u64, budgets: Vec<Budget>) -> Arc<BudgetBook> {
    let rules = DetectorRules::default();
    Arc::new(BudgetBook::compile(version, budgets, rules))
}

fn scope(customer: &str) -> String {
    format!("acme/customer={customer}")
}

impl Worker {
    fn open(&mut self, books: &[Arc<BudgetBook>], fault: Option<Fault>) {
        let config = ledger_config(self.partition);
        let ledger = Ledger::new(config, Arc::clone(&books[self.version]));
        self.ledger = ledger.with_computed_openings();
        self.fault = fault;
        for (key, value) in &self.changelog {
            self.ledger.restore(key, Some(value)).unwrap();
        }
        self.ledger.restored();
        self.ledger.advance(now());
    }

    fn batch(&mut self, random: &mut Random, books: &[Arc<BudgetBook>], crash: bool) -> bool {
        self.ledger.begin(self.seq + 1);
        self.ledger.advance(now());
        let mut taken = Vec::new();
        for queue in &self.deltas {
            let count = random.below(queue.len() + 1);
            for deltas in queue.iter().take(count) {
                if deltas.budget_version > self.ledger.budget_version() {
                    self.version = deltas.budget_version as usize - 1;
                    self.ledger.set_book(Arc::clone(&books[self.version]));
                    self.ledger.advance(now());
                }
                let mut deltas = deltas.clone();
                if self.fault == Some(Fault::CorrectionsIgnored) {
                    deltas.entries.retain(|entry| entry.corrects.is_none());
                }
                if self.fault == Some(Fault::NoCut) {
                    deltas.budget_version = self.ledger.budget_version();
                }
                self.ledger.apply(&deltas, now());
            }
            taken.push(count);
        }
        let answers = random.below(self.openings.len() + 1);
        for told in self.openings.iter().take(answers) {
            self.ledger.take_openings(told);
        }
        self.ledger.advance(now());
        let outputs = self.ledger.finish();
        if crash {
            return false;
        }
        assert_eq!(outputs.broken_links, 0);
        self.seq += 1;
        for (key, value) in outputs.told.changelog {
            match value {
                Some(value) => self.changelog.insert(key, value),
                None => self.changelog.remove(&key),
            };
        }
        for (queue, count) in self.deltas.iter_mut().zip(taken) {
            queue.drain(..count);
        }
        self.openings.drain(..answers);
        true
    }
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let books = books([None, Some(""), Some(FREE)][random.below(3)]);
        let workers = (0..LEDGERS).map(|partition| {
            let config = ledger_config(partition);
            let mut worker = Worker {
                ledger: Ledger::new(config, Arc::clone(&books[0])),
                partition,
                version: 0,
                seq: 0,
                changelog: BTreeMap::new(),
                deltas: vec![VecDeque::new(); METERS],
                openings: VecDeque::new(),
                fault,
            };
            worker.open(&books, fault);
            worker
        });
        let workers = workers.collect();
        let meter = |_| Meter {
            version: 0,
            seq: 0,
            told: vec![0; LEDGERS as usize],
        };
        Self {
            random,
            fault,
            meters: (0..METERS).map(meter).collect(),
            workers,
            books,
            rows: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(8) {
            0..=2 => self.meter(),
            3 => {
                let index = self.random.below(METERS);
                let meter = &mut self.meters[index];
                meter.version = (meter.version + 1).min(self.books.len() - 1);
            }
            4 => {
                let index = self.random.below(self.workers.len());
                let worker = &mut self.workers[index];
                worker.version = (worker.version + 1).min(self.books.len() - 1);
                worker
                    .ledger
                    .set_book(Arc::clone(&self.books[worker.version]));
                worker.ledger.advance(now());
            }
            5 | 6 => {
                let index = self.random.below(self.workers.len());
                let crash = self.random.one_in(4);
                self.ledger(index, crash);
            }
            _ => self.answer(),
        }
    }

    /// A commit of a meter.
    fn meter(&mut self) {
        let index = self.random.below(METERS);
        let meter = &mut self.meters[index];
        meter.seq += 1;
        let book = &self.books[meter.version];
        let mut told: Vec<Deltas> = (0..LEDGERS)
            .map(|ledger| Deltas {
                meter_partition: index as u32,
                prev: meter.told[ledger as usize],
                seq: meter.seq,
                budget_version: book.version,
                series: book.series.iter().map(|one| one.id.clone()).collect(),
                ..Deltas::default()
            })
            .collect();
        for _ in 0..=self.random.below(3) {
            let row = match self.random.one_in(4) {
                true => correction(&mut self.random, &self.rows, index),
                false => Some(fresh(&mut self.random, index)),
            };
            let Some(mut row) = row else { continue };
            row.version = match row.corrects {
                Some(then) if self.fault == Some(Fault::RowsNameTheEntry) => then,
                _ => book.version,
            };
            let scope = scope(row.customer);
            let ledger = partition_of(scope.as_bytes(), LEDGERS) as usize;
            for (place, series) in book.series.iter().enumerate() {
                if !series.filter.is_empty() && !row.is_free {
                    continue;
                }
                told[ledger].entries.push(DeltaEntry {
                    series: place as u32,
                    scope: scope.clone(),
                    minute: now().minute(),
                    cost: Nanos::new(row.cost),
                    unpriced: Nanos::new(row.unpriced),
                    tokens: row.tokens(),
                    calls: row.calls,
                    source: "app".to_owned(),
                    id: "one".to_owned(),
                    time: now(),
                    is_history: false,
                    corrects: row.corrects.map(|budget_version| CountedThen {
                        budget_version,
                        arrival: now(),
                    }),
                });
            }
            self.rows.push(row);
        }
        for (ledger, deltas) in told.into_iter().enumerate() {
            if !deltas.entries.is_empty() {
                meter.told[ledger] = meter.seq;
                self.workers[ledger].deltas[index].push_back(deltas);
            }
        }
    }

    fn ledger(&mut self, index: usize, crash: bool) {
        let worker = &mut self.workers[index];
        if worker.batch(&mut self.random, &self.books, crash) {
            let wanted = worker.ledger.wanted_openings();
            self.asked.extend(wanted.map(|one| (index, one)));
        } else {
            // What it knew of newer budgets is gone, too; it may not go back behind its changelog.
            worker.open(&self.books, self.fault);
        }
    }

    /// The warehouse's answer to something that was asked, now or long ago, in parts.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let place = self.random.below(self.asked.len());
        let (index, wanted) = self.asked[place].clone();
        self.answer_to(index, &wanted);
    }

    fn answer_to(&mut self, index: usize, wanted: &WantedOpening) {
        let has_passed = |meter: &Meter| self.books[meter.version].version >= wanted.below_version;
        let may = self.meters.iter().all(has_passed) || self.fault == Some(Fault::TooEarly);
        let id = BudgetId::new(&wanted.budget).unwrap();
        let cap = self.books[wanted.below_version as usize - 1].named(&id);
        let cap = cap.unwrap();
        if !may {
            return;
        }
        let mut sums: BTreeMap<&str, Opening> = BTreeMap::new();
        for row in &self.rows {
            let scope = scope(row.customer);
            let is_here = partition_of(scope.as_bytes(), LEDGERS) as usize == index;
            let counts = cap.budget.filter.is_empty() || row.is_free;
            if is_here && counts && row.version < wanted.below_version {
                let sum = sums.entry(row.customer).or_default();
                sum.cost += Nanos::new(row.cost);
                sum.unpriced += Nanos::new(row.unpriced);
                sum.tokens += row.tokens();
                sum.calls += row.calls;
            }
        }
        let start = cap.window(now()).start;
        let entries: Vec<OpeningEntry> = sums
            .into_iter()
            .map(|(customer, opening)| OpeningEntry {
                scope: scope(customer),
                start,
                opening,
            })
            .collect();
        let mut parts: Vec<Vec<OpeningEntry>> = entries.chunks(1).map(<[_]>::to_vec).collect();
        parts.push(Vec::new());
        let last = parts.len() - 1;
        for (number, entries) in parts.into_iter().enumerate() {
            let told = Openings {
                budget: wanted.budget.to_string(),
                terms: cap.count.terms,
                since: cap.count.since,
                below_version: wanted.below_version,
                entries,
                is_last: number == last,
            };
            let stored = codec::encode(&told);
            let told: Openings = codec::decode(&stored).unwrap();
            if self.random.one_in(4) {
                self.workers[index].openings.push_back(told.clone());
            }
            self.workers[index].openings.push_back(told);
        }
    }

    /// Everybody comes to the last version, everything that waits is worked off.
    fn settle(&mut self) {
        for meter in &mut self.meters {
            meter.version = self.books.len() - 1;
        }
        for index in 0..self.workers.len() {
            let last = self.books.len() - 1;
            self.workers[index].version = last;
            let book = Arc::clone(&self.books[last]);
            self.workers[index].ledger.set_book(book);
            for _ in 0..400 {
                self.ledger(index, false);
                let worker = &self.workers[index];
                let is_idle =
                    worker.deltas.iter().all(VecDeque::is_empty) && worker.openings.is_empty();
                let wanted: Vec<WantedOpening> = worker.ledger.wanted_openings().collect();
                if is_idle && wanted.is_empty() {
                    break;
                }
                if is_idle {
                    wanted.iter().for_each(|one| self.answer_to(index, one));
                }
            }
        }
    }

    /// What differs from the rows, `None` where nothing does.
    fn wrong(&self) -> Option<String> {
        let cap = BudgetId::new("cap").unwrap();
        let start = self.books[3].named(&cap).unwrap().window(now()).start;
        for customer in CUSTOMERS {
            let scope = scope(customer);
            let mut expected = Spend::default();
            let rows = self.rows.iter();
            for row in rows.filter(|row| row.customer == customer && row.is_free) {
                expected.add(Spend {
                    cost: Nanos::new(row.cost),
                    tokens: row.tokens(),
                    calls: row.calls,
                });
            }
            let ledger = partition_of(scope.as_bytes(), LEDGERS) as usize;
            let worker = &self.workers[ledger];
            let key = AccountKey {
                budget: cap.clone(),
                scope,
                start,
            };
            let found = worker.ledger.account(&key);
            let found = found.map_or_else(Spend::default, |account| account.spend());
            if found != expected {
                return Some(format!("{customer}: {found:?}, expected {expected:?}"));
            }
            if worker.ledger.wanted_openings().next().is_some() {
                return Some("an opening is still wanted".to_owned());
            }
        }
        None
    }
}

/// A call.
fn fresh(random: &mut Random, meter: usize) -> Row {
    let cost = 1 + random.below(1_000) as i128;
    Row {
        meter,
        version: 0,
        corrects: None,
        customer: CUSTOMERS[random.below(CUSTOMERS.len())],
        is_free: random.one_in(2),
        cost,
        unpriced: if random.one_in(3) { cost } else { 0 },
        calls: 1,
    }
}

/// Takes a call of the meter's back, or some of its cost: more than once, for all that matters here.
fn correction(random: &mut Random, rows: &[Row], meter: usize) -> Option<Row> {
    let own = rows.iter().filter(|row| row.meter == meter);
    let own: Vec<&Row> = own.filter(|row| row.corrects.is_none()).collect();
    if own.is_empty() {
        return None;
    }
    let entry = own[random.below(own.len())];
    let is_void = random.one_in(2);
    let taken = |cost: i128| if is_void { -cost } else { -cost / 3 };
    Some(Row {
        corrects: Some(entry.version),
        cost: taken(entry.cost),
        unpriced: taken(entry.unpriced),
        calls: if is_void { -1 } else { 0 },
        ..entry.clone()
    })
}

fn run(seed: u64, fault: Option<Fault>) -> Option<String> {
    let mut world = World::new(seed, fault);
    for _ in 0..40 + seed % 80 {
        world.step();
    }
    world.settle();
    world.wrong()
}

#[test]
fn an_account_holds_every_row_of_its_window_whoever_learned_of_the_budget_when() {
    for seed in 1..=CASES {
        if let Some(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn a_cut_that_is_not_kept_is_seen() {
    let corrections = [Fault::CorrectionsIgnored, Fault::RowsNameTheEntry];
    for fault in [Fault::NoCut, Fault::TooEarly]
        .into_iter()
        .chain(corrections)
    {
        let seen = (1..=300).filter(|seed| run(*seed, Some(fault)).is_some());
        let seen = seen.count();
        println!("{fault:?}: {seen} of 300");
        assert!(seen > 0, "{fault:?}");
    }
}

/// A delta of one call of the first customer, that some meter counted by `version`.
fn one_call(book: &BudgetBook, seq: u64, version: u64) -> Deltas {
    Deltas {
        prev: seq - 1,
        seq,
        budget_version: version,
        series: book.series.iter().map(|one| one.id.clone()).collect(),
        entries: vec![DeltaEntry {
            series: 0,
            scope: scope(CUSTOMERS[0]),
            minute: now().minute(),
            cost: Nanos::new(5),
            unpriced: Nanos::ZERO,
            tokens: 7,
            calls: 1,
            source: "app".to_owned(),
            id: "one".to_owned(),
            time: now(),
            is_history: false,
            corrects: None,
        }],
        ..Deltas::default()
    }
}

#[test]
fn counts_that_ran_before_openings_were_computed_go_on_as_they_are() {
    let books = books(None);
    let home = partition_of(scope(CUSTOMERS[0]).as_bytes(), LEDGERS);
    let config = ledger_config(home);
    let mut changelog: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut before = Ledger::new(config.clone(), Arc::clone(&books[1]));
    before.begin(1);
    before.advance(now());
    before.apply(&one_call(&books[1], 1, 2), now());
    let mut written = |ledger: &mut Ledger| {
        let written = ledger.finish().told.changelog;
        let counts = written
            .iter()
            .filter(|(key, _)| key.starts_with(b"count|"))
            .count();
        changelog.extend(
            written
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        (changelog.clone(), counts)
    };
    let (stored, counts) = written(&mut before);
    assert_eq!(counts, 0, "older programs could not read it");

    let key = AccountKey {
        budget: BudgetId::new("cap").unwrap(),
        scope: scope(CUSTOMERS[0]),
        start: books[1].budgets[0].window(now()).start,
    };
    let restored = |stored: &BTreeMap<Vec<u8>, Vec<u8>>, book: usize| {
        let ledger = Ledger::new(config.clone(), Arc::clone(&books[book]));
        let mut ledger = ledger.with_computed_openings();
        for (key, value) in stored {
            ledger.restore(key, Some(value)).unwrap();
        }
        ledger.restored();
        ledger
    };
    let mut after = restored(&stored, 1);
    after.begin(2);
    after.advance(now());
    // Counted by budgets of before, as ever.
    after.apply(&one_call(&books[1], 2, 1), now());
    assert_eq!(after.wanted_openings().count(), 0);
    assert_eq!(after.account(&key).unwrap().spend().calls, 2);
    let (stored, counts) = written(&mut after);
    assert_eq!(counts, 1);

    // The next count begins with what was spent.
    let mut again = restored(&stored, 3);
    again.begin(3);
    again.advance(now());
    let wanted: Vec<WantedOpening> = again.wanted_openings().collect();
    assert_eq!((wanted.len(), wanted[0].below_version), (1, 4));
}

#[test]
fn what_a_file_states_was_spent_before_is_not_corrected() {
    let record = r#"{"v":1,"scope":{"workspace":"acme","customer":"c-1"},"limit_tokens":1000,"window":"month","steps":[{"at":100,"do":"block"}],"counted_from":"2026-11-22T09:00:00Z","opening":40}"#;
    let stated = Budget::from_record("cap", record.as_bytes()).unwrap();
    let (before, after) = (book(1, Vec::new()), book(2, vec![stated]));
    let config = ledger_config(partition_of(scope(CUSTOMERS[0]).as_bytes(), METERS as u32));
    let mut ledger = Ledger::new(config, before).with_computed_openings();
    ledger.begin(1);
    ledger.advance(now());
    let _ = ledger.finish();
    ledger.begin(2);
    ledger.set_book(Arc::clone(&after));
    ledger.advance(now());
    let key = AccountKey {
        budget: BudgetId::new("cap").unwrap(),
        scope: scope(CUSTOMERS[0]),
        start: after.budgets[0].window(now()).start,
    };
    let mut counted = |seq, budget_version, tokens| {
        let mut correction = one_call(&after, seq, 2);
        let entry = &mut correction.entries[0];
        (entry.tokens, entry.calls) = (tokens, 0);
        entry.corrects = Some(CountedThen {
            budget_version,
            arrival: now(),
        });
        ledger.apply(&correction, now());
        ledger.account(&key).map(|account| account.spend().tokens)
    };
    assert_eq!(counted(1, 1, -500), Some(40), "it is among the 40");
    assert_eq!(counted(2, 2, -7), Some(33));
}

#[test]
fn readers_learn_that_an_opening_is_in_though_other_budgets_change_meanwhile() {
    let first = "2026-11-22T09:00:00Z";
    let cap = || budget("cap", "", "1.00", first);
    let config = ledger_config(partition_of(scope(CUSTOMERS[0]).as_bytes(), METERS as u32));
    let mut ledger = Ledger::new(config, book(1, Vec::new())).with_computed_openings();
    ledger.begin(1);
    ledger.advance(now());
    let _ = ledger.finish();

    let capped = book(2, vec![cap()]);
    ledger.begin(2);
    ledger.set_book(Arc::clone(&capped));
    ledger.advance(now());
    ledger.apply(&one_call(&capped, 1, 2), now());
    assert_eq!(ledger.finish().told.blocklist.len(), 1);

    // Nothing was spent before; the accounts wait to be told of it when another budget comes.
    ledger.begin(3);
    let count = capped.budgets[0].count;
    let below_version = ledger.wanted_openings().map(|wanted| wanted.below_version);
    let below_version = below_version.max().unwrap();
    ledger.take_openings(&Openings {
        budget: "cap".to_owned(),
        terms: count.terms,
        since: count.since,
        below_version,
        entries: Vec::new(),
        is_last: true,
    });
    let _ = ledger.finish();
    ledger.begin(4);
    ledger.set_book(book(3, vec![cap(), budget("other", FREE, "1.00", first)]));
    ledger.advance(now());
    let told = ledger.finish().told.blocklist;
    let [(_, Some(entry))] = &told[..] else {
        panic!("the account is told of once: {told:?}");
    };
    let counted_from = capped.budgets[0].budget.counted_from;
    let window = capped.budgets[0].window(now());
    assert_eq!(entry.counted_from, window.start);
    assert_eq!(entry.count_since, Some(counted_from));
}
