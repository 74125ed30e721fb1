//! What must be in the books: every call once or set aside as late, to the nano-dollar, in every
//! budget that counts it.

mod corrected;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::{Budget, Sum};
use crate::calendar::{self, DAY};
use crate::corrections::Entry;
use crate::native::{Row, Value};
use crate::prices::Prices;
use crate::process::{GRACE, HORIZON};
use crate::traffic::Call;
use corrected::SentCorrection;

/// A call that was told, maybe in pieces, each of them with more than the one before, and what became
/// of it.
#[derive(Debug)]
struct Sent {
    pieces: Vec<Piece>,
    last_arrival: i64,
    /// What its rows say, where it has any.
    entry: Option<Entry>,
    /// They are of topics that are gone: what tells of the call again is a duplicate.
    is_of_before: bool,
}

/// What was told of a call.
#[derive(Debug)]
struct Piece {
    call: Call,
    first_arrival: i64,
    is_late: bool,
    /// Partition and offset of every time that it was told.
    told_at: Vec<(u32, i64)>,
}

impl Sent {
    /// Whether a piece has more than what stands. What was corrected does not grow, nor what was counted
    /// in topics that are gone.
    fn lacks(&self, piece: &Piece) -> bool {
        let Some(entry) = &self.entry else {
            return true;
        };
        let stands = entry.stands.as_ref();
        let may_grow = entry.corrections == 0 && !self.is_of_before;
        may_grow && stands.is_none_or(|one| piece.call.output > one.call.output)
    }
}

/// A budget in its how-manieth count, and a scope and window of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) budget: String,
    pub(crate) count: usize,
    pub(crate) scope: String,
    pub(crate) start: i64,
}

/// What must be counted in a place.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    counted: Sum,
    /// What the budget says was spent before.
    opening: Sum,
    /// It was closed before anybody can have told what was spent before.
    may_lack_opening: bool,
    pub(crate) end: Option<i64>,
    /// A call of this scope, to ask about.
    pub(crate) like: Call,
}

impl Expected {
    fn begin(end: Option<i64>, like: &Call) -> Self {
        Self {
            counted: Sum::default(),
            opening: Sum::default(),
            may_lack_opening: false,
            end,
            like: like.clone(),
        }
    }

    pub(crate) fn sum(&self) -> Sum {
        let mut sum = self.counted;
        sum.add(self.opening);
        sum
    }
}

/// What a row says was spent, and in which call.
#[derive(Debug)]
struct Counted {
    call: Call,
    sum: Sum,
}

/// All budgets of one version, each with the number of its count.
type Version = BTreeMap<String, (Budget, usize)>;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// Number of the set of topics.
    epoch: u32,
    sent: BTreeMap<String, Sent>,
    /// By their ids.
    corrections: BTreeMap<String, SentCorrection>,
    pub(crate) prices: Prices,
    versions: BTreeMap<u64, Version>,
    /// When each count began, by its number.
    began: Vec<i64>,
    /// Counts since whose beginning everybody was there once, so that they know what was spent before.
    opened: BTreeSet<usize>,
    /// Every row of all sets of topics.
    rows: Vec<Counted>,
    pub(crate) accounts: BTreeMap<Place, Expected>,
    /// What lines of closed windows and of late spend say, by budget, scope and start, each with the
    /// time of its writing: a day and the month that begins with it have the same start, so a budget
    /// that was the one and is the other has lines of both.
    written_off: BTreeMap<(String, String, i64), Vec<(i64, Sum)>>,
    pub(crate) counted: u64,
    /// Offsets that retention removed before they were counted, and that were given up.
    given_up: Vec<(u32, std::ops::Range<i64>)>,
}

impl Reference {
    pub(crate) fn told(&mut self, call: &Call, at: i64, place: (u32, i64)) {
        let sent = self.sent.entry(call.id.clone()).or_insert_with(|| Sent {
            pieces: Vec::new(),
            last_arrival: at,
            entry: None,
            is_of_before: false,
        });
        sent.last_arrival = at;
        let mut known = sent.pieces.iter_mut();
        match known.find(|piece| piece.call.output == call.output) {
            Some(piece) => piece.told_at.push(place),
            None => sent.pieces.push(Piece {
                call: call.clone(),
                first_arrival: at,
                is_late: false,
                told_at: vec![place],
            }),
        }
    }

