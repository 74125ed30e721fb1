//! Tables beside `spend`: findings, verdicts, windows of budgets, prices.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::finding::{Detector, Finding, FindingState, Severity};
use spendfuse_domain::row::{WindowLine, WindowLineKind};
use spendfuse_domain::verdict::{BlocklistEntry, EventRef, Stage, Verdict};
use spendfuse_domain::{Amount, Figures, Nanos, Percent, UnixMillis, Window};
use spendfuse_warehouse::{
    BudgetWindowBlock, BudgetWindowRow, FindingBlock, FindingRow, PriceRow, RowFormat,
    StageAddress, VerdictBlock, VerdictRow,
};

use crate::common::warehouse;
use crate::{LINK, clickhouse, insert};

#[tokio::test]
async fn findings_verdicts_windows_and_prices_arrive_as_they_were() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let address = |index| StageAddress {
        epoch: 2,
        stage: Stage::Ledger,
        partition: 3,
        seq: 7,
        index,
    };
    let at = UnixMillis::parse_rfc3339("2026-11-22T10:15:30.123Z").unwrap();
    let event = EventRef {
        source: "app".to_owned(),
        id: "e-1".to_owned(),
        time: Some(at),
    };
    let mut finding = Finding {
        v: 1,
        detector: Detector::RetryLoop,
        scope: "acme/session=s-1".to_owned(),
        agent: "planner".to_owned(),
        model: "m".to_owned(),
        customer: "c".to_owned(),
        feature: "f".to_owned(),
        rule: "loops".to_owned(),
        state: FindingState::Open,
        severity: Severity::Warning,
        opened_at: at,
        last_at: at,
        measured: 4.0,
        threshold: 3.0,
        wasted_usd: Nanos::new(18_200_000),
        evidence: vec![event.clone(), event.clone()],
        message: "the same prompt ran 4 times in a row".to_owned(),
    };
    let mut findings = FindingBlock::new(RowFormat::Schema2 { epoch: 2 });
    findings.push(&FindingRow {
        finding: &finding,
        address: address(0),
    });
    finding.state = FindingState::Closed;
    finding.wasted_usd = Nanos::new(20_000_000);
    findings.push(&FindingRow {
        finding: &finding,
        address: address(1),
    });
    insert(&warehouse, findings.finish_record(LINK).unwrap(), "f").await;
    let found = "SELECT workspace, state, wasted, updates, evidence.id FROM findings";
    let found = warehouse.query_table(found).await.unwrap();
    assert_eq!(
        found.rows,
        [["acme", "closed", "0.02", "2", "['e-1','e-1']"]]
    );
    let corrected = async || {
        let asked = warehouse.query_table("SELECT corrected FROM findings");
        asked.await.unwrap().rows[0][0].clone()
    };
    let row = async |kind: &str, workspace: &str, id: &str| {
        let row = format!(
            "INSERT INTO spend (time, kind, workspace, source, event_id, amends_id) \
             VALUES (now(), '{kind}', '{workspace}', 'app', '{id}', 'e-1')"
        );
        warehouse.execute(&row, "a row").await.unwrap();
    };
    // What tells more of the call, and what corrects another one of the same id.
    row("correction", "acme", "e-1").await;
    row("correction", "globex", "c-1").await;
    assert_eq!(corrected().await, "0");
    row("rerate", "acme", "job-1").await;
    assert_eq!(corrected().await, "2");

    let entry = BlocklistEntry {
        v: 1,
        budget: "cap".to_owned(),
        scope: "acme/customer=c-42".to_owned(),
        filter: Some(serde_json::json!({"plan": "free"})),
        verdict: Verdict::Block,
        action: "block".to_owned(),
        figures: Figures::new(Amount::Tokens(11), Amount::Tokens(10)),
        percent: Percent::of(Amount::Calls(11), Amount::Calls(10)),
        window: "day:2026-11-22".to_owned(),
        window_start: at,
        resets_at: Some(at),
        expires_at: None,
        counted_from: at,
        count_since: None,
        downgrade_to: None,
        version: 9,
        decided_at: at,
        caused_by: Some(event),
        through: Default::default(),
    };
    let mut verdicts = VerdictBlock::new(RowFormat::Schema2 { epoch: 2 });
    verdicts.push(&VerdictRow {
        entry: &entry,
        address: address(0),
    });
    insert(&warehouse, verdicts.finish_record(LINK).unwrap(), "v").await;
    let found = "SELECT workspace, `where`, verdict, unit, spent, `limit`, percent, expires_at, caused_by_id, stage, stage_seq FROM verdicts";
    let found = warehouse.query_table(found).await.unwrap();
    let expected = [
        "acme",
        "{\"plan\":\"free\"}",
        "block",
        "tokens",
        "11",
        "10",
        "110",
        "NULL",
        "e-1",
        "ledger",
        "7",
    ];
    assert_eq!(found.rows, [expected]);

    let window = Window {
        label: "lifetime".to_owned(),
        start: UnixMillis(0),
        end: None,
    };
    let mut windows = BudgetWindowBlock::new(RowFormat::Schema2 { epoch: 2 });
    let line = WindowLine {
        kind: WindowLineKind::Late,
        budget: "cap".to_owned(),
        scope: "*".to_owned(),
        window,
        spend: Spend {
            cost: Nanos::new(-1),
            tokens: 2,
            calls: 3,
        },
        limit: Amount::Usd(Nanos::from_dollars(5)),
        at,
    };
    windows.push(&BudgetWindowRow {
        line: &line,
        address: address(0),
    });
    insert(&warehouse, windows.finish_record(LINK).unwrap(), "w").await;
    let found = "SELECT kind, workspace, window_end, spent, tokens, calls, unit, `limit`, version FROM budget_windows";
    let found = warehouse.query_table(found).await.unwrap();
    let expected = [
        "late",
        "*",
        "NULL",
        "-0.000000001",
        "2",
        "3",
        "usd",
        "5",
        "7",
    ];
    assert_eq!(found.rows, [expected]);

    let price = PriceRow {
        price_version: "book-1",
        provider: "openai",
        model: "gpt-4o",
        service_tier: "default",
        line: "input",
        per_million_tokens: true,
        above_context_tokens: 0,
        quality: "",
        size: "",
        effective_from: at,
        rate: Nanos::new(2_500_000_000),
    };
    for _ in 0..2 {
        warehouse
            .insert_prices(std::slice::from_ref(&price))
            .await
            .unwrap();
    }
    let found = "SELECT model, per, rate FROM prices FINAL";
    let found = warehouse.query_table(found).await.unwrap();
    assert_eq!(found.rows, [["gpt-4o", "million_tokens", "2.5"]]);
}
