//! A question as a query: `customer=c-42&tags.team=growth&estimate.input_tokens=1200`.

use spendfuse_domain::spelling::closest;

use super::faults::FIELDS;
use super::headers::{HEADER_PREFIX, field_of_header, is_control};
use super::{Field, Question};
use crate::http::ApiError;

/// Whose query it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Author {
    /// Written for the sidecar: every unknown name is a fault.
    Asker,
    /// Written by a gateway's operator, who may add names of the gateway's own: unknown names that
    /// look like one of ours are faults.
    Gateway,
    /// Perhaps the original caller's, passed on: unknown names are nobody's fault.
    Stranger,
}

impl Question {
    /// Adds what a query says. Names may be written as the headers are (`x-spendfuse-customer`).
    ///
    /// # Errors
    /// 400 for a known field that cannot be read.
    pub(in crate::http) fn add_query(
        &mut self,
        query: &[(String, String)],
        author: Author,
    ) -> Result<(), ApiError> {
        for (name, value) in query {
            if let Some(name) = name.strip_prefix(HEADER_PREFIX) {
                self.add_header(name, value)?;
            } else if let Some(field) = Field::named(name) {
                self.set(field, value.clone())?;
            } else if is_control(&name.replace('_', "-")) {
                continue;
            } else if is_tag(name) && author != Author::Stranger {
                self.unknown.add_tag(name, "tags.NAME");
            } else if author == Author::Asker || is_ours(name) && author == Author::Gateway {
                self.unknown.add_field(name);
            }
        }
        Ok(())
    }

    /// Adds what a header says, or a query's parameter of that name; `name` is without its prefix.
    pub(super) fn add_header(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        if let Some(field) = Field::named(&field_of_header(name)) {
            return self.set(field, value.to_owned());
        }
        if !is_control(name) {
            self.add_misspelt_header(&format!("{HEADER_PREFIX}{name}"), name);
        }
        Ok(())
    }

    /// Notes a header that is not known; `name` is what stands behind its prefix.
    pub(super) fn add_misspelt_header(&mut self, written: &str, name: &str) {
        if is_tag(name) || name.starts_with("tag-") {
            self.unknown.add_tag(written, "x-spendfuse-tag-NAME");
        } else {
            self.unknown.add(written, name, &FIELDS, HEADER_PREFIX);
        }
    }
}

/// Whether an unknown name was to name a tag, or all of them: `tags=growth`, `tags[team]`, `tag.team`.
fn is_tag(name: &str) -> bool {
    let of_all = name.strip_prefix("tags");
    let is_of_all = |rest: &str| rest.is_empty() || rest.starts_with(['.', '-', '_', '[']);
    of_all.is_some_and(is_of_all) || name.starts_with("tag.") || name.starts_with("tag[")
}

/// Whether a name is probably meant to be one of ours. Stricter than a suggestion needs to be, for
/// a gateway's `page` or `version` must not be taken for a misspelt `plan` or `session`.
fn is_ours(name: &str) -> bool {
    const SHORTEST: usize = 5;
    let fields = || [&FIELDS[..], &["deny_status"]].concat();
    let known = (SHORTEST..=64)
        .contains(&name.len())
        .then(|| closest(name, &fields()))
        .flatten();
    known.is_some_and(|known| known.as_bytes()[0] == name.as_bytes()[0].to_ascii_lowercase())
}
