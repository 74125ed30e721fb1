//! Names of providers: one name each, whatever an SDK, a gateway or OpenTelemetry calls it; and
//! whose models a name belongs to.

use std::borrow::Cow;

/// Other names of providers. Sources: OpenTelemetry `gen_ai.provider.name` and `gen_ai.system`,
/// `litellm_provider`, SDK package names.
const ALIASES: &[(&str, &str)] = &[
    ("abliteration_ai", "abliteration"),
    ("ai21_chat", "ai21"),
    ("alibaba", "dashscope"),
    ("alibaba_cloud", "dashscope"),
    ("amazon-nova", "amazon_nova"),
    ("amazon_bedrock", "bedrock"),
    ("amazon_bedrock_anthropic", "bedrock"),
    ("anthropic_bedrock", "bedrock"),
    ("anthropic_vertex", "vertex_ai"),
    ("aws", "bedrock"),
    ("aws.bedrock", "bedrock"),
    ("aws_bedrock", "bedrock"),
    ("az.ai.inference", "azure_ai"),
    ("az.ai.openai", "azure"),
    ("azure.ai.inference", "azure_ai"),
    ("azure.ai.openai", "azure"),
    ("azure_ai_foundry", "azure_ai"),
    ("azure_foundry", "azure_ai"),
    ("azure_openai", "azure"),
    ("azure_text", "azure"),
    ("azureopenai", "azure"),
    ("bedrock_converse", "bedrock"),
    ("bedrock_runtime", "bedrock"),
    ("claude", "anthropic"),
    ("cloudflare_workers_ai", "cloudflare"),
    ("cohere_chat", "cohere"),
    ("dash_scope", "dashscope"),
    ("deepseek_ai", "deepseek"),
    ("fireworks", "fireworks_ai"),
    ("fireworks_ai-embedding-models", "fireworks_ai"),
    ("friendli", "friendliai"),
    ("gcp.gemini", "gemini"),
    ("gcp.gen_ai", "gemini"),
    ("gcp.vertex_ai", "vertex_ai"),
    ("gmicloud", "gmi"),
    ("google", "gemini"),
    ("google_ai_studio", "gemini"),
    ("google_genai", "gemini"),
    ("google_generative_ai", "gemini"),
    ("google_gla", "gemini"),
    ("google_vertex", "vertex_ai"),
    ("google_vertex_ai", "vertex_ai"),
    ("google_vertex_anthropic", "vertex_ai"),
    ("google_vertexai", "vertex_ai"),
    ("grok", "xai"),
    ("ibm.watsonx.ai", "watsonx"),
    ("jina", "jina_ai"),
    ("jinaai", "jina_ai"),
    ("kimi", "moonshot"),
    ("meta_llama", "meta"),
    ("mistral_ai", "mistral"),
    ("mistralai", "mistral"),
    ("moonshot_ai", "moonshot"),
    ("moonshotai", "moonshot"),
    ("novita_ai", "novita"),
    ("nvidia", "nvidia_nim"),
    ("ollama_chat", "ollama"),
    ("open_router", "openrouter"),
    ("perplexity_ai", "perplexity"),
    ("text-completion-codestral", "codestral"),
    ("text-completion-inception", "inception"),
    ("text-completion-openai", "openai"),
    ("together", "together_ai"),
    ("togetherai", "together_ai"),
    ("vercel", "vercel_ai_gateway"),
    ("vertex", "vertex_ai"),
    ("vertex_ai_anthropic", "vertex_ai"),
    ("vertex_anthropic", "vertex_ai"),
    ("vertexai", "vertex_ai"),
    ("vertexai_anthropic", "vertex_ai"),
    ("voyage_ai", "voyage"),
    ("voyageai", "voyage"),
    ("workers_ai", "cloudflare"),
    ("x.ai", "xai"),
    ("x_ai", "xai"),
    ("xiaomi", "xiaomi_mimo"),
    ("z_ai", "zai"),
    ("zai_org", "zai"),
    ("zhipu", "zai"),
    ("zhipu_ai", "zai"),
    ("zhipuai", "zai"),
];

/// What SDKs put behind a provider's name for the API that is called: `openai.responses`,
/// `vertex.anthropic.messages`, `google.generative-ai`.
const APIS: &[&str] = &[
    "chat",
    "chat_completions",
    "completion",
    "completions",
    "converse",
    "embedding",
    "embeddings",
    "generative_ai",
    "image",
    "messages",
    "responses",
    "speech",
    "text_embedding",
    "transcription",
];

