//! Providers' batches: handed in as any call is asked about, and counted where their results are read.
//!
//! A batch says what it cost where somebody reads its results: [`Reading`] knows such requests by their
//! paths, `results` tells an event of each line that passes (`line`), `operation` of each answer in a
//! batch of Google's or Mistral's. [`Submission`] is what hands a batch in.

mod address;
mod line;
mod lines;
mod operation;
mod passed;
mod read;
mod results;
mod submission;
mod told;
mod when;

use crate::path::{ends, plain};
use crate::route::model_and_method;
use crate::upstream::Shape;

pub(crate) use read::{about, read};
pub(crate) use submission::submit;
pub(crate) use told::Told;

/// A request that hands a batch in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    /// Whose errors its sender understands.
    pub(crate) shape: Shape,
    /// The model in the path; empty where it names none.
    pub(crate) model: String,
}

impl Submission {
    /// What `POST path` hands in; `None` where that is no batch, or one whose results go into a storage
    /// that is not read through the proxy.
    pub(crate) fn of(upstream: Shape, path: &str) -> Option<Self> {
        const OF_GOOGLE: [&str; 2] = ["batchGenerateContent", "asyncBatchEmbedContent"];
        let path = plain(path);
        let new = |shape, model: &str| {
            let model = model.to_owned();
            Some(Self { shape, model })
        };
        if let Some((model, method)) = model_and_method(&path)
            && OF_GOOGLE.iter().any(|one| one.eq_ignore_ascii_case(method))
        {
            return new(Shape::Gemini, model);
        }
        if ends(&path, "messages/batches") {
            return new(Shape::Anthropic, "");
        }
        let is_one = ends(&path, "batches") || ends(&path, "batch/jobs");
        match upstream {
            _ if !is_one => None,
            Shape::Azure => new(Shape::Azure, ""),
            _ => new(Shape::OpenAi, ""),
        }
    }
}

/// A request that reads of a batch what it costs, or where that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Lines, one for each answer.
    Lines {
        /// What the results, or their file, are called.
        name: String,
        /// What stands behind the path of whatever says when they were there.
        suffix: &'static str,
        /// Whether they are a batch's, whatever they say.
        is_batch: bool,
    },
    /// A batch of Google's or Mistral's, with its answers in it.
    Operation { name: String },
    /// A batch of Anthropic's, which says where its results are.
    Address,
}

impl Reading {
    /// What `GET path` reads.
    pub(crate) fn of(upstream: Shape, path: &str) -> Option<Self> {
        let path = plain(path);
        let (before, last) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
        let (outer, name) = before.rsplit_once('/').unwrap_or(("", before));
        let lines = |name: &str, suffix, is_batch| {
            let name = name.to_owned();
            Some(Self::Lines {
                name,
                suffix,
                is_batch,
            })
        };
        match last.to_ascii_lowercase().as_str() {
            "results" if ends(outer, "messages/batches") => lines(name, "/results", true),
            "content" if ends(outer, "files") => lines(name, "/content", false),
            _ if ends(before, "files") && last.ends_with(":download") => {
                lines(last.trim_end_matches(":download"), ":download", false)
            }
            _ if ends(&path, "messages/batches") || ends(before, "messages/batches") => {
                Some(Self::Address)
            }
            _ if ends(&path, "batch/jobs") || ends(before, "batch/jobs") => Some(Self::Operation {
                name: last.to_owned(),
            }),
            _ if upstream != Shape::Gemini => None,
            _ if ends(&path, "batches") || ends(before, "batches") => Some(Self::Operation {
                name: last.to_owned(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_known_by_their_paths() {
        use Shape::{Anthropic, Azure, Gemini, OpenAi};
        for (upstream, path, wanted) in [
            (OpenAi, "/v1/batches", Some((OpenAi, ""))),
            (OpenAi, "/v1//batche%73/", Some((OpenAi, ""))),
            (Azure, "/openai/batches", Some((Azure, ""))),
            (OpenAi, "/v1/batch/jobs", Some((OpenAi, ""))),
            (Anthropic, "/v1/messages/batches", Some((Anthropic, ""))),
            (
                Gemini,
                "/v1beta/models/gemini-3:batchGenerateContent",
                Some((Gemini, "gemini-3")),
            ),
            (
                Gemini,
                "/v1beta/models/e:asyncBatchEmbedContent",
                Some((Gemini, "e")),
            ),
            (OpenAi, "/v1/vector_stores/v/file_batches", None),
            (OpenAi, "/v1/batches/b/cancel", None),
            (
                Gemini,
                "/v1/projects/p/locations/l/batchPredictionJobs",
                None,
            ),
        ] {
            let found = Submission::of(upstream, path);
            let found = found.as_ref().map(|one| (one.shape, one.model.as_str()));
            assert_eq!(found, wanted, "{path}");
        }
        let lines = |name: &str, suffix, is_batch| {
            let name = name.to_owned();
            Some(Reading::Lines {
                name,
                suffix,
                is_batch,
            })
        };
        let operation = |name: &str| {
            let name = name.to_owned();
            Some(Reading::Operation { name })
        };
        for (upstream, path, wanted) in [
            (
                Anthropic,
                "/v1/messages/batches/b-1/results",
                lines("b-1", "/results", true),
            ),
            (
                OpenAi,
                "/v1/files/f-1/content",
                lines("f-1", "/content", false),
            ),
            (
                Azure,
                "/openai/Files/f-1/Content",
                lines("f-1", "/content", false),
            ),
            (OpenAi, "/v1/batch/jobs/b-1", operation("b-1")),
            (OpenAi, "/v1/batch/jobs", operation("jobs")),
            (
                Gemini,
                "/download/v1beta/files/f-1:download",
                lines("f-1", ":download", false),
            ),
            (Gemini, "/v1beta/batches/b-1", operation("b-1")),
            (Gemini, "/v1beta/batches", operation("batches")),
            (
                Anthropic,
                "/v1/messages/batches/b-1",
                Some(Reading::Address),
            ),
            (Anthropic, "/v1/messages/batches", Some(Reading::Address)),
            (OpenAi, "/v1/batches/b-1", None),
            (OpenAi, "/v1/files/f-1", None),
            (OpenAi, "/v1/models/results", None),
            (OpenAi, "/", None),
        ] {
            assert_eq!(Reading::of(upstream, path), wanted, "{path}");
        }
    }
}
