//! Usage events of a typical application: chat calls of many customers, some within agent sessions.

use spendfuse_domain::UnixMillis;

/// Customers that calls are spread over.
const CUSTOMERS: u64 = 20_000;
const WORKSPACES: u64 = 5;
/// Three in ten calls belong to a session.
const IN_SESSION_PERCENT: u64 = 30;
/// Sessions that are under way at the same time.
const OPEN_SESSIONS: u64 = 2_000;
/// Calls of a session, on average.
const CALLS_A_SESSION: u64 = 20;
const FEATURES: [&str; 6] = ["chat", "search", "agent", "summary", "mail", "code-review"];
/// Models with a price, as providers name them.
const MODELS: [(&str, &str); 4] = [
    ("openai", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-4o-2024-08-06"),
    ("anthropic", "claude-3-5-haiku-20241022"),
    ("bedrock", "amazon.nova-micro-v1:0"),
];

/// Makes events, the same ones in every run.
#[derive(Debug)]
pub struct Traffic {
    random: u64,
    made: u64,
    sessions_begun: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            made: 0,
            sessions_begun: OPEN_SESSIONS,
        }
    }
}

impl Traffic {
    /// The next event as JSON, about 450 bytes, at `time`.
    pub fn next_event(&mut self, time: UnixMillis) -> String {
        self.made += 1;
        let number = self.made;
        let customer = self.below(CUSTOMERS);
        let workspace = customer % WORKSPACES;
        let feature = FEATURES[self.below(FEATURES.len() as u64) as usize];
        let (provider, model) = MODELS[self.below(MODELS.len() as u64) as usize];
        let input = 200 + self.below(6_000);
        let cached = self.below(input);
        let output = 20 + self.below(900);
        let latency = 200 + self.below(3_000);
        let session = if self.below(100) < IN_SESSION_PERCENT {
            self.session_part()
        } else {
            String::new()
        };
        format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"checkout-api\",\
             \"id\":\"chatcmpl-{number:09}\",\"time\":\"{time}\",\"data\":{{\
             \"workspace\":\"team-{workspace}\",\"customer\":\"c-{customer}\",\
             \"feature\":\"{feature}\",\"environment\":\"prod\",\"account\":\"main\",{session}\
             \"provider\":\"{provider}\",\"model\":\"{model}\",\"operation\":\"chat\",\
             \"usage\":{{\"input_tokens\":{input},\"cache_read_tokens\":{cached},\
             \"output_tokens\":{output}}},\"status\":\"ok\",\"latency_ms\":{latency}}}}}"
        )
    }

    fn session_part(&mut self) -> String {
        if self.below(CALLS_A_SESSION) == 0 {
            self.sessions_begun += 1;
        }
        let session = self.sessions_begun - self.below(OPEN_SESSIONS);
        let fingerprint = self.random >> 8;
        let tool_calls = self.below(3);
        format!(
            "\"agent\":\"planner\",\"session\":\"s-{session}\",\
             \"prompt_fingerprint\":\"{fingerprint:016x}\",\"tool_calls\":{tool_calls},"
        )
    }

    /// xorshift64*: reproducible, and needs no dependency.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
