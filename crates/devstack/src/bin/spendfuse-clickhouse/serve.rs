//! The HTTP server: reads requests, runs statements on blocking threads, sends answers.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Semaphore, oneshot};

use crate::answer::{AnswerHead, AnswerSink, BodyPiece, Job};
use crate::pool::Pool;
use crate::request::{Refusal, RequestHead, bad_request, multipart_fields};
use crate::sql::{Statement, classify};
use crate::wire::{EXCEPTION_TAG, error_code};

/// Time for running statements to end after SIGTERM.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// Pieces in flight between a statement and the network, per direction.
const PIECES_IN_FLIGHT: usize = 8;
/// Letters of a statement that are logged.
const LOGGED_LETTERS: usize = 300;

/// What the server needs.
pub struct Front {
    pub pool: Arc<Pool>,
    pub password: Option<String>,
    pub connections: u16,
}

struct Shared {
    front: Front,
    free_connections: Arc<Semaphore>,
}

/// Serves until SIGTERM or SIGINT, then lets running statements end.
pub async fn until_terminated(front: Front, address: SocketAddr) -> Result<()> {
    let connections = u32::from(front.connections);
    let shared = Arc::new(Shared {
        free_connections: Arc::new(Semaphore::new(usize::from(front.connections))),
        front,
    });
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(%address, "ready");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accepting a connection")?;
                stream.set_nodelay(true)?;
                tokio::spawn(serve_connection(TokioIo::new(stream), Arc::clone(&shared)));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    let all = shared.free_connections.acquire_many(connections);
    if tokio::time::timeout(SHUTDOWN_PATIENCE, all).await.is_err() {
        tracing::warn!("statements were still running at the end");
        // Their threads hold connections: the engine cannot be ended in order.
        std::process::exit(1);
    }
    tracing::info!("ended");
    Ok(())
}

