//! The C functions of the engine's library. Signatures are those of `chdb.h` as of 26.7.3.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use anyhow::Result;
use libloading::Library;

pub type ConnectionHandle = *mut c_void;
pub type ResultHandle = *mut c_void;
pub type InsertHandle = *mut c_void;

/// What a function that returns a state returns where all is well.
pub const SUCCESS: c_int = 0;

pub type QueryFunction = unsafe extern "C" fn(
    ConnectionHandle,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> ResultHandle;

/// The functions that are used, looked up once.
pub struct Functions {
    pub connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut ConnectionHandle,
    pub close: unsafe extern "C" fn(*mut ConnectionHandle),
    pub shutdown: unsafe extern "C" fn() -> c_int,
    pub query: QueryFunction,
    pub stream_query: QueryFunction,
    pub stream_fetch: unsafe extern "C" fn(ConnectionHandle, ResultHandle) -> ResultHandle,
    pub stream_cancel: unsafe extern "C" fn(ConnectionHandle, ResultHandle),
    pub stream_insert: unsafe extern "C" fn(
        ConnectionHandle,
        *const c_char,
        usize,
        *const c_char,
        usize,
    ) -> InsertHandle,
    pub insert_append: unsafe extern "C" fn(InsertHandle, *const c_void, usize) -> c_int,
    pub insert_done: unsafe extern "C" fn(InsertHandle) -> ResultHandle,
    pub insert_cancel: unsafe extern "C" fn(InsertHandle),
    pub insert_error: unsafe extern "C" fn(InsertHandle) -> *const c_char,
    pub insert_destroy: unsafe extern "C" fn(InsertHandle),
    pub result_buffer: unsafe extern "C" fn(ResultHandle) -> *const c_char,
    pub result_length: unsafe extern "C" fn(ResultHandle) -> usize,
    pub result_error: unsafe extern "C" fn(ResultHandle) -> *const c_char,
    pub result_rows_read: unsafe extern "C" fn(ResultHandle) -> u64,
    pub result_bytes_read: unsafe extern "C" fn(ResultHandle) -> u64,
    pub result_rows_written: unsafe extern "C" fn(ResultHandle) -> u64,
    pub result_bytes_written: unsafe extern "C" fn(ResultHandle) -> u64,
    pub result_destroy: unsafe extern "C" fn(ResultHandle),
}

/// Looks all functions up, and forbids the engine to install signal handlers.
pub fn look_up(library: &'static Library) -> Result<Functions> {
    // Before the first connection: the engine's handlers would swallow SIGTERM.
    // SAFETY: the signature is that of chdb.h.
    unsafe {
        let set_signal_handlers =
            library.get::<unsafe extern "C" fn(c_int)>(c"chdb_set_signal_handlers_enabled")?;
        set_signal_handlers(0);
    }
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the field's type is the signature in chdb.h.
            *unsafe { library.get($name) }?
        };
    }
    Ok(Functions {
        connect: function!(c"chdb_connect"),
        close: function!(c"chdb_close_conn"),
        shutdown: function!(c"chdb_shutdown"),
        query: function!(c"chdb_query_with_params_n"),
        stream_query: function!(c"chdb_stream_query_with_params_n"),
        stream_fetch: function!(c"chdb_stream_fetch_result"),
        stream_cancel: function!(c"chdb_stream_cancel_query"),
        stream_insert: function!(c"chdb_stream_insert_n"),
        insert_append: function!(c"chdb_stream_append"),
        insert_done: function!(c"chdb_stream_done"),
        insert_cancel: function!(c"chdb_stream_cancel_insert"),
        insert_error: function!(c"chdb_stream_insert_error"),
        insert_destroy: function!(c"chdb_destroy_insert_stream"),
        result_buffer: function!(c"chdb_result_buffer"),
        result_length: function!(c"chdb_result_length"),
        result_error: function!(c"chdb_result_error"),
        result_rows_read: function!(c"chdb_result_rows_read"),
        result_bytes_read: function!(c"chdb_result_bytes_read"),
        result_rows_written: function!(c"chdb_result_rows_written"),
        result_bytes_written: function!(c"chdb_result_bytes_written"),
        result_destroy: function!(c"chdb_destroy_query_result"),
    })
}
