//! What is read and written: events, usage objects, budgets files, hashes.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

mod budgets_apply;
mod budgets_file;
mod decode;
mod decode_speed;
mod event_properties;
mod fingerprints;
mod redaction;
mod stored_hashes;
mod usage_formats;
