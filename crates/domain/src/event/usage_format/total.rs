//! What a total says where the counts that it is the sum of are not given.

use super::Reading;
use super::counts::Counts;
use super::meaning::Slot;

/// In names of models that only read: those that embed and those that rank.
const READERS: [&str; 9] = [
    "embed", "rerank", "ranker", "voyage", "jina", "bge", "gte-", "e5-", "minilm",
];

/// A total alone is input: of an embedding, a reranking, a cache that was created. Of any other call
/// it is disputed, since an answer has its parts and costs more. A total beside the output alone says
/// the input.
pub(super) fn add_what_it_alone_says(reading: &mut Reading<'_>, counts: &Counts, model: &str) {
    let total = counts.get(Slot::Total);
    if total == 0 {
        return;
    }
    // Some write zeros for what they do not count.
    let says_zeros = counts.get(Slot::Input) == 0
        && counts.get(Slot::Output) == 0
        && reading.tokens.output == total
        && reading.tokens.total() == total
        && only_reads(model);
    if says_zeros || counts.has_only_total() || reading.tokens.total() == 0 {
        // Formats that hold the total against the rest have charged it as output.
        reading.tokens = Default::default();
        reading.tokens.input = total;
        reading.disputed = !only_reads(model);
    } else if !counts.has(Slot::Input) {
        reading.tokens.input += total.saturating_sub(reading.tokens.total());
    }
}

fn only_reads(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    READERS.iter().any(|part| name.contains(part))
}
