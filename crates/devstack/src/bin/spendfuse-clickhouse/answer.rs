//! From a request's statement to the answer's head and pieces. Runs on a blocking thread.

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::engine::{EngineError, QueryResult, ResultStream, Summary};
use crate::frames::FrameDecoder;
use crate::pool::{Outcome, Pool, Session};
use crate::request::{Refusal, RequestHead, bad_request};
use crate::sql::{SeveralStatements, Statement, classify};
use crate::wire::{can_stream, late_exception, repeated_header_length, status_of};

const FALLBACK_FORMAT: &str = "TabSeparated";

/// A piece of a request's body.
pub enum BodyPiece {
    Data(Bytes),
    /// The regular end. A channel that ends without it is a client that went away.
    End,
}

/// Status and headers of an answer, and its body where that is already complete.
pub struct AnswerHead {
    pub status: StatusCode,
    pub summary: Summary,
    pub format: String,
    pub error: Option<EngineError>,
    /// The whole body; `None` where pieces follow.
    pub whole: Option<Bytes>,
}

impl AnswerHead {
    fn whole(format: &str, body: Bytes, summary: Summary) -> Self {
        Self {
            status: StatusCode::OK,
            summary,
            format: format.to_owned(),
            error: None,
            whole: Some(body),
        }
    }

    /// The answer to a request that was refused or failed.
    pub fn failure(error: EngineError, status: StatusCode) -> Self {
        Self {
            status,
            summary: Summary::default(),
            format: FALLBACK_FORMAT.to_owned(),
            whole: Some(Bytes::from(format!("{error}\n"))),
            error: Some(error),
        }
    }

    /// The answer to a request that this front refuses by itself.
    pub fn refusal(refusal: &Refusal) -> Self {
        Self::failure(refusal.text(), refusal.status)
    }
}

/// Where an answer goes: its head once, then pieces.
pub struct AnswerSink {
    pub head: oneshot::Sender<AnswerHead>,
    pub pieces: Sender<Bytes>,
}

/// One statement with what belongs to it.
pub struct Job {
    pub head: RequestHead,
    /// The statement's text, and an insert's first data behind it.
    pub text: Vec<u8>,
    /// The rest of the body.
    pub body: Receiver<BodyPiece>,
}

impl Job {
    /// Runs the statement on a connection of the pool.
    pub fn run(mut self, pool: &Pool, sink: AnswerSink) {
        let text = std::mem::take(&mut self.text);
        let statement = match classify(&text) {
            Ok(statement) => statement,
            Err(SeveralStatements) => {
                let refusal = bad_request("several statements in one request are not allowed");
                return answer(sink, AnswerHead::refusal(&refusal));
            }
        };
        if !self.head.may_write && !matches!(statement, Statement::Read { .. }) {
            return answer(sink, AnswerHead::refusal(&read_only()));
        }
        let mut session = match pool.take(self.head.session.as_ref()) {
            Ok(session) => session,
            Err(error) => return answer_error(sink, error),
        };
        let database = self.head.database.as_deref();
        if let Err(error) = pool.prepare(&mut session, database, &self.head.settings) {
            pool.give_back(session, Outcome::Failed);
            return answer_error(sink, error);
        }
        let outcome = match statement {
            Statement::Insert {
                sql,
                format,
                data_at,
            } => self.insert(&mut session, sql, format, &text[data_at..], sink),
            Statement::Read { is_select, format } => {
                let format = format.map(str::to_owned);
                self.read(&mut session, &text, is_select, format, sink)
            }
            Statement::Session => match self.whole(&mut session, &text, None, sink) {
                Outcome::Clean => Outcome::Changed,
                other => other,
            },
            Statement::Other => self.whole(&mut session, &text, None, sink),
        };
        pool.give_back(session, outcome);
    }

    fn read(
        self,
        session: &mut Session,
        text: &[u8],
        is_select: bool,
        format: Option<String>,
        sink: AnswerSink,
    ) -> Outcome {
        let format = format.unwrap_or_else(|| self.default_format());
        if !is_select || !can_stream(&format) {
            return self.whole(session, text, Some(format), sink);
        }
        let sql = match statement_text(text) {
            Ok(sql) => sql,
            Err(refusal) => {
                answer(sink, AnswerHead::refusal(&refusal));
                return Outcome::Clean;
            }
        };
        let begun = session
            .connection
            .stream(sql, &format, &self.head.parameters)
            .and_then(|mut stream| {
                // The first piece decides between an answer and an error status.
                let first = stream.next()?;
                Ok((stream, first))
            });
        match begun {
            Err(error) => {
                answer_error(sink, error);
                Outcome::Failed
            }
            // Without rows a stream has no piece, not even the header that the format demands.
            Ok((_, None)) => self.whole(session, text, Some(format), sink),
            Ok((stream, Some(first))) => send_stream(stream, first, &format, sink),
        }
    }

