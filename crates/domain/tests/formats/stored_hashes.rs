//! Hashes that are stored with identities: a binary that made others of the same events would take
//! every duplicate of an older one for a conflict.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;

const USAGE: &str = r#"{"specversion":"1.0","type":"spendfuse.usage","source":"app","id":"e-1","time":"2026-11-22T10:15:30.123Z",
 "data":{"workspace":"acme","customer":"c-42","feature":"agent","user":"u-7","agent":"planner","plan":"pro",
  "session":"s-1","root_session":"s-0","environment":"prod","account":"main","tags":{"team":"größe","b":"2"},
  "provider":"openai","model":"gpt-4o","operation":"chat","service_tier":"flex",
  "usage":{"input_tokens":1200,"cache_read_tokens":800,"cache_write_tokens":30,"cache_write_1h_tokens":10,
   "audio_input_tokens":5,"output_tokens":380,"reasoning_tokens":128,"audio_output_tokens":7},
  "units":{"web_search_calls":"2","images":"1","audio_seconds":"3.5","quality":"hd","size":"1024x1024"},
  "tool_calls":2,"prompt_fingerprint":"9f2c41d0a1b2c3d4","tool_fingerprint":"77aa01bc2d3e4f50",
  "call_id":"req-77","attempt":1,"status":"ok","latency_ms":812,"reported_cost_usd":"0.0123",
  "response_id":"r-1","trace_id":"t","span_id":"s","parent_span_id":"p","region":"us-east-1","api_key_id":"key-3"}}"#;

/// The values of v0.1.0.
#[test]
fn the_hashes_of_events_never_change() {
    let revenue = r#"{"specversion":"1.0","type":"spendfuse.revenue","source":"app","id":"e-2","time":"2026-11-22T10:15:30Z","data":{"workspace":"acme","customer":"c-42","revenue_usd":"-12.5"}}"#;
    let end = r#"{"specversion":"1.0","type":"spendfuse.session_end","source":"app","id":"e-3","time":"2026-11-22T10:15:30Z","data":{"workspace":"acme","session":"s-1"}}"#;
    for (event, identity, content) in [
        (
            USAGE,
            0x2265_8bf5_e32a_62cb_9d7b_ce6a_0f43_25ba_u128,
            0xe1be_dc64_u32,
        ),
        (
            revenue,
            0x3744_f472_2916_256d_92f5_320a_05d9_78b6,
            0x723d_f827,
        ),
        (end, 0xe69d_f85b_abe0_29ce_cb96_aea7_4460_638f, 0x8b4c_b9d4),
    ] {
        let event = decode(event.as_bytes(), &[], UnixMillis(1_795_345_010_000)).unwrap();
        assert_eq!(
            (event.identity.0, event.content),
            (identity, content),
            "{:#x} {:#x}",
            event.identity.0,
            event.content
        );
    }
}
