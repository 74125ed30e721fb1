//! Row blocks from Kafka into ClickHouse, exactly once.
//!
//! In: the topics `spendfuse.rows` and `spendfuse.rows.ledger`. Out: inserts. Called by
//! `spendfuse loader` and `spendfuse up`. [`protocol`] decides, [`runner`] does.

pub mod batch;
pub mod checkpoint;
pub mod protocol;