/// Who makes models whose bare name begins so; the first is asked first. Longest beginnings first
/// where one begins another.
const FIRST_PARTIES: &[(&str, &[&str])] = &[
    ("babbage", &["openai"]),
    ("chatgpt", &["openai"]),
    ("codex", &["openai"]),
    ("computer-use", &["openai"]),
    ("dall-e", &["openai"]),
    ("davinci", &["openai"]),
    ("ft:", &["openai"]),
    ("gpt-oss", &[]),
    ("gpt-", &["openai"]),
    ("o1", &["openai"]),
    ("o3", &["openai"]),
    ("o4", &["openai"]),
    ("omni-moderation", &["openai"]),
    ("sora", &["openai"]),
    ("text-embedding-3", &["openai"]),
    ("text-embedding-ada", &["openai"]),
    ("tts-1", &["openai"]),
    ("whisper-1", &["openai"]),
    ("claude", &["anthropic"]),
    ("gemini", &["gemini", "vertex_ai"]),
    ("imagen", &["gemini", "vertex_ai"]),
    ("text-embedding-0", &["gemini", "vertex_ai"]),
    ("veo", &["gemini", "vertex_ai"]),
    ("codestral", &["mistral", "codestral"]),
    ("devstral", &["mistral"]),
    ("magistral", &["mistral"]),
    ("ministral", &["mistral"]),
    ("mistral", &["mistral"]),
    ("open-mi", &["mistral"]),
    ("pixtral", &["mistral"]),
    ("voxtral", &["mistral"]),
    ("command", &["cohere"]),
    ("embed-", &["cohere"]),
    ("rerank-", &["cohere"]),
    ("deepseek", &["deepseek"]),
    ("grok", &["xai"]),
    ("sonar", &["perplexity"]),
    ("qwen", &["dashscope"]),
    ("kimi", &["moonshot"]),
    ("moonshot", &["moonshot"]),
    ("glm", &["zai"]),
    ("minimax", &["minimax"]),
    ("voyage", &["voyage"]),
    ("jamba", &["ai21"]),
    ("nova-", &["amazon_nova", "bedrock"]),
    ("titan-", &["bedrock"]),
];

/// Who sells others' models on an account of its own, whatever models the book has of it: the maker's
/// price of `anthropic/claude-sonnet-4.5` there is a guess. Gateways that pass calls on to one's own
/// account (LiteLLM, Portkey, Helicone) are not among them.
const RESELLERS: &[&str] = &[
    "aihubmix",
    "aiml",
    "github_copilot",
    "kilo",
    "nano_gpt",
    "opencode",
    "openrouter",
    "poe",
    "replicate",
    "requesty",
    "vercel_ai_gateway",
    "zenmux",
];

/// Whether `provider`, as [`canonical`] writes it, sells others' models.
pub(crate) fn resells(provider: &str) -> bool {
    { RESELLERS.iter() }.any(|known| differ_in_separators_only(known, provider))
}

/// The book's name for `provider`: lower case, one name for each. The many
/// `vertex_ai-…_models` of price files are `vertex_ai`.
pub fn canonical(provider: &str) -> Cow<'_, str> {
    let lower: Cow<'_, str> = if provider.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(provider.to_ascii_lowercase())
    } else {
        Cow::Borrowed(provider)
    };
    if lower.starts_with("vertex_ai-") {
        return Cow::Borrowed("vertex_ai");
    }
    let mut name = &*lower;
    loop {
        let same = |alias: &&(&str, &str)| differ_in_separators_only(alias.0, name);
        if let Some((_, known)) = ALIASES.iter().find(same) {
            return Cow::Borrowed(known);
        }
        match name.rsplit_once('.') {
            Some((provider, api)) if is_api(api) => name = provider,
            _ if name.len() == lower.len() => return lower,
            _ => return Cow::Owned(name.to_owned()),
        }
    }
}

fn is_api(name: &str) -> bool {
    APIS.iter()
        .any(|known| differ_in_separators_only(known, name))
}

/// Asked of every other name for every model that nobody knows: nothing is written to find out.
fn differ_in_separators_only(one: &str, other: &str) -> bool {
    let unified = |byte| match byte {
        b'-' | b'.' | b' ' => b'_',
        other => other,
    };
    one.len() == other.len() && one.bytes().map(unified).eq(other.bytes().map(unified))
}

/// `name` with one separator for all: SDKs write `amazon-bedrock` and `google.vertex`, price files
/// `fireworks_ai` and `scx-ai`.
pub(crate) fn same_separators(name: &str) -> Cow<'_, str> {
    if name.contains(['-', '.', ' ']) {
        Cow::Owned(name.replace(['-', '.', ' '], "_"))
    } else {
        Cow::Borrowed(name)
    }
}

/// The makers of the model with this bare name, in the order in which they are asked; empty where
/// it is nobody's in particular.
pub fn first_parties(bare_model: &str) -> &'static [&'static str] {
    FIRST_PARTIES
        .iter()
        .find(|(beginning, _)| bare_model.starts_with(beginning))
        .map_or(&[], |(_, makers)| makers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_provider_has_one_name() {
        for (name, expected) in [
            ("aws.bedrock", "bedrock"),
            ("Azure.AI.OpenAI", "azure"),
            ("vertex_ai-anthropic_models", "vertex_ai"),
            ("OpenAI", "openai"),
            ("some-gateway", "some-gateway"),
            ("amazon-bedrock", "bedrock"),
            ("google-vertex-anthropic", "vertex_ai"),
            ("vertex.anthropic.messages", "vertex_ai"),
            ("google.generative-ai", "gemini"),
            ("openai.responses", "openai"),
            ("scx-ai", "scx-ai"),
        ] {
            assert_eq!(canonical(name), expected);
        }
        assert_eq!(first_parties("gpt-oss-120b"), &[] as &[&str]);
        assert_eq!(first_parties("gpt-4o"), &["openai"]);
    }
}
