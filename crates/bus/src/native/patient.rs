//! Calls of librdkafka that may never return, for a caller that must.
//!
//! `rd_kafka_send_offsets_to_transaction` (2.12.1) takes a time-out, and waits for its answer without
//! one: the request to the group's coordinator is kept until some broker's state changes, and a client
//! that has forgotten its brokers (`kept`) has none whose state could; where a coordinator takes requests
//! and does not answer it waits for `socket.timeout.ms`, a minute. A worker stood in it for 20 minutes
//! (seen after a broker was frozen). So it is called on a thread of its own, which in such a moment
//! stays behind with the client until the call returns.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

type Call<T> = Box<dyn FnOnce() -> T + Send>;

/// A thread that calls for somebody else.
pub(crate) struct PatientCaller<T> {
    /// None once a call was given up: its answer would be taken for that of the next one.
    calls: Cell<Option<Sender<Call<T>>>>,
    answers: Receiver<T>,
}

impl<T: Send + 'static> PatientCaller<T> {
    /// It ends when this is dropped and nothing is called any more.
    ///
    /// # Panics
    /// Where the system has no thread left.
    pub(crate) fn new() -> Self {
        let (calls, todo) = channel::<Call<T>>();
        let (answered, answers) = channel();
        thread::Builder::new()
            .name("patient-caller".to_owned())
            .spawn(move || {
                for call in todo {
                    if answered.send(call()).is_err() {
                        return;
                    }
                }
            })
            .expect("the system has a thread for a client that has three of its own");
        Self {
            calls: Cell::new(Some(calls)),
            answers,
        }
    }

    /// What a call returns; `None` where that takes longer than `limit`, and from then on.
    pub(crate) fn call(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let calls = self.calls.take()?;
        calls.send(Box::new(call)).ok()?;
        let answer = self.answers.recv_timeout(limit).ok()?;
        self.calls.set(Some(calls));
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_return_is_given_up() {
        let caller = PatientCaller::new();
        let long = Duration::from_secs(30);
        assert_eq!(caller.call(long, || 1), Some(1));
        let (release, held) = channel::<()>();
        let waiting = move || held.recv().map_or(2, |()| 3);
        assert_eq!(caller.call(Duration::from_millis(20), waiting), None);
        drop(release);
        assert_eq!(caller.call(long, || 4), None, "not the answer of before");
    }
}
