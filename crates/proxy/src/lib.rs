//! The proxy: any client of OpenAI, Anthropic, Gemini, Azure or Bedrock is guarded and metered by its
//! base URL alone.
//!
//! A call's path says which upstream it is for ([`Upstream`]); the guard is asked as `/v1/check` is,
//! what the call may cost is held; the answer goes to the caller byte for byte, and what it says of
//! its usage becomes a usage event. [`route`], `request`, `wire` and `answer` are pure: they read
//! and edit bytes. `forward` takes a request, `access` says whose
//! it is, `permit` asks about its call, `exchange` carries it to its upstream and back.

mod access;
mod answer;
mod asked_members;
mod attribution;
mod batches;
mod bedrock;
mod call;
mod config;
mod error;
mod event;
mod exchange;
mod fingerprint;
mod form;
mod forward;
mod headers;
mod hidden;
mod holds;
mod identity;
mod images;
mod kept;
mod lanes;
mod meter;
pub mod metrics;
mod particulars;
mod path;
mod permit;
mod pictures;
mod postponed;
mod proxy;
mod rarer_answers;
mod refusal;
mod request;
mod retrieve;
mod route;
mod starts;
mod stream;
mod told;
mod tool_calls;
mod tools;
mod under_way;
mod unmetered;
mod upstream;
mod whole;
mod wire;
mod without_caller;

pub use attribution::Attributing;
pub use config::{OnDowngrade, OnUnmetered, ProxyConfig};
pub use error::ProxyError;
pub use proxy::{Proxy, bind};
pub use upstream::{AskUsage, Shape, Upstream};
