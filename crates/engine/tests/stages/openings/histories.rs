//! What was spent before a count began, computed while everything goes on: each partition of the
//! meter learns of the budget at its own commit, ledgers at theirs, both crash, and the sums come
//! late, in parts and twice. In the end an account holds every row of its window, whatever the order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::WantedOpening;
use spendfuse_domain::{BudgetId, Nanos};
use spendfuse_engine::account::Opening;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::{CountedThen, DeltaEntry, Deltas};
use spendfuse_engine::ledger::{AccountKey, Ledger, OpeningEntry, Openings};

use super::rows::{Random, Row, correction, fresh};
use super::worker::Worker;
use super::{CUSTOMERS, FREE, LEDGERS, METERS, books, ledger_config, now, scope};

const CASES: u64 = 4_000;

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The ledger counts whatever comes after it knows the budget.
    NoCut,
    /// Sums are computed before every meter has passed the cut.
    TooEarly,
    /// The ledger leaves corrections to the opening that is to come.
    CorrectionsIgnored,
    /// Rows of corrections name the budgets of their entry, not of their own commit.
    RowsNameTheEntry,
}

struct Meter {
    version: usize,
    seq: u64,
    told: Vec<u64>,
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
