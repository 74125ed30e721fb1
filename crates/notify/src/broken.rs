//! When the notifier's state is written, and how that is broken on purpose.

use spendfuse_broken::{Break, is_broken};

/// A record of the changelog: its key and its value, `None` where it is gone.
type Change = (String, Option<Vec<u8>>);

/// What has changed is written in the transaction of what changed it: nothing is ever held back.
#[derive(Debug, Default)]
pub(crate) struct HeldBack(Vec<Change>);

impl HeldBack {
    /// What the running transaction writes of what has changed in it.
    pub(crate) fn written_now(&mut self, changes: Vec<Change>) -> Vec<Change> {
        match is_broken(Break::DeliveryStateOutsideTransaction) {
            false => changes,
            true => std::mem::replace(&mut self.0, changes),
        }
    }

    /// Whether something waits for the next transaction.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }
}
