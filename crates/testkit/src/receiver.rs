//! Somebody who is told: an HTTP server that keeps what it gets and answers as a test decides.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Instead of a status: the connection is closed without an answer.
pub const NO_ANSWER: u16 = 0;
/// Instead of a status: nothing is said until whoever asked goes away.
pub const SILENCE: u16 = 1;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was whole.
    pub at: Instant,
    /// Its `idempotency-key`.
    pub id: String,
    /// Its body.
    pub body: Value,
    /// The status of the answer, [`NO_ANSWER`] or [`SILENCE`].
    pub status: u16,
}

/// The server; it lives as long as the test's process.
#[derive(Clone)]
pub struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Answers each request with the status for its number, from 0 on, and its `idempotency-key`;
    /// [`NO_ANSWER`] and [`SILENCE`] are none.
    ///
    /// # Panics
    /// Where no port can be had.
    pub fn start(status: impl Fn(usize, &str) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let receiver = Self {
            url: format!("http://{address}"),
            received: Arc::default(),
        };
        let (own, status) = (receiver.clone(), Arc::new(status));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, status) = (own.clone(), Arc::clone(&status));
                thread::spawn(move || own.serve(stream, &*status));
            }
        });
        receiver
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it got so far.
    pub fn received(&self) -> Vec<Received> {
        self.received_from(0)
    }

    /// What it got so far, but for the `first` ones.
    pub fn received_from(&self, first: usize) -> Vec<Received> {
        let received = self.received.lock();
        let received = received.unwrap_or_else(PoisonError::into_inner);
        received[first.min(received.len())..].to_vec()
    }

    fn serve(&self, mut stream: TcpStream, status: &dyn Fn(usize, &str) -> u16) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let Some((id, body)) = request(&mut stream) else {
            return;
        };
        let status = {
            let received = self.received.lock();
            let mut received = received.unwrap_or_else(PoisonError::into_inner);
            let status = status(received.len(), &id);
            received.push(Received {
                at: Instant::now(),
                id,
                body,
                status,
            });
            status
        };
        match status {
            NO_ANSWER => return,
            SILENCE => {
                let _ = stream.read(&mut [0]);
                return;
            }
            _ => {}
        }
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        // Whoever asked may be killed by now.
        let _ = stream.write_all(answer.as_bytes());
    }
}

fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = header(head, "content-length")?.parse().ok()?;
            if body.len() >= length {
                let id = header(head, "idempotency-key").unwrap_or_default();
                return Some((id.to_owned(), serde_json::from_str(body).ok()?));
            }
        }
        match stream.read(&mut part).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// A header's value in the head of a request.
fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}
