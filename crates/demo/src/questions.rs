//! Three questions that an analyst asks ClickHouse, with their answers.

use spendfuse_warehouse::{Table, Warehouse};

use crate::error::DemoError;

/// A question, its SQL, and the answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// In words.
    pub question: &'static str,
    /// In SQL.
    pub sql: &'static str,
    /// What ClickHouse says.
    pub answer: Table,
}

const QUESTIONS: [(&str, &str); 3] = [
    (
        "Which customers cost more than they pay?",
        "SELECT customer, calls, revenue AS paid, round(cost, 4) AS cost,
    round(margin, 4) AS margin, margin_percent
FROM margin_by_customer
WHERE revenue > 0
ORDER BY margin",
    ),
    (
        "What did prompt caches save?",
        "SELECT feature, model, sum(cache_read_tokens) AS cached_tokens,
    round(sum(cost_cache_read), 4) AS paid,
    round(sum(cache_read_tokens) * toFloat64(any(list.rate)) / 1e6, 4) AS without_cache
FROM spend
INNER JOIN (SELECT provider, model, any(rate) AS rate FROM prices
            WHERE line = 'input' AND service_tier = 'default' AND above_context_tokens = 0
            GROUP BY provider, model) AS list
    ON spend.provider = list.provider AND spend.model = list.model
WHERE cache_read_tokens > 0
GROUP BY feature, model
ORDER BY without_cache DESC",
    ),
    (
        "Which sessions did the detectors find, and what did they waste?",
        "SELECT splitByString('session=', scope)[2] AS session, detector, severity,
    round(wasted, 4) AS wasted, message
FROM findings
WHERE position(scope, 'session=') > 0
ORDER BY findings.wasted DESC
LIMIT 8",
    ),
];

/// Asks them.
///
/// # Errors
/// What ClickHouse says.
pub async fn ask(warehouse: &Warehouse) -> Result<Vec<Answered>, DemoError> {
    let mut answered = Vec::with_capacity(QUESTIONS.len());
    for (question, sql) in QUESTIONS {
        let answer = warehouse.query_table(sql).await?;
        answered.push(Answered {
            question,
            sql,
            answer,
        });
    }
    Ok(answered)
}
