//! A connection that sends bytes as they are and reads one answer after the other.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::admin::Address;

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects when it must.
pub struct Client {
    address: Address,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Not connected yet.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    /// Sends `request` and returns the answer's status.
    ///
    /// # Errors
    /// Where the connection ends before the answer; the next request makes a new one.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        let answered = self.try_ask(request);
        if answered.is_err() {
            self.stream = None;
        }
        answered
    }

    fn try_ask(&mut self, request: &[u8]) -> io::Result<u16> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = self.address.connect()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                none.insert(BufReader::new(stream))
            }
        };
        // An answer may be there before the request was taken as a whole.
        let sent = stream.get_mut().write_all(request);
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            sent?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut closes) = (0, false);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = line.trim().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                Some(("connection", "close")) => closes = true,
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
        if closes {
            self.stream = None;
        }
        Ok(status)
    }
}
