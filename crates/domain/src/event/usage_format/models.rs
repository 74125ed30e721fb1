//! What models do that their usage objects do not say.

use super::UsageFormat;

/// OpenAI's models that retrieve something before every answer ("the model always retrieves information
/// from the web before responding", OpenAI's guide to searching with chat completions), and OpenRouter's
/// with `:online` behind their names.
pub(super) fn always_search(model: &str) -> bool {
    model.contains("-search-preview") || model.contains("-search-api") || model.ends_with(":online")
}

/// Models whose output is images where nothing says of what it is made.
pub(super) fn answers_with_images(format: UsageFormat, model: &str) -> bool {
    let is_googles = matches!(
        format,
        UsageFormat::Gemini | UsageFormat::GeminiInteractions
    );
    // `chatgpt-image` has the first in it.
    model.contains("-image")
        && (model.contains("gpt-image") || is_googles && model.starts_with("gemini"))
}
