//! Keyed fingerprints of prompts and tool calls: all of a prompt that ever reaches spendfuse.
//!
//! Whoever reports events computes them next to the prompt, with the workspace's key, which
//! spendfuse itself need not know. Equal texts have equal fingerprints; without the key nobody can
//! test a guess. The fingerprint is the first 16 hex digits (64 bits, big-endian) of HMAC-SHA256
//! over a canonical text in UTF-8:
//!
//! ```text
//! prompt:  spendfuse-prompt-v1 LF {bytes of system prompt, decimal} LF {system prompt} LF {last user message}
//! tool:    spendfuse-tool-v1   LF {bytes of tool name, decimal}     LF {tool name}     LF {arguments}
//! ```
//!
//! - Texts are taken as they are: no trimming, no change of line ends or Unicode form. The length in
//!   front keeps two different pairs of texts from giving the same bytes.
//! - No system prompt = the empty text. Several system messages, or several text parts of one
//!   message, are joined with LF; parts that are no text (images, files) are left out.
//! - The last user message is the last one that a person or program wrote as `user`; tool results
//!   are not user messages.
//! - Arguments are canonical JSON by RFC 8785 (JCS): keys sorted, no spaces, shortest numbers.
//!   Providers that hand arguments over as a text holding JSON: parse it first; no arguments = `{}`.
//!
//! Test vectors: `schemas/fingerprint-vectors.json`.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// The fingerprint of a prompt under the workspace's `key`; see the module's text for what counts as
/// `system` and `last_user`.
pub fn prompt_fingerprint(key: &[u8], system: &str, last_user: &str) -> u64 {
    keyed_hash(key, "spendfuse-prompt-v1", system, last_user)
}

/// The fingerprint of a tool call under the workspace's `key`.
pub fn tool_fingerprint(key: &[u8], name: &str, arguments: &Value) -> u64 {
    keyed_hash(key, "spendfuse-tool-v1", name, &canonical_json(arguments))
}

/// The 16 hex digits of `fingerprint`, as they stand in events.
pub fn to_hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

/// The fingerprint with these 16 hex digits; `None` for any other text.
pub fn parse_hex(text: &str) -> Option<u64> {
    let digits: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let mut number = 0;
    let mut all = 0;
    // By a table: digits of fingerprints are random, so branches would be guessed wrong.
    for digit in digits {
        let value = HEX_VALUES[usize::from(*digit)];
        all |= value;
        number = number << 4 | u64::from(value & 0xf);
    }
    (all & NOT_HEX == 0).then_some(number)
}

const NOT_HEX: u8 = 0x80;
/// What each byte is worth as a hex digit.
static HEX_VALUES: [u8; 256] = {
    let mut values = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        values[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

fn keyed_hash(key: &[u8], domain: &str, first: &str, second: &str) -> u64 {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC accepts keys of every length");
    mac.update(format!("{domain}\n{}\n", first.len()).as_bytes());
    mac.update(first.as_bytes());
    mac.update(b"\n");
    mac.update(second.as_bytes());
    let digest = mac.finalize().into_bytes();
    u64::from_be_bytes(
        digest[..8]
            .try_into()
            .expect("a SHA-256 digest has 32 bytes"),
    )
}

/// `value` as RFC 8785 writes it.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => {
            // serde_json escapes exactly what RFC 8785 asks for, in the same short forms.
            text.push_str(&value.to_string());
        }
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or_default();
            text.push_str(&ecmascript_number(double));
        }
        Value::Array(elements) => {
            text.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(element, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            // By UTF-16 code units, which differs from UTF-8 order beyond the basic plane.
            sorted.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
            text.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write_canonical(member, text);
            }
            text.push('}');
        }
    }
}

/// A finite number as ECMAScript's `Number::toString` writes it (ECMA-262, 6.1.6.1.20).
fn ecmascript_number(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned(); // also for −0
    }
    // Rust's exponent form has the shortest digits that read back to the same number.
    let exponent_form = format!("{:e}", number.abs());
    let (mantissa, exponent) = exponent_form
        .split_once('e')
        .expect("the exponent form holds an e");
    let digits = mantissa.replace('.', "");
    let count = digits.len() as i32;
    // The decimal point stands behind this many digits.
    let point = exponent.parse::<i32>().expect("an integer exponent") + 1;
    let magnitude = if (count..=21).contains(&point) {
        format!("{digits}{}", "0".repeat((point - count) as usize))
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(point as usize);
        format!("{whole}.{fraction}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", "0".repeat(-point as usize))
    } else {
        let (first, rest) = digits.split_at(1);
        let fraction = if rest.is_empty() {
            String::new()
        } else {
            format!(".{rest}")
        };
        format!("{first}{fraction}e{:+}", point - 1)
    };
    if number < 0.0 {
        format!("-{magnitude}")
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 8785, section 3.2.2 and appendix B.
    #[test]
    fn canonical_json_agrees_with_rfc_8785() {
        let value: Value = serde_json::from_str(
            r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
                "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
        )
        .unwrap();
        assert_eq!(
            canonical_json(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        for (number, text) in [
            (-0.0, "0"),
            (5e-324, "5e-324"),
            (1e21, "1e+21"),
            (999999999999999900000.0, "999999999999999900000"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (-1.5, "-1.5"),
        ] {
            assert_eq!(ecmascript_number(number), text);
        }
    }
}
