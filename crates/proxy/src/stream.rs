//! A streamed answer on its way to the caller, read piece by piece and never held up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use metrics::gauge;
use spendfuse_broken::{Break, is_broken};
use spendfuse_sidecar::server::{Connection, Share};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::Piece;
use crate::lanes::Incoming;
use crate::meter::Meter;
use crate::metrics::DRAINING;
use crate::whole::Whole;
use crate::wire::{Elements, Events, Frames, LONGEST_PIECE, Members, data_of};

/// How a stream is read on whose client has gone: its provider charges for it either way.
#[derive(Clone, Debug)]
pub(crate) struct Drains {
    pub(crate) time: Duration,
    pub(crate) most_bytes: usize,
    pub(crate) at_once: Arc<Semaphore>,
}

/// How a stream is cut into pieces.
pub(crate) enum Pieces {
    Events(Events),
    Elements(Elements),
    Frames(Frames),
    /// It is no stream, but too long to be kept: passed on, and read for its counts.
    Long(Members),
    /// It cannot be read: compressed although that was not asked for.
    Opaque,
}

/// The body of a streamed answer.
pub(crate) struct Streamed {
    /// What goes before all else: an answer that was read before.
    first: Bytes,
    /// `None` once it is at its end.
    upstream: Option<Incoming>,
    pieces: Pieces,
    /// How the upstream has ended, after what is passed on before: trailers, or that it broke off.
    end: Option<Result<Frame<Bytes>, hyper::Error>>,
    /// Whether what was passed on before it has had its turn to be written.
    is_written: bool,
    /// Taken when the call is settled.
    meter: Option<Meter>,
    /// Whether the piece is left out that has nothing but the usage which the proxy has asked for.
    strips_usage: bool,
    /// Kept from being cut as one whose client is waited for.
    connection: Option<Arc<Connection>>,
    drains: Option<Drains>,
    /// What `first` takes of the memory for all, until it is on its way.
    memory: Option<Share>,
}

impl Streamed {
    pub(crate) fn new(
        upstream: Incoming,
        pieces: Pieces,
        meter: Meter,
        strips_usage: bool,
        connection: Option<Arc<Connection>>,
        drains: Drains,
    ) -> Self {
        Self {
            first: Bytes::new(),
            upstream: Some(upstream),
            pieces,
            end: None,
            is_written: false,
            meter: Some(meter),
            strips_usage,
            connection,
            drains: Some(drains),
            memory: None,
        }
    }

    /// An answer that is too long to be kept, of which a part was read before.
    pub(crate) fn too_long(
        whole: Whole,
        is_readable: bool,
        meter: Meter,
        connection: Option<Arc<Connection>>,
        drains: Drains,
    ) -> Self {
        let mut streamed = Self::passed_on(whole, connection);
        if is_readable {
            streamed.pieces = Pieces::Long(Members::default());
        }
        streamed.meter = Some(meter);
        streamed.drains = Some(drains);
        let first = std::mem::take(&mut streamed.first);
        streamed.first = streamed.push(first).unwrap_or_default();
        streamed
    }

    /// An answer that is passed on as it is.
    pub(crate) fn opaque(upstream: Incoming, connection: Option<Arc<Connection>>) -> Self {
        let whole = Whole {
            read: Bytes::new(),
            rest: Some(upstream),
            memory: None,
        };
        Self::passed_on(whole, connection)
    }

    /// An answer that was read before, and what is left of it.
    pub(crate) fn passed_on(whole: Whole, connection: Option<Arc<Connection>>) -> Self {
        Self {
            first: whole.read,
            upstream: whole.rest,
            pieces: Pieces::Opaque,
            end: None,
            is_written: false,
            meter: None,
            strips_usage: false,
            connection,
            drains: None,
            memory: whole.memory,
        }
    }

