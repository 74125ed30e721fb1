//! What bodies hold in memory, all together within bounds.

use std::io::Read as _;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of each body that need no reservation: usual requests fit into them, and pass while large
/// ones fill the memory.
pub const FREE_BYTES: usize = 64 * 1024;
/// Reserved at once beyond what is needed, where a body grows.
const PIECE: usize = 16 * 1024;

/// The memory that all bodies share. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    /// So many bytes, beyond [`FREE_BYTES`] of each body.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// The share of a body that has nothing yet.
    pub fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            permit: None,
        }
    }
}

/// What one body takes of the memory, given back when dropped.
#[derive(Debug)]
pub struct Share {
    memory: BodyMemory,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Has room for `length` bytes from now on. Returns false where there is none: what it has stays.
    #[must_use]
    pub fn grow_to(&mut self, length: usize) -> bool {
        let held = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = length.saturating_sub(FREE_BYTES).saturating_sub(held);
        if missing == 0 {
            return true;
        }
        let acquire = |bytes: usize| {
            let bytes = u32::try_from(bytes).ok()?;
            let memory = Arc::clone(&self.memory.0);
            memory.try_acquire_many_owned(bytes).ok()
        };
        let more = acquire(missing.next_multiple_of(PIECE)).or_else(|| acquire(missing));
        match (more, &mut self.permit) {
            (None, _) => return false,
            (Some(more), Some(permit)) => permit.merge(more),
            (more, none) => *none = more,
        }
        true
    }
}

/// Why a body was not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUnpacked {
    /// It would be longer than it may be.
    TooLarge,
    /// There is no memory for it.
    NoMemory,
    /// It is not gzip.
    NotGzip,
}

/// Unpacks gzip into at most `at_most` bytes, for which `share` has room.
///
/// # Errors
/// [`NotUnpacked`].
pub fn gunzip(
    compressed: &[u8],
    share: &mut Share,
    at_most: usize,
) -> Result<Vec<u8>, NotUnpacked> {
    let mut decoder = MultiGzDecoder::new(compressed);
    // Memory that was never written costs nothing.
    let mut whole = Vec::with_capacity(at_most.min(compressed.len().saturating_mul(8)));
    let mut piece = [0; 16 * 1024];
    loop {
        let length = decoder.read(&mut piece).map_err(|_| NotUnpacked::NotGzip)?;
        if length == 0 {
            return Ok(whole);
        }
        let longer = whole.len() + length;
        if longer > at_most {
            return Err(NotUnpacked::TooLarge);
        }
        if !share.grow_to(longer) {
            return Err(NotUnpacked::NoMemory);
        }
        append(&mut whole, &piece[..length]);
    }
}

/// Grows by a quarter and not by half: what is reserved is the length, not the capacity.
pub(crate) fn append(whole: &mut Vec<u8>, more: &[u8]) {
    if whole.capacity() - whole.len() < more.len() {
        whole.reserve_exact(more.len().max(whole.len() / 4));
    }
    whole.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn small_bodies_pass_while_large_ones_fill_the_memory() {
        let memory = BodyMemory::new(100_000);
        let (mut large, mut small) = (memory.share(), memory.share());
        assert!(large.grow_to(FREE_BYTES + 90_000));
        assert!(!small.grow_to(FREE_BYTES + 20_000));
        assert!(small.grow_to(FREE_BYTES));
        assert!(small.grow_to(FREE_BYTES + 100));
        drop(large);
        assert!(small.grow_to(FREE_BYTES + 20_000));
    }

    #[test]
    fn what_is_unpacked_is_bounded() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&vec![b'x'; 300_000]).unwrap();
        let packed = packed.finish().unwrap();
        let unpacked = |memory: usize, at_most| {
            gunzip(&packed, &mut BodyMemory::new(memory).share(), at_most).map(|whole| whole.len())
        };
        assert_eq!(unpacked(300_000, 300_000), Ok(300_000));
        assert_eq!(unpacked(300_000, 299_999), Err(NotUnpacked::TooLarge));
        assert_eq!(unpacked(100_000, 300_000), Err(NotUnpacked::NoMemory));
        let mut share = BodyMemory::new(0).share();
        assert_eq!(gunzip(b"no", &mut share, 9), Err(NotUnpacked::NotGzip));
    }
}
