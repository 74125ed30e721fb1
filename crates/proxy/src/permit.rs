//! From a request to a permitted call: read, attributed, asked about, held.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use metrics::histogram;
use spendfuse_domain::Verdict;
use spendfuse_guard::{CheckResponse, decision_name};
use spendfuse_sidecar::server::{Connection, Share};
use spendfuse_sidecar::{ApiError, Question, RefusedCall};

use crate::access;
use crate::attribution::Who;
use crate::config::OnDowngrade;
use crate::fingerprint;
use crate::forward::{Way, taken_from};
use crate::headers;
use crate::hidden::hides_usage;
use crate::kept::named_in;
use crate::meter::{self, Meter};
use crate::metrics::ADDED_SECONDS;
use crate::particulars::{Particulars, usual_model};
use crate::proxy::Proxy;
use crate::refusal::{self, put};
use crate::request::{Asked, edited};
use crate::route::{self, Call};
use crate::upstream::Shape;

/// A permitted call on its way.
pub(crate) struct Permitted {
    pub(crate) way: Way,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// As the caller sent it, but for another model.
    pub(crate) body: Bytes,
    /// With the question for a stream's usage; `None` where it is not asked.
    pub(crate) asking: Option<Bytes>,
    pub(crate) streams: bool,
    /// What the answer says besides the provider's own.
    pub(crate) told: HeaderMap,
    pub(crate) connection: Option<Arc<Connection>>,
    /// What the body takes of the memory for all.
    pub(crate) memory: Share,
    pub(crate) meter: Meter,
}

/// Why a call is not forwarded.
pub(crate) enum Stop {
    Refused(Box<RefusedCall>),
    Wrong(StatusCode, &'static str, String),
}

impl Stop {
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(StatusCode::BAD_REQUEST, "cannot_be_metered", message.into())
    }

    /// The answer to the caller of this upstream.
    pub(crate) fn response(&self, upstream: &str, shape: Shape) -> Response {
        match self {
            Self::Refused(refused) => {
                meter::count(upstream, "refused");
                refusal::of_call(shape, refused)
            }
            Self::Wrong(status, code, message) => {
                meter::count(upstream, "wrong");
                match *status {
                    StatusCode::SERVICE_UNAVAILABLE => {
                        refusal::of_moment(shape, *status, code, message)
                    }
                    status => refusal::of_request(shape, status, code, message),
                }
            }
        }
    }
}

