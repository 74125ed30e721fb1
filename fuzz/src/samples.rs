//! What a version of spendfuse stores, written by one version and read by all later ones.
//!
//! A [`Story`] is a short history of one meter and one ledger partition. [`Story::tell`] has them
//! count it; what they store are the samples in `tests/samples/<version>/`, and what they do with
//! one more event is what a later version has to do after it has read the samples
//! ([`Story::goes_on`]).

use std::sync::Arc;

use serde_json::{Value, json};
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::budget::file::BudgetsFile;
use spendfuse_domain::event::decode;
use spendfuse_domain::finding::{DetectorRules, Finding};
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_domain::{Budget, Nanos, Unit, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, LedgerOutputs, PUBLISH_RATE};
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, MeterOutputs, Rows};
use spendfuse_warehouse::block::{
    FindingBlock, FindingRow, RowFormat, SpendBlock, StageAddress, VerdictBlock, VerdictRow,
};
use spendfuse_warehouse::record::Link;

const START: UnixMillis = UnixMillis(1_795_345_000_000);
const PARTITIONS: u32 = 1;

const BUDGETS: &str = r#"
budgets:
  - id: customer
    scope: {workspace: acme, customer: "*"}
    limit: "2.00"
    window: day
    timezone: America/New_York
    steps: [{at: 50, do: warn}, {at: 80, do: downgrade, to: gpt-4o-mini}, {at: 100, do: block}]
    message: "Your team has used its AI budget."
  - id: session
    scope: {workspace: acme}
    limit: "1.50"
    window: session
    action: block
  - {id: tokens, scope: {}, where: {plan: free}, limit_tokens: 100000, window: lifetime, action: warn}
detectors:
  - {id: loops, detector: retry_loop, repeats: 3, action: block_session, cooldown: 15m}
"#;

/// A short history.
pub struct Story {
    book: Arc<BudgetBook>,
    /// The records of topic `spendfuse.budgets`.
    pub budgets: Vec<BudgetsRecord>,
}

/// What the story's partitions store and publish.
pub struct Told {
    /// What the meter wrote.
    pub meter: MeterOutputs,
    /// What the ledger wrote.
    pub ledger: LedgerOutputs,
    /// Records of the rows topics.
    pub row_blocks: Vec<Vec<u8>>,
    /// What both do next, see [`Story::goes_on`].
    pub next: Value,
}

impl Story {
    /// The history that every version tells.
    ///
    /// # Panics
    /// Where its budgets cannot be read.
    pub fn new() -> Self {
        let file = BudgetsFile::parse(BUDGETS).expect("the story's budgets are right");
        let budgets: Vec<Budget> = file
            .budgets
            .iter()
            .map(|draft| draft.counting_from(UnixMillis(0)))
            .collect();
        let detectors = file.detectors.iter().cloned().map(BudgetsRecord::Detector);
        let records = budgets.iter().cloned().map(BudgetsRecord::Budget);
        Self {
            budgets: records.chain(detectors).collect(),
            book: Arc::new(BudgetBook::compile(
                4,
                budgets,
                DetectorRules::new(file.detectors.clone()),
            )),
        }
    }

    /// A meter without state.
    pub fn meter(&self) -> Meter {
        let config = MeterConfig {
            partition: 0,
            partitions: PARTITIONS,
            dedupe_horizon_millis: 86_400_000,
            dedupe_capacity: 1_000,
            session_idle_millis: 3_600_000,
            session_capacity: 10_000_000,
        };
        Meter::new(config, Arc::clone(&self.book))
    }

    /// A ledger without state.
    pub fn ledger(&self) -> Ledger {
        let config = LedgerConfig {
            partition: 0,
            partitions: PARTITIONS,
            grace_millis: 2 * 86_400_000,
            publish_rate: PUBLISH_RATE,
            account_capacity: 10_000_000,
        };
        Ledger::new(config, Arc::clone(&self.book))
    }

    /// Has a meter and a ledger count the story.
    pub fn tell(&self) -> Told {
        let mut meter = self.meter();
        let mut ledger = self.ledger();
        meter.restored();
        ledger.restored();
        let mut rows = SpendRows(SpendBlock::new("spendfuse.usage"));
        meter.begin(1);
        for number in 0..4 {
            count(&mut meter, number, &mut rows);
        }
        let counted = meter.finish();
        ledger.begin(1);
        for (_, deltas) in &counted.deltas {
            ledger.apply(deltas, START.plus(5_000));
        }
        let judged = ledger.finish();
        let row_blocks = row_blocks(rows.0, &counted, &judged);
        Told {
            next: self.goes_on(&mut meter, &mut ledger),
            meter: counted,
            ledger: judged,
            row_blocks,
        }
    }

