//! Bodies of requests: whole, in time, not too large, JSON, and bounded in memory all together.
//!
//! The handlers behind it get the whole body at once, decompressed. Answers that
//! whoever asked for them may never read count as memory too, until they are taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use metrics::counter;
use tokio::sync::Semaphore;

use super::ApiError;
use crate::background::{self, let_others_go_first};
use crate::metrics::REQUESTS_REFUSED;
use crate::server::{
    BodyMemory, Connection, FREE_BYTES, NotUnpacked, RequestBody, Share, append, gunzip,
};
use crate::turn::Turn;

/// No honest body of this size or more becomes so many times as long.
const SUSPECT_BYTES: usize = 1024 * 1024;
const MOST_EXPANSION: usize = 100;

/// Handed to the connection at once: it takes no more while it holds this and the like unsent.
const PIECE: usize = 16 * 1024;

/// The memory that the bodies of all requests share, and how long one may take.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    memory: BodyMemory,
    unpacking: Arc<Semaphore>,
    time: Duration,
}

/// How the bodies of one route are taken.
#[derive(Clone, Debug)]
pub(super) struct BodyRules {
    pub(super) intake: Intake,
    /// Bytes, compressed and decompressed alike.
    pub(super) at_most: usize,
    /// Whether other content types than JSON are refused. A gateway's question has its caller's.
    pub(super) demands_json: bool,
}

impl Intake {
    pub(super) fn new(memory_bytes: usize, time: Duration) -> Self {
        Self {
            memory: BodyMemory::new(memory_bytes),
            unpacking: Arc::new(Semaphore::new(1)),
            time,
        }
    }

    /// Memory for `length` bytes, where there is any left.
    fn reserve(&self, length: usize) -> Option<Share> {
        let mut share = self.memory.share();
        share.grow_to(length).then_some(share)
    }
}

/// Why a request's body was not taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    TooLarge(usize),
    TooSlow(Duration),
    NoMemory,
    ContentType,
    Encoding,
    NotGzip,
    BrokenOff,
}

pub(super) async fn take_body(
    State(rules): State<BodyRules>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Connection>>();
    let connection = connection.map(Arc::as_ref);
    let (body, reserved) = match take(&rules, &parts.headers, body, connection).await {
        Ok(taken) => taken,
        Err(refusal) => return refusal.response(),
    };
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    drop(reserved);
    reserve_if_long(&rules.intake, answer).await
}

/// The whole body, and its reservation, which is to last until the answer is there: what is made of
/// a body is as large.
///
/// # Errors
/// [`Refusal`]: a body that is not taken.
pub(super) async fn take(
    rules: &BodyRules,
    headers: &HeaderMap,
    body: impl RequestBody,
    connection: Option<&Connection>,
) -> Result<(Bytes, Reserved), Refusal> {
    let mut reserved = Reserved::new(rules);
    let taken = read(headers, body, &mut reserved, rules);
    let taken = tokio::time::timeout(rules.intake.time, taken).await;
    if let Some(connection) = connection {
        connection.answers();
    }
    let body = taken.unwrap_or(Err(Refusal::TooSlow(rules.intake.time)))?;
    Ok((body, reserved))
}

async fn read(
    headers: &HeaderMap,
    mut body: impl RequestBody,
    reserved: &mut Reserved,
    rules: &BodyRules,
) -> Result<Bytes, Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > rules.at_most) {
        return Err(Refusal::TooLarge(rules.at_most));
    }
    // Memory that was never written costs nothing: no growing, and no copies of what came before.
    let mut whole = Vec::with_capacity(announced.unwrap_or(0));
    // What comes faster than it is read is always there.
    let mut turn = Turn::begin();
    while let Some(frame) = body.frame().await {
        turn.give_way().await;
        let frame = frame.map_err(|_| Refusal::BrokenOff)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        reserved.add(data.len())?;
        append(&mut whole, &data);
    }
    if whole.is_empty() {
        return Ok(Bytes::new());
    }
    if rules.demands_json && !is_json(headers) {
        return Err(Refusal::ContentType);
    }
    match encoding(headers).as_slice() {
        b"" | b"identity" => Ok(Bytes::from(whole)),
        // The caller's own, passed on by a gateway: no question of the gateway's, and no reason to
        // answer a status that it may take for an accident.
        _ if !rules.demands_json => Ok(Bytes::new()),
        b"gzip" | b"x-gzip" => unpack(whole, reserved).await,
        _ => Err(Refusal::Encoding),
    }
}

/// The body's encodings in lower case: their letter case is free (RFC 9110, 8.4.1).
fn encoding(headers: &HeaderMap) -> Vec<u8> {
    let named = headers.get_all(header::CONTENT_ENCODING).iter();
    let named: Vec<&[u8]> = named.map(HeaderValue::as_bytes).collect();
    named.join(&b", "[..]).trim_ascii().to_ascii_lowercase()
}

