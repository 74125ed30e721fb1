//! What one call has cost: seen in its answer, told as one usage event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use serde_json::{Map, Value, json};
use spendfuse_domain::event::USAGE_TYPE;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_sidecar::{Sidecar, TakenEvent};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::answer::Seen;
use crate::attribution::Who;
use crate::forward::Way;
use crate::metrics::{CALLS, UNSAFE_EVENTS};
use crate::particulars::Particulars;
use crate::proxy::Proxy;
use crate::route::Call;
use crate::starts::{Start, Starts};
use crate::upstream::Shape;

/// Bytes of text that make a token, where nobody has counted them; of English about four, of JSON
/// and code fewer.
const BYTES_OF_TOKEN: usize = 4;
/// How soon an event is delivered again that neither the broker nor the spool has taken.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One call, from its permission to its event.
pub(crate) struct Meter {
    pub(crate) sidecar: Arc<Sidecar>,
    pub(crate) call: Call,
    pub(crate) upstream: String,
    pub(crate) provider: String,
    pub(crate) is_private: bool,
    /// The name of the caller's key.
    pub(crate) key_name: Option<String>,
    /// Where the upstream answers, as the path says.
    pub(crate) region: String,
    pub(crate) who: Who,
    /// The model that was asked for, after a downgrade the one that is asked instead.
    pub(crate) asked_model: String,
    pub(crate) asked_tier: String,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
    /// What the request says besides.
    pub(crate) particulars: Particulars,
    pub(crate) reservation: Option<String>,
    /// Names the call where the provider's answer does not.
    pub(crate) call_id: String,
    pub(crate) began: Instant,
    /// When the provider made an answer that was asked for later; it is the same at every asking.
    pub(crate) answered_at: Option<UnixMillis>,
    pub(crate) seen: Seen,
    pub(crate) under_way: Option<UnderWay>,
    pub(crate) is_settled: bool,
}

impl Drop for Meter {
    /// A call that was cut is charged by what was seen of it.
    fn drop(&mut self) {
        if !self.is_settled {
            self.settle();
        }
    }
}

/// One of the calls whose events are not safe yet: a stop waits for them.
pub(crate) struct UnderWay {
    all: Arc<watch::Sender<usize>>,
    starts: Arc<Starts>,
    call: String,
}

impl UnderWay {
    fn begin(proxy: &Proxy, start: impl FnOnce() -> Start, call: &str) -> Self {
        proxy.under_way.send_modify(|count| *count += 1);
        proxy.starts.begin(start);
        Self {
            all: Arc::clone(&proxy.under_way),
            starts: Arc::clone(&proxy.starts),
            call: call.to_owned(),
        }
    }

    /// The call is counted, or costs nothing.
    fn end(&self) {
        self.starts.end(&self.call);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.send_modify(|count| *count -= 1);
    }
}

impl Meter {
    /// A call whose answer says all of what it costs.
    pub(crate) fn begin(
        proxy: &Proxy,
        way: &Way,
        call: Call,
        who: Who,
        asked_model: String,
    ) -> Self {
        let call_id = proxy.next_call_id();
        let start = || Start {
            call: call_id.clone(),
            at: proxy.sidecar.now().to_string(),
            upstream: way.name.clone(),
            model: asked_model.clone(),
            who: who.clone(),
        };
        let under_way = UnderWay::begin(proxy, start, &call_id);
        Self {
            sidecar: Arc::clone(&proxy.sidecar),
            call,
            upstream: way.name.clone(),
            provider: way.upstream.provider.clone(),
            is_private: way.upstream.is_private(),
            region: match way.upstream.shape {
                Shape::Bedrock => way.place.clone(),
                _ => String::new(),
            },
            key_name: way.entrant.caller.key().map(|key| key.name.clone()),
            who,
            asked_model,
            asked_tier: String::new(),
            request_bytes: 0,
            particulars: Particulars::default(),
            reservation: None,
            call_id,
            began: Instant::now(),
            answered_at: None,
            seen: Seen::default(),
            under_way: Some(under_way),
            is_settled: false,
        }
    }

