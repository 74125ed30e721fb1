//! tmp
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, Now};
use spendfuse_domain::{Attribution, UnixMillis, Nanos};
use spendfuse_domain::budget::Spend;
#[test]
fn docs() {
    let t = |s: &str| UnixMillis::parse_rfc3339(s).unwrap();
    let now = Now { wall: t("2026-11-22T10:15:33.400Z"), monotonic_millis: 100_000 };
    let (mut w, g) = Guard::new(GuardConfig::new(1));
    w.apply_budget("cap-per-customer", Some(br#"{"v":1,"id":"cap-per-customer","scope":{"workspace":"acme","customer":"*"},"where":{"plan":["free","pro"]},"limit":"0.01","window":"day","timezone":"America/New_York","steps":[{"at":80,"do":"warn"},{"at":100,"do":"block"}],"on_stale":"allow","count_unpriced":"warn","publish_from":0,"message":"Today's budget is used up.","counted_from":"2026-11-20T00:00:00Z"}"#), 1).unwrap();
    w.apply_budget("acme-monthly", Some(br#"{"v":1,"id":"acme-monthly","scope":{"workspace":"acme"},"limit":"1000.00","window":"month","timezone":"UTC","steps":[{"at":80,"do":"warn"},{"at":100,"do":"block"}],"counted_from":"2026-11-20T00:00:00Z"}"#), 1).unwrap();
    w.apply("cap-per-customer|acme/customer=c-42", Some(br#"{"v":1,"budget":"cap-per-customer","scope":"acme/customer=c-42","where":{"plan":["free","pro"]},"verdict":"block","action":"block","spent_usd":"0.0116","limit_usd":"0.01","percent":116.0,"window":"day:2026-11-22","window_start":"2026-11-22T05:00:00Z","resets_at":"2026-11-23T05:00:00Z","expires_at":"2026-11-23T05:00:00Z","counted_from":"2026-11-22T05:00:00Z","downgrade_to":null,"version":2,"decided_at":"2026-11-22T10:15:31.320Z","caused_by":{"source":"checkout-api","id":"chatcmpl-9x1","time":"2026-11-22T10:15:31.123Z"}}"#), now.wall, now).unwrap();
w.apply("heartbeat|meter|0", Some(br#"{"v":1,"partition":0,"complete_to":"2026-11-22T10:15:33.340Z","lag_ms":12,"version":4}"#), t("2026-11-22T10:15:33.352Z"), Now{wall: now.wall, monotonic_millis: 99_974}).unwrap();
w.apply("heartbeat|ledger|0", Some(br#"{"v":1,"partition":0,"complete_to":"2026-11-22T10:15:33.380Z","lag_ms":3,"version":9}"#), t("2026-11-22T10:15:33.390Z"), now).unwrap();

    w.apply_finding("acme/session=s-1|retry_loop|loops|planner", Some(br#"{"v":1,"detector":"retry_loop","scope":"acme/session=s-1","agent":"planner","model":"gpt-4o-2024-08-06","customer":"c-42","feature":"agent","rule":"loops","state":"open","severity":"warning","opened_at":"2026-11-22T10:15:32.123Z","last_at":"2026-11-22T10:15:33.123Z","measured":4.0,"threshold":3.0,"wasted_usd":"0.0174","evidence":[{"source":"checkout-api","id":"chatcmpl-9x2","time":"2026-11-22T10:15:32.123Z"},{"source":"checkout-api","id":"chatcmpl-9x3","time":"2026-11-22T10:15:33.123Z"}],"message":"the same prompt ran 4 times in a row"}"#)).unwrap();
    w.caught_up(); w.publish(now.wall);
    let request = CheckRequest { attribution: Attribution { workspace: "acme".into(), customer: "c-42".into(), plan: "pro".into(), session: "s-1".into(), model: "gpt-4o".into(), ..Attribution::default() }, estimate: Spend { cost: Nanos::new(5_000_000), tokens: 0, calls: 1 } };
    println!("CHECK {}", serde_json::to_string(&g.check(&request, now).explain(&request, now.wall)).unwrap());
}
