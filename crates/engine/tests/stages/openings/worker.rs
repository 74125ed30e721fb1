//! A partition of the ledger with what it has written, which crashes and goes on from there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::{Ledger, Openings};

use super::histories::Fault;
use super::rows::Random;
use super::{ledger_config, now};

pub(super) struct Worker {
    pub(super) ledger: Ledger,
    pub(super) partition: u32,
    pub(super) version: usize,
    pub(super) seq: u64,
    pub(super) changelog: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) deltas: Vec<VecDeque<Deltas>>,
    pub(super) openings: VecDeque<Openings>,
    pub(super) fault: Option<Fault>,
}

impl Worker {
    pub(super) fn open(&mut self, books: &[Arc<BudgetBook>], fault: Option<Fault>) {
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

    pub(super) fn batch(
        &mut self,
        random: &mut Random,
        books: &[Arc<BudgetBook>],
        crash: bool,
    ) -> bool {
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