    /// A new set of topics: versions of budgets and all counts begin anew. What has no row was in the
    /// topics alone; where it is told again, that is for the first time.
    pub(crate) fn begin_anew(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.versions.clear();
        self.accounts.clear();
        self.corrections.clear();
        // Offsets begin anew too: whose were given up is settled.
        self.given_up.clear();
        self.sent.retain(|_, sent| {
            let pieces = std::mem::take(&mut sent.pieces).into_iter();
            let settled = pieces.filter(|piece| piece.is_late || !sent.lacks(piece));
            sent.pieces = settled.collect();
            sent.is_of_before = sent.entry.is_some();
            !sent.pieces.is_empty()
        });
    }

    /// All budgets in force now.
    pub(crate) fn budgets(&self) -> Version {
        self.versions
            .last_key_value()
            .map(|(_, all)| all.clone())
            .unwrap_or_default()
    }

    /// Since when `budget` counts if it is written at `now`, as `budgets apply` tells it.
    pub(crate) fn counted_from(&self, budget: &Budget, now: i64) -> i64 {
        let current = self.versions.last_key_value();
        let known = current.and_then(|(_, all)| all.get(&budget.id));
        let goes_on = known.filter(|(known, _)| budget.counts_like(known));
        goes_on.map_or(now, |(_, count)| self.began[*count])
    }

    /// The budgets that are in force from `version` on, which was written at `now`.
    pub(crate) fn applied(&mut self, version: u64, budgets: Vec<Budget>, now: i64) {
        let before = self.budgets();
        let first_new = self.began.len();
        let mut next = Version::new();
        for budget in budgets {
            let goes_on = before
                .get(&budget.id)
                .filter(|(known, _)| budget.counts_like(known));
            let count = goes_on.map_or_else(
                || {
                    self.began.push(now);
                    self.began.len() - 1
                },
                |(_, count)| *count,
            );
            next.insert(budget.id.clone(), (budget, count));
        }
        self.accounts.retain(|place, _| {
            next.get(&place.budget)
                .is_some_and(|(_, count)| *count == place.count)
        });
        for (budget, count) in next.values() {
            self.open(budget, *count, now);
            if *count >= first_new {
                self.add_rows_of_before(budget, *count);
            }
        }
        self.versions.insert(version, next);
    }

    /// What the budget says was spent before its count began is in the window of that time.
    fn open(&mut self, budget: &Budget, count: usize, now: i64) {
        let Some((scope, like)) = budget.only_scope().filter(|_| budget.has_opening()) else {
            return;
        };
        let (start, end) = budget.window_at(self.began[count]);
        if end.is_some_and(|end| end + GRACE <= now) {
            return;
        }
        let place = Place {
            budget: budget.id.clone(),
            count,
            scope,
            start,
        };
        let begin = || Expected::begin(end, &like);
        self.accounts.entry(place).or_insert_with(begin).opening = budget.opening();
    }

    /// Everybody was there: each count was told what was spent before it. Of a window that had closed by
    /// then nobody knows whether that came in time.
    pub(crate) fn openings_were_told(&mut self, ledger_time: i64) {
        for (_, count) in self.budgets().into_values() {
            if !self.opened.insert(count) {
                continue;
            }
            let accounts = self.accounts.iter_mut();
            let of_count = accounts.filter(|(place, _)| place.count == count);
            for (_, expected) in of_count.filter(|(_, one)| is_closed(one, ledger_time)) {
                expected.may_lack_opening = true;
            }
        }
    }

