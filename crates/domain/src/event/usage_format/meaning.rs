//! The words in which a format says what its members mean.

use crate::units::UnitKind;

/// What a count means; which slots contain which others is the format's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Input,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    /// Written for half an hour, at the price of five minutes.
    CacheWrite30m,
    /// Written for twelve hours, at the price of one.
    CacheWrite12h,
    ForeignCacheRead,
    ForeignCacheWrite,
    AudioInput,
    ImageInput,
    VideoInput,
    AudioCached,
    ImageCached,
    VideoCached,
    ToolInput,
    ToolAudio,
    ToolImage,
    ToolVideo,
    Output,
    Reasoning,
    AudioOutput,
    ImageOutput,
    Total,
    WebSearches,
    RerankUnits,
    /// Audio that may be within the input or beside it.
    FreeAudio,
    /// Reasoning that may be within the output or beside it.
    FreeReasoning,
    /// Reasoning beside the output.
    Thoughts,
    Citations,
    BilledInput,
    BilledOutput,
}

/// A word in the usage object that says at which price, or of which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Tier,
    Speed,
    Geography,
    /// How much was searched, which a search costs by: `low`, `medium`, `high`.
    SearchSize,
    /// In one of several parts of a call: its type.
    PartType,
    /// In one of several parts of a call: its model.
    PartModel,
}

/// An object or list inside of the usage object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Top,
    InputDetails,
    OutputDetails,
    CachedDetails,
    ToolDetails,
    CacheCreation,
    ServerToolUse,
    CacheLifetimes,
    /// Calls of tools that the provider has run, by the tool.
    ToolCalls,
    /// Calls of one tool that searches.
    Searches,
    /// What Nova Sonic has heard and said.
    Speech,
    /// One of several parts of a call.
    Part,
    /// What Cohere bills.
    Billed,
    /// What Vertex AI says besides OpenAI's members, and Bedrock besides Anthropic's.
    Extra,
}

/// What a format makes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A count.
    Count(Slot),
    /// An object with more counts.
    Object(Section),
    /// A list of labelled counts, such as `{"modality": "AUDIO", "tokenCount": 7}`; the labels'
    /// meanings are looked up in the section.
    List(Section),
    /// In an element of a list: its label.
    Label,
    /// In an element of a list: its count.
    LabelledCount,
    /// A count that adds up with others of its slot.
    Added(Slot),
    /// A word.
    Word(Word),
    /// A count, or an object of more counts.
    CountOrObject(Slot, Section),
    /// A word, or an object whose `type` is one.
    WordOrType(Word),
    /// Units that are sold beside tokens.
    Units(UnitKind),
    /// Seconds of audio, which may have a fraction.
    Seconds,
    /// What the provider says that it charges, in dollars.
    Charge,
    /// The same in xAI's ticks, ten billion to the dollar.
    ChargeTicks,
    /// Whether the provider behind a gateway charges its own customer.
    IsOwnKey,
    /// An object that says what the provider behind a gateway charges.
    ChargeBehind,
    /// A list of parts of the call, each with counts of its own.
    Parts,
    /// How much of the output is text, which is what the output costs anyway.
    TextOutput,
    /// Without effect on the bill, or within another count.
    NotBilled,
}
