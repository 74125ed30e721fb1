//! The proxy: any client of OpenAI, Anthropic or Gemini is guarded and metered by its base URL alone.
//!
//! A call's path says which upstream it is for ([`Upstream`]); the guard is asked as `/v1/check` is,
//! what the call may cost is held; the answer goes to the caller byte for byte, and what it says of
//! its usage becomes a usage event. [`route`], `request`, `wire` and `answer` are pure: they read
//! and edit bytes. `forward` is the one place where a call passes through.

mod answer;
mod attribution;
mod config;
mod error;
mod forward;
mod headers;
mod meter;
pub mod metrics;
mod proxy;
mod refusal;
mod request;
mod route;
mod stream;
mod wire;

pub use attribution::Attributing;
pub use config::{OnDowngrade, ProxyConfig};
pub use error::ProxyError;
pub use proxy::{Proxy, bind};
pub use route::{AskUsage, Shape, Upstream};
