//! Those who call through the proxy. A call that breaks off is not made again: it was another one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use spendfuse_domain::routing::partition_of;
use spendfuse_tests::http::header;
use spendfuse_tests::pause;
use spendfuse_tests::random::Random;
use spendfuse_tests::traffic::MODEL;

use super::WORKSPACE;
use super::answers::Language;
use super::known::{Calls, Known, Seen};
use crate::events::{MOST_OUTPUT, PARTITIONS};
use crate::ledger::{Call, Kind, Ledger};
use crate::quiet::Quiet;
use crate::system::System;

/// How many call at once: 20 calls a second.
pub const CLIENTS: u64 = 8;
/// Of one client.
const EVERY: Duration = Duration::from_millis(400);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Longer than the proxy ever stands still.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const CUSTOMERS: u64 = 10;
const SESSIONS: u64 = 40;
/// Statuses by which a call is refused: a budget, or a moment at which nobody can say.
const REFUSALS: [u16; 2] = [429, 503];

/// One of them.
pub struct Client {
    random: Random,
    calls: Arc<Calls>,
    ledger: Arc<Ledger>,
    quiet: Quiet,
    /// The proxy's, which says where it answers since its last start.
    log: PathBuf,
    /// Where it last did.
    address: Option<SocketAddr>,
}

impl Client {
    /// The one of this number.
    pub fn new(
        seed: u64,
        number: u64,
        system: &System,
        ledger: &Arc<Ledger>,
        quiet: &Quiet,
    ) -> Self {
        Self {
            random: Random::new(seed, 20 + number),
            calls: Arc::clone(&system.calls),
            ledger: Arc::clone(ledger),
            quiet: quiet.clone(),
            log: system.proxy_log(),
            address: None,
        }
    }

    /// Calls until it is stopped.
    pub fn call(mut self, stop: &AtomicBool) -> Result<()> {
        // Not all at the same time.
        pause(self.random.millis(0, EVERY.as_millis() as u64));
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if !self.quiet.is_total() {
                self.calls.tries();
                if let Some(proxy) = self.connect() {
                    self.call_once(proxy, begun)?;
                }
            }
            pause(EVERY.saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    /// A connection to the proxy; `None` where it does not run.
    fn connect(&mut self) -> Option<TcpStream> {
        let known = self.address.and_then(connect);
        known.or_else(|| {
            self.address = address_in(&self.log);
            self.address.and_then(connect)
        })
    }

    fn call_once(&mut self, mut proxy: TcpStream, begun: Instant) -> Result<()> {
        proxy.set_read_timeout(Some(ANSWER_PATIENCE))?;
        proxy.set_write_timeout(Some(ANSWER_PATIENCE))?;
        let call = self.any_call();
        let (language, streams) = (Language::any(&mut self.random), self.random.below(2) == 0);
        let number = self.ledger.enter(Kind::Call(call.clone()));
        let words = "word ".repeat(self.random.below(200) as usize);
        let body = json!({
            "model": MODEL, "max_tokens": call.output.max(1), "stream": streams,
            "messages": [{"role": "user", "content": format!("call-{number} {words}")}],
        });
        let body = body.to_string();
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nx-spendfuse-customer: {}\r\n\
             x-spendfuse-feature: {}\r\nx-spendfuse-plan: {}\r\nx-spendfuse-session: {}\r\n\
             x-spendfuse-tag-call: {number}\r\n\r\n{body}",
            language.path(),
            body.len(),
            call.customer,
            call.feature,
            call.plan,
            call.session
        );
        let known = Known {
            call,
            language,
            streams,
            body_bytes: body.len() as u64,
            pause: match streams {
                true => self.random.millis(5, 120),
                false => self.random.millis(5, 250),
            },
            begun,
            ended: None,
            asked: 0,
            is_broken_off: false,
        };
        self.calls.begin(number, known);
        let mut answer = Vec::new();
        // What a proxy that is killed had said before counts.
        let _ = proxy
            .write_all(request.as_bytes())
            .and_then(|()| proxy.read_to_end(&mut answer));
        self.calls.ended(number, seen(&answer, number));
        Ok(())
    }

    fn any_call(&mut self) -> Call {
        let input = 100 + self.random.below(5_000);
        Call {
            workspace: WORKSPACE.to_owned(),
            customer: format!("via-{}", self.random.below(CUSTOMERS)),
            feature: self.random.one_of(&["agent", "chat"]).to_owned(),
            plan: self.random.one_of(&["free", "pro"]).to_owned(),
            session: self.any_session(),
            input,
            cached: self.random.below(input),
            output: 1 + self.random.below(MOST_OUTPUT),
        }
    }

    /// One whose partition is not quiet.
    fn any_session(&mut self) -> String {
        loop {
            let session = format!("proxied-{}", self.random.below(SESSIONS));
            let partition = partition_of(session.as_bytes(), PARTITIONS);
            if !self.quiet.holds(partition) {
                return session;
            }
        }
    }
}

/// A connection to whoever listens there.
fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE).ok()?;
    // Where nobody listens the system may connect a port with itself.
    let is_own = stream.local_addr().is_ok_and(|own| own == address);
    (!is_own).then_some(stream)
}

/// Where the proxy answers since its last start, by its log.
fn address_in(log: &Path) -> Option<SocketAddr> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().rev();
    let line = lines.find(|line| line.contains("the proxy answers"))?;
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("address="))?;
    address.parse().ok()
}

/// Whether it does.
pub fn is_answering(log: &Path) -> bool {
    let Some(mut proxy) = address_in(log).and_then(connect) else {
        return false;
    };
    let request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let asked = proxy
        .set_read_timeout(Some(CONNECT_PATIENCE))
        .and_then(|()| proxy.write_all(request))
        .and_then(|()| proxy.read_to_end(&mut answer));
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

/// What has come of an answer to the call of this number.
fn seen(answer: &[u8], number: usize) -> Seen {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Seen::Cut;
    };
    let is_whole = match header(head, "content-length") {
        Some(length) => length
            .parse::<usize>()
            .is_ok_and(|length| length == body.len()),
        None => body.ends_with("0\r\n\r\n"),
    };
    let status: Option<u16> = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        _ if !is_whole => Seen::Cut,
        Some(200) if body.contains(&format!("\"call-{number}\"")) => Seen::Whole,
        Some(status) if REFUSALS.contains(&status) => Seen::Refused,
        _ => Seen::Wrong(text.chars().take(300).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_where_its_framing_says_so() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\"call-7\"";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n\"call-7\"\r\n";
        let end = format!("{chunked}0\r\n\r\n");
        let refused = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}";
        for (answer, wanted) in [
            (whole, Seen::Whole),
            (&whole[..whole.len() - 1], Seen::Cut),
            (chunked, Seen::Cut),
            (&*end, Seen::Whole),
            (refused, Seen::Refused),
            ("HTTP/1.1 2", Seen::Cut),
            ("", Seen::Cut),
        ] {
            assert_eq!(seen(answer.as_bytes(), 7), wanted, "{answer}");
        }
        let other = seen(whole.as_bytes(), 8);
        assert!(matches!(other, Seen::Wrong(_)), "{other:?}");
    }
}
