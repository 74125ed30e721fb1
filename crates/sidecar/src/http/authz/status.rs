//! The HTTP status of a refusal: as the gateway asks, else as the setting says.

use axum::http::{HeaderMap, StatusCode, header};

use crate::config::RefusalStatus;
use crate::http::ApiError;

/// Clients that try a 429 again whatever its headers say, by what their `User-Agent` contains. They
/// are few and fixed in their ways: Vercel's AI SDK (`ai/6.0 ai-sdk/provider-utils/4.0`,
/// `ai-sdk-openai/4.0`), google-genai with retry options, botocore.
const DEAF_CLIENTS: [&str; 4] = ["ai-sdk", "google-genai-sdk", "boto3", "botocore"];

/// The status that a gateway asks for in header `x-spendfuse-deny-status` or parameter
/// `deny_status`; nginx, for one, understands 401 and 403 only.
///
/// # Errors
/// 400 for anything but 401, 402, 403 and 429.
pub(super) fn asked_for(
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Option<StatusCode>, ApiError> {
    let header = headers.get("x-spendfuse-deny-status");
    // A query may name things as headers do.
    let names = ["deny_status", "deny-status", "x-spendfuse-deny-status"];
    let named = |name: &str| names.contains(&name);
    let parameter = query.iter().find(|(name, _)| named(name));
    let asked = match (header, parameter) {
        (Some(value), _) => value.as_bytes(),
        (None, Some((_, value))) => value.as_bytes(),
        (None, None) => return Ok(None),
    };
    match asked {
        b"401" => Ok(Some(StatusCode::UNAUTHORIZED)),
        b"402" => Ok(Some(StatusCode::PAYMENT_REQUIRED)),
        b"403" => Ok(Some(StatusCode::FORBIDDEN)),
        b"429" => Ok(Some(StatusCode::TOO_MANY_REQUESTS)),
        _ => Err(ApiError::bad_request(
            "deny_status: write 401, 402, 403 or 429",
        )),
    }
}

/// The status where the gateway asks for none. The client decides about nothing but this number.
pub(super) fn by_setting(setting: RefusalStatus, headers: &HeaderMap) -> StatusCode {
    match setting {
        RefusalStatus::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        RefusalStatus::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
        RefusalStatus::Forbidden => StatusCode::FORBIDDEN,
        RefusalStatus::Auto if is_deaf(headers) => StatusCode::PAYMENT_REQUIRED,
        RefusalStatus::Auto => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn is_deaf(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.map(|agent| agent.as_bytes().to_ascii_lowercase());
    agent.is_some_and(|agent| {
        let contains = |name: &str| agent.windows(name.len()).any(|at| at == name.as_bytes());
        agent.starts_with(b"ai/") || DEAF_CLIENTS.into_iter().any(contains)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn auto_is_402_for_clients_that_do_not_heed_headers() {
        for (agent, status) in [
            ("ai/7.0.173 ai-sdk-provider-utils/5.0.1", 402),
            ("ai-sdk-openai/4.0.118", 402),
            ("ai-sdk/openai/3.0.141", 402),
            ("google-genai-sdk/3.6.1 gl-python/3.11", 402),
            ("Boto3/1.44 md/Botocore#1.44.8", 402),
            ("Botocore/1.44.8", 402),
            ("OpenAI/Python 3.57.0", 429),
            ("Anthropic/JS 1.14.0", 429),
            ("mailer/ai/1", 429),
            ("", 429),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            let found = by_setting(RefusalStatus::Auto, &headers);
            assert_eq!(found.as_u16(), status, "{agent}");
            let fixed = by_setting(RefusalStatus::Forbidden, &headers);
            assert_eq!(fixed, StatusCode::FORBIDDEN);
        }
        let none = by_setting(RefusalStatus::Auto, &HeaderMap::new());
        assert_eq!(none, StatusCode::TOO_MANY_REQUESTS);
    }
}
