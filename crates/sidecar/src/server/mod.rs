//! HTTP on a listener whose clients may be slow, many or hostile.
//!
//! `axum::serve` waits for a client for ever and accepts until the process has no file descriptor
//! left. Here a request's head has a time limit, the number of connections has one too, and where it
//! is reached the client that has kept us waiting longest makes room: whoever sends whole requests
//! is answered, however many others do not. Used by the sidecar's addresses and the admin address.

mod connections;
mod memory;
mod own_wakes;
pub(crate) mod unix;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use axum::serve::Listener;
use axum::{BoxError, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tower::Service as _;

use connections::Connections;
pub use connections::{Connection, Peer};
pub(crate) use memory::append;
pub use memory::{BodyMemory, FREE_BYTES, NotUnpacked, Share, gunzip};
use own_wakes::OwnWakes;

/// Head of a request, in which gateways pass on what browsers send them; also what hyper buffers of
/// a body or an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How often clients that wait for nothing are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What clients of one listener may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once.
    pub connections: usize,
    /// From the first moment of a connection, or the last answer, to the end of a request's head.
    pub header_timeout: Duration,
    /// From the head to the end of the body, and for taking an answer.
    pub body_timeout: Duration,
}

impl ServerLimits {
    /// The documented defaults.
    pub const DEFAULT: Self = Self {
        connections: 1024,
        header_timeout: Duration::from_secs(15),
        body_timeout: Duration::from_secs(15),
    };
}

/// The body of a request, as it comes.
pub trait RequestBody:
    HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static
{
}

/// What answers the requests of a listener. Cloning is cheap.
pub trait Answers: Clone + Send + Sync + 'static {
    /// The answer to `request`, which came over `connection`.
    fn answer(
        &self,
        request: hyper::Request<impl RequestBody>,
        connection: Option<&Arc<Connection>>,
    ) -> impl Future<Output = Response> + Send;
}

/// Handlers find the connection among the request's extensions.
impl Answers for Router {
    async fn answer(
        &self,
        request: hyper::Request<impl RequestBody>,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        let mut request = request.map(Body::new);
        if let Some(connection) = connection {
            request.extensions_mut().insert(Arc::clone(connection));
        }
        match self.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Answers on `listener` until `stopped` says true; then no new requests, and returns when the last
/// ones are answered. Dropping the future cuts what is still open.
pub async fn serve_http<L: Listener<Addr: Peer>>(
    mut listener: L,
    answers: impl Answers,
    limits: ServerLimits,
    stopped: watch::Receiver<bool>,
) {
    let connections = Connections::new(limits.connections);
    // Heads have hyper's timer and bodies their own; this is for who does not take his answer.
    let patience = limits.header_timeout.max(limits.body_timeout) + 5 * LOOK_EVERY;
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut open = JoinSet::new();
    let mut stop = pin!(until(stopped.clone()));
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            _ = look.tick() => {
                connections.cut_those_waited_for(patience);
                continue;
            }
        };
        let (connection, room) = connections.admit(peer.address()).await;
        let answers = answers.clone();
        let answered = answer(stream, answers, limits, connection, room, stopped.clone());
        open.spawn(answered);
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// One connection, from its first request to its end.
async fn answer(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    answers: impl Answers,
    limits: ServerLimits,
    connection: Arc<Connection>,
    _room: OwnedSemaphorePermit,
    stopped: watch::Receiver<bool>,
) {
    let state = Arc::clone(&connection);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (answers, connection) = (answers.clone(), Arc::clone(&state));
        connection.waits_for_client();
        async move {
            if request.body().is_end_stream() {
                connection.answers();
            }
            let response = answers.answer(request, Some(&connection)).await;
            connection.waits_for_client();
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES);
    let mut http = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut own_wakes = OwnWakes::new(Waker::noop());
    let mut stop = pin!(until(stopped));
    let mut stopping = false;
    loop {
        tokio::select! {
            // An error is a client that went away or speaks something else: its own business.
            _ = poll_fn(|context| own_wakes.poll(http.as_mut(), context)) => return,
            () = connection.cut() => return,
            () = &mut stop, if !stopping => {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Ready when `stopped` says true.
pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process's will to go on.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
