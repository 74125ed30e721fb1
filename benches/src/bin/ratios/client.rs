//! One client for every server that answers small questions: requests go out in one write, answers
//! are read until they are complete. The same code asks sidecar and Redis.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_benches::figures::Times;
use spendfuse_benches::process::usage;

const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(String),
    Unix(PathBuf),
}

/// A protocol: what is sent for a question, and when its answer is complete.
pub trait Protocol: Sync {
    /// Writes the question of this number.
    fn question(&self, number: usize, request: &mut Vec<u8>);
    /// The length of the answer where it is complete; an error where it is a refusal.
    fn answer(&self, received: &[u8]) -> Result<Option<usize>>;
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection with one question under way at a time.
struct Connection<'p, P> {
    stream: Box<dyn Stream>,
    protocol: &'p P,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl<'p, P: Protocol> Connection<'p, P> {
    fn open(address: &Address, protocol: &'p P) -> Result<Self> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Self {
            stream,
            protocol,
            request: Vec::new(),
            received: vec![0; 64 * 1024],
        })
    }

    fn ask(&mut self, number: usize) -> Result<Duration> {
        self.request.clear();
        self.protocol.question(number, &mut self.request);
        let began = Instant::now();
        self.stream.write_all(&self.request)?;
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.received[length..])?;
            ensure!(read > 0, "the server closed the connection");
            length += read;
            if self.protocol.answer(&self.received[..length])?.is_some() {
                return Ok(began.elapsed());
            }
        }
    }
}

/// Whether a server answers by now.
pub fn answers<P: Protocol>(address: &Address, protocol: &P) -> bool {
    Connection::open(address, protocol).is_ok_and(|mut one| one.ask(0).is_ok())
}

/// Times of `count` questions, one after another on one connection, after a warm-up.
pub fn one_by_one<P: Protocol>(address: &Address, protocol: &P, count: usize) -> Result<Times> {
    let mut connection = Connection::open(address, protocol)?;
    for number in 0..count / 5 {
        connection.ask(number)?;
    }
    (0..count).map(|number| connection.ask(number)).collect()
}

/// Answers that a server gives for each second of processor time of its own, with four
/// connections asking at once.
pub fn a_core<P: Protocol>(
    address: &Address,
    protocol: &P,
    server: u32,
    duration: Duration,
) -> Result<f64> {
    const CONNECTIONS: usize = 4;
    let before = usage(server)?.cpu;
    let began = Instant::now();
    let answered = thread::scope(|scope| {
        let ask = |first: usize| {
            let mut connection = Connection::open(address, protocol)?;
            let mut count = 0;
            while began.elapsed() < duration {
                connection.ask(first * 1_000 + count)?;
                count += 1;
            }
            anyhow::Ok(count)
        };
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|first| scope.spawn(move || ask(first)))
            .collect();
        let mut answered = 0;
        for thread in threads {
            let count = thread.join();
            answered += count.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        anyhow::Ok(answered)
    })?;
    let used = (usage(server)?.cpu - before).as_secs_f64();
    ensure!(used > 0.0, "the server used no measurable time");
    Ok(answered as f64 / used)
}

