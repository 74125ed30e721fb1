//! Clients that lose their brokers get them back.
//!
//! A cluster may name no broker for a moment: a single one that was frozen for longer than its session
//! (a sleeping machine, a paused container) is fenced until it has reported again. librdkafka then
//! forgets every broker, those that it was configured with included, and asks nobody any more
//! (2.10 to 2.13; confluentinc/librdkafka#5301): consumers stay silent and transactions hang until the
//! process is started again. So every client of this process is asked now and then whether it reaches
//! its cluster, and is told the brokers again where it does not. To a client that knows them, and whose
//! brokers are just away, that changes nothing.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;

use crate::error::BusError;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// What a cluster takes to answer at most; all clients are asked in turn.
const PATIENCE_MILLIS: i32 = 500;

/// A client of librdkafka.
pub(crate) trait Native: Send + Sync {
    fn native(&self) -> *mut sys::rd_kafka_t;
}

impl<C: ConsumerContext + ClientContext> Native for BaseConsumer<C> {
    fn native(&self) -> *mut sys::rd_kafka_t {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext> Native for BaseProducer<C> {
    fn native(&self) -> *mut sys::rd_kafka_t {
        self.client().native_ptr()
    }
}

struct Kept {
    client: Weak<dyn Native>,
    brokers: CString,
}

static CLIENTS: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
static KEEPER: Once = Once::new();

/// Looks after a client for as long as it lives.
///
/// # Panics
/// Where the system has no thread left.
pub(crate) fn keep<N: Native + 'static>(
    client: N,
    config: &ClientConfig,
) -> Result<Arc<N>, BusError> {
    let brokers = config.get("bootstrap.servers").unwrap_or_default();
    let brokers = CString::new(brokers).map_err(|_| BusError::Property {
        name: "bootstrap.servers".to_owned(),
        reason: "it has a zero byte".to_owned(),
    })?;
    let client = Arc::new(client);
    let kept: Arc<dyn Native> = Arc::clone(&client) as _;
    clients().push(Kept {
        client: Arc::downgrade(&kept),
        brokers,
    });
    KEEPER.call_once(|| {
        thread::Builder::new()
            .name("keep-brokers".to_owned())
            .spawn(|| {
                loop {
                    thread::park_timeout(EVERY);
                    look_after_all();
                }
            })
            .expect("the system has a thread for a client that has three of its own");
    });
    Ok(client)
}

fn clients() -> std::sync::MutexGuard<'static, Vec<Kept>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client at a time: none is held longer than it takes to ask it.
fn look_after_all() {
    let all: Vec<(Weak<dyn Native>, CString)> = {
        let mut known = clients();
        known.retain(|kept| kept.client.strong_count() > 0);
        let each = known.iter();
        each.map(|kept| (Weak::clone(&kept.client), kept.brokers.clone()))
            .collect()
    };
    for (client, brokers) in all {
        let Some(client) = client.upgrade() else {
            continue;
        };
        if !reaches_cluster(&*client) {
            // SAFETY: the client is alive, and librdkafka copies the text.
            let added = unsafe {
                sys::rd_kafka_brokers_add(client.native(), brokers.as_ptr().cast::<c_char>())
            };
            tracing::debug!(
                added,
                "a client does not reach its cluster and is told the brokers"
            );
        }
    }
}

/// Whether any broker answers.
fn reaches_cluster(client: &dyn Native) -> bool {
    let mut answer = ptr::null();
    // SAFETY: the client is alive; without an error the answer is ours to give back.
    unsafe {
        let error = sys::rd_kafka_metadata(
            client.native(),
            0,
            ptr::null_mut(),
            &raw mut answer,
            PATIENCE_MILLIS,
        );
        let is_answered = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        if is_answered {
            sys::rd_kafka_metadata_destroy(answer);
        }
        is_answered
    }
}
