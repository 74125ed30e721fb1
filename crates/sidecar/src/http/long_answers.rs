//! Answers that whoever asked for them may never read: they count as memory until they are taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::header;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::intake::{FREE_BYTES, Intake, Refusal};

/// Handed to the connection at once: it takes no more while it holds this and the like unsent.
const PIECE: usize = 16 * 1024;

/// `response`, where it is long with a reservation that lasts until the client has taken it; a
/// refusal where there is no memory for it.
pub(super) async fn reserve(intake: &Intake, response: Response) -> Response {
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
    _memory: OwnedSemaphorePermit,
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
