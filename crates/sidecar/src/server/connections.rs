//! Who is connected, and who makes room when there is none.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::{CONNECTIONS, CONNECTIONS_CUT};

/// Where a connection stands while its request is being answered.
const ANSWERING: u64 = u64::MAX;
/// How soon another one is asked to go, where the first does not.
const NEXT_CUT: Duration = Duration::from_millis(20);

/// Whoever is at the other end.
pub trait Peer {
    /// Its address; `None` where it has none, as on a Unix socket.
    fn address(&self) -> Option<IpAddr>;
}

impl Peer for SocketAddr {
    fn address(&self) -> Option<IpAddr> {
        Some(self.ip().to_canonical())
    }
}

impl Peer for tokio::net::unix::SocketAddr {
    fn address(&self) -> Option<IpAddr> {
        None
    }
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    address: Option<IpAddr>,
    /// Milliseconds since the listener began, or [`ANSWERING`].
    waiting_since: AtomicU64,
    cut: Notify,
    all: Weak<Registry>,
}

impl Connection {
    /// The next thing to happen is the client's: a request's head, its body, taking the answer.
    pub fn waits_for_client(&self) {
        if let Some(all) = self.all.upgrade() {
            self.waiting_since
                .store(all.elapsed_millis(), Ordering::Relaxed);
        }
    }

    /// The next thing to happen is ours: the whole request is here, or more of an answer is to come.
    pub fn answers(&self) {
        self.waiting_since.store(ANSWERING, Ordering::Relaxed);
    }

    /// It is to end at once, whatever is under way.
    pub fn end(&self) {
        self.cut.notify_one();
    }

    /// Where the client is.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Ready when the connection is to end at once.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.lock().remove(&self.id);
            gauge!(CONNECTIONS).decrement(1.0);
        }
    }
}

/// The connections of one listener.
pub(super) struct Connections {
    room: Arc<Semaphore>,
    all: Arc<Registry>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Registry {
    began: Instant,
    open: Mutex<HashMap<u64, Weak<Connection>>>,
}

impl Registry {
    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(ANSWERING - 1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients that are waited for, and since when.
    fn waited_for(&self) -> Vec<(u64, Arc<Connection>)> {
        // The references are given up only when the lock is: to drop a connection takes it too.
        let open: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let since = |connection: Arc<Connection>| {
            let since = connection.waiting_since.load(Ordering::Relaxed);
            (since != ANSWERING).then_some((since, connection))
        };
        open.into_iter().filter_map(since).collect()
    }
}

impl Connections {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(at_most.max(1))),
            all: Arc::new(Registry {
                began: Instant::now(),
                open: Mutex::default(),
            }),
            next_id: AtomicU64::new(0),
        }
    }

    /// Takes a client in. Where there is no room, the one waited for longest has to go.
    pub(super) async fn admit(
        &self,
        address: Option<IpAddr>,
    ) -> (Arc<Connection>, OwnedSemaphorePermit) {
        let room = loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
                break room;
            }
            let waited_for = self.all.waited_for();
            if let Some((_, longest)) = waited_for.iter().min_by_key(|(since, _)| *since) {
                longest.cut.notify_one();
                counter!(CONNECTIONS_CUT, "reason" => "no_room").increment(1);
            }
            drop(waited_for);
            // All may be answering: then one of them ends, or begins to wait.
            let freed = timeout(NEXT_CUT, Arc::clone(&self.room).acquire_owned());
            if let Ok(Ok(room)) = freed.await {
                break room;
            }
        };
        let connection = Arc::new(Connection {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            address,
            waiting_since: AtomicU64::new(self.all.elapsed_millis()),
            cut: Notify::new(),
            all: Arc::downgrade(&self.all),
        });
        let entry = Arc::downgrade(&connection);
        self.all.lock().insert(connection.id, entry);
        gauge!(CONNECTIONS).increment(1.0);
        (connection, room)
    }

    /// Ends connections whose clients have been waited for longer than `patience`.
    pub(super) fn cut_those_waited_for(&self, patience: Duration) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let now = self.all.elapsed_millis();
        for (since, connection) in self.all.waited_for() {
            if now.saturating_sub(since) > patience {
                connection.cut.notify_one();
                counter!(CONNECTIONS_CUT, "reason" => "too_slow").increment(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_client_waited_for_longest_makes_room_and_one_being_answered_never() {
        let connections = Connections::new(2);
        let (answered, _answered_room) = connections.admit(None).await;
        answered.answers();
        let (slow, slow_room) = connections.admit(None).await;
        let cut = tokio::spawn(async move {
            slow.cut().await;
            drop((slow, slow_room));
        });
        let (_, _room) = connections.admit(None).await;
        cut.await.unwrap();
        assert!(
            timeout(Duration::from_millis(1), answered.cut())
                .await
                .is_err()
        );
        assert_eq!(connections.all.waited_for().len(), 0);
    }
}
