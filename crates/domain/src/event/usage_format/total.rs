//! What a total says where the counts that it is the sum of are not given.

use super::Reading;
use super::counts::Counts;
use super::meaning::Slot;
use crate::tokens::TokenClasses;

/// In names of models that only read: those that embed and those that rank.
const READERS: [&str; 9] = [
    "embed", "rerank", "ranker", "voyage", "jina", "bge", "gte-", "e5-", "minilm",
];

/// A total alone is input: of an embedding, a reranking, a cache that was created. Of any other call
/// it is disputed, since an answer has its parts and costs more.
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
    } else {
        add_unsaid_input(&mut reading.tokens, counts);
    }
}

/// A total says the input where nothing else does.
pub(super) fn add_unsaid_input(tokens: &mut TokenClasses, counts: &Counts) {
    if !counts.has(Slot::Input) {
        tokens.input += counts.get(Slot::Total).saturating_sub(tokens.total());
    }
}

/// Tokens that a total has beyond all that is told, in whatever reading: somebody bills them, and they
/// are charged as output.
pub(super) fn charge_surplus(reading: &mut Reading<'_>, counts: &Counts) {
    let told = reading.tokens.total();
    let surplus = counts.get(Slot::Total).saturating_sub(told);
    reading.tokens.output += surplus;
    reading.disputed |= surplus > 0;
}

fn only_reads(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    READERS.iter().any(|part| name.contains(part))
}
