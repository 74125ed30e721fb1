//! Totals that contain their parts, taken apart.
//!
//! Most formats report totals (`input_tokens`) that contain parts (`cached_tokens`). Where the
//! parts do not fit into the total the numbers contradict the format. Two readings remain: the total
//! was cut, or it never contained the parts (as Anthropic counts). The second is the larger one, in
//! tokens and in dollars, and the one that is charged.

use crate::tokens::TokenClasses;

/// Input counts of a format whose total contains everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ContainedInput {
    pub total: u64,
    pub cache_read: u64,
    /// All writes.
    pub cache_write: u64,
    /// The part of the writes that is kept for an hour.
    pub cache_write_1h: u64,
    pub audio: u64,
    pub image: u64,
    pub video: u64,
    /// The parts of audio, image and video that belong to `cache_read`.
    pub audio_cached: u64,
    pub image_cached: u64,
    pub video_cached: u64,
}

impl ContainedInput {
    /// Adds the disjoint classes to `tokens`; whether the counts contradict each other.
    pub(super) fn take_apart(&self, tokens: &mut TokenClasses) -> bool {
        let cached_media = self.audio_cached + self.image_cached + self.video_cached;
        let cache_read = self.cache_read.max(cached_media);
        let (write_5m, writes_contradict) = without(self.cache_write, self.cache_write_1h);
        let cache_write = write_5m + self.cache_write_1h;
        let (audio, audio_contradicts) = without(self.audio, self.audio_cached);
        let (image, image_contradicts) = without(self.image, self.image_cached);
        let (video, video_contradicts) = without(self.video, self.video_cached);

        tokens.cache_read += cache_read;
        tokens.cache_write_5m += write_5m;
        tokens.cache_write_1h += self.cache_write_1h;
        let total_contradicts = cache_read + cache_write > self.total
            || self.audio + self.image + self.video > self.total;
        if total_contradicts {
            tokens.audio_input += audio;
            tokens.image_input += image;
            tokens.video_input += video;
            tokens.input += self.total;
        } else {
            // Media that do not fit beside the cached tokens are cached themselves, whether or not
            // the provider says so; the overlap is taken as small as it can be.
            let mut rest = self.total - cache_read - cache_write;
            let mut fit = |part: u64| {
                let fitting = part.min(rest);
                rest -= fitting;
                fitting
            };
            tokens.audio_input += fit(audio);
            tokens.image_input += fit(image);
            tokens.video_input += fit(video);
            tokens.input += rest;
        }
        total_contradicts
            || writes_contradict
            || audio_contradicts
            || image_contradicts
            || video_contradicts
            || (self.cache_read > 0 && cached_media > self.cache_read)
    }
}

/// Output counts of a format whose total contains everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ContainedOutput {
    pub total: u64,
    pub reasoning: u64,
    pub audio: u64,
    pub image: u64,
}

impl ContainedOutput {
    /// Makes the parts fit into the total, the reasoning first.
    pub(super) fn limit_parts(&mut self) {
        self.audio = self.audio.min(self.total);
        self.image = self.image.min(self.total - self.audio);
        self.reasoning = self.reasoning.min(self.total - self.audio - self.image);
    }

    /// Adds the disjoint classes to `tokens`; whether the counts contradict each other.
    pub(super) fn take_apart(&self, tokens: &mut TokenClasses) -> bool {
        let (output, contradicts) = without(self.total, self.reasoning + self.audio + self.image);
        tokens.output += output;
        tokens.reasoning += self.reasoning;
        tokens.audio_output += self.audio;
        tokens.image_output += self.image;
        contradicts
    }
}

/// `total` without `part`; the whole of it and `true` where it cannot contain that part.
pub(super) fn without(total: u64, part: u64) -> (u64, bool) {
    match total.checked_sub(part) {
        Some(rest) => (rest, false),
        None => (total, true),
    }
}

/// Holds `tokens` against the provider's own `total` (zero = not given); whether they differ.
///
/// Tokens that the total has beyond the classes were billed without being itemised (xAI's reasoning
/// in the OpenAI format, Gemini answers without `thoughtsTokenCount`): they are charged as output.
pub(super) fn reconcile(tokens: &mut TokenClasses, total: u64) -> bool {
    let itemised = tokens.total();
    tokens.output += total.saturating_sub(itemised);
    total > 0 && itemised != total
}
