//! Follows what readers of verdicts are told of a budget's windows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_domain::Nanos;

use crate::lab::Lab;

/// What is published of a scope.
#[derive(Deserialize)]
struct Entry {
    spent_usd: Nanos,
    window_start: Value,
    counted_from: Value,
}

#[derive(Clone, Copy, Debug)]
struct State {
    spent: Nanos,
    /// Whether it holds all of its window.
    is_whole: bool,
}

#[derive(Debug, Default)]
struct States {
    by_scope: HashMap<String, State>,
    whole: usize,
    /// When the last one became whole.
    whole_at: Option<Instant>,
}

impl States {
    fn set(&mut self, scope: &str, state: Option<State>) {
        let before = match state {
            Some(state) => self.by_scope.insert(scope.to_owned(), state),
            None => self.by_scope.remove(scope),
        };
        let is_whole = |state: Option<State>| usize::from(state.is_some_and(|one| one.is_whole));
        self.whole = self.whole + is_whole(state) - is_whole(before);
        if is_whole(state) > is_whole(before) {
            self.whole_at = Some(Instant::now());
        }
    }
}

/// A reader of the committed states of one budget.
pub struct WindowsProbe {
    states: Arc<Mutex<States>>,
    _follower: Follower,
}

impl WindowsProbe {
    /// Follows the windows of `budget`, which has a limit in dollars.
    ///
    /// # Errors
    /// Where it cannot be followed.
    pub fn start(lab: &Lab, budget: &str) -> Result<Self> {
        let config = FollowerConfig {
            kafka: lab.kafka(),
            name: "bench-windows",
            topics: vec![lab.topic("blocklist")],
            partition: None,
            tombstones: Duration::from_secs(86_400),
        };
        let states = Arc::new(Mutex::new(States::default()));
        let (followed, prefix) = (Arc::clone(&states), format!("{budget}|"));
        let follower = Follower::start(config, move |event| match event {
            FollowerEvent::Record(record) => {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                let Some(scope) = key.and_then(|key| key.strip_prefix(&prefix)) else {
                    return;
                };
                match record.value.map(state_of).transpose() {
                    Ok(state) => lock(&followed).set(scope, state),
                    Err(error) => eprintln!("a state cannot be read: {error}"),
                }
            }
            FollowerEvent::Reset => *lock(&followed) = States::default(),
            FollowerEvent::Failed(error) => eprintln!("windows cannot be followed: {error}"),
            FollowerEvent::CaughtUp
            | FollowerEvent::Partitions { .. }
            | FollowerEvent::EndOfPartition { .. }
            | FollowerEvent::Drained
            | FollowerEvent::Recovered => {}
        })?;
        Ok(Self {
            states,
            _follower: follower,
        })
    }

    /// Waits until so many windows are told of as a whole; since when they are.
    ///
    /// # Errors
    /// Where they are not after `patience`.
    pub fn await_whole(&self, count: usize, patience: Duration) -> Result<Instant> {
        let began = Instant::now();
        loop {
            let (whole, whole_at) = {
                let states = lock(&self.states);
                (states.whole, states.whole_at)
            };
            if whole >= count {
                return Ok(whole_at.unwrap_or(began));
            }
            ensure!(
                began.elapsed() < patience,
                "{whole} of {count} windows are whole"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the windows are those of `wanted`, nano-dollars by scope: figures that moved by
    /// spend alone are told within a minute.
    ///
    /// # Errors
    /// Where they are not after `patience`, with one that differs.
    pub fn await_equal(&self, wanted: &HashMap<String, i128>, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let found = self.first_difference(wanted);
            let Some(difference) = found else {
                return Ok(());
            };
            ensure!(began.elapsed() < patience, "{difference}");
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn first_difference(&self, wanted: &HashMap<String, i128>) -> Option<String> {
        let states = lock(&self.states);
        let differs = wanted.iter().find_map(|(scope, wanted)| {
            let found = states.by_scope.get(scope).map(|state| state.spent.get());
            (found != Some(*wanted)).then(|| {
                format!(
                    "{scope}: readers know {found:?} nano-dollars, {wanted} are in the warehouse"
                )
            })
        });
        differs.or_else(|| {
            let (known, rows) = (states.by_scope.len(), wanted.len());
            (known != rows).then(|| format!("{known} windows, {rows} are in the warehouse"))
        })
    }
}

fn state_of(value: &[u8]) -> serde_json::Result<State> {
    let entry: Entry = serde_json::from_slice(value)?;
    Ok(State {
        spent: entry.spent_usd,
        is_whole: entry.counted_from == entry.window_start,
    })
}

fn lock(states: &Mutex<States>) -> MutexGuard<'_, States> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_once_it_counts_from_its_start() {
        let state = |counted_from: &str| {
            let value = format!(
                r#"{{"v":1,"spent_usd":"0.000000001","window_start":"2026-11-01T00:00:00Z","counted_from":"{counted_from}"}}"#
            );
            state_of(value.as_bytes()).expect("a state")
        };
        let mut states = States::default();
        states.set("a", Some(state("2026-11-22T10:00:00Z")));
        assert_eq!(states.whole, 0);
        states.set("a", Some(state("2026-11-01T00:00:00Z")));
        states.set("a", Some(state("2026-11-01T00:00:00Z")));
        states.set("b", Some(state("2026-11-01T00:00:00Z")));
        assert_eq!(states.whole, 2);
        assert_eq!(states.by_scope["a"].spent.get(), 1);
        states.set("a", None);
        assert_eq!((states.whole, states.by_scope.len()), (1, 1));
    }
}
