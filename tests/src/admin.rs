//! A role's HTTP addresses, asked without a library.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address on 127.0.0.1 for a role that is going to be started.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    port: u16,
}

impl Address {
    /// A free one.
    ///
    /// # Panics
    /// Where the system has none.
    pub fn free() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
        let address = listener.local_addr().expect("it is bound");
        Self {
            port: address.port(),
        }
    }

    /// That of a role which was started by somebody else.
    pub fn on_port(port: u16) -> Self {
        Self { port }
    }

    /// Its port on loopback.
    pub fn port(self) -> u16 {
        self.port
    }

    /// As settings have it.
    pub fn setting(self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection to it.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn connect(self) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port))
    }

    /// Status and body of a GET; `None` where nobody answers.
    pub fn get(self, path: &str) -> Option<(u16, String)> {
        let mut stream = self.connect().ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }
}
