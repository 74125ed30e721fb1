//! What is billed by count instead of by token: searches, images, seconds, pages.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// A unit that providers bill by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum UnitKind {
    WebSearchCalls,
    Requests,
    Images,
    AudioSeconds,
    VideoSeconds,
    Pages,
    Characters,
    RerankUnits,
    // Calls of other tools that a provider runs, and units of Bedrock's guardrails by policy. Only ever
    // append: places are in hashes of events.
    CodeInterpreterCalls,
    FileSearchCalls,
    DocumentSearchCalls,
    ImageGenerationCalls,
    GuardrailContentUnits,
    GuardrailImageUnits,
    GuardrailTopicUnits,
    GuardrailSensitiveUnits,
    GuardrailGroundingUnits,
    GuardrailReasoningUnits,
    // Tokens of sound and images that were read from a cache: within those that were, at rates of their
    // own.
    CachedAudioTokens,
    CachedImageTokens,
}

impl UnitKind {
    /// Every unit, in the order of their places.
    pub const ALL: [Self; 20] = [
        Self::WebSearchCalls,
        Self::Requests,
        Self::Images,
        Self::AudioSeconds,
        Self::VideoSeconds,
        Self::Pages,
        Self::Characters,
        Self::RerankUnits,
        Self::CodeInterpreterCalls,
        Self::FileSearchCalls,
        Self::DocumentSearchCalls,
        Self::ImageGenerationCalls,
        Self::GuardrailContentUnits,
        Self::GuardrailImageUnits,
        Self::GuardrailTopicUnits,
        Self::GuardrailSensitiveUnits,
        Self::GuardrailGroundingUnits,
        Self::GuardrailReasoningUnits,
        Self::CachedAudioTokens,
        Self::CachedImageTokens,
    ];

    /// The name in events, price book and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSearchCalls => "web_search_calls",
            Self::Requests => "requests",
            Self::Images => "images",
            Self::AudioSeconds => "audio_seconds",
            Self::VideoSeconds => "video_seconds",
            Self::Pages => "pages",
            Self::Characters => "characters",
            Self::RerankUnits => "rerank_units",
            Self::CodeInterpreterCalls => "code_interpreter_calls",
            Self::FileSearchCalls => "file_search_calls",
            Self::DocumentSearchCalls => "document_search_calls",
            Self::ImageGenerationCalls => "image_generation_calls",
            Self::GuardrailContentUnits => "guardrail_content_units",
            Self::GuardrailImageUnits => "guardrail_image_units",
            Self::GuardrailTopicUnits => "guardrail_topic_units",
            Self::GuardrailSensitiveUnits => "guardrail_sensitive_units",
            Self::GuardrailGroundingUnits => "guardrail_grounding_units",
            Self::GuardrailReasoningUnits => "guardrail_reasoning_units",
            Self::CachedAudioTokens => "cached_audio_tokens",
            Self::CachedImageTokens => "cached_image_tokens",
        }
    }

    /// Whether it is sold beside tokens, wherever it is counted; others may describe the same thing
    /// once more (the pages that were read).
    pub fn is_beside_tokens(self) -> bool {
        self == Self::WebSearchCalls || (self > Self::RerankUnits && !self.is_cached_media())
    }

    /// Whether it counts tokens that are in `cache_read` as well.
    pub fn is_cached_media(self) -> bool {
        matches!(self, Self::CachedAudioTokens | Self::CachedImageTokens)
    }

    /// The unit with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// A number of units in billionths, so that `2.5` audio seconds are exact. At most 10⁹ units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub u64);

impl Quantity {
    /// Billionths in one unit.
    pub const ONE: u64 = 1_000_000_000;

    /// `count` whole units.
    pub const fn whole(count: u64) -> Self {
        Self(count * Self::ONE)
    }
}

/// The plain decimal number: `2`, `0.5`.
impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % Self::ONE);
        let whole = self.0 / Self::ONE;
        match fraction.trim_end_matches('0') {
            "" => write!(formatter, "{whole}"),
            digits => write!(formatter, "{whole}.{digits}"),
        }
    }
}

/// The units of one call, each kind at most once, with the attributes a price may depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Units<'a> {
    /// Kinds and their quantities, without zeros.
    pub entries: SmallVec<[(UnitKind, Quantity); 2]>,
    /// Quality of the generated image or audio (`hd`), empty = not given.
    pub quality: Cow<'a, str>,
    /// Size of the generated image (`1024x1024`), empty = not given.
    pub size: Cow<'a, str>,
}

impl Units<'_> {
    /// Whether nothing is billed by unit.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes the quantity of `kind` at least `quantity`.
    #[inline]
    pub fn raise(&mut self, kind: UnitKind, quantity: Quantity) {
        // Nearly always there is nothing to raise, and this runs for every event.
        if quantity > Quantity(0) && quantity > self.quantity(kind) {
            self.entries.retain(|(entry, _)| *entry != kind);
            let at = self.entries.partition_point(|(entry, _)| *entry < kind);
            self.entries.insert(at, (kind, quantity));
        }
    }

    /// The quantity of `kind`, zero where absent.
    pub fn quantity(&self, kind: UnitKind) -> Quantity {
        self.entries
            .iter()
            .find(|(entry, _)| *entry == kind)
            .map_or(Quantity(0), |(_, quantity)| *quantity)
    }
}
