//! An upstream that speaks OpenAI's chat completions, within this process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::callers::Progress;

const STACK_BYTES: usize = 64 * 1024;
const COMPLETION: &str = r#"{"id":"chatcmpl-NUMBER","object":"chat.completion","created":1,"model":"MODEL","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":INPUT,"completion_tokens":OUTPUT,"total_tokens":TOTAL}}"#;
const EVENT: &str =
    "data: {\"id\":\"chatcmpl-s\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";

type Watched = Mutex<Option<Arc<Progress>>>;

/// It answers at once, bills 100 and 10 tokens, and ends streams after one event. A stream whose
/// body says `hold` goes on until it is closed; for what else a message asks, see [`Wanted`].
pub struct Stub {
    /// Its host and port.
    pub address: String,
    watched: Arc<Watched>,
}

impl Stub {
    /// Starts it; it goes on as long as this process.
    pub fn start() -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let watched = Arc::new(Watched::default());
        let own = Arc::clone(&watched);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let watched = Arc::clone(&own);
                let answering = thread::Builder::new().stack_size(STACK_BYTES);
                let _ = answering.spawn(move || answer(&caller, &NUMBER, &watched));
            }
        });
        Ok(Self { address, watched })
    }

    /// From now on calls with a [`Wanted`] are told here.
    pub fn tell(&self, progress: Arc<Progress>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = Some(progress);
    }
}

/// What a call is to be like.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// How long it takes.
    pub call: Duration,
    /// Tokens that are billed.
    pub input: u64,
    /// Tokens that are billed.
    pub output: u64,
}

impl Wanted {
    /// As the text of a message.
    pub fn in_words(self) -> String {
        let Self {
            call,
            input,
            output,
        } = self;
        format!(
            "call_ms={} input={input} output={output} ",
            call.as_millis()
        )
    }

    fn read(body: &str) -> Option<Self> {
        let number = |name: &str| -> Option<u64> {
            let (_, rest) = body.split_once(name)?;
            let digits = rest.split(|one: char| !one.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        Some(Self {
            call: Duration::from_millis(number("call_ms=")?),
            input: number(" input=")?,
            output: number(" output=")?,
        })
    }
}

/// Makes the call, and answers it.
fn made(body: &str, watched: &Watched) -> String {
    let wanted = Wanted::read(body);
    let (input, output) = wanted.map_or((100, 10), |wanted| (wanted.input, wanted.output));
    if let Some(wanted) = wanted {
        let told = watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        told.iter().for_each(|progress| progress.admitted());
        thread::sleep(wanted.call);
        told.iter().for_each(|progress| progress.acknowledged());
    }
    let is_mini = body.contains("gpt-4o-mini");
    COMPLETION
        .replace("MODEL", if is_mini { "gpt-4o-mini" } else { "gpt-4o" })
        .replace("INPUT", &input.to_string())
        .replace("OUTPUT", &output.to_string())
        .replace("TOTAL", &(input + output).to_string())
}

fn answer(caller: &TcpStream, number: &AtomicUsize, watched: &Watched) -> Result<()> {
    caller.set_nodelay(true)?;
    let mut reader = BufReader::new(caller);
    let mut writer = caller;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8(body)?;
        if !body.contains("\"stream\":true") {
            let number = number.fetch_add(1, Ordering::Relaxed).to_string();
            let text = made(&body, watched).replace("NUMBER", &number);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            writer.write_all(head.as_bytes())?;
            continue;
        }
        let event = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{EVENT}\r\n",
            EVENT.len()
        );
        writer.write_all(event.as_bytes())?;
        if body.contains("\"hold\"") {
            // Nothing more comes until the caller goes.
            let _ = reader.read(&mut [0])?;
            return Ok(());
        }
        writer.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")?;
    }
}
