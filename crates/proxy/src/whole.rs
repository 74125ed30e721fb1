//! Answers that come whole: kept to be read, as far as there is memory for them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::proxy::FREE_BYTES;

/// Memory is asked for in such pieces.
const PIECE: usize = 1024 * 1024;

/// What came of an answer.
pub(crate) struct Whole {
    /// What was read.
    pub(crate) read: Bytes,
    /// What was not, where it is too long or there was no memory for it.
    pub(crate) rest: Option<Incoming>,
    /// To be held as long as `read` is.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

impl Whole {
    /// Reads an answer of at most `most` bytes; `None` where it breaks off.
    pub(crate) async fn read(
        mut answer: Incoming,
        most: usize,
        memory: &Arc<Semaphore>,
    ) -> Option<Self> {
        let mut read = BytesMut::new();
        let mut held: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = answer.frame().await {
            let Ok(data) = frame.ok()?.into_data() else {
                continue;
            };
            read.extend_from_slice(&data);
            let has = FREE_BYTES + held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if read.len() <= has {
                continue;
            }
            let pieces = (read.len() - has).div_ceil(PIECE) * PIECE;
            let more = u32::try_from(pieces).ok().filter(|_| read.len() <= most);
            let more = more.and_then(|more| Arc::clone(memory).try_acquire_many_owned(more).ok());
            match (more, &mut held) {
                (Some(more), Some(held)) => held.merge(more),
                (Some(more), none) => *none = Some(more),
                (None, _) => {
                    return Some(Self {
                        read: read.freeze(),
                        rest: Some(answer),
                        memory: held,
                    });
                }
            }
        }
        Some(Self {
            read: read.freeze(),
            rest: None,
            memory: held,
        })
    }
}
