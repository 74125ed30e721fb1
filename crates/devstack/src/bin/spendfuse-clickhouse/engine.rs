//! ClickHouse's engine as a shared library: the only place that calls C.
//!
//! Every pointer is opaque; results, streams and connections are owned by values of this module
//! and freed when those are dropped.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;

use anyhow::{Context, Result, bail};
use libloading::Library;

use crate::functions::{
    ConnectionHandle, Functions, InsertHandle, QueryFunction, ResultHandle, SUCCESS, look_up,
};

/// The loaded engine on one data path. One a process; lives as long as the process.
pub struct Engine {
    functions: Functions,
    arguments: Vec<CString>,
}

impl Engine {
    /// Loads the library. Nothing is started before the first connection.
    pub fn load(library: &Path, data: &Path, settings: &[String]) -> Result<&'static Self> {
        // SAFETY: the library is the one whose checksum set-up verified; its initialisers have no
        // precondition. It is never unloaded: the engine's threads run its code until exit.
        let library: &'static Library = Box::leak(Box::new(
            unsafe { Library::new(library) }
                .with_context(|| format!("loading {}", library.display()))?,
        ));
        let functions = look_up(library)?;
        let mut arguments = vec![
            CString::new("clickhouse")?,
            CString::new(format!("--path={}", data.display()))?,
        ];
        for setting in settings {
            arguments.push(CString::new(setting.as_str())?);
        }
        Ok(Box::leak(Box::new(Self {
            functions,
            arguments,
        })))
    }

    /// Opens a connection; the first one starts the engine.
    pub fn connect(&'static self) -> Result<Connection> {
        let mut arguments: Vec<*mut c_char> = self
            .arguments
            .iter()
            .map(|argument| argument.as_ptr().cast_mut())
            .collect();
        let count = c_int::try_from(arguments.len())?;
        // SAFETY: `count` valid NUL-terminated strings, which the engine only reads.
        let handle = unsafe { (self.functions.connect)(count, arguments.as_mut_ptr()) };
        if handle.is_null() {
            bail!(
                "the engine refused to open its data path (its reason is above): \
                 is another process using it?"
            );
        }
        Ok(Connection {
            engine: self,
            handle,
        })
    }

    /// Ends the engine's threads. All connections must have been closed.
    pub fn shut_down(&self) {
        // SAFETY: no precondition; with an open connection it does nothing. It reports an error
        // after most sessions that ran queries, without harm (26.7.3).
        unsafe { (self.functions.shutdown)() };
    }
}

/// What the engine says when it refuses: `Code: N. DB::Exception: …`.
pub type EngineError = String;

/// Values for `{name:Type}` placeholders, in ClickHouse's escaped text form.
pub type Parameters = Vec<(String, String)>;

/// A session with its own settings and current database; runs one statement at a time.
pub struct Connection {
    engine: &'static Engine,
    handle: *mut ConnectionHandle,
}

