//! How many answers were told of batches that have them in it. Asked for again, as whoever waits for a
//! batch or lists all of them does, they are not told again; what was left goes on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Batches that are remembered at once; then all are forgotten, and told again where they are read.
const MOST: usize = 10_000;

/// Stands for a batch with all that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Of what names a batch, and its answers.
    pub(super) fn of(names: &[&str], answers: &[&RawValue]) -> Self {
        let texts = names.iter().copied();
        let texts = texts.chain(answers.iter().map(|answer| answer.get()));
        let mut digest = Sha256::new();
        for text in texts {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        Self(digest.finalize().into())
    }
}

/// Since the proxy has begun. Told is what is in its memory until it is safe.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<Digest, usize>>);

impl Told {
    /// So many first answers of a batch were told.
    pub(super) fn count(&self, batch: &Digest) -> usize {
        self.lock().get(batch).copied().unwrap_or(0)
    }

    pub(super) fn reached(&self, batch: Digest, count: usize) {
        let mut all = self.lock();
        if all.len() >= MOST && !all.contains_key(&batch) {
            all.clear();
        }
        let told = all.entry(batch).or_default();
        *told = count.max(*told);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(names: &[&str], answers: &[&str]) -> Digest {
        let raw = |text: &&str| RawValue::from_string((*text).to_owned()).unwrap();
        let raw: Vec<Box<RawValue>> = answers.iter().map(raw).collect();
        let answers: Vec<&RawValue> = raw.iter().map(|one| &**one).collect();
        Digest::of(names, &answers)
    }

    #[test]
    fn batches_that_say_other_things_are_others() {
        let batch = digest(&["gemini", "acme", "b"], &["1", "2"]);
        assert_eq!(batch, digest(&["gemini", "acme", "b"], &["1", "2"]));
        for (names, answers) in [
            (["gemini", "other", "b"], &["1", "2"][..]),
            (["gemini", "acmeb", ""], &["1", "2"][..]),
            (["gemini", "acme", "b"], &["12"][..]),
            (["gemini", "acme", "b"], &["1", "2", "3"][..]),
        ] {
            assert_ne!(batch, digest(&names, answers), "{names:?} {answers:?}");
        }
    }

    #[test]
    fn what_was_told_is_remembered_and_not_without_bound() {
        let told = Told::default();
        let batch = |number: usize| digest(&[&number.to_string()], &[]);
        assert_eq!(told.count(&batch(0)), 0);
        told.reached(batch(0), 7);
        // Somebody who reads the same is behind.
        told.reached(batch(0), 3);
        assert_eq!((told.count(&batch(0)), told.count(&batch(1))), (7, 0));
        for number in 1..MOST {
            told.reached(batch(number), 1);
        }
        assert_eq!(told.count(&batch(0)), 7);
        told.reached(batch(MOST), 1);
        assert_eq!(told.lock().len(), 1);
    }
}
