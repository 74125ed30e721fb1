//! The counts of a usage object, each in its slot.

use super::meaning::Slot;
use crate::money::Nanos;
use crate::units::{Quantity, UnitKind};

/// Those that say something of the input, by their bits in [`Counts::seen`].
const INPUT_BITS: u32 = bits(&[
    Slot::Input,
    Slot::BilledInput,
    Slot::CacheRead,
    Slot::CacheWrite,
    Slot::CacheWrite5m,
    Slot::CacheWrite1h,
    Slot::CacheWrite30m,
    Slot::CacheWrite12h,
    Slot::ForeignCacheRead,
    Slot::ForeignCacheWrite,
    Slot::AudioInput,
    Slot::ImageInput,
    Slot::VideoInput,
    Slot::ToolInput,
    Slot::Total,
]);

const fn bits(slots: &[Slot]) -> u32 {
    match slots {
        [] => 0,
        [slot, others @ ..] => 1 << *slot as u32 | bits(others),
    }
}

const SLOTS: usize = Slot::BilledOutput as usize + 1;
/// Each has a bit in [`Counts::seen`].
const _: () = assert!(SLOTS <= u32::BITS as usize);

/// The counts that were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    values: [u64; SLOTS],
    seen: u32,
    members: u32,
    /// Members that the format knows, nulls included.
    known: u32,
    problem: Option<Problem>,
    /// The first number that nothing reads and that looks billed.
    unread: Option<Box<str>>,
    pub(super) audio_seconds: Quantity,
    /// Each kind once.
    pub(super) units: Vec<(UnitKind, u64)>,
    pub(super) charge: Option<Nanos>,
    /// Whether the provider behind a gateway charges its own customer, and how much.
    pub(super) is_own_key: bool,
    pub(super) charge_behind: Option<Nanos>,
    /// Whether some of the output is told to be text.
    has_text_output: bool,
}

#[derive(Clone, Debug)]
struct Problem {
    path: String,
    what: &'static str,
    wanted: &'static str,
}

impl Counts {
    pub(super) fn get(&self, slot: Slot) -> u64 {
        self.values[slot as usize]
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.seen & (1 << slot as u32) != 0
    }

    /// What is charged by all who charge; `None` where somebody does not say.
    pub(super) fn whole_charge(&self) -> Option<Nanos> {
        if !self.is_own_key {
            return self.charge;
        }
        Some(self.charge.unwrap_or(Nanos::ZERO) + self.charge_behind?)
    }

    /// Whether it is told what the output is made of, thoughts aside. Zeros do not say it.
    pub(super) fn says_kind_of_output(&self) -> bool {
        self.has_text_output || self.get(Slot::AudioOutput) + self.get(Slot::ImageOutput) > 0
    }

    pub(super) fn note_text_output(&mut self) {
        self.has_text_output = true;
    }

    /// A total is all that is said.
    pub(super) fn has_only_total(&self) -> bool {
        self.seen == 1 << Slot::Total as u32
    }

    /// Anything is said of the input; an answer alone is the end of a stream without its start.
    pub(super) fn says_input(&self) -> bool {
        self.seen & INPUT_BITS != 0
    }

    /// Members there are, but none that the format knows.
    pub(super) fn nothing_known(&self) -> bool {
        self.known == 0 && self.members > 0
    }

    /// How well the format fits: whether all that looks billed is read, and how much is known.
    pub(super) fn fit(&self) -> (bool, u32) {
        (self.unread.is_none(), self.known)
    }

    /// The path of the first number that nothing reads and that looks billed.
    pub(super) fn unread(&mut self) -> Option<Box<str>> {
        self.unread.take()
    }

    pub(super) fn note_unread(&mut self, path: String) {
        self.unread
            .get_or_insert_with(|| super::unread::told(&path));
    }

    pub(super) fn problem(&self) -> Option<String> {
        let Problem { path, what, wanted } = self.problem.as_ref()?;
        Some(format!("data.usage.{path} is {what}; it must be {wanted}"))
    }

    /// A member was met.
    pub(super) fn note_member(&mut self) {
        self.members += 1;
    }

    /// It is one that the format knows.
    pub(super) fn note_known(&mut self) {
        self.known += 1;
    }

    pub(super) fn see(&mut self, slot: Slot) {
        self.seen |= 1 << slot as u32;
    }

    /// Of two names for one slot the larger count stands.
    pub(super) fn keep_larger(&mut self, slot: Slot, count: u64) {
        let value = &mut self.values[slot as usize];
        *value = count.max(*value);
    }

    pub(super) fn add_units(&mut self, kind: UnitKind, count: u64) {
        match self.units.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, units)) => *units = (*units).max(count),
            None => self.units.push((kind, count)),
        }
    }

    /// Elements of a list with equal labels add up.
    pub(super) fn add(&mut self, slot: Slot, count: u64) {
        self.values[slot as usize] += count;
    }

    pub(super) fn note_problem(&mut self, path: String, what: &'static str, wanted: &'static str) {
        let problem = Problem { path, what, wanted };
        self.problem.get_or_insert(problem);
    }

    /// What was noted of a part is noted of the whole.
    pub(super) fn take_notes(&mut self, part: &mut Self) {
        if let Some(problem) = part.problem.take() {
            self.problem.get_or_insert(problem);
        }
        if let Some(path) = part.unread.take() {
            self.unread.get_or_insert(path);
        }
    }
}
