//! Token counts of one model call, in disjoint classes.

/// Tokens of one call, by billing class. The classes are disjoint: a cached token is in
/// [`cache_read`](Self::cache_read) and not in [`input`](Self::input), whatever the provider's
/// format says. Each count is at most 10⁹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct TokenClasses {
    pub input: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    pub audio_input: u64,
    pub image_input: u64,
    pub video_input: u64,
    pub output: u64,
    pub reasoning: u64,
    pub audio_output: u64,
    pub image_output: u64,
}

impl TokenClasses {
    /// The counts of all classes, in the order of the fields.
    pub fn each(&self) -> [u64; 11] {
        [
            self.input,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.audio_input,
            self.image_input,
            self.video_input,
            self.output,
            self.reasoning,
            self.audio_output,
            self.image_output,
        ]
    }

    /// All input tokens of the step, cached and written ones included: the context that the model read.
    pub fn context(&self) -> u64 {
        self.input
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.audio_input
            + self.image_input
            + self.video_input
    }

    /// All output tokens, reasoning included.
    pub fn generated(&self) -> u64 {
        self.output + self.reasoning + self.audio_output + self.image_output
    }

    /// Context and output together.
    pub fn total(&self) -> u64 {
        self.context() + self.generated()
    }
}