/// `application/json` and its kin: CloudEvents, batches, lines. Nothing said is taken for JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    if content_type == "application/json" {
        return true;
    }
    let Ok(content_type) = content_type.to_str() else {
        return false;
    };
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.is_empty() || kind.starts_with("application/") && kind.contains("json")
}

async fn unpack(compressed: Vec<u8>, reserved: &mut Reserved) -> Result<Bytes, Refusal> {
    // Whatever is sent, unpacking takes one core at most.
    let turn = reserved.unpacking.clone().acquire_owned();
    let turn = turn.await.map_err(|_| Refusal::BrokenOff)?;
    let suspect = SUSPECT_BYTES.max(MOST_EXPANSION * compressed.len());
    let most = suspect.min(reserved.at_most);
    let mut share = reserved.memory.share();
    // Megabytes take tens of milliseconds: not on a thread that answers others.
    let work = tokio::task::spawn_blocking(move || {
        let_others_go_first(background::Share::Tenth);
        let _turn = turn;
        let whole = gunzip(&compressed, &mut share, most);
        whole.map(|whole| (Bytes::from(whole), share))
    });
    // The runtime drops such work only when it goes down itself.
    let unpacked = work.await.map_err(|_| Refusal::BrokenOff)?;
    let (whole, share) = unpacked.map_err(|reason| match reason {
        NotUnpacked::TooLarge => Refusal::TooLarge(most),
        NotUnpacked::NoMemory => Refusal::NoMemory,
        NotUnpacked::NotGzip => Refusal::NotGzip,
    })?;
    reserved.share = share;
    Ok(whole)
}

/// What one body takes of the shared memory, given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: BodyMemory,
    unpacking: Arc<Semaphore>,
    at_most: usize,
    length: usize,
    share: Share,
}

impl Reserved {
    fn new(rules: &BodyRules) -> Self {
        let memory = &rules.intake.memory;
        Self {
            memory: memory.clone(),
            unpacking: Arc::clone(&rules.intake.unpacking),
            at_most: rules.at_most,
            length: 0,
            share: memory.share(),
        }
    }

    /// Another `length` bytes have come.
    fn add(&mut self, length: usize) -> Result<(), Refusal> {
        self.length += length;
        if self.length > self.at_most {
            return Err(Refusal::TooLarge(self.at_most));
        }
        match self.share.grow_to(self.length) {
            true => Ok(()),
            false => Err(Refusal::NoMemory),
        }
    }
}

/// `response`, where it is long with a reservation that lasts until the client has taken it; a
/// refusal where there is no memory for it.
pub(super) async fn reserve_if_long(intake: &Intake, response: Response) -> Response {
    let length = response.body().size_hint().exact().unwrap_or_default();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length <= FREE_BYTES {
        return response;
    }
    let Some(memory) = intake.reserve(length) else {
        return Refusal::NoMemory.response();
    };
    let (mut parts, body) = response.into_parts();
    // An answer is in memory already, as a whole.
    let Ok(rest) = to_bytes(body, usize::MAX).await else {
        return Refusal::BrokenOff.response();
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = LongAnswer {
        rest,
        _memory: memory,
    };
    Response::from_parts(parts, Body::new(body))
}

struct LongAnswer {
    rest: Bytes,
    _memory: Share,
}

impl HttpBody for LongAnswer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        // Copied, or the last piece would keep the whole after the reservation is given back.
        let piece = Bytes::copy_from_slice(&self.rest.split_to(length));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Refusal {
    pub(super) fn response(self) -> Response {
        let (code, status) = match self {
            Self::TooLarge(_) => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::TooSlow(_) => ("too_slow", StatusCode::REQUEST_TIMEOUT),
            Self::NoMemory => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::ContentType => ("not_json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Encoding => ("unknown_encoding", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::NotGzip | Self::BrokenOff => ("bad_request", StatusCode::BAD_REQUEST),
        };
        let message = match self {
            Self::TooLarge(most) => {
                format!("the body has more than {most} bytes; send less at once")
            }
            Self::TooSlow(time) => {
                format!("the body did not arrive within {time:?} (sidecar.body_timeout)")
            }
            Self::NoMemory => {
                "the bodies of other requests fill the memory that there is for them \
                 (sidecar.max_body_memory); send it again"
                    .to_owned()
            }
            Self::ContentType => "send JSON with `content-type: application/json`, lines with \
                 application/x-ndjson; curl needs -H content-type:application/json"
                .to_owned(),
            Self::Encoding => "send the body as it is, or compressed with gzip".to_owned(),
            Self::NotGzip => {
                "the body is not what `content-encoding: gzip` says; compress it or leave the \
                 header out"
                    .to_owned()
            }
            Self::BrokenOff => "the body broke off".to_owned(),
        };
        counter!(REQUESTS_REFUSED, "reason" => code).increment(1);
        let mut response = ApiError::new(code, message).response(status);
        let headers = response.headers_mut();
        match self {
            Self::NoMemory => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Encoding => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            _ => {}
        }
        // The rest of such a body is not worth reading.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}
