//! Rows of table `spend`: what each must say, and what it adds to which account.

use spendfuse_domain::correction::EntryPlace;

use super::{Counted, Expected, Piece, Place, Reference, Version};
use crate::budget::{Budget, Sum};
use crate::calendar::MINUTE;
use crate::corrections::{Entry, Standing};
use crate::native::{Row, Value};
use crate::process::HORIZON;
use crate::traffic::Call;

/// A row of table `spend`.
#[derive(Clone, Copy)]
pub(super) struct SpendRow<'r>(&'r Row);

impl<'r> SpendRow<'r> {
    pub(super) fn text(self, name: &str) -> &'r str {
        self.0.get(name).map_or("", Value::text)
    }

    pub(super) fn number(self, name: &str) -> i128 {
        self.0.get(name).map_or(0, Value::number)
    }

    pub(super) fn tokens(self) -> [i128; 3] {
        ["input_tokens", "cache_read_tokens", "output_tokens"].map(|name| self.number(name))
    }

    pub(super) fn parts(self) -> [i128; 3] {
        ["cost_input", "cost_cache_read", "cost_output"].map(|name| self.number(name))
    }

    pub(super) fn names(self) -> [&'r str; 7] {
        // Its name before schema 2.
        let user = match self.0.contains_key("user") {
            true => "user",
            false => "user_id",
        };
        [
            "workspace",
            "customer",
            "feature",
            user,
            "plan",
            "session",
            "model",
        ]
        .map(|name| self.text(name))
    }

    /// Where it was counted, or with the prefix `amends` the entry that it amends.
    pub(super) fn place(self, prefix: &str) -> EntryPlace {
        let epoch = match prefix {
            "meter" => self.number("epoch"),
            _ => self.number("amends_epoch"),
        };
        let number = |name: &str| self.number(&format!("{prefix}_{name}"));
        EntryPlace {
            epoch: epoch as u32,
            partition: number("partition") as u32,
            seq: number("seq") as u64,
            index: number("index") as u32,
        }
    }

    pub(super) fn sum(self) -> Sum {
        Sum {
            nanos: self.number("cost"),
            tokens: self.tokens().iter().sum(),
            calls: self.number("calls"),
        }
    }
}

