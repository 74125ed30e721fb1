//! The proxy: its state, its way upstream, its listener.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, Uri};
use axum::middleware::from_fn;
use axum::routing::get;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use spendfuse_sidecar::keys::Keyring;
use spendfuse_sidecar::server::{BodyMemory, serve_http};
use spendfuse_sidecar::{Sidecar, refuse_browsers};
use spendfuse_tls::client_config;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::batches::Told;
use crate::config::ProxyConfig;
use crate::error::ProxyError;
use crate::forward::forward;
use crate::holds::Holds;
use crate::lanes::{Incoming, Lanes};
use crate::postponed::Postponed;
use crate::starts::Starts;
use crate::stream::Drains;
use crate::upstream::{AskUsage, Upstream};

/// Streams without clients that are read at once; others are charged by estimate.
const MOST_DRAINS: usize = 64;
/// Events of batches' answers that are not safe yet, at once: results are passed on no faster.
const MOST_BATCH_EVENTS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a connection without traffic is looked at: the end of one that has vanished never comes, and
/// what is held for its call would stay so.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// How long calls may take to finish after a stop was asked for.
const LAST_CALLS: Duration = Duration::from_secs(20);

/// Guards and meters calls on their way to providers.
pub struct Proxy {
    pub(crate) config: ProxyConfig,
    pub(crate) sidecar: Arc<Sidecar>,
    pub(crate) drains: Drains,
    /// Calls whose events are not safe yet.
    pub(crate) under_way: Arc<watch::Sender<usize>>,
    /// The same calls on the disk.
    pub(crate) starts: Arc<Starts>,
    /// What is held for responses in the background.
    pub(crate) postponed: Arc<Postponed>,
    /// What is held for calls under way.
    pub(crate) holds: Arc<Holds>,
    /// What bodies hold at once.
    pub(crate) memory: BodyMemory,
    /// Room for events of batches' answers.
    pub(crate) batch_events: Arc<Semaphore>,
    /// Answers of batches that were told before.
    pub(crate) told: Told,
    lanes: Lanes,
    /// Upstreams that do not know the question for a stream's usage.
    not_asked: Mutex<HashSet<String>>,
    /// What was told of that passes unmetered, by upstream and name.
    passing: Mutex<HashSet<(String, &'static str)>>,
    call_ids: CallIds,
}

/// Names of calls, unlike those of other starts and other proxies.
struct CallIds {
    incarnation: u64,
    next: AtomicU64,
}

impl Proxy {
    /// A proxy that asks `sidecar`, and reports to it.
    ///
    /// # Errors
    /// What [`ProxyConfig::validate`] refuses, [`ProxyError::Ca`], [`ProxyError::Starts`].
    pub fn new(config: ProxyConfig, sidecar: Arc<Sidecar>) -> Result<Arc<Self>, ProxyError> {
        config.validate(sidecar.keys())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(PROBE_AFTER));
        connector.set_keepalive_interval(Some(PROBE_AFTER));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(config.ca_file.as_deref())?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let (starts, _) =
            Starts::open(config.starts_folder.as_deref()).map_err(ProxyError::Starts)?;
        let memory = config.max_body_memory.max(config.max_body_bytes);
        Ok(Arc::new(Self {
            drains: Drains {
                time: config.drain_for,
                most_bytes: config.drain_max_bytes,
                at_once: Arc::new(Semaphore::new(MOST_DRAINS)),
            },
            config,
            sidecar,
            under_way: Arc::new(watch::Sender::new(0)),
            starts: Arc::new(starts),
            postponed: Arc::default(),
            holds: Arc::default(),
            memory: BodyMemory::new(memory),
            batch_events: Arc::new(Semaphore::new(MOST_BATCH_EVENTS)),
            told: Told::default(),
            lanes: Lanes::new(connector),
            not_asked: Mutex::default(),
            passing: Mutex::default(),
            call_ids: CallIds {
                // Each `RandomState` has keys of its own, which nobody else guesses or repeats.
                incarnation: RandomState::new().build_hasher().finish(),
                next: AtomicU64::new(0),
            },
        }))
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        self.lanes.send(request).await
    }

    /// Whether the usage of a stream may be asked for at this upstream.
    pub(crate) fn asks_for_usage(&self, name: &str, upstream: &Upstream) -> bool {
        let knows = || !self.lock().contains(name);
        match upstream.ask_usage {
            AskUsage::Always => true,
            AskUsage::Never => false,
            AskUsage::Auto => knows(),
        }
    }

    /// This upstream has refused a call for the question in it.
    pub(crate) fn does_not_ask(&self, name: &str) {
        tracing::warn!(
            upstream = name,
            "it does not know stream_options.include_usage: its streams are charged by estimate where their callers do not ask"
        );
        self.lock().insert(name.to_owned());
    }

    /// Something passes that may cost something: said once for each kind of it.
    pub(crate) fn passes_unmetered(&self, upstream: &str, name: &'static str) {
        let passing = self.passing.lock();
        let mut passing = passing.unwrap_or_else(PoisonError::into_inner);
        if passing.insert((upstream.to_owned(), name)) {
            tracing::warn!(
                upstream,
                requests = name,
                "passed unmetered: no budget counts what these cost"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.not_asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_call_id(&self) -> String {
        let number = self.call_ids.next.fetch_add(1, Ordering::Relaxed);
        format!("sf-{:016x}-{number}", self.call_ids.incarnation)
    }

    /// Answers on `listener` until `stop` is ready; then no new calls, and the last ones finish.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stopping, stopped) = watch::channel(false);
        tokio::spawn(async move {
            stop.await;
            stopping.send_replace(true);
        });
        let mut router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .fallback(forward);
        if self.config.listen.ip().is_loopback() {
            router = router.layer(from_fn(refuse_browsers));
        }
        let router = router.with_state(Arc::clone(&self));
        tracing::info!(
            address = listener.local_addr().ok().map(tracing::field::display),
            upstreams = ?self.config.upstreams.keys(),
            "the proxy answers"
        );
        let mut under_way = self.under_way.subscribe();
        let mut overdue = stopped.clone();
        let overdue = async move {
            let _ = overdue.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(LAST_CALLS).await;
        };
        let served = async {
            serve_http(listener, router, self.config.limits, stopped).await;
            let _ = under_way.wait_for(|count| *count == 0).await;
        };
        tokio::select! {
            () = served => {}
            () = self.holds.extend(&self.sidecar) => {}
            () = overdue => tracing::warn!("calls that would not end were cut; theirs are not counted"),
        }
    }
}

/// Takes the address of `config` before anything else starts.
///
/// # Errors
/// [`ProxyError::Listen`], and what [`ProxyConfig::validate`] refuses.
pub async fn bind(config: &ProxyConfig, keys: &Keyring) -> Result<TcpListener, ProxyError> {
    config.validate(keys)?;
    let bound = TcpListener::bind(config.listen).await;
    bound.map_err(|source| ProxyError::Listen {
        address: config.listen,
        source,
    })
}
