//! A TCP proxy between two parts that makes the network between them bad on demand.
//!
//! In: connections of clients. Out: the same bytes to and from the server behind it, but late, not
//! at all, only half of them, or without one chosen response. It reads the framing of Kafka's
//! protocol, so that it can lose the response of one request by name: the request was carried out,
//! and the client will never know. It can also leave the brokers out of what a cluster says about
//! itself. Called by the fault runs against real parts.

mod kafka;
mod metadata;
mod pump;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use kafka::{ApiKey, Request};

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka's: requests and responses are told apart.
    Kafka,
    /// Anything else.
    Bytes,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// Responses.
    Client,
    /// Requests.
    Server,
}

/// Called with every Kafka request that passes, before it is forwarded, and with the time at which
/// its connection was opened: what is held up may outlive its sender.
pub type Observer = Arc<dyn Fn(&Request<'_>, Instant) + Send + Sync>;

/// A running proxy. Dropped, it ends with all its connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

/// How the network is now; every connection follows changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conditions {
    /// Everything arrives this much later.
    delay: Duration,
    /// Nothing passes in these directions; what was sent arrives when it is over.
    silent_to_client: bool,
    silent_to_server: bool,
    /// Counts up: open connections end in one direction.
    half_closes: u64,
    half_closed: Option<Toward>,
    /// Counts up: open connections break after `cut_after` more bytes in that direction.
    cuts: u64,
    cut: Option<(Toward, u64)>,
}

pub(crate) struct Shared {
    protocol: Protocol,
    /// Where the server listens; 0 = nowhere yet.
    server_port: AtomicU16,
    conditions: watch::Sender<Conditions>,
    /// How many responses, and requests, are still to be lost, by API.
    losses: Mutex<BTreeMap<(ApiKey, bool), u32>>,
    lost: AtomicU64,
    /// Whose responses do not arrive, while connections stay open.
    unanswered: Mutex<BTreeSet<ApiKey>>,
    names_no_broker: AtomicBool,
    connections: AtomicU64,
    observer: Option<Observer>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1; nothing is forwarded before [`Proxy::forward_to`].
    ///
    /// # Errors
    /// Where the system gives no port.
    pub fn listen(
        runtime: &Handle,
        protocol: Protocol,
        observer: Option<Observer>,
    ) -> io::Result<Self> {
        Self::listen_at(0, runtime, protocol, observer)
    }

    /// The same at a port, for one that takes the place of another.
    ///
    /// # Errors
    /// Where somebody has it.
    pub fn listen_at(
        port: u16,
        runtime: &Handle,
        protocol: Protocol,
        observer: Option<Observer>,
    ) -> io::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            protocol,
            server_port: AtomicU16::new(0),
            conditions: watch::Sender::new(Conditions::default()),
            losses: Mutex::new(BTreeMap::new()),
            lost: AtomicU64::new(0),
            unanswered: Mutex::default(),
            names_no_broker: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            observer,
        });
        let acceptor = runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            port,
            shared,
            acceptor,
        })
    }

    /// The server's port on 127.0.0.1.
    pub fn forward_to(&self, port: u16) {
        self.shared.server_port.store(port, Ordering::Relaxed);
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything arrives this much later; zero ends it.
    pub fn delay(&self, delay: Duration) {
        self.shared.change(|conditions| conditions.delay = delay);
    }

    /// Nothing passes in a direction while `is_silent`; connections stay open, and what was sent
    /// arrives afterwards.
    pub fn silence(&self, toward: Toward, is_silent: bool) {
        self.shared.change(|conditions| match toward {
            Toward::Client => conditions.silent_to_client = is_silent,
            Toward::Server => conditions.silent_to_server = is_silent,
        });
    }

    /// Every open connection ends in one direction and stays open in the other.
    pub fn half_close(&self, toward: Toward) {
        self.shared.change(|conditions| {
            conditions.half_closes += 1;
            conditions.half_closed = Some(toward);
        });
    }

    /// Every open connection breaks once `bytes` more have passed in a direction.
    pub fn cut_after(&self, toward: Toward, bytes: u64) {
        self.shared.change(|conditions| {
            conditions.cuts += 1;
            conditions.cut = Some((toward, bytes));
        });
    }

    /// The next `count` responses of an API break their connection instead of arriving: the server
    /// has done what was asked, and the client cannot know.
    pub fn lose_responses(&self, api: ApiKey, count: u32) {
        *self.shared.losses().entry((api, true)).or_default() += count;
    }

    /// The next `count` requests of an API break their connection instead of arriving.
    pub fn lose_requests(&self, api: ApiKey, count: u32) {
        *self.shared.losses().entry((api, false)).or_default() += count;
    }

    /// Responses of an API do not arrive while `is_unanswered`; their connections stay open, and what
    /// was asked is carried out.
    pub fn leave_unanswered(&self, api: ApiKey, is_unanswered: bool) {
        let mut apis = self.shared.unanswered();
        match is_unanswered {
            true => apis.insert(api),
            false => apis.remove(&api),
        };
    }

    /// While `names_none` a cluster says that it has no broker, as one does whose brokers are all fenced.
    pub fn name_no_broker(&self, names_none: bool) {
        let names = &self.shared.names_no_broker;
        names.store(names_none, Ordering::Relaxed);
    }

    /// Ends every fault; what was lost stays lost.
    pub fn heal(&self) {
        self.shared.losses().clear();
        self.shared.unanswered().clear();
        self.name_no_broker(false);
        self.shared.change(|conditions| {
            conditions.delay = Duration::ZERO;
            conditions.silent_to_client = false;
            conditions.silent_to_server = false;
        });
    }

    /// Requests and responses lost by name so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Conditions)) {
        self.conditions.send_modify(change);
    }

    fn losses(&self) -> MutexGuard<'_, BTreeMap<(ApiKey, bool), u32>> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unanswered(&self) -> MutexGuard<'_, BTreeSet<ApiKey>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request (or response) is one to lose.
    fn loses(&self, api: ApiKey, is_response: bool) -> bool {
        let mut losses = self.losses();
        let Some(left) = losses
            .get_mut(&(api, is_response))
            .filter(|left| **left > 0)
        else {
            return false;
        };
        *left -= 1;
        self.lost.fetch_add(1, Ordering::Relaxed);
        true
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the acceptor: the set aborts what it holds when it is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let port = shared.server_port.load(Ordering::Relaxed);
            // A server that is away: the client's connection is closed at once.
            if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                pump::connection(client, server, &shared).await;
            }
        });
    }
}
