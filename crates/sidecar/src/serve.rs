//! Starts a sidecar: listeners, followers, spool; stops it in order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use spendfuse_bus::producer::{EventProducer, ProducerOptions};
use spendfuse_bus::{BusError, Follower, KafkaConfig, Shutdown};
use spendfuse_domain::Topics;
use spendfuse_guard::{Clock, Guard, GuardConfig, State};
use spendfuse_pricing::PricingPolicy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::background;
use crate::config::SidecarConfig;
use crate::delivery::Delivery;
use crate::error::{SidecarError, listen_error};
use crate::http::{Api, MetricsText, Sidecar, show_state};
use crate::in_flight::{self, InFlight, Positions};
use crate::metrics::{RESERVATIONS_OPEN, RESERVATIONS_PENDING};
use crate::prices::Prices;
use crate::replica::follow;
use crate::reservations::{Reservations, Reserver};
use crate::server::unix::{self, Socket};
use crate::server::{serve_http, until};
use crate::sink::KafkaSink;
use crate::spool::Spool;
use crate::stale::StaleTeller;

/// How long requests may take to finish after a stop was asked for.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Spooled events wait so long for budgets to be known that they may be pending in.
const BUDGETS_KNOWN: Duration = Duration::from_secs(30);

/// The addresses of a sidecar, taken before anything else starts, so that callers can connect.
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<Socket>,
}

impl Listeners {
    /// Takes the addresses of `config`. A socket that a killed sidecar left behind is replaced, one that
    /// another process listens to is not.
    ///
    /// # Errors
    /// What [`SidecarConfig::validate`] refuses, [`SidecarError::Listen`],
    /// [`SidecarError::NotASocket`].
    pub async fn bind(config: &SidecarConfig) -> Result<Self, SidecarError> {
        config.validate()?;
        let tcp = match config.listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(listen_error(&address.to_string()))?)
            }
            None => None,
        };
        let unix = match &config.unix_socket {
            Some(path) => Some(unix::bind(path).await?),
            None => None,
        };
        Ok(Self { tcp, unix })
    }

    /// The TCP address, with the port that was picked where the configured one is 0; `None` where
    /// there is none.
    ///
    /// # Errors
    /// [`SidecarError::Serve`] where the system does not say.
    pub fn tcp_address(&self) -> Result<Option<SocketAddr>, SidecarError> {
        let address = self.tcp.as_ref().map(TcpListener::local_addr);
        address.transpose().map_err(SidecarError::Serve)
    }
}

/// Runs a sidecar against Kafka until `shutdown` is requested. Kafka may be away: checks are
/// answered by the state at hand, events go to the spool.
///
/// # Errors
/// [`SidecarError`] where it cannot start or a listener breaks.
pub async fn run(
    config: SidecarConfig,
    listeners: Listeners,
    kafka: &KafkaConfig,
    topics: &Topics,
    policy: PricingPolicy,
    metrics: MetricsText,
    shutdown: Shutdown,
) -> Result<(), SidecarError> {
    let running = Running::start(config, kafka, topics, policy, metrics)?;
    let served = serve(running.sidecar(), listeners, requested(shutdown)).await;
    running.stop().await;
    served
}

/// A sidecar that follows Kafka, without its addresses.
pub struct Running {
    sidecar: Arc<Sidecar>,
    followers: [Follower; 2],
    tasks: [JoinHandle<()>; 3],
}

impl Running {
    /// Starts it on the runtime of whoever calls.
    ///
    /// # Errors
    /// [`SidecarError`] where it cannot start.
    pub fn start(
        config: SidecarConfig,
        kafka: &KafkaConfig,
        topics: &Topics,
        policy: PricingPolicy,
        metrics: MetricsText,
    ) -> Result<Self, SidecarError> {
        crate::metrics::show(&config.keys);
        let clock = Clock::new();
        let guard_config = GuardConfig {
            partitions: config.partitions,
            stale_after_millis: u64::try_from(config.stale_after.as_millis()).unwrap_or(u64::MAX),
            cold_start: config.cold_start,
            entry_capacity: config.entry_capacity,
            hold_capacity: config.max_reservations,
            reserve_rule: config.reserve_rule,
        };
        let (writer, guard) = Guard::new(guard_config);
        let prices = Prices::new(policy);
        let spool = config.spool.clone().map(Spool::open).transpose()?;
        let options = ProducerOptions {
            // What is not acknowledged by then goes to the spool, and must not go out by itself too.
            delivery_timeout: config.ack_timeout,
            ..ProducerOptions::default()
        };
        let health = config.health.part("Kafka");
        let positions = Arc::new(Positions::default());
        let (producer, follower) = background::started(|| {
            let producer = EventProducer::open(kafka, &options)?;
            let follower = follow(
                kafka,
                topics,
                writer,
                guard.clone(),
                prices.clone(),
                (clock, Arc::clone(&positions)),
                health,
            )?;
            Ok::<_, BusError>((producer, follower))
        })?;
        let sink = Arc::new(KafkaSink::new(producer, topics.usage.clone()));
        let delivery = Delivery::new(sink, spool, config.ack_timeout + Duration::from_millis(200))
            .with_partitions(config.partitions);
        let reservations = Reservations::new(&config.instance);
        // Not in the background: near a limit checks wait for it.
        let in_flight = InFlight::open(
            kafka,
            topics,
            guard.clone(),
            (clock, positions),
            reservations.holder(),
            config.health.part("inflight"),
        )?;
        let (others, turns) = in_flight::follow(kafka, &in_flight)?;
        let replay = tokio::spawn(replay(
            delivery.clone(),
            guard.clone(),
            prices.clone(),
            clock,
        ));
        let teller = StaleTeller::new(
            kafka,
            topics.alerts.clone(),
            config.instance.clone(),
            config.stale_after,
        );
        let showing = tokio::spawn(keep_showing_state(guard.clone(), clock, teller));
        let reserving = Reserver {
            reservations,
            in_flight: Some(in_flight),
        };
        Ok(Self {
            sidecar: Sidecar::with_clock(
                config, guard, prices, delivery, metrics, clock, reserving,
            ),
            followers: [follower, others],
            tasks: [replay, showing, turns],
        })
    }

