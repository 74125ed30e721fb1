//! A record's headers, read where they lie.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::{ptr, slice};

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_resp_err_t};
use rdkafka::types::RDKafkaHeaders;

/// The headers of one record, in their order. A null value reads as empty.
#[derive(Clone, Copy)]
pub struct Headers<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Native(*const RDKafkaHeaders, PhantomData<&'a [u8]>),
    Slice(&'a [(&'a str, &'a [u8])]),
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const EMPTY: Headers<'static> = Headers(Source::Slice(&[]));

    /// Headers that lie in a slice, for tests of a stage's logic.
    pub fn from_slice(headers: &'a [(&'a str, &'a [u8])]) -> Self {
        Self(Source::Slice(headers))
    }

    /// # Safety
    /// `headers` must be valid for `'a`, or null.
    pub(crate) unsafe fn from_native(headers: *const RDKafkaHeaders) -> Self {
        if headers.is_null() {
            Self(Source::Slice(&[]))
        } else {
            Self(Source::Native(headers, PhantomData))
        }
    }

    /// The value of the last header of this name (Kafka's rule), if there is one.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .last()
    }

    /// Name and value of every header. A name that is not UTF-8 reads as empty.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let source = self.0;
        (0_usize..).map_while(move |index| match source {
            Source::Slice(headers) => headers.get(index).copied(),
            Source::Native(headers, _) => native_header(headers, index),
        })
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

fn native_header<'a>(headers: *const RDKafkaHeaders, index: usize) -> Option<(&'a str, &'a [u8])> {
    let mut name = ptr::null();
    let mut value = ptr::null();
    let mut size = 0_usize;
    // SAFETY: the constructor's caller vouches for `headers`; the out pointers are valid.
    let result =
        unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
    if result != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    // SAFETY: on success librdkafka sets a NUL-terminated name and `size` bytes of value, both
    // owned by the headers.
    unsafe {
        let name = CStr::from_ptr(name).to_str().unwrap_or_default();
        let value = if value.is_null() {
            &[][..]
        } else {
            slice::from_raw_parts(value.cast(), size)
        };
        Some((name, value))
    }
}