    /// What guards follow but for heartbeats: key, with its topic before it, and value.
    ///
    /// # Panics
    /// Where an entry or finding were no JSON.
    pub fn followed(&self, told: &Told) -> Vec<(String, Option<Vec<u8>>)> {
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("a record is always JSON");
        let budgets = self.budgets.iter().map(|record| {
            let key = format!("budgets {}", record.key());
            (key, Some(record.to_record()))
        });
        let entries = told
            .meter
            .told
            .blocklist
            .iter()
            .chain(&told.ledger.told.blocklist);
        let entries = entries.map(|(key, entry)| {
            let value = entry.as_ref().map(|entry| json(serde_json::to_vec(entry)));
            (format!("blocklist {key}"), value)
        });
        let findings = told
            .meter
            .told
            .findings
            .iter()
            .chain(&told.ledger.told.findings);
        let findings = findings.map(|(key, finding)| {
            let value = json(serde_json::to_vec(finding));
            (format!("findings {key}"), Some(value))
        });
        budgets.chain(entries).chain(findings).collect()
    }

    /// What both partitions do after the story: an event that is known comes again, then a new one.
    pub fn goes_on(&self, meter: &mut Meter, ledger: &mut Ledger) -> Value {
        let mut rows = SpendRows(SpendBlock::new("spendfuse.usage"));
        meter.begin(2);
        let again = count(meter, 3, &mut rows);
        let new = count(meter, 4, &mut rows);
        let counted = meter.finish();
        ledger.begin(2);
        for (_, deltas) in &counted.deltas {
            ledger.apply(deltas, START.plus(10_000));
        }
        let judged = ledger.finish();
        json!({
            "known event": again == Counted::Duplicate,
            "new event": format!("{new:?}"),
            "links": counted.deltas.iter().map(|(to, one)| json!([to, one.prev, one.seq])).collect::<Vec<_>>(),
            "broken links": judged.broken_links,
            "meter blocklist": verdicts(&counted.told.blocklist),
            "meter findings": findings(&counted.told.findings),
            "ledger blocklist": verdicts(&judged.told.blocklist),
            "ledger findings": findings(&judged.told.findings),
        })
    }
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

struct SpendRows(SpendBlock);

impl Rows for SpendRows {
    fn push(&mut self, row: &SpendRow<'_>) {
        self.0.push(row);
    }
}

/// The events as apps send them.
pub fn event(number: i64) -> String {
    let time = START.plus(number * 1_000);
    json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": format!("e-{number}"),
        "time": time,
        "data": {
            "workspace": "acme", "customer": "c-42", "feature": "agent", "agent": "planner",
            "plan": "free", "session": "s-1", "tags": {"team": "größe"}, "provider": "openai",
            "model": "gpt-4o", "prompt_fingerprint": "9f2c41d0a1b2c3d4", "tool_calls": 1,
            "usage": {"input_tokens": 20_000 + number, "output_tokens": 1_000},
            "units": {"web_search_calls": "2"},
        },
    })
    .to_string()
}

fn count(meter: &mut Meter, number: i64, rows: &mut SpendRows) -> Counted {
    let text = event(number);
    let arrival = START.plus(number * 1_000 + 10);
    let event = decode(text.as_bytes(), &[], arrival).expect("the story's events are right");
    let charge = Charge {
        cost: CostParts {
            input: Nanos::new(400_000_001),
            output: Nanos::new(200_000_000),
            ..CostParts::default()
        },
        price_version: "snapshot",
        ..Charge::default()
    };
    let origin = Origin {
        rerouted: false,
        partition: 0,
        offset: number,
        arrival,
    };
    meter.count(&event, &charge, origin, rows)
}

fn row_blocks(mut spend: SpendBlock, meter: &MeterOutputs, ledger: &LedgerOutputs) -> Vec<Vec<u8>> {
    let link = Link {
        partition: 0,
        previous: 0,
        seq: 1,
    };
    let address = |stage, index| StageAddress {
        epoch: 0,
        stage,
        partition: 0,
        seq: 1,
        index,
    };
    let mut findings = FindingBlock::new(RowFormat::default());
    for ((_, finding), index) in meter.told.findings.iter().zip(0..) {
        findings.push(&FindingRow {
            finding,
            address: address(Stage::Meter, index),
        });
    }
    let mut verdicts = VerdictBlock::new(RowFormat::default());
    for (entry, index) in ledger.told.verdict_changes.iter().zip(0..) {
        verdicts.push(&VerdictRow {
            entry,
            address: address(Stage::Ledger, index),
        });
    }
    let blocks = [
        spend.finish_record(link),
        findings.finish_record(link),
        verdicts.finish_record(link),
    ];
    blocks.into_iter().flatten().collect()
}

/// What a blocklist says, without what another version may put into other words.
fn verdicts(entries: &[(String, Option<BlocklistEntry>)]) -> Value {
    let entry = |(key, entry): &(String, Option<BlocklistEntry>)| {
        let entry = entry.as_ref();
        let spent = |unit| {
            let spent = entry.and_then(|entry| entry.figures.spent);
            spent.filter(|spent| spent.unit() == unit)
        };
        json!([
            key,
            entry.map(|entry| entry.verdict),
            spent(Unit::Usd),
            spent(Unit::Tokens),
            entry.map(|entry| entry.expires_at),
        ])
    };
    entries.iter().map(entry).collect()
}

fn findings(findings: &[(String, Finding)]) -> Value {
    let finding = |(key, finding): &(String, Finding)| {
        json!([key, finding.state, finding.measured, finding.wasted_usd])
    };
    findings.iter().map(finding).collect()
}