/// Reads a call and asks the guard about it.
pub(crate) async fn permit(
    proxy: &Arc<Proxy>,
    way: Way,
    call: Call,
    parts: Parts,
    body: Body,
    began: Instant,
) -> Result<Permitted, Stop> {
    must_be_plain(&parts.headers)?;
    let (body, memory) = whole(proxy, &parts.headers, body).await?;
    let connection = taken_from(&parts);
    let (particulars, is_form) = Particulars::read(call, &parts.headers, &body).unwrap_or_default();
    if particulars.is_ambiguous {
        let message =
            "the form can be read in two ways: it names a field twice, or a part not at all";
        return Err(Stop::wrong(message));
    }
    let mut asked = match is_form {
        true => Asked::default(),
        false => Asked::read(&body).map_err(Stop::wrong)?,
    };
    asked.streams |= particulars.streams;
    if let (true, Some(model)) = (asked.model.is_empty(), &particulars.model) {
        asked.model.clone_from(model);
    }
    if (!is_form || call == Call::Videos)
        && access::shares_key(proxy, &way)
        && let Some(what) = needs_own_key(call, &asked, &body)
    {
        let message = access::of_others(&way, &what);
        return Err(Stop::Wrong(StatusCode::FORBIDDEN, "forbidden", message));
    }
    if let Some(name) = hides_usage(call, &way.uri, &parts.headers) {
        let message = format!("by `{name}` the answer would not say what it has used");
        return Err(Stop::wrong(message));
    }
    if asked.model.is_empty() {
        asked.model = match call {
            Call::Interactions => std::mem::take(&mut asked.agent),
            _ => usual_model(call, &way.path).to_owned(),
        };
    }
    let who = proxy
        .config
        .attributing
        .of(&parts.headers, &asked, &way.entrant.caller)
        .map_err(Stop::wrong)?;
    let (shape, path) = (way.upstream.shape, way.path.as_str());
    // Azure's deployments are called as somebody liked; the body may say what they are.
    let model = match route::model_in_path(shape, path) {
        Some(model) if shape != Shape::Azure || asked.model.is_empty() => model,
        _ => asked.model.clone(),
    };
    if model.is_empty() {
        return Err(Stop::wrong("the call names no model"));
    }
    let estimate = Estimate {
        input: particulars.input_tokens(call, &body),
        // Where the caller sets no limit, the rule of reservations does.
        output: match call {
            _ if call.generates_nothing() => Some(0),
            Call::Images => particulars.drawn_tokens(&model),
            _ => asked.most_output(),
        },
    };
    let answer = ask(proxy, &way, &who, &model, &estimate).await?;
    if answer.decision == Verdict::Block {
        let refused = proxy.sidecar.refused_call(&answer, &parts.headers);
        return Err(Stop::Refused(Box::new(refused)));
    }
    let can_change = call.writes_text() && route::model_in_path(shape, path).is_none();
    let other = other_model(proxy, &answer, &parts.headers, &asked, can_change)?;
    let other_edit = other.as_deref().and_then(|other| asked.model_edit(other));
    let asks =
        matches!(call, Call::Completions { .. }) && proxy.asks_for_usage(&way.name, &way.upstream);
    let question = asked.usage_edit().filter(|_| asks).cloned();
    let asking = question.map(|question| {
        let edits = other_edit.clone().into_iter().chain([question]);
        edited(&body, edits.collect())
    });
    let body = edited(&body, other_edit.into_iter().collect());
    let mut told = HeaderMap::new();
    let decision = decision_name(answer.decision);
    told.insert("x-spendfuse-decision", HeaderValue::from_static(decision));
    put(
        &mut told,
        "x-spendfuse-reservation",
        answer.reservation_id.as_deref(),
    );
    if other.is_some() {
        put(&mut told, "x-spendfuse-downgraded-from", Some(&model));
    }
    histogram!(ADDED_SECONDS).record(began.elapsed().as_secs_f64());
    // Speech is no JSON, and goes on as it comes.
    let streams = asked.streams || call == Call::Speech || route::streams_by_path(shape, path);
    let is_downgraded = other.is_some();
    let mut meter = Meter::begin(proxy, &way, call, who, other.unwrap_or(model));
    meter.is_downgraded = is_downgraded;
    meter.particulars = particulars;
    // Interactions and videos do not say so themselves.
    meter.seen.is_pending = call == Call::Videos;
    meter.seen.was_background =
        call == Call::Videos || call == Call::Interactions && asked.in_background;
    let key = proxy.config.fingerprint_key.as_ref();
    meter.prompt_fingerprint =
        key.and_then(|key| fingerprint::of_call(key.reveal().as_bytes(), call, &body));
    meter.most_output = asked.most_output();
    meter.asked_tier = asked.service_tier;
    meter.asked_input = estimate.input;
    meter.hold(answer.reservation_id);
    meter.callers_names = headers::names_of_request(&parts.headers, asked.request_id);
    meter.began = began;
    Ok(Permitted {
        headers: headers::upstream_request(
            &parts.headers,
            &way.upstream,
            call.shape(shape),
            &way.entrant,
            true,
        ),
        method: parts.method,
        streams,
        asking,
        told,
        connection,
        memory,
        meter,
        way,
        body,
    })
}

