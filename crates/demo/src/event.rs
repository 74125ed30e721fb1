//! The events that the demo sends, as apps would write them: each provider's own usage object.

use serde_json::{Map, Value, json};
use spendfuse_domain::{Identity, UnixMillis};

/// Everybody in the demo belongs to this workspace.
pub const WORKSPACE: &str = "acme";

/// One event, before it has a time.
#[derive(Clone, Debug)]
pub struct DemoEvent {
    /// CloudEvents `source`: the app that sends it.
    pub source: &'static str,
    /// CloudEvents `id`.
    pub id: String,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Body {
    /// A model call.
    Call(Box<Call>),
    /// What a customer paid, dollars.
    Revenue {
        /// Who.
        customer: String,
        /// How much.
        dollars: &'static str,
    },
}

/// A model call. Empty texts are left out of the event.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Call {
    pub customer: String,
    pub plan: &'static str,
    pub feature: &'static str,
    pub agent: &'static str,
    pub session: String,
    pub model: Model,
    pub usage: Usage,
    pub tool_calls: u32,
    pub prompt_fingerprint: String,
    pub tool_fingerprint: String,
}

/// A provider's model, named so that it stands in table `prices` as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    /// Provider.
    pub provider: &'static str,
    /// Name.
    pub name: &'static str,
    /// How its provider reports usage.
    pub format: Format,
}

impl Default for Model {
    fn default() -> Self {
        GPT_4O
    }
}

/// How usage is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    OpenAiChat,
    AnthropicMessages,
    Gemini,
    Spendfuse,
}

const fn model(provider: &'static str, name: &'static str, format: Format) -> Model {
    Model {
        provider,
        name,
        format,
    }
}

/// $2.50 and $10 per million tokens.
pub const GPT_4O: Model = model("openai", "gpt-4o", Format::OpenAiChat);
/// $0.15 and $0.60.
pub const GPT_4O_MINI: Model = model("openai", "gpt-4o-mini", Format::OpenAiChat);
/// $0.40 and $1.60.
pub const GPT_41_MINI: Model = model("openai", "gpt-4.1-mini", Format::OpenAiChat);
/// $3 and $15.
pub const SONNET: Model = model("anthropic", "claude-sonnet-4-5", Format::AnthropicMessages);
/// $1 and $5.
pub const HAIKU: Model = model("anthropic", "claude-haiku-4-5", Format::AnthropicMessages);
/// $0.30 and $2.50.
pub const GEMINI_FLASH: Model = model("gemini", "gemini-2.5-flash", Format::Gemini);
/// The model of the real agent runs.
pub const GEMINI_3_FLASH: Model = model("gemini", "gemini-3-flash-preview", Format::Gemini);
/// $0.30 and $0.90.
pub const CODESTRAL: Model = model("mistral", "codestral-latest", Format::Spendfuse);
/// Nobody has a price for it.
pub const UNPRICED: Model = model("acme-labs", "zebrafish-7", Format::Spendfuse);

/// Tokens by what they are, each token in one place only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Usage {
    pub input: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    pub output: u64,
    pub reasoning: u64,
    /// Gemini's `toolUsePromptTokenCount`.
    pub tool_input: u64,
}

impl Usage {
    /// Plain input and output.
    pub fn plain(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// The provider's own usage object.
    fn object(&self, format: Format) -> Value {
        let written = self.cache_write_5m + self.cache_write_1h;
        let prompt = self.input + self.cache_read + written;
        let answer = self.output + self.reasoning;
        match format {
            Format::OpenAiChat => json!({
                "prompt_tokens": prompt,
                "completion_tokens": answer,
                "total_tokens": prompt + answer,
                "prompt_tokens_details": {"cached_tokens": self.cache_read},
                "completion_tokens_details": {"reasoning_tokens": self.reasoning},
            }),
            Format::AnthropicMessages => json!({
                "input_tokens": self.input,
                "cache_read_input_tokens": self.cache_read,
                "cache_creation_input_tokens": written,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": self.cache_write_5m,
                    "ephemeral_1h_input_tokens": self.cache_write_1h,
                },
                "output_tokens": answer,
            }),
            Format::Gemini => json!({
                "promptTokenCount": prompt,
                "cachedContentTokenCount": self.cache_read,
                "candidatesTokenCount": self.output,
                "thoughtsTokenCount": self.reasoning,
                "toolUsePromptTokenCount": self.tool_input,
                "totalTokenCount": prompt + self.tool_input + answer,
            }),
            Format::Spendfuse => json!({
                "input_tokens": prompt,
                "cache_read_tokens": self.cache_read,
                "output_tokens": answer,
                "reasoning_tokens": self.reasoning,
            }),
        }
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai.chat",
            Self::AnthropicMessages => "anthropic.messages",
            Self::Gemini => "gemini",
            Self::Spendfuse => "spendfuse",
        }
    }
}

impl DemoEvent {
    /// A model call.
    pub fn call(source: &'static str, id: String, call: Call) -> Self {
        Self {
            source,
            id,
            body: Body::Call(Box::new(call)),
        }
    }

    /// The event as JSON, with its time.
    pub fn render(&self, time: UnixMillis) -> Vec<u8> {
        let (kind, data) = match &self.body {
            Body::Call(call) => ("spendfuse.usage", call.data()),
            Body::Revenue { customer, dollars } => (
                "spendfuse.revenue",
                json!({"workspace": WORKSPACE, "customer": customer, "revenue_usd": dollars}),
            ),
        };
        let event = json!({
            "specversion": "1.0",
            "type": kind,
            "source": self.source,
            "id": self.id,
            "time": time.to_string(),
            "data": data,
        });
        event.to_string().into_bytes()
    }

    /// The key that takes it home from the start: its session, else its identity.
    pub fn routing_key(&self) -> Vec<u8> {
        match &self.body {
            Body::Call(call) if !call.session.is_empty() => call.session.clone().into_bytes(),
            _ => {
                let identity = Identity::of(WORKSPACE, self.source, &self.id, "final");
                identity.0.to_be_bytes().to_vec()
            }
        }
    }
}

impl Call {
    fn data(&self) -> Value {
        let mut data = Map::new();
        data.insert("workspace".to_owned(), WORKSPACE.into());
        let texts = [
            ("customer", self.customer.as_str()),
            ("plan", self.plan),
            ("feature", self.feature),
            ("agent", self.agent),
            ("session", &self.session),
            ("provider", self.model.provider),
            ("model", self.model.name),
            ("prompt_fingerprint", &self.prompt_fingerprint),
            ("tool_fingerprint", &self.tool_fingerprint),
            ("environment", "prod"),
            ("usage_format", self.model.format.name()),
        ];
        for (name, text) in texts {
            if !text.is_empty() {
                data.insert(name.to_owned(), text.into());
            }
        }
        if self.tool_calls > 0 {
            data.insert("tool_calls".to_owned(), self.tool_calls.into());
        }
        data.insert("usage".to_owned(), self.usage.object(self.model.format));
        Value::Object(data)
    }
}
