//! An answer that a task of its own passes on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::Frame;
use spendfuse_sidecar::server::Connection;
use tokio::sync::mpsc;

pub(super) type Passing = Result<Frame<Bytes>, hyper::Error>;

/// The body of the caller's answer.
pub(super) struct Passed {
    frames: mpsc::Receiver<Passing>,
    /// How the upstream has broken off.
    error: Option<hyper::Error>,
    /// Kept from being cut as one whose client is waited for.
    connection: Option<Arc<Connection>>,
}

impl Passed {
    pub(super) fn new(
        frames: mpsc::Receiver<Passing>,
        connection: Option<Arc<Connection>>,
    ) -> Self {
        Self {
            frames,
            error: None,
            connection,
        }
    }
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Passing>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(connection) = &self.connection {
            connection.answers();
        }
        match ready!(self.frames.poll_recv(context)) {
            Some(Ok(frame)) => {
                if let Some(connection) = &self.connection {
                    connection.waits_for_client();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // Where a body fails, hyper 1.12 drops what it has not written yet.
                self.error = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}