impl Reference {
    /// Takes a new row of table `spend`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn row(&mut self, row: &Row) -> Result<(), String> {
        let row = SpendRow(row);
        match self.corrections.contains_key(row.text("event_id")) {
            true => self.row_of_correction(row),
            false => self.row_of_call(row),
        }
    }

    fn row_of_call(&mut self, row: SpendRow<'_>) -> Result<(), String> {
        let id = row.text("event_id");
        let Some(sent) = self.sent.get(id) else {
            return Err(format!("a row of {id}, which was never told or long ago"));
        };
        let entry = sent.entry.as_ref();
        let stood = entry.and_then(|entry| entry.stands.as_ref());
        let (had, cost) = stood.map_or(([0; 3], [0; 3]), |one| (one.call.tokens(), one.parts));
        let (more, costs_more) = (row.tokens(), row.parts());
        let has = [0, 1, 2].map(|class| had[class] + more[class]);
        let is_told = |piece: &&Piece| piece.call.tokens() == has;
        let expected = match entry {
            None => ("usage", 1),
            Some(_) => ("correction", 0),
        };
        let found = (row.text("kind"), row.number("calls"));
        let piece = sent.pieces.iter().find(is_told);
        let piece = piece.filter(|piece| sent.lacks(piece) && found == expected);
        let Some(piece) = piece else {
            let (at, received_at) = (row.place("meter"), row.number("received_at"));
            return Err(format!(
                "{id} has a row {found:?} of {more:?} tokens beside {stood:?}, at {at}, of {received_at}"
            ));
        };
        let stands = Standing {
            call: piece.call.clone(),
            parts: [0, 1, 2].map(|part| cost[part] + costs_more[part]),
            priced: "book",
            price_version: row.text("price_version").to_owned(),
        };
        self.is_as_told(row, piece, &stands)?;
        let version = row.number("budget_version") as u64;
        self.add(row, &stands.call, version)?;
        self.counted += 1;
        if let Some(sent) = self.sent.get_mut(id) {
            let begin = || Entry {
                place: row.place("meter"),
                received_at: row.number("received_at") as i64,
                budget_version: version,
                stands: None,
                stood: None,
                corrections: 0,
            };
            sent.entry.get_or_insert_with(begin).stands = Some(stands);
        }
        Ok(())
    }

    /// Compares the row of a piece, after which `stands` stands, with what was told.
    fn is_as_told(
        &self,
        row: SpendRow<'_>,
        piece: &Piece,
        stands: &Standing,
    ) -> Result<(), String> {
        let (call, id) = (&piece.call, &piece.call.id);
        let late_by = piece.first_arrival - call.time;
        if late_by > HORIZON {
            return Err(format!("{id} was counted though it came {late_by} ms late"));
        }
        let (version, costs) = (&stands.price_version, stands.nanos());
        let cost = self.prices.cost(version, call);
        if cost != Some(costs) || row.number("cost") != row.parts().iter().sum::<i128>() {
            return Err(format!(
                "{id} costs {costs}, expected {cost:?} by {version}"
            ));
        }
        let in_force = self.prices.at(piece.first_arrival).unwrap_or_default();
        let age = |wanted: &str| {
            let mut versions = self.prices.since.iter();
            versions.position(|(_, version)| version == wanted)
        };
        if age(version) < age(in_force) {
            return Err(format!(
                "{id} has the prices {version}, which were replaced before it came"
            ));
        }
        has_names(row, call)
    }

    /// Adds a row's sums to every budget that counts `call`, whose first event was counted by the budgets
    /// of version `counted_with`.
    pub(super) fn add(
        &mut self,
        row: SpendRow<'_>,
        call: &Call,
        counted_with: u64,
    ) -> Result<(), String> {
        let version = row.number("budget_version") as u64;
        let Some(budgets) = self.versions.get(&version) else {
            return Err(format!(
                "{} was counted by budgets of version {version}, which never were",
                call.id
            ));
        };
        let counted = Counted {
            call: call.clone(),
            sum: row.sum(),
        };
        let then = self.versions.get(&counted_with);
        let current = self.versions.last_key_value().map(|(_, current)| current);
        for (id, (budget, count)) in current.into_iter().flatten() {
            let has_it = |all: &Version| all.get(id).is_some_and(|(_, one)| one == count);
            let is_since = has_it(budgets) && then.is_some_and(has_it);
            let place = counted.place(budget, *count);
            let counts =
                |(place, _): &(Place, _)| is_since || has_all(budget, place, self.began[*count]);
            if let Some((place, end)) = place.filter(counts) {
                let begin = || Expected::begin(end, call);
                let account = self.accounts.entry(place).or_insert_with(begin);
                account.counted.add(counted.sum);
            }
        }
        self.rows.push(counted);
        Ok(())
    }

    /// A new count begins with what was spent before in its window, in any set of topics.
    pub(super) fn add_rows_of_before(&mut self, budget: &Budget, count: usize) {
        for row in &self.rows {
            let place = row.place(budget, count);
            let counts = |(place, _): &(Place, _)| has_all(budget, place, self.began[count]);
            if let Some((place, end)) = place.filter(counts) {
                let begin = || Expected::begin(end, &row.call);
                let account = self.accounts.entry(place).or_insert_with(begin);
                account.counted.add(row.sum);
            }
        }
    }
}

impl Counted {
    /// The place in which a budget in this count has it, and that place's end; `None` where it does not.
    fn place(&self, budget: &Budget, count: usize) -> Option<(Place, Option<i64>)> {
        let scope = budget.scope_of(&self.call)?;
        let (start, end) = budget.window_at(self.call.time.div_euclid(MINUTE) * MINUTE);
        let place = Place {
            budget: budget.id.clone(),
            count,
            scope,
            start,
        };
        Some((place, end))
    }
}

/// Whether a count that began at `began` has every row of a place: those of before are its opening, where
/// its file does not say that itself.
fn has_all(budget: &Budget, place: &Place, began: i64) -> bool {
    !budget.has_opening() && place.start >= budget.window_at(began).0
}

/// # Errors
/// The row names somebody else, or another time.
pub(super) fn has_names(row: SpendRow<'_>, call: &Call) -> Result<(), String> {
    let (told, named) = (call.names(), row.names());
    let (time, found) = (i128::from(call.time), row.number("time"));
    match told == named && time == found {
        true => Ok(()),
        false => Err(format!(
            "{} is {named:?} {found} in its row, told {told:?} {time}",
            call.id
        )),
    }
}
