//! What a stop waits for: calls whose events are not safe yet.

use std::sync::Arc;

use tokio::sync::watch;

use crate::holds::Holds;
use crate::proxy::Proxy;
use crate::starts::{Start, Starts};

/// Something that a stop waits for.
pub(crate) struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    pub(crate) fn begin(proxy: &Proxy) -> Self {
        proxy.under_way.send_modify(|count| *count += 1);
        Self(Arc::clone(&proxy.under_way))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// One of the calls whose events are not safe yet: a stop waits for them.
pub(crate) struct UnderWay {
    _busy: Busy,
    starts: Arc<Starts>,
    call: String,
    holds: Arc<Holds>,
    /// What is held for it until then.
    reservation: Option<String>,
}

impl UnderWay {
    pub(crate) fn begin(proxy: &Proxy, start: impl FnOnce() -> Start, call: &str) -> Self {
        proxy.starts.begin(start);
        Self {
            _busy: Busy::begin(proxy),
            starts: Arc::clone(&proxy.starts),
            call: call.to_owned(),
            holds: Arc::clone(&proxy.holds),
            reservation: None,
        }
    }

    /// So much is held for the call until its event is safe.
    pub(crate) fn hold(&mut self, reservation: &str) {
        self.holds.begin(reservation);
        self.reservation = Some(reservation.to_owned());
    }

    /// The call is counted, or costs nothing.
    pub(crate) fn end(&self) {
        self.starts.end(&self.call);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(reservation) = &self.reservation {
            self.holds.end(reservation);
        }
    }
}
