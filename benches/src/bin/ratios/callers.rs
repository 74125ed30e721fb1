//! Callers of a model that ask a sidecar before each call and report it afterwards, many at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between a refusal and the next attempt.
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);
/// Nothing more is admitted for so long once everything is spent: nothing will be.
const QUIET: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WITH_PROXIES: Duration = Duration::from_secs(60);

/// Every call costs a cent, and the budget is a hundred of them.
pub const CALLS_IN_BUDGET: u64 = 100;

/// What callers do.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Addresses of the sidecars; each caller has one.
    pub sidecars: Vec<String>,
    /// Whose budget it is.
    pub customer: String,
    /// The feature that calls are of.
    pub feature: String,
    /// How many ask at a time.
    pub callers: usize,
    /// How long a call takes.
    pub call: Duration,
    /// How long they go on, or until nothing is left to be spent.
    pub offered: Duration,
    /// How many calls each makes at most.
    pub calls_each: u64,
    /// Fields of the check beside those above.
    pub question: Value,
    /// What a call is billed for.
    pub usage: Value,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Calls that were made.
    pub admitted: u64,
    /// Those whose events were acknowledged.
    pub acknowledged: u64,
    /// Checks that were refused.
    pub refused: u64,
    /// Those of them for which there was money, by what all calls so far cost.
    pub needlessly_refused: u64,
    /// Calls that were neither made nor refused.
    pub failed: u64,
    /// When the last call that the budget has room for was over.
    pub spent_after: Option<Duration>,
    last_admitted: Option<Instant>,
}

/// What becomes of the calls of one run.
pub struct Progress {
    began: Instant,
    offered: Duration,
    outcome: Mutex<Outcome>,
}

/// Runs the traffic. What a sidecar that is away does not answer is tried again.
///
/// # Errors
/// Where a sidecar answers what it should not.
pub async fn run(traffic: Traffic) -> Result<Outcome> {
    let progress = Arc::new(Progress::new(traffic.offered));
    let traffic = Arc::new(traffic);
    let mut running = JoinSet::new();
    for number in 0..traffic.callers {
        running.spawn(caller(Arc::clone(&traffic), Arc::clone(&progress), number));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(progress.outcome())
}

async fn caller(traffic: Arc<Traffic>, progress: Arc<Progress>, number: usize) -> Result<()> {
    let sidecar = &traffic.sidecars[number % traffic.sidecars.len()];
    let mut connection = Connection::new(sidecar);
    let mut question = json!({
        "workspace": "acme", "customer": traffic.customer, "feature": traffic.feature,
        "provider": "openai", "model": "gpt-4o",
    });
    for (name, value) in traffic.question.as_object().context("an object")? {
        question[name] = value.clone();
    }
    let mut made = 0;
    while made < traffic.calls_each && !progress.is_over() {
        let answer = connection.post("/v1/check", &question).await;
        let Ok(answer) = answer else {
            sleep(BETWEEN_ATTEMPTS).await;
            continue;
        };
        if answer["decision"] == "block" {
            progress.refused();
            sleep(BETWEEN_ATTEMPTS).await;
            continue;
        }
        ensure!(answer["decision"].is_string(), "a check answered {answer}");
        progress.admitted();
        made += 1;
        sleep(traffic.call).await;
        let mut event = json!({
            "id": format!("{}-{number}-{made}", traffic.customer), "workspace": "acme",
            "customer": traffic.customer, "feature": traffic.feature,
            "provider": "openai", "model": "gpt-4o", "usage": traffic.usage,
        });
        if answer["reservation_id"].is_string() {
            event["reservation_id"] = answer["reservation_id"].clone();
        }
        // Until it is acknowledged: its id makes sure that it counts once.
        while connection.post("/v1/usage", &event).await.is_err() {
            sleep(BETWEEN_ATTEMPTS).await;
        }
        progress.acknowledged();
    }
    Ok(())
}

impl Progress {
    /// Of callers that go on for as long as `offered`.
    pub fn new(offered: Duration) -> Self {
        Self {
            began: Instant::now(),
            offered,
            outcome: Mutex::default(),
        }
    }

    /// What it has come to.
    pub fn outcome(&self) -> Outcome {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether callers are to stop.
    pub fn is_over(&self) -> bool {
        let outcome = self.locked();
        let is_quiet = outcome.last_admitted.is_some_and(|at| at.elapsed() > QUIET);
        let is_spent = outcome.admitted >= CALLS_IN_BUDGET;
        is_spent && is_quiet || self.began.elapsed() > self.offered
    }

    /// A call was not to be made.
    pub fn refused(&self) {
        let mut outcome = self.locked();
        outcome.refused += 1;
        outcome.needlessly_refused += u64::from(outcome.admitted < CALLS_IN_BUDGET);
    }

    /// A call was answered with an error that is no refusal, or not at all.
    pub fn failed(&self) {
        self.locked().failed += 1;
    }

    /// A call is being made.
    pub fn admitted(&self) {
        let mut outcome = self.locked();
        outcome.admitted += 1;
        outcome.last_admitted = Some(Instant::now());
    }

    /// A call is over.
    pub fn acknowledged(&self) {
        let mut outcome = self.locked();
        outcome.acknowledged += 1;
        if outcome.acknowledged == CALLS_IN_BUDGET {
            outcome.spent_after = Some(self.began.elapsed());
        }
    }
}

/// A connection that is kept, and opened again where it broke.
pub struct Connection {
    address: String,
    headers: String,
    patience: Duration,
    stream: Option<TcpStream>,
}

impl Connection {
    /// To the sidecar at this address, once something is asked.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            headers: String::new(),
            patience: PATIENCE,
            stream: None,
        }
    }

    /// The same with further header lines, each with its end, to one that may take its time.
    pub fn patient(address: &str, headers: &str) -> Self {
        Self {
            headers: headers.to_owned(),
            patience: PATIENCE_WITH_PROXIES,
            ..Self::new(address)
        }
    }

    /// The answer to a body at this path.
    ///
    /// # Errors
    /// Where nobody answers, or with a status that is no success.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.exchange(path, body).await?;
        ensure!(status < 300, "status {status}: {answer}");
        Ok(answer)
    }

    /// Status and answer, whatever they are; text that is no JSON is a string.
    ///
    /// # Errors
    /// Where nobody answers.
    pub async fn exchange(&mut self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let asked = timeout(self.patience, self.ask(path, body)).await;
        let answer = asked.map_err(anyhow::Error::from).flatten();
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn ask(&mut self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.address,
            self.headers,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut received = Vec::new();
        loop {
            if let Some(answer) = whole_answer(&received)? {
                return Ok(answer);
            }
            let length = stream.read_buf(&mut received).await?;
            ensure!(length > 0, "the connection ended");
        }
    }
}

/// Status and body of an answer that has come to its end.
fn whole_answer(received: &[u8]) -> Result<Option<(u16, Value)>> {
    let text = std::str::from_utf8(received)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = lengths.next().context("an answer without a length")?;
    if body.len() < length.trim().parse()? {
        return Ok(None);
    }
    let status = head
        .split(' ')
        .nth(1)
        .context("an answer without a status")?;
    let answer = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok(Some((status.parse()?, answer)))
}

/// What is at this path, as text.
///
/// # Errors
/// Where nobody answers.
pub async fn get_text(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
