//! From price files to book drafts.
//!
//! What goes in: the bytes of LiteLLM's `model_prices_and_context_window.json`. What comes out: a
//! [`BookDraft`] and a [`Report`] that names everything in the file that looks like a price and was
//! not taken over, with the reason: nothing is ignored silently.
//!
//! [`BookDraft`]: crate::BookDraft

mod decimal;
mod fields;
mod litellm;
mod report;
mod variants;

pub use litellm::{Imported, litellm};
pub use report::{Report, SkippedField};