    fn whole(
        self,
        session: &mut Session,
        text: &[u8],
        format: Option<String>,
        sink: AnswerSink,
    ) -> Outcome {
        let format = format.unwrap_or_else(|| self.default_format());
        let sql = match statement_text(text) {
            Ok(sql) => sql,
            Err(refusal) => {
                answer(sink, AnswerHead::refusal(&refusal));
                return Outcome::Clean;
            }
        };
        match session
            .connection
            .query(sql, &format, &self.head.parameters)
        {
            Ok(result) => {
                let body = Bytes::copy_from_slice(result.bytes());
                answer(sink, AnswerHead::whole(&format, body, result.summary()));
                Outcome::Clean
            }
            Err(error) => {
                answer_error(sink, error);
                Outcome::Failed
            }
        }
    }

    fn insert(
        mut self,
        session: &mut Session,
        sql: &str,
        format: &str,
        first_data: &[u8],
        sink: AnswerSink,
    ) -> Outcome {
        match self.write(session, sql, format, first_data) {
            Ok(Some(summary)) => {
                answer(sink, AnswerHead::whole(format, Bytes::new(), summary));
                Outcome::Clean
            }
            // Nobody is left to answer.
            Ok(None) => Outcome::Failed,
            Err(error) => {
                answer_error(sink, error);
                Outcome::Failed
            }
        }
    }

    /// Writes the body's rows; `None` where the client went away, and nothing was kept.
    fn write(
        &mut self,
        session: &mut Session,
        sql: &str,
        format: &str,
        first_data: &[u8],
    ) -> Result<Option<Summary>, EngineError> {
        let mut stream = session.connection.insert(sql, format)?;
        let mut decoder = FrameDecoder::default();
        let mut append = |data: &[u8]| {
            if self.head.is_compressed {
                decoder.push(data, |plain| stream.append(plain))
            } else {
                stream.append(data)
            }
        };
        if !first_data.is_empty() {
            append(first_data)?;
        }
        loop {
            match self.body.blocking_recv() {
                Some(BodyPiece::Data(data)) => append(&data)?,
                Some(BodyPiece::End) => break,
                None => {
                    stream.cancel();
                    return Ok(None);
                }
            }
        }
        decoder.finish()?;
        stream.done().map(Some)
    }

    fn default_format(&self) -> String {
        let format = self.head.default_format.as_deref();
        format.unwrap_or(FALLBACK_FORMAT).to_owned()
    }
}

fn send_stream(
    mut stream: ResultStream<'_>,
    first: QueryResult,
    format: &str,
    sink: AnswerSink,
) -> Outcome {
    let header_length = repeated_header_length(format, first.bytes());
    let head = AnswerHead {
        status: StatusCode::OK,
        summary: Summary::default(),
        format: format.to_owned(),
        error: None,
        whole: None,
    };
    answer_head(sink.head, head);
    if sink
        .pieces
        .blocking_send(Bytes::copy_from_slice(first.bytes()))
        .is_err()
    {
        stream.cancel();
        return Outcome::Failed;
    }
    loop {
        let piece = match stream.next() {
            Ok(Some(piece)) => piece,
            Ok(None) => return Outcome::Clean,
            Err(error) => {
                tracing::warn!(error, "a query failed after its answer had begun");
                // The client learns of it from the body's end; if it has gone, from nobody.
                let _ = sink.pieces.blocking_send(late_exception(&error));
                return Outcome::Failed;
            }
        };
        // Each piece repeats the header of the first.
        let rows = &piece.bytes()[header_length..];
        if sink
            .pieces
            .blocking_send(Bytes::copy_from_slice(rows))
            .is_err()
        {
            stream.cancel();
            return Outcome::Failed;
        }
    }
}

fn statement_text(text: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(text).map_err(|_| bad_request("the statement is not UTF-8"))
}

fn read_only() -> Refusal {
    Refusal {
        code: 164,
        message:
            "Cannot execute query in readonly mode. For queries over HTTP, method GET implies \
                  readonly. You should use method POST for modifying queries. (READONLY)"
                .to_owned(),
        status: StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn answer(sink: AnswerSink, head: AnswerHead) {
    answer_head(sink.head, head);
}

fn answer_error(sink: AnswerSink, error: EngineError) {
    let status = status_of(&error);
    answer_head(sink.head, AnswerHead::failure(error, status));
}

fn answer_head(to: oneshot::Sender<AnswerHead>, head: AnswerHead) {
    // A client that went away needs no answer.
    let _ = to.send(head);
}
