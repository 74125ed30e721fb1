//! Random rows: calls, and what corrects them.

use super::CUSTOMERS;

/// xorshift64*
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % count
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A row of the warehouse.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) meter: usize,
    pub(super) version: u64,
    /// Of a correction: the version that its entry was counted with.
    pub(super) corrects: Option<u64>,
    pub(super) customer: &'static str,
    pub(super) is_free: bool,
    pub(super) cost: i128,
    pub(super) unpriced: i128,
    pub(super) calls: i64,
}

impl Row {
    pub(super) fn tokens(&self) -> i64 {
        7 * self.calls
    }
}

/// A call.
pub(super) fn fresh(random: &mut Random, meter: usize) -> Row {
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
pub(super) fn correction(random: &mut Random, rows: &[Row], meter: usize) -> Option<Row> {
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
