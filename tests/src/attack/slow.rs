//! Connections that are held without ever asking anything.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::Address;
use crate::wait::pause;

/// Each held connection gets a byte this often; one that was closed is opened again.
const BETWEEN_BYTES: Duration = Duration::from_secs(1);
/// A server that reads no more must not stop the attacker.
const PATIENCE: Duration = Duration::from_millis(500);

/// Half a head each.
pub(super) fn heads(address: Address, count: usize, stop: &AtomicBool) {
    let beginning = b"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    hold(address, count, beginning, b"a", stop);
}

/// Half a body each.
pub(super) fn bodies(address: Address, count: usize, bytes: usize, stop: &AtomicBool) {
    let head = format!(
        "POST /v1/usage HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        bytes * 2
    );
    let mut beginning = head.into_bytes();
    beginning.resize(beginning.len() + bytes, b' ');
    hold(address, count, &beginning, b" ", stop);
}

fn hold(address: Address, count: usize, beginning: &[u8], more: &[u8], stop: &AtomicBool) {
    let mut held: Vec<Option<TcpStream>> = Vec::new();
    held.resize_with(count, || None);
    while !stop.load(Ordering::SeqCst) {
        for place in &mut held {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let is_open = place
                .as_mut()
                .is_some_and(|stream| stream.write_all(more).is_ok());
            if !is_open {
                *place = begin(address, beginning);
            }
        }
        pause(BETWEEN_BYTES);
    }
}

fn begin(address: Address, beginning: &[u8]) -> Option<TcpStream> {
    let mut stream = address.connect().ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    // Where the server refuses the rest, what it took stays held.
    let _ = stream.write_all(beginning);
    Some(stream)
}
