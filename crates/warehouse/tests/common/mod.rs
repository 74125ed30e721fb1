//! Events and rows for tests.

use std::borrow::Cow;

use smallvec::smallvec;
use spendfuse_devstack::ClickHouse;
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags, Particulars, Rare};
use spendfuse_domain::row::{CostParts, MeterAddress, Origin, PriceBasis, SpendRow};
use spendfuse_domain::units::{Quantity, UnitKind, Units};
use spendfuse_domain::{Identity, Nanos, TokenClasses, UnixMillis};
use spendfuse_warehouse::{Warehouse, WarehouseConfig};

pub fn warehouse(server: &ClickHouse) -> Warehouse {
    Warehouse::new(WarehouseConfig {
        url: server.url(),
        ..WarehouseConfig::default()
    })
    .unwrap()
}

/// A call with every field set.
pub fn call_event(id: &str) -> Event<'static> {
    let text = |text: &'static str| Cow::Borrowed(text);
    let mut units = Units {
        quality: text("hd"),
        size: text("1024x1024"),
        ..Units::default()
    };
    units.entries = smallvec![
        (UnitKind::WebSearchCalls, Quantity::whole(2)),
        (UnitKind::AudioSeconds, Quantity(2_500_000_000)),
    ];
    Event {
        identity: Identity::of("acme", "checkout-api", id, "final"),
        content: 1,
        source: text("checkout-api"),
        id: Cow::Owned(id.to_owned()),
        time: UnixMillis::parse_rfc3339("2026-11-22T10:15:30.123Z").unwrap(),
        flags: Flags::default(),
        attribution: Attribution {
            workspace: text("acme"),
            customer: text("c-42"),
            feature: text("agent"),
            project: text("cc-9"),
            user: text("u-7"),
            agent: text("planner"),
            plan: text("pro"),
            session: text("s-1"),
            root_session: text("s-0"),
            environment: text("prod"),
            account: text("openai-main"),
            model: text("gpt-4o-2024-08-06"),
            provider: text("openai"),
            tags: vec![
                (text("größe"), text("it's")),
                (text("team"), text("growth")),
            ],
        },
        body: Body::Usage(Call {
            operation: text("chat"),
            service_tier: text("flex"),
            rare: Rare::from(Particulars {
                speed: text("fast"),
                inference_geo: text("us"),
                unread: Some("new.tokens".into()),
                ..Particulars::default()
            }),
            tokens: TokenClasses {
                input: 1,
                cache_read: 2,
                cache_write_5m: 3,
                cache_write_1h: 4,
                audio_input: 5,
                image_input: 6,
                video_input: 7,
                output: 8,
                reasoning: 9,
                audio_output: 10,
                image_output: 11,
            },
            units,
            tool_calls: 12,
            prompt_fingerprint: Some(1),
            tool_fingerprint: Some(2),
            call_id: text("req-77"),
            attempt: 2,
            status: text("error"),
            latency_ms: Some(812),
            reported_cost: Some(Nanos::new(12_300_000)),
            request_model: text("gpt-4o"),
            response_id: text("resp-1"),
            trace_id: text("trace"),
            span_id: text("span"),
            parent_span_id: text("parent"),
            region: text("us-east-1"),
            api_key_id: text("key-3"),
            ..Call::default()
        }),
    }
}

/// The row of `event` that meter partition 3 counted in commit `seq` at place `index`.
pub fn row<'a>(event: &'a Event<'a>, seq: u64, index: u32) -> SpendRow<'a> {
    SpendRow {
        event,
        amends: None,
        cost: CostParts {
            input: Nanos::new(1_000_000_001),
            cache_read: Nanos::from_dollars(2),
            cache_write: Nanos::from_dollars(3),
            output: Nanos::from_dollars(4),
            units: Nanos::new(5_000_000_005),
        },
        priced: PriceBasis::Book,
        price_version: "book-1",
        priced_as: "openai/gpt-4o",
        price_detail: "openai/gpt-4o (bare name at its maker); input 2.5/M",
        budget_version: 13,
        flags: event.flags,
        origin: Origin {
            rerouted: false,
            partition: 5,
            offset: 1_234_567_890_123,
            arrival: UnixMillis::parse_rfc3339("2026-11-22T10:15:31.456Z").unwrap(),
        },
        address: MeterAddress {
            partition: 3,
            seq,
            index,
        },
    }
}
