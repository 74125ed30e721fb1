//! A provider within this process, which knows what it has answered.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use spendfuse_tests::http::read_whole_request;
use spendfuse_tests::pause;

use super::answers::Language;
use super::known::{Calls, Known};
use super::number_after;

const STACK_BYTES: usize = 128 * 1024;

/// It answers OpenAI's and Anthropic's calls, each by the id `call-NUMBER`.
pub struct Provider {
    address: SocketAddr,
}

impl Provider {
    /// Starts it; it goes on as long as this process.
    pub fn start(calls: Arc<Calls>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let calls = Arc::clone(&calls);
                let answering = thread::Builder::new().stack_size(STACK_BYTES);
                // A caller that was killed meanwhile hears nothing, as it should be.
                let _ = answering.spawn(move || answer(caller, &calls));
            }
        });
        Ok(Self { address })
    }

    /// What goes before the paths of its calls.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(mut caller: TcpStream, calls: &Calls) -> io::Result<()> {
    caller.set_nodelay(true)?;
    let (_, body) = read_whole_request(&mut caller)?;
    let Some(number) = number_after(&body, "\"call-") else {
        return Ok(());
    };
    let Some(known) = calls.asked(number) else {
        return Ok(());
    };
    let id = format!("call-{number}");
    if known.streams {
        let asks_usage = body.contains("\"include_usage\":true");
        return stream(caller, calls, (number, &id), &known, asks_usage);
    }
    pause(known.pause);
    let body = known.language.whole(&id, &known.call).to_string();
    write!(
        caller,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    calls.answered();
    Ok(())
}

fn stream(
    mut caller: TcpStream,
    calls: &Calls,
    (number, id): (usize, &str),
    known: &Known,
    asks_usage: bool,
) -> io::Result<()> {
    let Known { call, language, .. } = known;
    let events = language.stream(id, call, asks_usage);
    let breaks_off = calls.is_to_break();
    if breaks_off {
        calls.broken_off(number, language.charged(call, known.body_bytes));
    }
    let sent = match breaks_off {
        true => Language::beginning(&events),
        false => &events[..],
    };
    caller.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    )?;
    for event in sent {
        pause(known.pause);
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        caller.write_all(chunk.as_bytes())?;
    }
    if !breaks_off {
        caller.write_all(b"0\r\n\r\n")?;
    }
    calls.answered();
    Ok(())
}
