//! Answers that come whole: kept to be read, as far as there is memory for them.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use spendfuse_sidecar::server::{BodyMemory, Share};

use crate::lanes::Incoming;

/// What came of an answer.
pub(crate) struct Whole {
    /// What was read.
    pub(crate) read: Bytes,
    /// What was not, where it is too long or there was no memory for it.
    pub(crate) rest: Option<Incoming>,
    /// To be held as long as `read` is.
    pub(crate) memory: Option<Share>,
}

impl Whole {
    /// Reads an answer of at most `most` bytes; `None` where it breaks off.
    pub(crate) async fn read(
        mut answer: Incoming,
        most: usize,
        memory: &BodyMemory,
    ) -> Option<Self> {
        let mut read = BytesMut::new();
        let mut share = memory.share();
        let mut rest = None;
        while let Some(frame) = answer.frame().await {
            let Ok(data) = frame.ok()?.into_data() else {
                continue;
            };
            read.extend_from_slice(&data);
            if read.len() > most || !share.grow_to(read.len()) {
                rest = Some(answer);
                break;
            }
        }
        Some(Self {
            read: read.freeze(),
            rest,
            memory: Some(share),
        })
    }
}