    /// The sidecar itself.
    pub fn sidecar(&self) -> Arc<Sidecar> {
        Arc::clone(&self.sidecar)
    }

    /// Ends it, once nobody asks it any more.
    pub async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        let (followers, sidecar) = (self.followers, self.sidecar);
        let end = move || {
            // Joins the followers' threads, which may be waiting for the broker.
            drop(followers);
            let reserving = sidecar.checker.reserving.as_ref();
            if let Some(in_flight) = reserving.and_then(|reserver| reserver.in_flight.as_ref()) {
                in_flight.leave();
            }
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }
}

/// What the spool held at the start is pending before any of it can be counted, and is sent then.
async fn replay(delivery: Delivery, guard: Guard, prices: Prices, clock: Clock) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while guard.state(clock.now().monotonic_millis).state == State::Cold
        && began.elapsed() < BUDGETS_KNOWN
    {
        tick.tick().await;
    }
    delivery.owe(&guard, &prices, clock.now()).await;
    delivery.replay(guard).await;
}

/// The admin address renders the same metrics, and nobody asks it for the replica's age before.
async fn keep_showing_state(guard: Guard, clock: Clock, mut teller: StaleTeller) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        show_state(&guard, &clock);
        let now = clock.now();
        guard.expire_holds(now.monotonic_millis);
        let (open, held) = guard.hold_counts();
        gauge!(RESERVATIONS_OPEN).set(open as f64);
        gauge!(RESERVATIONS_PENDING).set((held - open) as f64);
        let state = guard.state(now.monotonic_millis);
        teller.look(state, now.monotonic_millis, now.wall);
    }
}

/// Answers on `listeners` until `stop` is ready; then no new requests, and the last ones finish.
///
/// # Errors
/// [`SidecarError::Serve`].
pub async fn serve(
    sidecar: Arc<Sidecar>,
    listeners: Listeners,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), SidecarError> {
    let (stopping, stopped) = watch::channel(false);
    let waited_for = Arc::clone(&sidecar);
    tokio::spawn(async move {
        stop.await;
        stopping.send_replace(true);
        waited_for.waiting.end();
    });
    let limits = sidecar.config.limits;
    let socket = listeners.unix.as_ref();
    let socket = socket.map(|socket| socket.path().display());
    tracing::info!(
        address = listeners.tcp_address()?.map(tracing::field::display),
        socket = socket.map(tracing::field::display),
        "the sidecar answers"
    );
    // Tasks of the runtime, and not a part of this one: that may be a thread which only waits, and
    // would have to be woken for every connection.
    let mut listening = JoinSet::new();
    if let Some(listener) = listeners.tcp {
        let api = Api::new(Arc::clone(&sidecar), true);
        listening.spawn(serve_http(listener, api, limits, stopped.clone()));
    }
    if let Some(socket) = listeners.unix {
        let api = Api::new(Arc::clone(&sidecar), false);
        listening.spawn(serve_http(socket, api, limits, stopped.clone()));
    }
    let all = async {
        while let Some(ended) = listening.join_next().await {
            if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
                std::panic::resume_unwind(panic);
            }
        }
    };
    let overdue = async {
        until(stopped.clone()).await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        () = all => {}
        () = overdue => tracing::warn!("connections that would not end were cut"),
    }
    tracing::info!("the sidecar has stopped");
    Ok(())
}

/// Ready when `shutdown` is requested.
pub async fn requested(shutdown: Shutdown) {
    let waited =
        tokio::task::spawn_blocking(move || while !shutdown.wait(Duration::from_secs(3600)) {});
    let _ = waited.await;
}
