//! What other sidecars hold, as far as they have told; and what an admission among several of them
//! needs to know of a guard ([`crate::inflight`]).

use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::{OnStale, Unit, UnixMillis, Verdict};

use super::cells::cell_of;
use super::parts::counted;
use super::reserve::{Admission, Planned, Reserving};
use crate::decision::{CheckRequest, Match};
use crate::digest::Kind;
use crate::freshness::Now;
use crate::guard::{Guard, Replica};
use crate::hash::EntryHash;

/// A budget that a call meets and that may refuse it.
#[derive(Clone, Debug)]
pub struct Met {
    /// `{budget}|{scope}`.
    pub key: Arc<str>,
    /// What the call is to hold of the budget.
    pub amount: i64,
    /// Whether the budget refuses where nobody knows how it stands.
    pub blocks_unsure: bool,
    /// The place of its entry: to find it by the key takes as long as a check.
    place: EntryHash,
}

/// At how much a budget blocks, in its unit.
fn blocks_at(compiled: &CompiledBudget) -> Option<i64> {
    let limit = compiled.until_block(0)?;
    Some(i64::try_from(limit).unwrap_or(i64::MAX))
}

impl Replica {
    fn with_budget<T>(&self, key: &str, of: impl FnOnce(&CompiledBudget) -> T) -> Option<T> {
        let (id, _) = key.split_once('|')?;
        let snapshot = self.snapshot.load();
        let budgets = &snapshot.budgets.budgets;
        let found = budgets.binary_search_by(|known| known.budget().id.as_str().cmp(id));
        Some(of(&budgets[found.ok()?].compiled))
    }

    /// The place of the cell of `key`, in the unit of its budget's limit.
    fn cell_of(&self, key: &str) -> EntryHash {
        self.cell_at(key, self.hasher.key(key))
    }

    /// The same where the place of its entry is known.
    fn cell_at(&self, key: &str, place: EntryHash) -> EntryHash {
        let unit = self.with_budget(key, |compiled| compiled.budget.limit.unit());
        cell_of(place, unit.map_or(Kind::Usd, Kind::of))
    }
}

impl Guard {
    /// The budgets with a step that blocks that a call meets, and of which it is to hold something.
    pub fn met(&self, request: &CheckRequest<'_>, planned: &Planned, now: Now) -> Vec<Met> {
        let admission = Admission::new(planned);
        let reasoned = self.check_with_reasons(request, now);
        let matches = reasoned.decision.matches.iter().zip(&reasoned.seen);
        let met = matches.filter_map(|(found, seen)| {
            let budget = reasoned.decision.compiled(found.budget);
            // Which limit a session has others may not have heard yet.
            if budget.budget().limit_from_event {
                return None;
            }
            if !budget.may_refuse(request, seen.entry.as_deref()) {
                return None;
            }
            let amount = counted(budget.unit, &admission.of(budget).spend);
            blocks_at(&budget.compiled).filter(|_| amount > 0)?;
            let scope = reasoned.scope_of(found);
            Some(Met {
                key: format!("{}|{scope}", budget.budget().id).into(),
                amount,
                blocks_unsure: budget.on_stale == OnStale::Block,
                place: seen.key,
            })
        });
        met.collect()
    }

    /// Other sidecars hold so much of `key` now.
    pub fn set_elsewhere(&self, key: &str, amount: i64) {
        let holds = &self.replica.holds;
        let hash = self.replica.hasher.key(key);
        let amount = (amount > 0).then_some(amount);
        if holds.elsewhere.get(hash) != amount {
            holds.elsewhere.publish(vec![(hash, amount)]);
        }
    }

    /// Other sidecars hold so much of these keys now, and nothing of any other.
    pub fn replace_elsewhere(&self, held: &[(Arc<str>, i64)]) {
        let holds = &self.replica.holds;
        let known: HashMap<EntryHash, i64> = { held.iter() }
            .filter(|(_, amount)| *amount > 0)
            .map(|(key, amount)| (self.replica.hasher.key(key), *amount))
            .collect();
        let mut changes: Vec<(EntryHash, Option<i64>)> = { known.iter() }
            .filter(|(hash, amount)| holds.elsewhere.get(**hash) != Some(**amount))
            .map(|(hash, amount)| (*hash, Some(*amount)))
            .collect();
        for shard in 0..holds.elsewhere.shard_count() {
            holds.elsewhere.for_each_in(shard, |hash, _| {
                changes.extend((!known.contains_key(&hash)).then_some((hash, None)));
            });
        }
        holds.elsewhere.publish(changes);
    }

    /// What calls hold here of `key`, pending ones included.
    pub fn held_of(&self, key: &str) -> i64 {
        self.replica.holds.cells.total(self.replica.cell_of(key))
    }

    /// The same of a budget that a call meets.
    pub fn held_at(&self, met: &Met) -> i64 {
        let cell = self.replica.cell_at(&met.key, met.place);
        self.replica.holds.cells.total(cell)
    }

    /// What of that is pending.
    pub fn pending_of(&self, key: &str) -> i64 {
        let cells = &self.replica.holds.cells;
        cells.held(self.replica.cell_of(key)).pending
    }

    /// By how much calls may take `key` beyond its limit all the same: those under way, should they
    /// cost as much as the dearest of their like here, and those that go on after their hold has ended.
    pub fn may_exceed(&self, key: &str) -> i64 {
        let key = self.replica.hasher.key(key);
        self.replica.holds.book().may_exceed(key)
    }

    /// What readers see as spent of `key`; to be read after what is held.
    pub fn spent_of(&self, key: &str, now: UnixMillis) -> i64 {
        self.spent(key, self.replica.hasher.key(key), now)
    }

    /// The same of a budget that a call meets.
    pub fn spent_at(&self, met: &Met, now: UnixMillis) -> i64 {
        self.spent(&met.key, met.place, now)
    }

    fn spent(&self, key: &str, place: EntryHash, now: UnixMillis) -> i64 {
        let entry = self.replica.current(place, now);
        let spent = entry.and_then(|entry| {
            let limit = self
                .replica
                .with_budget(key, |compiled| compiled.budget.limit)?;
            Some(entry.counted_by(limit).number())
        });
        spent.map_or(0, |spent| i64::try_from(spent).unwrap_or(i64::MAX))
    }

    /// At how much the budget of `key` blocks, and in which unit; `None` where it does not, or is not
    /// there any more.
    pub fn limit_of(&self, key: &str) -> Option<(i64, Unit)> {
        self.replica.with_budget(key, |compiled| {
            Some((blocks_at(compiled)?, compiled.budget.limit.unit()))
        })?
    }

    /// The call is refused, because others came before it in these budgets.
    pub fn refuse<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        planned: &Planned,
        keys: &[Arc<str>],
        now: Now,
    ) -> Reserving<'a> {
        let admission = Admission::new(planned);
        let mut asked = admission.asked;
        let mut reasoned = self.check_expecting(request, now, |budget| admission.of(budget).spend);
        let budgets = &reasoned.decision.snapshot.budgets.budgets;
        let hashes: Vec<EntryHash> = { keys.iter() }
            .map(|key| self.replica.hasher.key(key))
            .collect();
        let matches = reasoned.decision.matches.iter_mut();
        for (found, seen) in matches.zip(&reasoned.seen) {
            if hashes.contains(&seen.key) {
                asked = admission.of(&budgets[found.budget as usize]);
                if found.verdict < Verdict::Block {
                    *found = Match::held_up(found.budget);
                }
            }
        }
        reasoned.decision.verdict = Verdict::Block;
        Reserving {
            decision: reasoned,
            asked,
            hold: None,
        }
    }
}
