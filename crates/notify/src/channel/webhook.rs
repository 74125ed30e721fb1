//! A webhook of one's own: JSON, signed as Standard Webhooks (standardwebhooks.com) say, so that the
//! libraries of that specification check it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use spendfuse_domain::UnixMillis;

use crate::letter::Letter;
use crate::text::words;

/// Begins secrets that are written in base64.
const ENCODED: &str = "whsec_";

/// The bytes of a secret.
pub(super) fn key(secret: &str) -> Result<Vec<u8>, String> {
    match secret.strip_prefix(ENCODED) {
        None => Ok(secret.as_bytes().to_vec()),
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
            format!("a `secret` that begins with {ENCODED} goes on in base64; this one does not")
        }),
    }
}

pub(super) fn body(letter: &Letter) -> Value {
    let alerts: Vec<Value> = letter
        .alerts
        .iter()
        .filter_map(|alert| serde_json::from_slice(&alert.to_record()).ok())
        .collect();
    json!({
        "v": 1,
        "id": letter.id,
        "what": letter.what.name(),
        "severity": letter.severity().name(),
        "route": letter.route,
        "text": words(letter).headline,
        "created_at": letter.created_at,
        "fallen_back_from": letter.passed.iter().map(|passed| &passed.to).collect::<Vec<_>>(),
        "alerts": alerts,
    })
}

/// The headers that say which message it is, when it was sent, and that it is ours.
pub(super) fn signed(
    id: &str,
    now: UnixMillis,
    body: &str,
    secret: &str,
) -> Vec<(&'static str, String)> {
    let seconds = now.0.div_euclid(1000).to_string();
    let mut headers = Vec::with_capacity(3);
    let key = key(secret).unwrap_or_default();
    if !key.is_empty() {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&key).expect("HMAC accepts keys of every length");
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        headers.push(("webhook-signature", format!("v1,{signature}")));
    }
    headers.push(("webhook-id", id.to_owned()));
    headers.push(("webhook-timestamp", seconds));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;
        let now = UnixMillis(1_614_265_330_000);
        let headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", now, body, secret);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned();
        assert_eq!(headers[0], ("webhook-signature", signature));
        assert!(key("whsec_%%%").is_err());
    }
}