    /// The call was not made, or its provider does not charge for it.
    pub(crate) fn forget(mut self) {
        self.count("failed");
        self.drop_uncounted();
    }

    /// The answer is made in the background: its cost is told when somebody asks for it.
    pub(crate) fn postpone(mut self) {
        self.count("unmetered");
        self.drop_uncounted();
    }

    /// The answer is at its end, as far as anybody will read it. What it costs, where it will be
    /// counted; its event is delivered meanwhile, again and again until it is safe.
    pub(crate) fn finish(mut self) -> Option<Nanos> {
        self.settle()
    }

    fn drop_uncounted(&mut self) {
        self.is_settled = true;
        self.release();
        if let Some(under_way) = &self.under_way {
            under_way.end();
        }
    }

    fn release(&self) {
        if let Some(reservation) = &self.reservation {
            self.sidecar.release(reservation);
        }
    }

    fn settle(&mut self) -> Option<Nanos> {
        self.is_settled = true;
        let is_exact = self.units().is_some_and(|(_, is_exact)| is_exact);
        self.count(match self.seen.is_final || is_exact {
            true => "metered",
            false => "estimated",
        });
        let event = self.event().to_string();
        let taken = self.sidecar.take_event(event.as_bytes());
        let taken = taken.map_err(|error| {
            let (upstream, call) = (&self.upstream, &self.call_id);
            tracing::error!(upstream, call, %error, "a call is not counted");
        });
        let cost = taken.as_ref().ok().and_then(|taken| taken.cost);
        if cost.is_none() {
            self.release();
        }
        // Without a runtime the process is going down.
        if let (Ok(taken), Some(under_way), Ok(runtime)) =
            (taken, self.under_way.take(), Handle::try_current())
        {
            runtime.spawn(make_safe(Arc::clone(&self.sidecar), taken, under_way));
        }
        cost
    }

    fn count(&self, outcome: &'static str) {
        count(&self.upstream, outcome);
    }

    /// The event as a structured CloudEvent.
    fn event(&self) -> Value {
        let Seen {
            id,
            model,
            service_tier,
            ..
        } = &self.seen;
        let (source, id) = match (id.is_empty(), self.is_private) {
            (false, false) => (format!("llm:{}", self.provider), id.clone()),
            (true, false) => (format!("llm:{}", self.provider), self.call_id.clone()),
            // Servers of one's own may count their answers from one at each start.
            (_, true) => (
                format!("spendfuse-proxy:{}", self.upstream),
                format!("{}-{}", self.call_id, id),
            ),
        };
        let or = |told: &String, asked: &String| match told.is_empty() {
            true => asked.clone(),
            false => told.clone(),
        };
        let latency = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let charged_model = or(model, &self.asked_model);
        // Whom it counts against comes first: nobody's word replaces what is known of the call.
        let mut event = Value::Object(self.attributed());
        event["provider"] = json!(self.provider);
        event["model"] = json!(charged_model);
        event["request_model"] = json!(self.asked_model);
        event["operation"] = json!(self.call.operation());
        event["status"] = json!("ok");
        if self.answered_at.is_none() {
            event["call_id"] = json!(self.call_id);
            event["latency_ms"] = json!(latency);
        }
        let (format, usage) = self.usage();
        event["usage_format"] = json!(format);
        event["usage"] = Value::Object(usage);
        let units = self.units().map(|(units, _)| units);
        let tools = || {
            let Seen { tools, usage, .. } = &self.seen;
            tools.units(usage.as_ref(), &charged_model)
        };
        if let Some(units) = units.or_else(tools) {
            event["units"] = units;
        }
        let tier = or(service_tier, &self.asked_tier);
        if !tier.is_empty() && tier != "auto" {
            event["service_tier"] = json!(tier);
        }
        if !self.region.is_empty() {
            event["region"] = json!(self.region);
        }
        if let Some(name) = &self.key_name {
            event["api_key_id"] = json!(name);
        }
        if let Some(reservation) = &self.reservation {
            event["reservation_id"] = json!(reservation);
        }
        let time = self.answered_at.unwrap_or_else(|| self.sidecar.now());
        json!({
            "specversion": "1.0",
            "type": USAGE_TYPE,
            "source": source,
            "id": id,
            "time": time.to_string(),
            "data": event,
        })
    }

