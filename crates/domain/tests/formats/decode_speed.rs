//! The decoder's budget: below a microsecond for a typical event, because it runs once for every
//! event of a partition, on one thread.
//!
//! `cargo test --profile dist -p spendfuse-domain --test formats -- --ignored --nocapture decode_speed`

use std::time::Instant;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;

const TYPICAL: &str = r#"{"specversion":"1.0","type":"spendfuse.usage","source":"checkout-api","id":"chatcmpl-9x8f7e6d5c","time":"2026-11-22T10:15:30.123Z","data":{"workspace":"acme","customer":"c-42","feature":"agent","session":"s-1","environment":"prod","provider":"openai","model":"gpt-4o-2024-08-06","operation":"chat","usage":{"input_tokens":1200,"cache_read_tokens":800,"output_tokens":380,"reasoning_tokens":128},"prompt_fingerprint":"9f2c41d0a1b2c3d4","latency_ms":812}}"#;

/// Best of several rounds, nanoseconds a call.
fn best_nanos(mut call: impl FnMut() -> bool) -> f64 {
    const CALLS: u32 = 50_000;
    let round = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..40).map(round).fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "a measurement, for a quiet machine and the dist profile"]
fn a_typical_event_takes_less_than_a_microsecond() {
    let arrival = UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap();
    let decoding = best_nanos(|| {
        let bytes = std::hint::black_box(TYPICAL.as_bytes());
        decode(bytes, &[], arrival).is_ok()
    });
    let skipping = best_nanos(|| {
        let text = std::hint::black_box(TYPICAL);
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    });
    println!(
        "{} bytes: decoded in {decoding:.0} ns; serde_json skips over them in {skipping:.0} ns",
        TYPICAL.len()
    );
    assert!(decoding < 1000.0, "{decoding:.0} ns");
}
