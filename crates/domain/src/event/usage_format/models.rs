//! What models do that their usage objects do not say.

use super::UsageFormat;
use crate::tokens::TokenClass;

/// OpenAI's models that retrieve something before every answer ("the model always retrieves information
/// from the web before responding", OpenAI's guide to searching with chat completions), and OpenRouter's
/// with `:online` behind their names.
pub(super) fn always_search(model: &str) -> bool {
    model.contains("-search-preview") || model.contains("-search-api") || model.ends_with(":online")
}

/// What a model answers with where nothing says of what its answer is made: images, or sound.
///
/// Our own format has names for both, and says it by those, but for models that make images alone.
pub(super) fn usual_answer(format: UsageFormat, model: &str) -> Option<TokenClass> {
    let name = model.rsplit('/').next().unwrap_or(model);
    // `chatgpt-image` has it in it.
    if name.contains("gpt-image") {
        return Some(TokenClass::ImageOutput);
    }
    if matches!(format, UsageFormat::Spendfuse | UsageFormat::Estimated) {
        return None;
    }
    if name.contains("-tts") {
        return Some(TokenClass::AudioOutput);
    }
    (name.starts_with("gemini") && name.contains("-image")).then_some(TokenClass::ImageOutput)
}
