//! What stands where a check does not look: in its query, or in the headers of gateways' questions.

use axum::http::request::Parts;

use super::faults::Unknown;
use super::headers::{HEADER_PREFIX, is_control};

/// The names of such fields: whoever asks about a customer there gets the answer about nobody.
#[derive(Debug, Default)]
pub(in crate::http) struct Misplaced(pub(super) Unknown);

impl Misplaced {
    pub(in crate::http) fn in_head(head: &Parts) -> Self {
        let mut misplaced = Self::default();
        let query = head.uri.query().unwrap_or_default();
        let names = query.split('&').filter_map(|pair| pair.split('=').next());
        for name in names.filter(|name| !name.is_empty()) {
            misplaced.0.add_misplaced(name);
        }
        for name in head.headers.keys() {
            let field = name.as_str().strip_prefix(HEADER_PREFIX);
            if field.is_some_and(|field| !is_control(field)) {
                misplaced.0.add_misplaced(name.as_str());
            }
        }
        misplaced
    }
}
