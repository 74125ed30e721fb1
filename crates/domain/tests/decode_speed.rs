//! The decoder's budget: below a microsecond for a typical event, because it runs once for every
//! event of a partition, on one thread.
//!
//! `cargo test --profile dist -p spendfuse-domain --test decode_speed -- --ignored --nocapture`

use std::time::Instant;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;

const TYPICAL: &str = r#"{"specversion":"1.0","type":"spendfuse.usage","source":"checkout-api","id":"chatcmpl-9x8f7e6d5c","time":"2026-11-22T10:15:30.123Z","data":{"workspace":"acme","customer":"c-42","feature":"agent","session":"s-1","environment":"prod","provider":"openai","model":"gpt-4o-2024-08-06","operation":"chat","usage":{"input_tokens":1200,"cache_read_tokens":800,"output_tokens":380,"reasoning_tokens":128},"prompt_fingerprint":"9f2c41d0a1b2c3d4","latency_ms":812}}"#;

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn a_typical_event_takes_less_than_a_microsecond() {
    const ROUNDS: u32 = 400_000;
    let arrival = UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let event = decode(std::hint::black_box(TYPICAL.as_bytes()), &[], arrival);
            std::hint::black_box(event.is_ok());
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    println!("{best:.0} ns for {} bytes", TYPICAL.len());
    assert!(best < 1000.0, "{best:.0} ns");
}
