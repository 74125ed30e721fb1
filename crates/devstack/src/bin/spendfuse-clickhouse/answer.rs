//! From a request's statement to the answer's head and pieces. Runs on a blocking thread.

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::engine::{EngineError, QueryResult, ResultStream, Summary};
use crate::frames::FrameDecoder;
use crate::pool::{Pool, Session};
use crate::request::{Refusal, RequestHead, bad_request};
use crate::sql::{SeveralStatements, Statement, classify};

/// Formats whose result can be sent piece by piece: every piece the engine gives is a complete
/// document, which for these means rows, at most behind a header that can be cut off.
const STREAMED_FORMATS: [&str; 7] = [
    "RowBinary",
    FORMAT_WITH_HEADER,
    "Native",
    "TabSeparated",
    "TSV",
    "CSV",
    "JSONEachRow",
];
const FORMAT_WITH_HEADER: &str = "RowBinaryWithNamesAndTypes";
const FALLBACK_FORMAT: &str = "TabSeparated";

/// Marks an error in the middle of a body; any 16 letters do.
pub const EXCEPTION_TAG: &str = "spendfusedevtags";

/// A piece of a request's body.
pub enum BodyPiece {
    /// Bytes.
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

/// How a statement ended; decides what becomes of its connection.
enum Outcome {
    Clean,
    /// The statement changed the session, failed or was given up.
    Spoiled,
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
        let prepared = pool.take().and_then(|mut session| {
            let database = self.head.database.as_deref();
            pool.prepare(&mut session, database, &self.head.settings)?;
            Ok(session)
        });
        let mut session = match prepared {
            Ok(session) => session,
            Err(error) => return answer_error(sink, error),
        };
        let outcome = match statement {
            Statement::Insert {
                sql,
                format,
                data_at,
            } => self.insert(&mut session, sql, format, &text[data_at..], sink),
            Statement::Read { can_stream, format } => {
                let format = format.map(str::to_owned);
                self.read(&mut session, &text, can_stream, format, sink)
            }
            Statement::Session => {
                self.whole(&mut session, &text, None, sink);
                Outcome::Spoiled
            }
            Statement::Other => self.whole(&mut session, &text, None, sink),
        };
        // An error, a cancellation or a changed session must not reach the next request.
        if matches!(outcome, Outcome::Clean) {
            pool.give_back(session);
        }
    }

    fn read(
        self,
        session: &mut Session,
        text: &[u8],
        can_stream: bool,
        format: Option<String>,
        sink: AnswerSink,
    ) -> Outcome {
        let format = format.unwrap_or_else(|| self.default_format());
        if !can_stream || !STREAMED_FORMATS.contains(&format.as_str()) {
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
                Outcome::Spoiled
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
                Outcome::Spoiled
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
            Ok(None) => Outcome::Spoiled,
            Err(error) => {
                answer_error(sink, error);
                Outcome::Spoiled
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
    let header_length = if format == FORMAT_WITH_HEADER {
        header_length(first.bytes())
    } else {
        0
    };
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
        return Outcome::Spoiled;
    }
    loop {
        let piece = match stream.next() {
            Ok(Some(piece)) => piece,
            Ok(None) => return Outcome::Clean,
            Err(error) => {
                tracing::warn!(error, "a query failed after its answer had begun");
                // The client learns of it from the body's end; if it has gone, from nobody.
                let _ = sink.pieces.blocking_send(late_exception(&error));
                return Outcome::Spoiled;
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
            return Outcome::Spoiled;
        }
    }
}

/// Length of the header of `RowBinaryWithNamesAndTypes`: the number of columns, then as many
/// names and as many types, each with its length.
fn header_length(piece: &[u8]) -> usize {
    let mut at = 0;
    let columns = read_varint(piece, &mut at);
    for _ in 0..columns * 2 {
        let length = read_varint(piece, &mut at);
        at += length;
    }
    at
}

fn read_varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// What ClickHouse (25.11 and later) writes at the end of a body that it could not complete.
fn late_exception(error: &str) -> Bytes {
    let message = format!("{error}\n");
    Bytes::from(format!(
        "\r\n__exception__\r\n{EXCEPTION_TAG}\r\n{message}{} {EXCEPTION_TAG}\r\n__exception__\r\n",
        message.len()
    ))
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

/// The number in `Code: N. DB::Exception: …`.
pub fn error_code(error: &str) -> Option<u32> {
    let after = error.split_once("Code: ")?.1;
    after.split_once('.')?.0.parse().ok()
}

/// The status that ClickHouse gives to the codes clients meet; 500 for all others.
fn status_of(error: &str) -> StatusCode {
    match error_code(error) {
        Some(
            20 | 26 | 27 | 36 | 38 | 41 | 43 | 53 | 62 | 72 | 115 | 117 | 130 | 131 | 456 | 457,
        ) => StatusCode::BAD_REQUEST,
        Some(46 | 60 | 81) => StatusCode::NOT_FOUND,
        Some(159 | 160) => StatusCode::REQUEST_TIMEOUT,
        Some(497) => StatusCode::FORBIDDEN,
        Some(48) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_names_and_types_is_measured() {
        let header = b"\x02\x01a\x02bc\x05UInt8\x06String";
        let piece = [header.as_slice(), b"\x07rows"].concat();
        assert_eq!(header_length(&piece), header.len());
    }

    #[test]
    fn an_error_code_is_read_from_its_text() {
        assert_eq!(error_code("Code: 60. DB::Exception: no table"), Some(60));
        assert_eq!(error_code("something else"), None);
    }
}
