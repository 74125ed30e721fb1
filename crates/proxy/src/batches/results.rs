//! Reads the results of a batch on their way to the caller: an event of each answer in them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use spendfuse_domain::UnixMillis;
use spendfuse_sidecar::server::Connection;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::line::{Answer, Line};
use super::lines::Lines;
use super::passed::{Passed, Passing};
use super::told::Digest;
use super::when;
use crate::attribution::Who;
use crate::forward::Way;
use crate::lanes::Incoming;
use crate::meter::{self, Meter, until_safe};
use crate::proxy::Proxy;
use crate::under_way::Busy;

/// What lines of results are called that cannot be read.
pub(super) const UNREAD: &str = "batch-lines";
/// How long the end of results, or of a batch with its answers in it, waits for its events to be taken.
pub(super) const LONGEST_TELLING: Duration = Duration::from_secs(30);

/// One reading of a batch's results.
pub(super) struct Reader {
    proxy: Arc<Proxy>,
    way: Way,
    who: Who,
    /// What the results are called: names answers that have no name of their own.
    name: String,
    /// Who says when the results were there, and the headers to ask with.
    about: Option<(Uri, HeaderMap)>,
    /// `None` until a line has shown it.
    is_batch: Option<bool>,
    /// When the results were there; `None` where nobody has asked yet.
    made: Option<UnixMillis>,
    /// The model of answers that name none; empty where nobody knows.
    model: String,
    lines: Lines,
    /// What has come and is not read yet.
    pending: Bytes,
    /// A line that has come whole and is not told yet.
    line: Option<Bytes>,
    /// Lines so far.
    count: usize,
    unread: usize,
    busy: Arc<Busy>,
}

/// How the results came to their end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    BrokeOff,
    /// Their reader has left.
    Left,
}