    /// Whom the call counts against, as members of its event.
    fn attributed(&self) -> Map<String, Value> {
        let mut members = Map::new();
        let mut tags = Map::new();
        for (name, value) in &self.who {
            match name.strip_prefix("tags.") {
                Some(tag) => tags.insert(tag.to_owned(), json!(value)),
                None => members.insert(name.clone(), json!(value)),
            };
        }
        if !tags.is_empty() {
            members.insert("tags".to_owned(), Value::Object(tags));
        }
        members
    }

    /// What the call costs by the piece, where its answer tells no usage.
    fn units(&self) -> Option<(Value, bool)> {
        if self.seen.is_final {
            return None;
        }
        let model = &self.asked_model;
        self.particulars.units(self.call, model, self.seen.images)
    }

    /// The provider's counts; where the answer was cut before they came, an estimate by what was seen
    /// of it.
    fn usage(&self) -> (&'static str, Map<String, Value>) {
        match &self.seen.usage {
            Some(usage) if self.seen.is_final => {
                let format = self.seen.usage_format;
                (format.unwrap_or(self.call.usage_format()), usage.clone())
            }
            _ if self.call == Call::Speech || self.units().is_some() => match self.units() {
                Some((_, true)) => ("spendfuse", Map::new()),
                Some((_, false)) => {
                    let model = &self.asked_model;
                    ("estimated", self.particulars.drawn(self.call, model))
                }
                None => {
                    let text = tokens_in(self.particulars.text_bytes());
                    ("estimated", self.particulars.spoken(text))
                }
            },
            begun => {
                let (input, output) = begun.as_ref().map_or((None, 0), told_at_first);
                let input =
                    input.unwrap_or_else(|| vec![("input_tokens", tokens_in(self.request_bytes))]);
                let mut usage: Map<String, Value> = input
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), json!(count)))
                    .collect();
                let output = output.max(tokens_in(self.seen.generated));
                usage.insert("output_tokens".to_owned(), json!(output));
                ("estimated", usage)
            }
        }
    }
}

/// What Anthropic tells at the beginning of a stream, as spendfuse counts: the input, which is exact,
/// and the output so far.
fn told_at_first(usage: &Map<String, Value>) -> (Option<Vec<(&'static str, u64)>>, u64) {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let split = usage
        .get("cache_creation")
        .and_then(|split| split.get("ephemeral_1h_input_tokens"));
    let (read, written) = (
        count("cache_read_input_tokens"),
        count("cache_creation_input_tokens"),
    );
    let input = usage.contains_key("input_tokens").then(|| {
        vec![
            ("input_tokens", count("input_tokens") + read + written),
            ("cache_read_tokens", read),
            ("cache_write_tokens", written),
            (
                "cache_write_1h_tokens",
                split.and_then(Value::as_u64).unwrap_or(0),
            ),
        ]
    });
    (input, count("output_tokens"))
}

/// Tokens in so many bytes of text, where nobody has counted them.
pub(crate) fn tokens_in(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_OF_TOKEN) as u64
}

pub(crate) fn count(upstream: &str, outcome: &'static str) {
    counter!(CALLS, "upstream" => upstream.to_owned(), "outcome" => outcome).increment(1);
}

/// Delivers an event until it is safe.
async fn make_safe(sidecar: Arc<Sidecar>, mut event: TakenEvent, under_way: UnderWay) {
    gauge!(UNSAFE_EVENTS).increment(1.0);
    while let Err((error, same)) = sidecar.deliver(event).await {
        tracing::warn!(%error, "a call's event waits in memory");
        event = same;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    under_way.end();
    gauge!(UNSAFE_EVENTS).decrement(1.0);
}
