//! The keys in force.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use metrics::gauge;

use super::failures::Failures;
use super::{Key, KeyHash};
use crate::metrics::KEYS;

/// Keys that cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// Its name, or its hash, is that of another one.
    #[error("two keys are named {0}, or have one hash: give each a name and a key of its own")]
    Twice(String),
}

/// The keys in force. Cloning is cheap, and all clones have the same ones.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Arc<Ring>);

#[derive(Debug, Default)]
struct Ring {
    keys: ArcSwap<Keys>,
    /// Whether there were any: when all of them are taken away, nobody may ask any more.
    are_used: AtomicBool,
    failures: Failures,
}

#[derive(Debug, Default)]
struct Keys {
    all: Vec<Arc<Key>>,
    by_first: HashMap<u64, Vec<Arc<Key>>>,
    /// The workspaces of the keys that name an upstream; `None` is that of a key of all.
    owners: HashMap<String, BTreeSet<Option<String>>>,
    /// Those of all keys; as above.
    workspaces: BTreeSet<Option<String>>,
}

impl Keyring {
    /// A ring of `keys`.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn new(keys: Vec<Key>) -> Result<Self, BadKeys> {
        let ring = Self::default();
        ring.replace(keys)?;
        Ok(ring)
    }

    /// From now on these keys are in force, and no others.
    ///
    /// # Errors
    /// [`BadKeys`]; the former ones stay in force.
    pub fn replace(&self, keys: Vec<Key>) -> Result<(), BadKeys> {
        let all: Vec<_> = keys.into_iter().map(Arc::new).collect();
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut by_first: HashMap<u64, Vec<Arc<Key>>> = HashMap::new();
        let mut owners: HashMap<String, BTreeSet<Option<String>>> = HashMap::new();
        let workspaces = all.iter().map(|key| key.workspace.clone()).collect();
        for key in &all {
            if !names.insert(&key.name) || !hashes.insert(key.hash.0) {
                return Err(BadKeys::Twice(key.name.clone()));
            }
            let alike = by_first.entry(key.hash.first()).or_default();
            alike.push(Arc::clone(key));
            for upstream in &key.upstreams {
                let owners = owners.entry(upstream.clone()).or_default();
                owners.insert(key.workspace.clone());
            }
        }
        if !all.is_empty() {
            self.0.are_used.store(true, Ordering::Release);
        }
        gauge!(KEYS).set(all.len() as f64);
        self.0.keys.store(Arc::new(Keys {
            all,
            by_first,
            owners,
            workspaces,
        }));
        Ok(())
    }

    /// Whether requests must present one.
    pub fn is_used(&self) -> bool {
        self.0.are_used.load(Ordering::Acquire)
    }

    /// Those in force, in their files' order.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.0.keys.load().all.clone()
    }

    /// The key that is presented, wherever that may be done.
    pub(super) fn find(&self, presented: &[u8]) -> Option<Arc<Key>> {
        let hash = KeyHash::of(presented);
        let keys = self.0.keys.load();
        let alike = keys.by_first.get(&hash.first())?;
        alike.iter().find(|key| key.hash.is(&hash)).cloned()
    }

    pub(super) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Whether a key names this upstream: it is for no others then.
    pub fn is_owned(&self, upstream: &str) -> bool {
        self.0.keys.load().owners.contains_key(upstream)
    }

    /// Whether any key is not of this workspace alone.
    pub fn are_others_than(&self, workspace: &str) -> bool {
        let keys = self.0.keys.load();
        let mut workspaces = keys.workspaces.iter();
        workspaces.any(|one| one.as_deref() != Some(workspace))
    }

    /// Whether all keys that name this upstream are of this workspace.
    pub fn is_owned_by(&self, upstream: &str, workspace: &str) -> bool {
        let keys = self.0.keys.load();
        let owners = keys.owners.get(upstream);
        owners.is_some_and(|owners| {
            owners
                .iter()
                .all(|owner| owner.as_deref() == Some(workspace))
        })
    }
}