    /// Takes a record of the DLQ that was written at `at`.
    ///
    /// # Errors
    /// Where the call did not have to be set aside.
    pub(crate) fn set_aside(
        &mut self,
        id: &str,
        output: i128,
        reason: &str,
        at: i64,
    ) -> Result<(), String> {
        let pieces = self.sent.get_mut(id).map(|sent| sent.pieces.iter_mut());
        let mut pieces = pieces.into_iter().flatten();
        let Some(piece) = pieces.find(|piece| piece.call.output == output) else {
            return Ok(());
        };
        if reason != "late" {
            return Err(format!("{id} was set aside: {reason}"));
        }
        let age = at - piece.call.time;
        if age <= HORIZON {
            return Err(format!("{id} was set aside as late at an age of {age} ms"));
        }
        piece.is_late = true;
        Ok(())
    }

    /// Takes a new line of table `budget_windows`.
    pub(crate) fn line(&mut self, row: &Row) {
        let text = |name: &str| row.get(name).map_or("", Value::text);
        let number = |name: &str| row.get(name).map_or(0, Value::number);
        if ["spent", "opening"].contains(&text("kind")) {
            return;
        }
        let key = (
            text("budget").to_owned(),
            text("scope").to_owned(),
            number("window_start") as i64,
        );
        let sum = Sum {
            nanos: number("spent"),
            tokens: number("tokens"),
            calls: number("calls"),
        };
        let lines = self.written_off.entry(key).or_default();
        lines.push((number("at") as i64, sum));
    }

    /// What retention has removed from a partition of the usage topic is accepted as lost.
    pub(crate) fn give_up(&mut self, partition: u32, offsets: std::ops::Range<i64>) {
        self.given_up.push((partition, offsets));
    }

    /// Everything that was told has been counted or set aside.
    ///
    /// # Errors
    /// What was lost.
    pub(crate) fn nothing_is_lost(&self) -> Result<(), String> {
        let is_given_up = |(partition, offset): &(u32, i64)| {
            let mut ranges = self.given_up.iter();
            ranges.any(|(one, range)| one == partition && range.contains(offset))
        };
        let is_lost = |sent: &Sent, piece: &Piece| {
            sent.lacks(piece) && !piece.is_late && !piece.told_at.iter().all(is_given_up)
        };
        let mut sent = self.sent.values();
        let lost = sent.find_map(|sent| sent.pieces.iter().find(|piece| is_lost(sent, piece)));
        match lost {
            None => Ok(()),
            Some(piece) => Err(format!(
                "{} of {} came at {} and is neither counted nor late",
                piece.call.id,
                calendar::text(piece.call.time),
                calendar::text(piece.first_arrival)
            )),
        }
    }

    /// What closed windows amount to; and forgets what nothing will be heard of any more.
    ///
    /// # Errors
    /// A window whose lines say something else than was counted.
    pub(crate) fn closed_windows_balance(&mut self, ledger_time: i64) -> Result<(), String> {
        for (place, expected) in &self.accounts {
            if !is_closed(expected, ledger_time) || expected.may_lack_opening {
                continue;
            }
            let key = (place.budget.clone(), place.scope.clone(), place.start);
            let mut found = Sum::default();
            let lines = self.written_off.get(&key).into_iter().flatten();
            let of_this_count = lines.filter(|(at, _)| *at >= self.began[place.count]);
            of_this_count.for_each(|(_, sum)| found.add(*sum));
            if found != expected.sum() {
                return Err(format!(
                    "{place:?} closed with {found:?}, counted {:?}",
                    expected.sum()
                ));
            }
        }
        let is_over =
            |end: Option<i64>, more: i64| end.is_some_and(|end| end + GRACE + more <= ledger_time);
        self.accounts
            .retain(|_, expected| !is_over(expected.end, 40 * DAY));
        self.sent
            .retain(|_, sent| sent.last_arrival + 40 * DAY > ledger_time);
        self.corrections
            .retain(|_, one| one.sent_at + 20 * DAY > ledger_time);
        Ok(())
    }

    /// Accounts that the ledger must hold.
    pub(crate) fn open_accounts(
        &self,
        ledger_time: i64,
    ) -> impl Iterator<Item = (&Place, &Expected)> {
        self.accounts
            .iter()
            .filter(move |(_, expected)| !is_closed(expected, ledger_time))
    }
}

fn is_closed(expected: &Expected, ledger_time: i64) -> bool {
    expected.end.is_some_and(|end| end + GRACE <= ledger_time)
}
