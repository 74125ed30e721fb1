//! Sessions that clients keep by a name (`session_id`): what they set stays from one request to the
//! next, and one request at a time may use them.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::EngineError;
use crate::pool::Session;

/// For how long an idle session is kept where the client does not say, as ClickHouse does.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Each holds a connection; beyond this the one that was idle for the longest goes.
const MOST_SESSIONS: usize = 200;
/// An answer is on its way before its session is free: the client's next request may be faster.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of a session and what the client asks of it.
#[derive(Debug, Clone)]
pub struct SessionName {
    id: String,
    /// How long it is kept idle.
    pub lasts: Duration,
    /// Whether it is an error that it does not exist.
    pub must_exist: bool,
}

impl SessionName {
    /// A session that is begun where it does not exist.
    pub fn new(id: String) -> Self {
        Self {
            id,
            lasts: DEFAULT_TIMEOUT,
            must_exist: false,
        }
    }
}

enum Place {
    Busy,
    Idle {
        session: Box<Session>,
        since: Instant,
        lasts: Duration,
    },
}

/// All sessions with a name.
#[derive(Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<String, Place>>,
    freed: Condvar,
}

impl Sessions {
    /// Takes the session of this name for one request; `None` where it is to be begun.
    pub fn take(&self, name: &SessionName) -> Result<Option<Session>, EngineError> {
        let is_busy =
            |by_id: &mut HashMap<String, Place>| matches!(by_id.get(&name.id), Some(Place::Busy));
        let waited = self
            .freed
            .wait_timeout_while(self.lock(), PATIENCE, is_busy);
        let (mut by_id, _) = waited.unwrap_or_else(PoisonError::into_inner);
        by_id.retain(|_, place| !place.is_over());
        match by_id.insert(name.id.clone(), Place::Busy) {
            Some(Place::Idle { session, .. }) => Ok(Some(*session)),
            Some(Place::Busy) => Err(format!(
                "Code: 373. DB::Exception: Session {} is locked by a concurrent client. (SESSION_IS_LOCKED)",
                name.id
            )),
            None if name.must_exist => {
                by_id.remove(&name.id);
                Err(format!(
                    "Code: 372. DB::Exception: Session {} not found. (SESSION_NOT_FOUND)",
                    name.id
                ))
            }
            None => Ok(None),
        }
    }

    /// Keeps a session for the next request that names it.
    pub fn keep(&self, name: &SessionName, session: Session) {
        let mut by_id = self.lock();
        let place = Place::Idle {
            session: Box::new(session),
            since: Instant::now(),
            lasts: name.lasts,
        };
        by_id.insert(name.id.clone(), place);
        if by_id.len() > MOST_SESSIONS {
            let idle = by_id.iter().filter_map(|(id, place)| match place {
                Place::Idle { since, .. } => Some((*since, id.clone())),
                Place::Busy => None,
            });
            if let Some((_, oldest)) = idle.min() {
                by_id.remove(&oldest);
            }
        }
        self.freed.notify_all();
    }

    /// A session that was taken does not come back.
    pub fn forget(&self, name: &SessionName) {
        self.lock().remove(&name.id);
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn is_over(&self) -> bool {
        match self {
            Self::Busy => false,
            Self::Idle { since, lasts, .. } => since.elapsed() > *lasts,
        }
    }
}
