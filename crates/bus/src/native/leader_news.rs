//! Keeps librdkafka from taking over leaders that brokers name in their answers.
//!
//! A broker that no longer leads a partition says in its answer to a fetch who does (KIP-951).
//! librdkafka (2.5 to 2.14 at least) counts the partitions that come with a leader, leaves out those
//! whose leader is -1, and then reads all that it has counted: memory that was never written names a
//! partition and a broker, and a match is written to outside of its table. A sidecar died of
//! SIGSEGV while its broker came back; this fits, though there is no core of it. The same answers can leave a partition without a leader for
//! ever. librdkafka's issues 5280 and 5430 describe both and are open.
//!
//! The news is a short cut only: whoever gets such an answer asks for the metadata as well. The
//! linker is told (`build.rs` of the program) to call the function below instead of the one that
//! reads the news. Remove both when a release of librdkafka has mended the issues.

use std::ffi::{c_int, c_void};

use rdkafka::bindings::rd_kafka_t;

/// `RD_KAFKA_OP_RES_HANDLED`: whoever calls frees the news.
const HANDLED: c_int = 1;

/// Stands in for `rd_kafka_metadata_update_op`.
// SAFETY: the name is the linker's for a wrapped symbol, and nobody else defines it.
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_: *mut rd_kafka_t, _: *mut c_void) -> c_int {
    HANDLED
}