// SAFETY: a connection may be used from any thread, by one at a time, which ownership ensures.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs a statement to its end and holds the whole result.
    pub fn query(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &Parameters,
    ) -> Result<QueryResult, EngineError> {
        let result = self.call(self.engine.functions.query, sql, format, parameters);
        result.into_checked()
    }

    /// Starts a `SELECT` whose result comes in pieces.
    pub fn stream(
        &mut self,
        sql: &str,
        format: &str,
        parameters: &Parameters,
    ) -> Result<ResultStream<'_>, EngineError> {
        let result = self.call(self.engine.functions.stream_query, sql, format, parameters);
        let handle = result.into_checked()?;
        Ok(ResultStream {
            connection: self,
            handle,
        })
    }

    /// Starts an `INSERT`; `sql` has no `FORMAT` and no data.
    pub fn insert(&mut self, sql: &str, format: &str) -> Result<InsertStream<'_>, EngineError> {
        let functions = &self.engine.functions;
        // SAFETY: pointers and lengths of live strings, an open connection.
        let handle = unsafe {
            (functions.stream_insert)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
            )
        };
        let stream = InsertStream {
            _connection: self,
            functions,
            handle,
        };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn call(
        &self,
        function: QueryFunction,
        sql: &str,
        format: &str,
        parameters: &Parameters,
    ) -> QueryResult {
        let names: Vec<*const c_char> = parameters.iter().map(|(n, _)| n.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = parameters.iter().map(|(n, _)| n.len()).collect();
        let values: Vec<*const c_char> =
            parameters.iter().map(|(_, v)| v.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> = parameters.iter().map(|(_, v)| v.len()).collect();
        // SAFETY: pointers and lengths of live strings, four arrays of `parameters.len()`
        // entries, an open connection. The engine copies what it keeps.
        let handle = unsafe {
            function(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        QueryResult {
            functions: &self.engine.functions,
            handle,
        }
    }

    fn raw(&self) -> ConnectionHandle {
        // SAFETY: `chdb_connect` returned this pointer and it was not closed.
        unsafe { *self.handle }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: closed once, here; streams borrow the connection and are gone.
        unsafe { (self.engine.functions.close)(self.handle) }
    }
}

/// A result, or a piece of one.
pub struct QueryResult {
    functions: &'static Functions,
    handle: ResultHandle,
}

// SAFETY: a result is a buffer of its own, not tied to a thread.
unsafe impl Send for QueryResult {}

impl QueryResult {
    fn into_checked(self) -> Result<Self, EngineError> {
        if self.handle.is_null() {
            return Err("Code: 1001. DB::Exception: the engine returned no result".to_owned());
        }
        // SAFETY: a live result.
        let error = unsafe { (self.functions.result_error)(self.handle) };
        match owned_text(error) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The bytes in the format that was asked for.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer has that length and lives as long as the result.
        unsafe {
            let buffer = (self.functions.result_buffer)(self.handle);
            let length = (self.functions.result_length)(self.handle);
            if buffer.is_null() || length == 0 {
                return &[];
            }
            std::slice::from_raw_parts(buffer.cast(), length)
        }
    }

    /// Rows and bytes read and written.
    pub fn summary(&self) -> Summary {
        // SAFETY: a live result.
        unsafe {
            Summary {
                read_rows: (self.functions.result_rows_read)(self.handle),
                read_bytes: (self.functions.result_bytes_read)(self.handle),
                written_rows: (self.functions.result_rows_written)(self.handle),
                written_bytes: (self.functions.result_bytes_written)(self.handle),
            }
        }
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: destroyed once, here.
            unsafe { (self.functions.result_destroy)(self.handle) }
        }
    }
}

/// What a statement read and wrote; writes of materialized views included.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    /// Rows of the result.
    pub read_rows: u64,
    /// Bytes of the result.
    pub read_bytes: u64,
    /// Rows inserted.
    pub written_rows: u64,
    /// Bytes inserted.
    pub written_bytes: u64,
}

/// A running `SELECT`. Dropped before its end, it is cancelled.
pub struct ResultStream<'c> {
    connection: &'c mut Connection,
    handle: QueryResult,
}

impl ResultStream<'_> {
    /// The next piece, a complete document of the format; `None` at the end.
    pub fn next(&mut self) -> Result<Option<QueryResult>, EngineError> {
        let functions = &self.connection.engine.functions;
        // SAFETY: a live stream of this connection, asked by one thread.
        let handle = unsafe { (functions.stream_fetch)(self.connection.raw(), self.handle.handle) };
        let piece = QueryResult { functions, handle }.into_checked()?;
        Ok((!piece.bytes().is_empty()).then_some(piece))
    }

    /// Ends a query whose rest nobody wants.
    pub fn cancel(self) {
        let functions = &self.connection.engine.functions;
        // SAFETY: a live stream of this connection.
        unsafe { (functions.stream_cancel)(self.connection.raw(), self.handle.handle) }
    }
}

/// A running `INSERT`. Dropped before [`InsertStream::done`], it is cancelled: what was not yet
/// written is not written.
pub struct InsertStream<'c> {
    _connection: &'c mut Connection,
    functions: &'static Functions,
    handle: InsertHandle,
}

impl InsertStream<'_> {
    /// Hands over a piece of the data; waits while the engine is behind.
    pub fn append(&mut self, data: &[u8]) -> Result<(), EngineError> {
        // SAFETY: a live stream; the engine copies the bytes.
        let state = unsafe {
            (self.functions.insert_append)(self.handle, data.as_ptr().cast(), data.len())
        };
        if state == SUCCESS {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(unexplained))
    }

    /// Ends the data and waits until it is written.
    pub fn done(self) -> Result<Summary, EngineError> {
        // SAFETY: a live stream, ended once.
        let handle = unsafe { (self.functions.insert_done)(self.handle) };
        let result = QueryResult {
            functions: self.functions,
            handle,
        };
        Ok(result.into_checked()?.summary())
    }

    /// Gives the insert up.
    pub fn cancel(self) {
        // SAFETY: a live stream; `drop` frees it.
        unsafe { (self.functions.insert_cancel)(self.handle) }
    }

    fn error(&self) -> Option<EngineError> {
        // SAFETY: a live stream.
        owned_text(unsafe { (self.functions.insert_error)(self.handle) })
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: freed once, here.
        unsafe { (self.functions.insert_destroy)(self.handle) }
    }
}

fn unexplained() -> EngineError {
    "Code: 1001. DB::Exception: the engine gave no reason".to_owned()
}

fn owned_text(text: *const c_char) -> Option<String> {
    if ptr::eq(text, ptr::null()) {
        return None;
    }
    // SAFETY: the engine's messages are NUL-terminated.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
