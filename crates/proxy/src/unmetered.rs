//! Requests that nothing is metered of: whether they may cost something, and what they are called where
//! that is told.

use axum::http::Method;

use crate::path::plain;

/// Parts of paths, and what their requests are called.
const NAMES: [(&str, &str); 24] = [
    ("batches", "batches"),
    ("batch", "batches"),
    ("batchpredictionjobs", "batches"),
    ("fine_tuning", "fine-tuning"),
    ("fine-tunes", "fine-tuning"),
    ("videos", "videos"),
    ("realtime", "realtime"),
    ("threads", "threads"),
    ("assistants", "assistants"),
    ("agents", "agents"),
    ("conversations", "conversations"),
    ("vector_stores", "vector-stores"),
    ("containers", "containers"),
    ("evals", "evals"),
    ("files", "files"),
    ("uploads", "files"),
    ("interactions", "interactions"),
    ("cachedcontents", "caches"),
    ("ocr", "ocr"),
    ("rerank", "rerank"),
    ("moderations", "moderations"),
    ("async-invoke", "async-invoke"),
    ("guardrail", "guardrails"),
    ("models", "models"),
];
/// The same by the methods behind models' names.
const METHODS: [(&str, &str); 5] = [
    (":predict", "predict"),
    (":rawpredict", "predict"),
    (":batch", "batches"),
    (":asyncbatch", "batches"),
    (":counttokens", "count-tokens"),
];
const OTHER: &str = "other";

/// Requests that cost nothing, by the ends of their paths.
const FREE: [&str; 13] = [
    "count_tokens",
    "input_tokens",
    "count-tokens",
    "moderations",
    "files",
    "uploads",
    "parts",
    "cancel",
    "threads",
    "messages",
    "items",
    "assistants",
    "conversations",
];

/// What requests of this path are called: one of a few names.
pub(crate) fn name(path: &str) -> &'static str {
    let path = plain(path).to_ascii_lowercase();
    let method = METHODS.iter().find(|(part, _)| path.contains(part));
    let named = || {
        NAMES
            .iter()
            .find(|(part, _)| path.split('/').any(|one| one == *part))
    };
    method.or_else(named).map_or(OTHER, |&(_, name)| name)
}

/// Whether a request may cost something: whatever makes or changes something may, but for what is known.
pub(crate) fn may_cost(method: &Method, path: &str) -> bool {
    if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        return false;
    }
    let path = plain(path).to_ascii_lowercase();
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_counting = path.ends_with(":counttokens") || last.starts_with("count-tokens:");
    // The last step of an upload.
    let completes = last == "complete" && path.contains("uploads/");
    !is_counting && !completes && !FREE.contains(&last)
}

/// Whether a request that nothing is metered of costs nothing, and tells of nobody: the provider's
/// models, and counting tokens. To the letter, as servers resolve `..` in paths.
pub(crate) fn is_harmless(method: &Method, path: &str) -> bool {
    let versions = ["/v1beta/", "/v1/", "/"];
    let rest = versions
        .iter()
        .find_map(|version| path.strip_prefix(version));
    let rest = rest.unwrap_or_default();
    let is_name = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
        !name.starts_with('.') && name.bytes().all(is_plain)
    };
    match *method {
        Method::GET | Method::HEAD => {
            rest == "models" || rest.strip_prefix("models/").is_some_and(is_name)
        }
        Method::POST => {
            let model = rest.strip_prefix("models/");
            let model = model.and_then(|rest| rest.strip_suffix(":countTokens"));
            rest == "messages/count_tokens" || model.is_some_and(is_name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_has_a_name_and_may_cost_something_or_not() {
        for (method, path, wanted) in [
            (Method::POST, "/v1/batches", ("batches", true)),
            (Method::POST, "/v1/messages/batches", ("batches", true)),
            (Method::POST, "/v1/batch/jobs", ("batches", true)),
            (Method::POST, "/v1/p/batchPredictionJobs", ("batches", true)),
            (
                Method::POST,
                "/v1beta/models/m:asyncBatchEmbedContent",
                ("batches", true),
            ),
            (
                Method::GET,
                "/v1/messages/batches/b/results",
                ("batches", false),
            ),
            (
                Method::POST,
                "/v1beta/models/m:batchGenerateContent",
                ("batches", true),
            ),
            (
                Method::POST,
                "/v1/projects/p/models/m:predict",
                ("predict", true),
            ),
            (
                Method::POST,
                "/v1/projects/p/models/m:predictLongRunning",
                ("predict", true),
            ),
            (Method::POST, "/v1/threads/t/runs", ("threads", true)),
            (Method::POST, "/v1/ocr", ("ocr", true)),
            (Method::POST, "/v1/%76ideos", ("videos", true)),
            (Method::POST, "/v1/something", ("other", true)),
            (Method::POST, "/v1/files", ("files", false)),
            (Method::POST, "/v1/uploads/u/complete", ("files", false)),
            (Method::POST, "/v1/complete", ("other", true)),
            (Method::POST, "/v1/assistants", ("assistants", false)),
            (Method::POST, "/v1/conversations", ("conversations", false)),
            (Method::POST, "/v1/responses/r/cancel", ("other", false)),
            (Method::POST, "/v1/messages/count_tokens", ("other", false)),
            (
                Method::POST,
                "/v1beta/models/m:countTokens",
                ("count-tokens", false),
            ),
            (Method::GET, "/v1/models", ("models", false)),
        ] {
            assert_eq!((name(path), may_cost(&method, path)), wanted, "{path}");
        }
    }

    #[test]
    fn only_lists_of_models_and_counting_are_harmless() {
        for (method, path, wanted) in [
            (Method::GET, "/v1/models", true),
            (Method::HEAD, "/v1/models", true),
            (Method::GET, "/v1beta/models/gemini-2.5-pro", true),
            (Method::POST, "/v1/messages/count_tokens", true),
            (Method::POST, "/v1beta/models/gemini-3:countTokens", true),
            (Method::GET, "/v1/files", false),
            (Method::GET, "/v1/models/../files", false),
            (Method::GET, "/v1/models/..", false),
            (Method::GET, "/v1/models/%2e%2e", false),
            (Method::GET, "/v1/files/models", false),
            (Method::DELETE, "/v1/models/ft:gpt-4o", false),
            (Method::POST, "/v1/models/x:predict", false),
        ] {
            assert_eq!(is_harmless(&method, path), wanted, "{path}");
        }
    }
}
