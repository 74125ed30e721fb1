//! What must be in the books: every call once or set aside as late, to the nano-dollar, in every
//! budget that counts it.

use std::collections::{BTreeMap, HashMap};

use crate::budget::{Budget, Sum};
use crate::calendar::{self, DAY, MINUTE};
use crate::native::{Row, Value};
use crate::prices::Prices;
use crate::process::{GRACE, HORIZON};
use crate::traffic::Call;

/// A call that was told, maybe in pieces, each of them with more than the one before, and what became
/// of it.
#[derive(Debug)]
struct Sent {
    pieces: Vec<Piece>,
    last_arrival: i64,
    /// What its rows hold in sum.
    stands: Option<Standing>,
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

/// Tokens (fresh input, cached input, output) and nano-dollars.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    tokens: [i128; 3],
    nanos: i128,
}

impl Sent {
    /// Whether a piece has more than what stands.
    fn lacks(&self, piece: &Piece) -> bool {
        let stands = self.stands.map(|stands| stands.tokens[2]);
        Some(piece.call.output) > stands
    }
}

fn tokens(call: &Call) -> [i128; 3] {
    [call.input - call.cached, call.cached, call.output]
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
    pub(crate) sum: Sum,
    pub(crate) end: Option<i64>,
    /// A call of this scope, to ask about.
    pub(crate) like: Call,
}

/// All budgets of one version, each with the number of its count.
type Version = BTreeMap<String, (Budget, usize)>;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    sent: HashMap<String, Sent>,
    pub(crate) prices: Prices,
    versions: BTreeMap<u64, Version>,
    /// When each count began, by its number.
    began: Vec<i64>,
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
            stands: None,
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

    pub(crate) fn was_told(&self, id: &str) -> bool {
        self.sent.contains_key(id)
    }

    /// A new set of topics: versions of budgets and all counts begin anew.
    pub(crate) fn begin_anew(&mut self) {
        self.versions.clear();
        self.accounts.clear();
        // Offsets begin anew too: whose were given up is settled.
        self.given_up.clear();
        self.sent.retain(|_, sent| {
            let pieces = std::mem::take(&mut sent.pieces).into_iter();
            let settled = pieces.filter(|piece| piece.is_late || !sent.lacks(piece));
            sent.pieces = settled.collect();
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
        self.versions.insert(version, next);
    }

    /// Takes a new row of table `spend`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn row(&mut self, row: &Row) -> Result<(), String> {
        let text = |name: &str| row.get(name).map_or("", Value::text);
        let number = |name: &str| row.get(name).map_or(0, Value::number);
        // Its name before schema 2.
        let user = if row.contains_key("user") {
            "user"
        } else {
            "user_id"
        };
        let id = text("event_id");
        let Some(sent) = self.sent.get_mut(id) else {
            return Err(format!("a row of {id}, which was never told or long ago"));
        };
        let before = sent.stands.unwrap_or_default();
        let more = ["input_tokens", "cache_read_tokens", "output_tokens"].map(number);
        let stands = Standing {
            tokens: [0, 1, 2].map(|class| before.tokens[class] + more[class]),
            nanos: before.nanos + number("cost"),
        };
        let is_told = |piece: &&Piece| tokens(&piece.call) == stands.tokens;
        let expected = match sent.stands {
            None => ("usage", 1),
            Some(_) => ("correction", 0),
        };
        let found = (text("kind"), number("calls"));
        let piece = sent.pieces.iter().find(is_told);
        let piece = piece.filter(|piece| sent.lacks(piece) && found == expected);
        let Some(piece) = piece else {
            let at = ["meter_partition", "meter_seq", "meter_index", "received_at"].map(number);
            return Err(format!(
                "{id} has a row {found:?} of {more:?} tokens beside {:?}, at {at:?}",
                sent.stands
            ));
        };
        let call = &piece.call;
        if piece.first_arrival - call.time > HORIZON {
            return Err(format!(
                "{id} was counted though it came {} ms late",
                piece.first_arrival - call.time
            ));
        }
        let cost = self.prices.cost(text("price_version"), call);
        if cost != Some(stands.nanos) {
            return Err(format!(
                "{id} costs {}, expected {cost:?} by {}",
                stands.nanos,
                text("price_version")
            ));
        }
        let in_force = self.prices.at(piece.first_arrival).unwrap_or_default();
        let is_older = self
            .prices
            .since
            .iter()
            .position(|(_, version)| version == text("price_version"))
            < self
                .prices
                .since
                .iter()
                .position(|(_, version)| version == in_force);
        if is_older {
            return Err(format!(
                "{id} has the prices {}, which were replaced before it came",
                text("price_version")
            ));
        }
        let told = [
            call.workspace,
            &call.customer,
            call.feature,
            call.user,
            call.plan,
            &call.session,
            call.model,
        ];
        let named = [
            "workspace",
            "customer",
            "feature",
            user,
            "plan",
            "session",
            "model",
        ]
        .map(text);
        let (time, found) = (i128::from(call.time), number("time"));
        if told != named || time != found {
            return Err(format!(
                "{id} is {named:?} {found} in its row, told {told:?} {time}"
            ));
        }
        let version = number("budget_version") as u64;
        let Some(budgets) = self.versions.get(&version) else {
            return Err(format!(
                "{id} was counted by budgets of version {version}, which never were"
            ));
        };
        let sum = Sum {
            nanos: number("cost"),
            tokens: more.iter().sum(),
            calls: number("calls"),
        };
        self.counted += 1;
        let current = self.versions.last_key_value().map(|(_, current)| current);
        let goes_on =
            |count: usize| current.is_some_and(|all| all.values().any(|(_, one)| *one == count));
        for (budget, count) in budgets.values() {
            if !goes_on(*count) {
                continue;
            }
            let Some(scope) = budget.scope_of(call) else {
                continue;
            };
            let (start, end) = budget.window_at(call.time.div_euclid(MINUTE) * MINUTE);
            let place = Place {
                budget: budget.id.clone(),
                count: *count,
                scope,
                start,
            };
            let like = call.clone();
            let begin = || Expected {
                sum: Sum::default(),
                end,
                like,
            };
            self.accounts
                .entry(place)
                .or_insert_with(begin)
                .sum
                .add(sum);
        }
        sent.stands = Some(stands);
        Ok(())
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
        if text("kind") == "spent" {
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
            if !is_closed(expected, ledger_time) {
                continue;
            }
            let key = (place.budget.clone(), place.scope.clone(), place.start);
            let mut found = Sum::default();
            let lines = self.written_off.get(&key).into_iter().flatten();
            let of_this_count = lines.filter(|(at, _)| *at >= self.began[place.count]);
            of_this_count.for_each(|(_, sum)| found.add(*sum));
            if found != expected.sum {
                return Err(format!(
                    "{place:?} closed with {found:?}, counted {:?}",
                    expected.sum
                ));
            }
        }
        let is_over =
            |end: Option<i64>, more: i64| end.is_some_and(|end| end + GRACE + more <= ledger_time);
        self.accounts
            .retain(|_, expected| !is_over(expected.end, 40 * DAY));
        self.sent
            .retain(|_, sent| sent.last_arrival + 40 * DAY > ledger_time);
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
