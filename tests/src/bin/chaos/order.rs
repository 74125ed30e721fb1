//! Watches on the wire that a worker fences its predecessor (`InitProducerId`) before it joins its
//! group, and so before it reads the state that the predecessor might still be writing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use spendfuse_testkit::proxy::{ApiKey, Request};

use crate::system::ID_PREFIX;

const STAGES: [&str; 2] = ["meter", "ledger"];

/// What was seen of every worker since its process was started.
#[derive(Default)]
pub struct StartOrder {
    /// When a worker's process was started and whether it has fenced its predecessor, by
    /// transactional id.
    fenced: Mutex<BTreeMap<String, (Instant, bool)>>,
    wrong: Mutex<Vec<String>>,
}

impl StartOrder {
    /// A processor's process begins.
    pub fn started(&self, instance: &str) {
        let mut fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in STAGES {
            fenced.insert(
                format!("{ID_PREFIX}-{stage}-{instance}-0"),
                (Instant::now(), false),
            );
        }
    }

    /// A request passes on a connection that was opened at this time.
    pub fn seen(&self, request: &Request<'_>, opened: Instant) {
        if request.api != ApiKey::INIT_PRODUCER_ID && request.api != ApiKey::JOIN_GROUP {
            return;
        }
        let mut fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, (started, is_fenced)) in fenced.iter_mut() {
            if opened < *started {
                // A process that was killed while the network was silent.
                continue;
            }
            if request.api == ApiKey::INIT_PRODUCER_ID {
                *is_fenced |= request.mentions(id);
                continue;
            }
            // A transactional id is the group's name and the member's.
            let Some((group, member)) = id.match_indices('-').nth(1).map(|(at, _)| id.split_at(at))
            else {
                continue;
            };
            let joins = request.mentions(group) && request.mentions(&member[1..]);
            if joins && !*is_fenced {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                wrong.push(format!(
                    "{id} joined its group before it fenced its predecessor"
                ));
            }
        }
    }

    /// Every time that a worker did it the other way round.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self
            .wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        wrong.dedup();
        wrong
    }
}
