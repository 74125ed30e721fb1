//! Budgets: the file that people write, and the records that programs follow.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::budget::file::BudgetsFile;

use super::record;
use crate::Target;

const WORDS: &[&str] = &[
    "budgets:\n",
    "detectors:\n",
    "  - id: a\n",
    "    scope: {workspace: \"*\"}\n",
    "limit: \"1.00\"",
    "limit_tokens: 5",
    "window: day",
    "window: rolling:24h",
    "timezone: Asia/Kathmandu",
    "steps: [{at: 80, do: warn}]",
    "do: downgrade, to: m",
    "on_stale: {allow_up_to: \"2\"}",
    "where: {plan: [free, pro]}",
    "warn_at: [80]",
    "tags.team: x",
    "cooldown: 15m",
    "growth_pct: 30",
    "detector: retry_loop",
    "\"v\":1",
    "\"steps\":[",
    "\"limit\":\"5\"",
    "detector|",
];

/// The parser of budgets files.
pub const BUDGETS_FILE: Target = Target {
    name: "budgets_file",
    examples: &["deploy/sample", "crates/domain/tests/budgets"],
    words: WORDS,
    most_bytes: 64 << 20,
    run: run_file,
};

/// The parser of the records of topic `spendfuse.budgets`.
pub const BUDGET_RECORD: Target = Target {
    name: "budget_record",
    examples: &[],
    words: WORDS,
    most_bytes: 4 << 20,
    run: run_record,
};

fn run_file(input: &[u8]) {
    let Ok(yaml) = std::str::from_utf8(input) else {
        return;
    };
    match BudgetsFile::parse(yaml) {
        Ok(file) => {
            for draft in &file.budgets {
                let budget = draft.counting_from(UnixMillis(1_000));
                assert_comes_back(&BudgetsRecord::Budget(budget));
            }
            for rule in &file.detectors {
                assert_comes_back(&BudgetsRecord::Detector(rule.clone()));
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            let lines = yaml.lines().count() + 1;
            for mistake in mistakes {
                assert!((1..=lines).contains(&mistake.line), "{mistake}");
                assert!(!mistake.message.is_empty());
            }
        }
    }
}

fn run_record(input: &[u8]) {
    let (key, Some(value)) = record(input) else {
        return;
    };
    let Ok(key) = std::str::from_utf8(key) else {
        return;
    };
    if let Ok(record) = BudgetsRecord::parse(key, value) {
        assert_eq!(record.key(), key);
        assert_comes_back(&record);
    }
}

fn assert_comes_back(record: &BudgetsRecord) {
    let again = BudgetsRecord::parse(&record.key(), &record.to_record());
    assert_eq!(again.as_ref(), Ok(record), "not as it was written");
}