impl Reader {
    pub(super) fn new(
        proxy: &Arc<Proxy>,
        way: Way,
        who: Who,
        name: String,
        is_batch: bool,
    ) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            way,
            who,
            name,
            about: None,
            is_batch: is_batch.then_some(true),
            made: None,
            model: String::new(),
            lines: Lines::new(&proxy.memory),
            pending: Bytes::new(),
            line: None,
            count: 0,
            unread: 0,
            busy: Arc::new(Busy::begin(proxy)),
        }
    }

    /// Begins with the answers of a batch: its name, empty where nobody knows, the model of answers that
    /// name none, and when they were there.
    pub(super) fn begin(&mut self, name: String, model: String, made: Option<UnixMillis>) {
        if !name.is_empty() {
            self.name = name;
        }
        self.model = model;
        self.made = made;
        self.count = 0;
    }

    /// The same, which asks at `uri` when the results were there.
    pub(super) fn asking(mut self, uri: Option<Uri>, mut headers: HeaderMap) -> Self {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for name in [
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::RANGE,
            header::IF_RANGE,
        ] {
            headers.remove(name);
        }
        self.about = uri.map(|uri| (uri, headers));
        self
    }

    /// Passes the results on as they come. They come no faster than their events are taken, of which
    /// there are few at once that are not safe.
    pub(super) fn pass_on(
        mut self,
        mut upstream: Incoming,
        connection: Option<Arc<Connection>>,
    ) -> Body {
        let (client, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            let end = tokio::select! {
                end = self.read(&mut upstream, Some(&client), usize::MAX) => Some(end),
                () = client.closed() => None,
            };
            let end = match end {
                Some(end) => end,
                None => self.drain(&mut upstream).await,
            };
            if timeout(LONGEST_TELLING, self.finish(end)).await.is_err() {
                self.tell_unread();
            }
        });
        Body::new(Passed::new(frames, connection))
    }

    /// Reads on without a client, as streams are.
    async fn drain(&mut self, upstream: &mut Incoming) -> End {
        let drains = self.proxy.drains.clone();
        let room = Arc::clone(&drains.at_once).try_acquire_owned();
        let most_bytes = room.as_ref().map_or(0, |_| drains.most_bytes);
        let reading = self.read(upstream, None, most_bytes);
        timeout(drains.time, reading).await.unwrap_or(End::Left)
    }

    /// Reads to the end, or beyond `most_bytes`. May be dropped at any time, and begun again.
    async fn read(
        &mut self,
        upstream: &mut Incoming,
        client: Option<&mpsc::Sender<Passing>>,
        most_bytes: usize,
    ) -> End {
        let mut bytes = 0;
        loop {
            self.tell_pending().await;
            let is_nobodys = client.is_none() && self.is_batch == Some(false);
            if bytes >= most_bytes || is_nobodys {
                return End::Left;
            }
            let Some(frame) = upstream.frame().await else {
                return End::Whole;
            };
            let data = frame.as_ref().ok().and_then(|frame| frame.data_ref());
            self.pending = data.cloned().unwrap_or_default();
            bytes += self.pending.len();
            let has_broken_off = frame.is_err();
            if let Some(client) = client {
                // Where the client has gone, whoever began this reading knows it, too.
                let _ = client.send(frame).await;
            }
            if has_broken_off {
                return End::BrokeOff;
            }
        }
    }

    async fn tell_pending(&mut self) {
        loop {
            self.tell_line().await;
            if self.is_foreign() || self.pending.is_empty() {
                self.pending = Bytes::new();
                return;
            }
            match self.lines.take(&self.pending) {
                Some(end) => {
                    self.pending = self.pending.slice(end..);
                    self.line = Some(Bytes::from(self.lines.line()));
                }
                None => self.pending = Bytes::new(),
            }
        }
    }

    /// Whether this is no batch, and the rest of it nobody's business.
    fn is_foreign(&mut self) -> bool {
        if self.is_batch.is_none()
            && self.count == 0
            && self.lines.is_begun_by_another(&self.pending)
        {
            self.is_batch = Some(false);
        }
        self.is_batch == Some(false)
    }

    /// Tells the line that has come, where there is one; it is there until it is told.
    async fn tell_line(&mut self) {
        let Some(line) = self.line.clone() else {
            return;
        };
        if !line.trim_ascii().is_empty() {
            let said = Line::read(&line);
            match said {
                Line::Foreign if self.is_batch.is_none() => {
                    self.is_batch = Some(false);
                }
                said => self.tell(said).await,
            }
        }
        self.line = None;
        self.lines.forget_line();
    }

    /// Tells the answers of a batch that has them in it, but for those that were told before.
    pub(super) async fn tell_answers(&mut self, answers: &[&RawValue]) {
        let proxy = Arc::clone(&self.proxy);
        let made = self.made.map(|made| made.to_string()).unwrap_or_default();
        let workspace = self.who.get("workspace").map_or("", String::as_str);
        let names: [&str; 5] = [&self.way.name, workspace, &self.name, &self.model, &made];
        let batch = Digest::of(&names, answers);
        for (number, answer) in answers.iter().enumerate() {
            if number >= proxy.told.count(&batch) {
                self.count = number;
                self.tell(Line::of_item(answer)).await;
                proxy.told.reached(batch, number + 1);
            }
        }
    }

    /// Tells what a line says.
    async fn tell(&mut self, said: Line) {
        self.is_batch = Some(true);
        match said {
            Line::Answer(answer) => self.tell_answer(*answer).await,
            Line::Free => meter::count(&self.way.name, "failed"),
            Line::Unread | Line::Foreign => self.tell_unread(),
        }
        self.count += 1;
    }

    /// A line that may cost something does not say what.
    pub(super) fn tell_unread(&mut self) {
        meter::count_unmetered(&self.way.name, UNREAD);
        self.unread += 1;
    }

    async fn tell_answer(&mut self, answer: Answer) {
        let Answer { call, mut seen } = answer;
        if seen.model.is_empty() {
            seen.model.clone_from(&self.model);
        }
        if seen.model.is_empty() {
            return self.tell_unread();
        }
        let made = self.made().await;
        let room = Arc::clone(&self.proxy.batch_events).acquire_owned().await;
        seen.created_at = Some(made.0.div_euclid(1000));
        let name = format!("{}:{}", self.name, self.count + 1);
        let of_line = Meter::of_batch(&self.proxy, &self.way, call, self.who.clone(), name, seen);
        match of_line.taken() {
            Ok(taken) => {
                meter::count(&self.way.name, "metered");
                let (sidecar, busy) = (Arc::clone(&self.proxy.sidecar), Arc::clone(&self.busy));
                tokio::spawn(async move {
                    until_safe(&sidecar, taken).await;
                    drop((room, busy));
                });
            }
            Err(error) => {
                let (upstream, results) = (&self.way.name, &self.name);
                tracing::error!(upstream, results, %error, "an answer of a batch is not counted");
                self.tell_unread();
            }
        }
    }

    /// When the results were there: the same however often they are read.
    async fn made(&mut self) -> UnixMillis {
        if let Some(made) = self.made {
            return made;
        }
        let told = match &self.about {
            Some(about) => when::told(&self.proxy, about).await,
            None => None,
        };
        *self.made.insert(told.unwrap_or_else(|| {
            let (upstream, results) = (&self.way.name, &self.name);
            tracing::warn!(
                upstream,
                results,
                "nobody says when they were there: they count as of now"
            );
            self.proxy.sidecar.now()
        }))
    }

    /// The end, and a last line that lacks its own.
    async fn finish(&mut self, end: End) {
        self.tell_pending().await;
        if end == End::Left && self.is_batch == Some(true) {
            let (upstream, results) = (&self.way.name, &self.name);
            tracing::warn!(
                upstream,
                results,
                "whoever read a batch's results has left before their end: what follows is counted once they are read again"
            );
        }
        let rest = self.lines.line();
        if self.is_batch == Some(false) || rest.trim_ascii().is_empty() {
            return;
        }
        match Line::read(&rest) {
            Line::Foreign if self.is_batch.is_none() || end == End::Left => {}
            said => self.tell(said).await,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let lines = self.unread;
        if lines > 0 {
            let (upstream, results) = (&self.way.name, &self.name);
            tracing::warn!(
                upstream,
                results,
                lines,
                "lines of a batch's results do not say what they cost: it is not counted"
            );
        }
    }
}
