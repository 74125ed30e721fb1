//! ClickHouse's compressed frames, as clients send them with `decompress=1`.
//!
//! A frame: 16 bytes of checksum, one byte of method, the size of what follows the checksum
//! (u32, little endian), the size of the plain data (u32), the compressed data.

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
/// ClickHouse's own bound on a frame, against nonsense in the size.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// Collects pieces of a body and gives the plain data of each complete frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    pending: Vec<u8>,
}

impl FrameDecoder {
    /// Takes a piece of the body; calls `take` with the plain data of every frame it completes.
    /// The checksum is not verified: both ends are on this machine.
    pub fn push<E: From<String>>(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pending.extend_from_slice(piece);
        let mut begin = 0;
        while let Some(length) = frame_length(&self.pending[begin..])? {
            let frame = &self.pending[begin..begin + length];
            take(&plain_data(&frame[CHECKSUM_BYTES..])?)?;
            begin += length;
        }
        self.pending.drain(..begin);
        Ok(())
    }

    /// Says whether the body ended between two frames.
    pub fn finish(&self) -> Result<(), String> {
        if self.pending.is_empty() {
            Ok(())
        } else {
            Err(refused("the body ends within a compressed frame"))
        }
    }
}

/// Length of the frame at the beginning, once all of it is there.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(header) = bytes.get(CHECKSUM_BYTES..CHECKSUM_BYTES + HEADER_BYTES) else {
        return Ok(None);
    };
    let length = read_size(&header[1..5]);
    if !(HEADER_BYTES..MAX_FRAME_BYTES).contains(&length) {
        return Err(refused("a compressed frame has an impossible size"));
    }
    let total = CHECKSUM_BYTES + length;
    Ok((bytes.len() >= total).then_some(total))
}

fn plain_data(frame: &[u8]) -> Result<Vec<u8>, String> {
    let (header, data) = frame.split_at(HEADER_BYTES);
    let plain_size = read_size(&header[5..9]);
    if plain_size > MAX_FRAME_BYTES {
        return Err(refused("a compressed frame has an impossible size"));
    }
    match header[0] {
        METHOD_NONE => Ok(data.to_vec()),
        METHOD_LZ4 => lz4_flex::block::decompress(data, plain_size)
            .map_err(|error| refused(&format!("a compressed frame is broken ({error})"))),
        method => Err(refused(&format!(
            "compression method 0x{method:02x} is not supported by the development front: use LZ4 or none"
        ))),
    }
}

fn read_size(bytes: &[u8]) -> usize {
    let bytes: [u8; 4] = bytes.try_into().expect("the caller takes four bytes");
    u32::from_le_bytes(bytes) as usize
}

fn refused(why: &str) -> String {
    format!("Code: 271. DB::Exception: {why}. (CANNOT_DECOMPRESS)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4_frame(plain: &[u8]) -> Vec<u8> {
        let data = lz4_flex::block::compress(plain);
        let mut frame = vec![0; CHECKSUM_BYTES];
        frame.push(METHOD_LZ4);
        frame.extend(
            u32::try_from(data.len() + HEADER_BYTES)
                .unwrap()
                .to_le_bytes(),
        );
        frame.extend(u32::try_from(plain.len()).unwrap().to_le_bytes());
        frame.extend(data);
        frame
    }

    #[test]
    fn frames_may_be_torn_anywhere() {
        let body = [lz4_frame(b"one "), lz4_frame(&[b'x'; 1000])].concat();
        for piece_size in [1, 7, 26, body.len()] {
            let mut decoder = FrameDecoder::default();
            let mut plain = Vec::new();
            for piece in body.chunks(piece_size) {
                decoder
                    .push::<String>(piece, |data| {
                        plain.extend_from_slice(data);
                        Ok(())
                    })
                    .unwrap();
            }
            decoder.finish().unwrap();
            assert_eq!(plain, [b"one ".as_slice(), &[b'x'; 1000]].concat());
        }
    }

    #[test]
    fn a_body_that_ends_early_is_refused() {
        let frame = lz4_frame(b"one");
        let mut decoder = FrameDecoder::default();
        decoder.push::<String>(&frame[..20], |_| Ok(())).unwrap();
        assert!(decoder.finish().is_err());
    }
}