/// Times of questions at a steady rate, from when each was due, on four connections to these
/// addresses in turn.
pub fn paced<P: Protocol>(
    addresses: &[Address],
    protocol: &P,
    rate: u32,
    duration: Duration,
) -> Result<Times> {
    const CONNECTIONS: u32 = 4;
    let pause = Duration::from_secs(1) * CONNECTIONS / rate;
    let ask = |first: u32| {
        let mut connection = Connection::open(in_turn(addresses, first), protocol)?;
        let began = Instant::now() + pause * first / CONNECTIONS;
        let mut times = Vec::new();
        for number in 0.. {
            let due = began + pause * number;
            if due.saturating_duration_since(began) > duration {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let asked = connection.ask((first * 1_000_000 + number) as usize)?;
            // A question that waited for the one before waited for the server.
            times.push(asked.max(due.elapsed()));
        }
        anyhow::Ok(times)
    };
    let all = on_threads(CONNECTIONS, ask)?;
    Ok(all.into_iter().flatten().collect())
}

/// Answers a second, with sixteen connections to these addresses in turn asking at once.
pub fn as_fast<P: Protocol>(
    addresses: &[Address],
    protocol: &P,
    duration: Duration,
) -> Result<f64> {
    const CONNECTIONS: u32 = 16;
    let began = Instant::now();
    let ask = |first: u32| {
        let mut connection = Connection::open(in_turn(addresses, first), protocol)?;
        let mut count = 0;
        while began.elapsed() < duration {
            connection.ask(first as usize * 1_000_000 + count)?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    let all = on_threads(CONNECTIONS, ask)?;
    Ok(all.into_iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64())
}

fn in_turn(addresses: &[Address], number: u32) -> &Address {
    &addresses[number as usize % addresses.len()]
}

/// What `work` comes to on each of `count` threads.
fn on_threads<T: Send>(count: u32, work: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                let ended = thread.join();
                ended.map_err(|_| anyhow::anyhow!("a client panicked"))?
            })
            .collect()
    })
}

/// A chat completion of OpenAI's API.
pub struct ChatProtocol {
    pub path: &'static str,
    /// Further header lines, each with its end.
    pub headers: String,
}

impl Protocol for ChatProtocol {
    fn question(&self, number: usize, request: &mut Vec<u8>) {
        let customer = number % 100;
        let body =
            r#"{"model":"gpt-4o-mini","max_tokens":10,"messages":[{"role":"user","content":"x"}]}"#;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             x-spendfuse-customer: c-{customer}\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.path,
            self.headers,
            body.len()
        );
        request.extend_from_slice(head.as_bytes());
    }

    fn answer(&self, received: &[u8]) -> Result<Option<usize>> {
        http_answer(received)
    }
}

/// `POST /v1/check` of a sidecar.
pub struct CheckProtocol {
    /// Customers that are asked about, `c-0` and on.
    pub customers: usize,
}

impl Protocol for CheckProtocol {
    fn question(&self, number: usize, request: &mut Vec<u8>) {
        let customer = number * 7_919 % self.customers;
        let body = format!(
            "{{\"workspace\":\"acme\",\"customer\":\"c-{customer}\",\"feature\":\"feature-1\",\
             \"session\":\"bs-{customer}\",\"model\":\"gpt-4o-mini\",\
             \"estimated_cost_usd\":\"0.01\"}}"
        );
        let head = format!(
            "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body.as_bytes());
    }

    fn answer(&self, received: &[u8]) -> Result<Option<usize>> {
        http_answer(received)
    }
}

/// `GET /healthz`: what HTTP costs without a check.
pub struct LivenessProtocol;

impl Protocol for LivenessProtocol {
    fn question(&self, _number: usize, request: &mut Vec<u8>) {
        request.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }

    fn answer(&self, received: &[u8]) -> Result<Option<usize>> {
        http_answer(received)
    }
}

fn http_answer(received: &[u8]) -> Result<Option<usize>> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&received[..head])?;
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "the answer is {status}");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + 4 + length.context("an answer without a length")?;
    Ok((received.len() >= whole).then_some(whole))
}

/// `GET` of Redis.
pub struct RedisProtocol {
    /// Keys that are asked for, `customer|acme/customer=c-0` and on.
    pub customers: usize,
}

impl RedisProtocol {
    pub fn key(number: usize) -> String {
        format!("customer|acme/customer=c-{number}")
    }
}

impl Protocol for RedisProtocol {
    fn question(&self, number: usize, request: &mut Vec<u8>) {
        let key = Self::key(number * 7_919 % self.customers);
        let command = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        request.extend_from_slice(command.as_bytes());
    }

    fn answer(&self, received: &[u8]) -> Result<Option<usize>> {
        let Some(end) = received.windows(2).position(|window| window == b"\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&received[..end])?;
        let length: usize = head
            .strip_prefix('$')
            .and_then(|length| length.parse().ok())
            .with_context(|| format!("Redis answers {head}"))?;
        let whole = end + 2 + length + 2;
        Ok((received.len() >= whole).then_some(whole))
    }
}