/// # Errors
/// That a body is compressed.
pub(crate) fn must_be_plain(headers: &HeaderMap) -> Result<(), Stop> {
    let coding = headers.get(header::CONTENT_ENCODING);
    if coding.is_none_or(|coding| coding == "identity") {
        return Ok(());
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let message = "the proxy reads what a call asks for: send its body uncompressed";
    Err(Stop::Wrong(status, "compressed", message.to_owned()))
}

/// The whole body, and the memory that it takes of what all have.
pub(crate) async fn whole(
    proxy: &Proxy,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Share), Stop> {
    let most = proxy.config.max_body_bytes;
    let too_large = || {
        let message = format!("the body has more than {most} bytes (proxy.max_body_bytes)");
        Stop::Wrong(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let full = || {
        let message = "the bodies of other calls fill the memory that there is for them \
                       (proxy.max_body_memory); send it again";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Stop::Wrong(status, "overloaded", message.to_owned())
    };
    let mut memory = proxy.memory.share();
    if announced.is_some_and(|length| !memory.grow_to(length)) {
        return Err(full());
    }
    let mut body = Limited::new(body, most);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => Stop::wrong("the body broke off"),
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        // Most bodies come in one piece, which is not copied.
        if first.is_empty() {
            first = data;
            continue;
        }
        if more.is_empty() {
            more.reserve(announced.unwrap_or_default());
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&data);
        // A body of unknown length takes what has come of it.
        if !memory.grow_to(more.len()) {
            return Err(full());
        }
    }
    let whole = if more.is_empty() {
        first
    } else {
        more.freeze()
    };
    match memory.grow_to(whole.len()) {
        true => Ok((whole, memory)),
        false => Err(full()),
    }
}

/// What of a call is not for a provider's key that workspaces share; `None` where nothing is.
fn needs_own_key(call: Call, asked: &Asked, body: &[u8]) -> Option<String> {
    if call.may_be_asked_for(asked.in_background) {
        // What it costs it says to whoever asks for it, which nobody may.
        return Some("an answer in the background could not be asked for".to_owned());
    }
    named_in(body).map(|kept| format!("the call names what is kept there ({kept})"))
}

/// Tokens of a call before it is made.
struct Estimate {
    input: u64,
    /// At most; `None` where nobody says.
    output: Option<u64>,
}

/// May the call go ahead? What it may cost is held meanwhile.
async fn ask(
    proxy: &Proxy,
    way: &Way,
    who: &Who,
    model: &str,
    estimate: &Estimate,
) -> Result<CheckResponse, Stop> {
    let question = |reserves: bool| {
        let mut question = Question::default();
        let mut put = |name: &str, value: &str| question.put(name, value.to_owned());
        for (name, value) in who {
            put(name, value)?;
        }
        put("model", model)?;
        let provider = &way.upstream.provider;
        put("provider", provider)?;
        put("estimate.model", model)?;
        put("estimate.provider", provider)?;
        put("estimate.input_tokens", &estimate.input.to_string())?;
        if let Some(output) = estimate.output {
            put("estimate.max_output_tokens", &output.to_string())?;
        }
        put("reserve", if reserves { "1" } else { "0" })?;
        Ok(question)
    };
    let wrong = |error: ApiError| Stop::wrong(error.to_string());
    let reserving = question(true).map_err(wrong)?;
    if let Ok(answer) = proxy.sidecar.ask(reserving, &way.entrant.caller).await {
        return Ok(answer);
    }
    // Where nothing more can be held, what is spent still counts.
    let asking = question(false).map_err(wrong)?;
    let answer = proxy.sidecar.ask(asking, &way.entrant.caller);
    answer.await.map_err(wrong)
}

/// The model to ask instead, where a budget says so.
pub(crate) fn other_model(
    proxy: &Proxy,
    answer: &CheckResponse,
    headers: &HeaderMap,
    asked: &Asked,
    can_change: bool,
) -> Result<Option<String>, Stop> {
    let Some(other) = answer.downgrade_to.clone() else {
        return Ok(None);
    };
    match proxy.config.on_downgrade {
        OnDowngrade::Ignore => Ok(None),
        OnDowngrade::Apply if can_change && asked.model_edit(&other).is_some() => Ok(Some(other)),
        // A model that stands in the path, embeds, draws or speaks cannot be replaced by one that
        // writes: there would be no answer, or one of another form.
        OnDowngrade::Apply => Ok(None),
        OnDowngrade::Refuse => {
            if let Some(reservation) = &answer.reservation_id {
                proxy.sidecar.release(reservation);
            }
            let mut refused = proxy.sidecar.refused_call(answer, headers);
            refused.code = "budget_exceeded";
            refused.message = format!("a budget allows model {other} only");
            Err(Stop::Refused(Box::new(refused)))
        }
    }
}
