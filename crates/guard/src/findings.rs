//! Open findings by scope: what the detectors have to say about a session right now.

use std::sync::Arc;

use spendfuse_domain::finding::Finding;

/// The open findings of one scope.
pub(crate) type OpenFindings = Arc<[Arc<OpenFinding>]>;

/// A finding that is not closed.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenFinding {
    pub(crate) key: Box<str>,
    /// Its value.
    pub finding: Finding,
}

/// `open` with the finding called `key` replaced by `finding`, or without it; `None` where nothing
/// remains.
pub(crate) fn replaced(
    open: Option<OpenFindings>,
    key: &str,
    finding: Option<OpenFinding>,
) -> Option<OpenFindings> {
    let others = open.iter().flat_map(|open| open.iter());
    let others = others.filter(|one| &*one.key != key).cloned();
    let remaining: OpenFindings = others.chain(finding.map(Arc::new)).collect();
    (!remaining.is_empty()).then_some(remaining)
}

/// The scope's text in the key of a finding, `{scope}|{detector}|{rule or budget}|{agent}`.
pub(crate) fn scope_of(key: &str) -> &str {
    key.split_once('|').map_or(key, |(scope, _)| scope)
}