async fn serve_connection(stream: TokioIo<tokio::net::TcpStream>, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        // Clients that go away are everyday life in tests.
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<AnswerBody> {
    let is_probe = *request.method() != Method::POST && request.uri().query().is_none();
    if is_probe && matches!(request.uri().path(), "/" | "/ping" | "/replicas_status") {
        return Response::new(AnswerBody::Whole(Some(Bytes::from_static(b"Ok.\n"))));
    }
    if !matches!(request.uri().path(), "/" | "/query") {
        let mut response = Response::new(AnswerBody::Whole(Some(Bytes::from_static(
            b"There is no such path. Use / for queries, /ping for a probe.\n",
        ))));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let begin = Instant::now();
    match run(request, shared, begin).await {
        Ok(response) => response,
        Err(refusal) => into_response(AnswerHead::refusal(&refusal), None),
    }
}

async fn run(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    begin: Instant,
) -> Result<Response<AnswerBody>, Refusal> {
    let (parts, mut body) = request.into_parts();
    let mut head = RequestHead::parse(&parts.method, &parts.uri, &parts.headers)?;
    if let Some(password) = &shared.front.password
        && !head.is_authentic(password)
    {
        return Err(Refusal {
            code: 516,
            message: "default: Authentication failed: password is incorrect, or there is no user \
                      with such name. (AUTHENTICATION_FAILED)"
                .to_owned(),
            status: StatusCode::FORBIDDEN,
        });
    }

    let (pieces, body_pieces) = mpsc::channel(PIECES_IN_FLIGHT);
    let text = if let Some(boundary) = head.multipart_boundary.take() {
        for (name, value) in multipart_fields(&collect(body).await?, &boundary)? {
            head.take_field(name, value)?;
        }
        end_body(&pieces).await;
        head.query.take().unwrap_or_default().into_bytes()
    } else if head.is_lz4_body {
        let data = decompressed(&collect(body).await?)?;
        let (text, data) = match head.query.take() {
            Some(text) => (text.into_bytes(), data),
            None => (data, Vec::new()),
        };
        // The job has not begun yet: there is room for both pieces.
        let _ = pieces.send(BodyPiece::Data(data.into())).await;
        end_body(&pieces).await;
        text
    } else if is_streamed_insert(&head) {
        let text = head.query.take().unwrap_or_default().into_bytes();
        tokio::spawn(async move { forward(&mut body, &pieces).await });
        text
    } else {
        let mut text = head.query.take().unwrap_or_default().into_bytes();
        let rest = collect(body).await?;
        if !text.is_empty() && !rest.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(&rest);
        end_body(&pieces).await;
        text
    };

    let logged = shortened(&text);
    let permit = Arc::clone(&shared.free_connections)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (head_sender, head_receiver) = oneshot::channel();
    let (piece_sender, piece_receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let sink = AnswerSink {
        head: head_sender,
        pieces: piece_sender,
    };
    let job = Job {
        head,
        text,
        body: body_pieces,
    };
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        job.run(&shared.front.pool, sink);
        drop(permit);
    });
    let answer = head_receiver.await.unwrap_or_else(|_| {
        let error = "Code: 1001. DB::Exception: the statement ended without an answer".to_owned();
        AnswerHead::failure(error, StatusCode::INTERNAL_SERVER_ERROR)
    });
    tracing::debug!(
        status = answer.status.as_u16(),
        elapsed = ?begin.elapsed(),
        written_rows = answer.summary.written_rows,
        error = answer.error,
        sql = logged,
        "query"
    );
    Ok(into_response(answer, Some(piece_receiver)))
}

/// Whether the URL holds an insert whose data is the body, to be passed on as it arrives.
fn is_streamed_insert(head: &RequestHead) -> bool {
    let text = head.query.as_deref().unwrap_or_default();
    matches!(classify(text.as_bytes()), Ok(Statement::Insert { .. }))
}

async fn collect(body: Incoming) -> Result<Bytes, Refusal> {
    let collected = body.collect().await;
    let whole = collected.map_err(|error| bad_request(format!("the body broke off: {error}")))?;
    Ok(whole.to_bytes())
}

fn decompressed(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut plain = Vec::new();
    lz4_flex::frame::FrameDecoder::new(body)
        .read_to_end(&mut plain)
        .map_err(|error| bad_request(format!("the body is no LZ4 frame: {error}")))?;
    Ok(plain)
}

async fn forward(body: &mut Incoming, pieces: &Sender<BodyPiece>) {
    while let Some(frame) = body.frame().await {
        // A broken body ends the channel without `End`, which cancels the insert.
        let Ok(frame) = frame else { return };
        if let Ok(data) = frame.into_data()
            && pieces.send(BodyPiece::Data(data)).await.is_err()
        {
            return;
        }
    }
    end_body(pieces).await;
}

async fn end_body(pieces: &Sender<BodyPiece>) {
    // The statement may have failed and gone already.
    let _ = pieces.send(BodyPiece::End).await;
}

fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(LOGGED_LETTERS * 4)]).into_owned();
    text.chars().take(LOGGED_LETTERS).collect()
}

fn into_response(answer: AnswerHead, pieces: Option<Receiver<Bytes>>) -> Response<AnswerBody> {
    let summary = serde_json::json!({
        "read_rows": answer.summary.read_rows.to_string(),
        "read_bytes": answer.summary.read_bytes.to_string(),
        "written_rows": answer.summary.written_rows.to_string(),
        "written_bytes": answer.summary.written_bytes.to_string(),
    });
    let content_type = match answer.format.as_str() {
        "JSON" | "JSONCompact" => "application/json; charset=UTF-8",
        "JSONEachRow" => "application/x-ndjson; charset=UTF-8",
        "CSV" | "CSVWithNames" => "text/csv; charset=UTF-8",
        "TabSeparated" | "TSV" => "text/tab-separated-values; charset=UTF-8",
        _ => "application/octet-stream",
    };
    let mut builder = Response::builder()
        .status(answer.status)
        .header("Content-Type", content_type)
        .header("X-ClickHouse-Format", answer.format)
        .header("X-ClickHouse-Server-Display-Name", "spendfuse-devstack")
        .header("X-ClickHouse-Exception-Tag", EXCEPTION_TAG)
        .header("X-ClickHouse-Summary", summary.to_string());
    if let Some(code) = answer.error.as_deref().and_then(error_code) {
        builder = builder.header("X-ClickHouse-Exception-Code", code);
    }
    let body = match (answer.whole, pieces) {
        (None, Some(pieces)) => AnswerBody::Pieces(pieces),
        (whole, _) => AnswerBody::Whole(whole),
    };
    builder
        .body(body)
        .expect("status, names and values are valid for HTTP")
}

/// An answer's body: complete, or in pieces as the engine gives them.
enum AnswerBody {
    Whole(Option<Bytes>),
    Pieces(Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
