//! Requests made to break things, and events full of names that nobody has heard of.

use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::{Answers, Plan};
use crate::admin::Address;
use crate::wait::pause;

/// Attackers at once.
const WORKERS: usize = 4;
/// Events in one request.
const BATCH: usize = 500;

/// Sends `plan.requests` of all kinds in turn.
pub(super) fn requests(address: Address, plan: &Plan) -> Answers {
    let kinds = kinds();
    let each = plan.requests / WORKERS;
    let pace = Duration::from_secs_f64(WORKERS as f64 / plan.rate as f64);
    let mut answers = Answers::new();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(scope.spawn(|| {
                let mut client = Client::new(address);
                let mut answers = Answers::new();
                let began = Instant::now();
                for number in 0..each {
                    let due = pace * u32::try_from(number).unwrap_or(u32::MAX);
                    pause(due.saturating_sub(began.elapsed()));
                    let status = client.ask(&kinds[number % kinds.len()]).unwrap_or(0);
                    *answers.entry(status).or_default() += 1;
                }
                answers
            }));
        }
        for worker in workers {
            let one = worker.join().expect("an attacker does not panic");
            for (status, count) in one {
                *answers.entry(status).or_default() += count;
            }
        }
    });
    answers
}

/// Reports calls of `plan.names` models, customers and sessions, each new, spread over
/// the plan's phase.
pub(super) fn names(address: Address, plan: &Plan) -> Answers {
    // Two addresses that are attacked in turn get names of their own.
    let (count, port) = (plan.names, address.port());
    let mut client = Client::new(address);
    let mut answers = Answers::new();
    let pace = plan.phase().mul_f64(BATCH as f64 / count.max(1) as f64);
    let began = Instant::now();
    for (batch, first) in (0..count).step_by(BATCH).enumerate() {
        let due = pace * u32::try_from(batch).unwrap_or(u32::MAX);
        pause(due.saturating_sub(began.elapsed()));
        let event = |number: usize| {
            format!(
                "{{\"id\":\"invented-{port}-{number}\",\"workspace\":\"acme\",\"customer\":\"c-{port}-{number}\",\
                 \"session\":\"s-{port}-{number}\",\"provider\":\"openai\",\"model\":\"model-{port}-{number}\",\
                 \"usage\":{{\"input_tokens\":10}}}}\n"
            )
        };
        let lines: String = (first..(first + BATCH).min(count)).map(event).collect();
        let request = post(
            "/v1/usage",
            "Content-Type: application/x-ndjson\r\n",
            lines.as_bytes(),
        );
        let status = client.ask(&request).unwrap_or(0);
        *answers.entry(status).or_default() += 1;
    }
    answers
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn kinds() -> Vec<Vec<u8>> {
    const JSON: &str = "Content-Type: application/json\r\n";
    const GZIP: &str = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let check = |body: &[u8]| post("/v1/check", JSON, body);
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
    };
    let junk = format!("[{}]", vec!["{\"id\":{}}"; 500].join(","));
    vec![
        check(b"{\"customer\": "),
        check(b"{\"customer\": {\"a\": []}}"),
        check("[".repeat(10_000).as_bytes()),
        check(" ".repeat(70_000).as_bytes()),
        check(b"\xff\xfe\x00"),
        check(b"{\"estimated_cost_usd\": \"-1e999\"}"),
        check(format!("{{\"tags\": {{\"{}\": \"v\"}}}}", "t".repeat(50_000)).as_bytes()),
        post("/v1/check", "Content-Type: text/plain\r\n", b"{}"),
        post("/v1/usage", JSON, junk.as_bytes()),
        post("/v1/usage", GZIP, b"no gzip"),
        post("/v1/usage", GZIP, &bomb()),
        post("/v1/usage", "Content-Encoding: br\r\n", b"x"),
        get(
            "/v1/state?customer=%ff%fe%00",
            "Origin: https://example.com\r\n",
        ),
        get("/v1/state?session=%ff%fe%00", ""),
        get("/v1/blocklist?cursor=..%2f..%2fetc&limit=-1", ""),
        get(
            "/v1/authz/../../etc/passwd?customer=c",
            "X-Spendfuse-Customer: \u{1b}[31m\r\n",
        ),
        get(&format!("/{}", "a".repeat(30_000)), ""),
        get(
            "/v1/state",
            &format!("X-Large: {}\r\n", "x".repeat(100_000)),
        ),
        b"NONSENSE\r\n\r\n".to_vec(),
        b"POST /v1/usage HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
    ]
}

/// Nine million spaces in a few kilobytes: a gzip member of one deflate block that repeats itself.
fn bomb() -> Vec<u8> {
    spaces_as_gzip(9_000_000)
}

/// Fixed Huffman codes: a space, then matches of 258 bytes at distance 1 (RFC 1951).
fn spaces_as_gzip(count: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.push_code(0x30 + u32::from(b' '), 8);
    for _ in 0..count / 258 {
        // Length 258 is code 285 (11000101), distance 1 is code 0 (00000).
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    bits.push_code(0, 7);
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend(bits.bytes);
    // Checksum and length: whoever reads as far as this has read too much.
    bytes.extend([0; 8]);
    bytes
}

/// Bits in deflate's order.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// The lowest `count` bits, lowest first.
    fn push(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> at & 1 == 1) << (self.used % 8);
            }
            self.used += 1;
        }
    }

    /// A Huffman code: highest bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        for at in (0..count).rev() {
            self.push(code >> at & 1, 1);
        }
    }
}