    /// The next piece that came whole and is for the caller.
    fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            let (piece, kind) = match &mut self.pieces {
                Pieces::Events(events) => {
                    let piece = events.next()?;
                    let kind = read(&mut self.meter, &data_of(&piece));
                    (piece, kind)
                }
                Pieces::Elements(elements) => {
                    let piece = elements.next()?;
                    let kind = read(&mut self.meter, Elements::object(&piece));
                    (piece, kind)
                }
                Pieces::Frames(frames) => {
                    let piece = frames.next()?;
                    let kind = read(&mut self.meter, Frames::payload(&piece));
                    (piece, kind)
                }
                Pieces::Long(_) | Pieces::Opaque => return None,
            };
            if piece.len() > LONGEST_PIECE {
                self.unread(piece.len());
            }
            if !(self.strips_usage && kind == Piece::UsageOnly) {
                return Some(piece);
            }
        }
    }

    /// Takes what the upstream has sent; what is passed on as it is, is returned.
    fn push(&mut self, data: Bytes) -> Option<Bytes> {
        match &mut self.pieces {
            Pieces::Events(events) => events.push(&data),
            Pieces::Elements(elements) => elements.push(&data),
            Pieces::Frames(frames) => frames.push(&data),
            Pieces::Long(members) => {
                members.push(&data);
                self.unread(data.len());
                return Some(data);
            }
            Pieces::Opaque => {
                self.unread(data.len());
                return Some(data);
            }
        }
        None
    }

    fn unread(&mut self, bytes: usize) {
        if let Some(meter) = &mut self.meter {
            meter.unread += bytes;
        }
    }

    /// What is left at the end.
    fn rest(&mut self) -> Bytes {
        match &mut self.pieces {
            // A last event that lacks its empty line counts too.
            Pieces::Events(events) => {
                let rest = events.rest();
                let kind = read(&mut self.meter, &data_of(&rest));
                match self.strips_usage && kind == Piece::UsageOnly {
                    true => Bytes::new(),
                    false => rest,
                }
            }
            Pieces::Long(members) => {
                read(&mut self.meter, &members.object());
                Bytes::new()
            }
            Pieces::Elements(elements) => elements.rest(),
            Pieces::Frames(frames) => frames.rest(),
            Pieces::Opaque => Bytes::new(),
        }
    }

    /// There is something for the client to take.
    fn waits_for_client(&self) {
        if let Some(connection) = &self.connection {
            connection.waits_for_client();
        }
    }

    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Where a body fails, hyper 1.12 drops what it has not written yet.
        if matches!(self.end, Some(Err(_))) && !std::mem::replace(&mut self.is_written, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.end.take())
    }

    fn settle(&mut self) {
        self.upstream = None;
        let has_failed = matches!(self.end, Some(Err(_)));
        match self.meter.take() {
            Some(meter) if has_failed && is_broken(Break::BrokenStreamNotCharged) => meter.forget(),
            Some(meter) => drop(meter.finish()),
            None => {}
        }
    }

    /// Reads on without a client.
    async fn drain(mut self, time: Duration, most_bytes: usize) {
        let reading = async {
            let mut bytes = 0;
            while let Some(upstream) = &mut self.upstream
                && let Some(Ok(frame)) = upstream.frame().await
            {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                bytes += data.len();
                self.push(data);
                while self.next_piece().is_some() {}
                if bytes > most_bytes {
                    return;
                }
            }
            self.rest();
        };
        let _ = timeout(time, reading).await;
        self.settle();
    }
}

fn read(meter: &mut Option<Meter>, json: &[u8]) -> Piece {
    match meter {
        Some(meter) if !json.is_empty() => meter.seen.take(meter.call, json),
        _ => Piece::Content,
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.first.is_empty() {
            self.waits_for_client();
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        drop(self.memory.take());
        loop {
            if let Some(piece) = self.next_piece() {
                self.waits_for_client();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(connection) = &self.connection {
                connection.answers();
            }
            let Some(upstream) = &mut self.upstream else {
                return self.poll_end(context);
            };
            match ready!(Pin::new(upstream).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(data) = self.push(data) {
                            self.waits_for_client();
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(trailers) => self.end = Some(Ok(trailers)),
                },
                ended => {
                    // The caller sees as much of an answer that breaks off as it would see by itself.
                    self.end = ended.or(self.end.take());
                    let rest = self.rest();
                    self.settle();
                    if !rest.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.upstream.is_none() && self.end.is_none()
    }
}

impl Drop for Streamed {
    /// The client has gone before the end.
    fn drop(&mut self) {
        let Some(meter) = self.meter.take() else {
            return;
        };
        let drains = self.drains.take();
        let room = drains.and_then(|drains| {
            let permit = Arc::clone(&drains.at_once).try_acquire_owned().ok()?;
            // Without a runtime the process is going down.
            Some((drains, permit, Handle::try_current().ok()?))
        });
        let Some((drains, permit, runtime)) = room else {
            meter.finish();
            return;
        };
        let rest = Self {
            first: Bytes::new(),
            upstream: self.upstream.take(),
            pieces: std::mem::replace(&mut self.pieces, Pieces::Opaque),
            end: None,
            is_written: false,
            meter: Some(meter),
            strips_usage: false,
            connection: None,
            drains: None,
            memory: None,
        };
        runtime.spawn(async move {
            gauge!(DRAINING).increment(1.0);
            rest.drain(drains.time, drains.most_bytes).await;
            gauge!(DRAINING).decrement(1.0);
            drop(permit);
        });
    }
}
