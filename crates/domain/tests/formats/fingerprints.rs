//! The fingerprint vectors that SDKs in other languages are tested against, too.

use serde_json::Value;
use spendfuse_domain::fingerprint::{
    canonical_json, parse_hex, prompt_fingerprint, to_hex, tool_fingerprint,
};

#[test]
fn fingerprints_agree_with_the_published_vectors() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../schemas/fingerprint-vectors.json")).unwrap();
    let text = |vector: &Value, name: &str| vector[name].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    for vector in vectors["prompt"].as_array().unwrap() {
        let key = text(vector, "key");
        let fingerprint = prompt_fingerprint(
            key.as_bytes(),
            &text(vector, "system"),
            &text(vector, "last_user"),
        );
        assert_eq!(to_hex(fingerprint), text(vector, "fingerprint"), "{vector}");
        seen.push(fingerprint);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(
        seen.len(),
        6,
        "different prompts or keys, different fingerprints"
    );
    for vector in vectors["tool"].as_array().unwrap() {
        let arguments = &vector["arguments"];
        assert_eq!(
            canonical_json(arguments),
            text(vector, "canonical_arguments")
        );
        let key = text(vector, "key");
        let fingerprint = tool_fingerprint(key.as_bytes(), &text(vector, "name"), arguments);
        assert_eq!(to_hex(fingerprint), text(vector, "fingerprint"), "{vector}");
    }
}

#[test]
fn only_sixteen_hex_digits_are_a_fingerprint() {
    assert_eq!(parse_hex("00000000000000fF"), Some(255));
    for wrong in [
        "",
        "ff",
        "+0000000000000ff",
        "00000000000000fg",
        "00000000000000fff",
    ] {
        assert_eq!(parse_hex(wrong), None, "{wrong}");
    }
}
