//! The second implementation of the reference: SQL over the bytes of the usage topic.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_tests::warehouse::Warehouse;

use super::{BETWEEN, Check};
use crate::budgets::Budgets;
use crate::ledger::Book;
use crate::logs::{Logs, Stored};
use crate::rows::PriceBooks;
use crate::system::{DATABASE as DATABASE_OF_RUN, System};

const SQL: &str = include_str!("second.sql");
const DATABASE: &str = "reference";
/// Lines of verdicts that are on their way to the warehouse come within this time.
const LOADED_WITHIN: Duration = Duration::from_secs(10);
/// Differences that are asked for of each question.
const ASKED: usize = 20;

/// Every event is one row, and no other.
const COUNTED: &str = "
    SELECT id, 'is in the log and no row' FROM wanted WHERE NOT is_row
    UNION ALL SELECT id, 'is a row, and the log has no such event' FROM rows
        LEFT ANTI JOIN tellings ON tellings.id = rows.id AND tellings.source = rows.source
            AND tellings.workspace = rows.workspace AND toInt64(tellings.answer) = rows.told
    UNION ALL SELECT id, concat('is a row ', toString(count()), ' times') FROM rows
        GROUP BY id, source, workspace, told HAVING count() > 1";

/// Every row says what the log says, at its price.
const CONTENTS: &str = "
    SELECT rows.id, arrayStringConcat(arrayFilter(text -> text != '', [
        if(rows.kind != wanted.kind, concat('kind ', rows.kind), ''),
        if((rows.customer, rows.feature, rows.plan, rows.session, rows.provider, rows.model)
            != (wanted.customer, wanted.feature, wanted.plan, wanted.session, wanted.provider, wanted.model),
            concat('names of ', wanted.customer, ' ', wanted.session), ''),
        if((rows.input, rows.cached, rows.answer) != (wanted.input, wanted.cached, wanted.answer),
            concat('tokens ', toString((rows.input, rows.cached, rows.answer)), ' of ',
                toString((wanted.input, wanted.cached, wanted.answer))), ''),
        if(rows.calls != wanted.calls, concat('calls ', toString(rows.calls)), ''),
        if(toInt128(rows.cost * 1000000000) != wanted.nanos,
            concat('cost ', toString(rows.cost), ', must be ', toString(wanted.nanos), ' nano-dollars'), ''),
        if(rows.parts != rows.cost, concat('parts of the cost are ', toString(rows.parts)), ''),
        if(rows.revenue != wanted.revenue, concat('revenue ', toString(rows.revenue)), ''),
        if(rows.time != wanted.time, concat('time ', toString(rows.time), ', must be ', toString(wanted.time)), ''),
        if(rows.received_at != wanted.received_at, concat('arrival ', toString(rows.received_at)), ''),
        if(rows.id != wanted.id_at_address, concat('its place in the log holds ', wanted.id_at_address), '')
    ]), '; ') AS wrong
    FROM rows INNER JOIN wanted
        ON wanted.id = rows.id AND wanted.source = rows.source AND wanted.workspace = rows.workspace
            AND wanted.told = rows.told
    WHERE wrong != ''";

/// What was taken back is nothing any more, and nothing else was corrected.
const VOIDED: &str = "
    SELECT call, concat('is void: ', toString((n, nanos, tokens)))
    FROM (
        SELECT if(amends_seq > 0, amends_id, event_id) AS call, sum(calls) AS n,
            toInt128(sum(cost) * 1000000000) AS nanos,
            sum(toInt64(input_tokens) + cache_read_tokens + output_tokens) AS tokens
        FROM {warehouse}.spend GROUP BY call)
    WHERE call IN (SELECT id FROM voided) AND (n, nanos, tokens) != (0, 0, 0)
    UNION ALL SELECT amends_id, 'was corrected by nobody' FROM {warehouse}.spend
    WHERE src_topic LIKE '%.corrections' AND amends_id NOT IN (SELECT id FROM corrected)";

/// What was amended is one call of its customer with its answer, by the price book of its last row, and
/// nothing of anybody else.
const AMENDED: &str = "
    WITH net AS (
        SELECT if(amends_seq > 0, amends_id, event_id) AS id, customer, sum(calls) AS n,
            toInt128(sum(cost) * 1000000000) AS nanos, sum(toInt64(input_tokens)) AS input,
            sum(toInt64(cache_read_tokens)) AS cached, sum(toInt64(output_tokens)) AS answer,
            argMax(price_version, (meter_seq, meter_index)) AS version
        FROM {warehouse}.spend WHERE id IN (SELECT id FROM amended) GROUP BY ALL
    ), judged AS (
        SELECT net.id AS id, net.customer AS customer, (n, nanos, net.answer) AS found,
            toInt128(net.input) * books.input + toInt128(net.cached) * books.cached
                + toInt128(net.answer) * books.answer AS numerator,
            if(net.customer = amended.customer,
                (1, intDiv(numerator + 999999, 1000000), amended.answer), (0, 0, 0)) AS must
        FROM net INNER JOIN amended USING (id) LEFT JOIN books ON books.version = net.version
    )
    SELECT id, concat(customer, ' has ', toString(found), ', must have ', toString(must))
    FROM judged WHERE found != must
    UNION ALL SELECT id, concat('is amended and not of ', customer) FROM amended
    WHERE (id, customer) NOT IN (SELECT id, customer FROM net)";

/// The views' sums by hour or day; `{table}`, `{column}`, `{start}`.
const ROLLUP: &str = "
    WITH found AS (
        SELECT {column} AS start, customer, feature, plan, toInt64(sum(entries)) AS entries,
            toInt128(sum(cost) * 1000000000) AS nanos, toInt128(sum(revenue) * 1000000000) AS revenue,
            toInt64(sum(input_tokens) + sum(cache_read_tokens) + sum(output_tokens)) AS tokens
        FROM {warehouse}.{table} GROUP BY ALL
    ), must AS (
        SELECT {start}(time) AS start, customer, feature, plan, toInt64(count()) AS entries,
            toInt128(sum(nanos)) AS nanos, toInt128(sum(revenue) * 1000000000) AS revenue,
            toInt64(sum(input + cached + answer)) AS tokens
        FROM counted GROUP BY ALL
    )
    SELECT concat('{table}, ', toString(start), ' ', customer, ' ', feature, ' ', plan),
        concat(toString((found.entries, found.nanos, found.revenue, found.tokens)), ', must be ',
            toString((must.entries, must.nanos, must.revenue, must.tokens)))
    FROM found FULL OUTER JOIN must USING (start, customer, feature, plan)
    WHERE (found.entries, found.nanos, found.revenue, found.tokens)
        != (must.entries, must.nanos, must.revenue, must.tokens)";

/// The blocklist, entry by entry. Sessions have windows of their own.
const BLOCKLIST: &str = "
    SELECT key, concat(
        told.verdict, ' at ', toString(told.spent), ' of ', toString(told.limit), ' in ', told.window,
        ', must be ', standings.verdict, ' at ', toString(standings.spent), ' of ',
        toString(standings.limit), ' since ', toString(standings.start))
    FROM told FULL OUTER JOIN standings USING (key)
    WHERE (told.verdict, told.spent, told.limit) != (standings.verdict, standings.spent, standings.limit)
        OR (told.window NOT LIKE 'session:%'
            AND (told.start, told.end) IS DISTINCT FROM (standings.start, standings.end))";

/// No line of a window says more than was spent in it, and the last verdict that was written is the
/// one that holds.
const LINES: &str = "
    WITH lines AS (
        SELECT budget, scope, toDateTime(window_start, 'UTC') AS start,
            max(if(unit = 'calls', toInt128(calls), toInt128(spent * 1000000000))) AS spent
        FROM {warehouse}.budget_windows
        WHERE window NOT LIKE 'session:%' AND budget IN (SELECT id FROM budgets) GROUP BY ALL
    )
    SELECT concat(budget, '|', scope, ' since ', toString(start)), concat(
        'a line says ', toString(lines.spent), ', spent are ', toString(windows.spent))
    FROM lines LEFT JOIN windows USING (budget, scope, start)
    WHERE lines.spent > windows.most";

const WRITTEN_VERDICTS: &str = "
    WITH written AS (
        SELECT concat(budget, '|', scope) AS key,
            if(window LIKE 'session:%', toDateTime(0, 'UTC'), toDateTime(window_start, 'UTC')) AS start,
            argMax(verdict, version) AS verdict
        FROM {warehouse}.verdicts GROUP BY ALL
    )
    SELECT key, concat('the last verdict written is ', written.verdict, ', must be ', standings.verdict)
    FROM standings LEFT JOIN written USING (key, start)
    WHERE standings.verdict != if(written.verdict = '', 'ok', written.verdict)";

/// The reference in ClickHouse.
pub(super) struct Second {
    warehouse: Warehouse,
    pipeline: &'static str,
}

impl Second {
    /// Works everything out from these records of the usage topic, for budgets in force at `now`.
    pub(super) fn new(
        system: &System,
        usage: &[Stored],
        book: &Book,
        prices: &PriceBooks,
        budgets: &Budgets,
        now: UnixMillis,
    ) -> Result<Self> {
        let url = system.stack.clickhouse.url();
        let pipeline = DATABASE_OF_RUN;
        let outside = Warehouse::new(&url, pipeline);
        outside
            .execute(&format!("CREATE DATABASE {DATABASE}"))
            .map_err(|error| anyhow!(error))?;
        let second = Self {
            warehouse: Warehouse::new(&url, DATABASE),
            pipeline,
        };
        let idled = u8::from(system.sessions_idle_out()).to_string();
        let sql = SQL.replace("{idled}", &idled);
        let sql = sql.replace("{now}", &(now.0 / 1_000).to_string());
        let (tables, questions) = sql.split_at(sql.find("CREATE VIEW").unwrap_or_default());
        second.execute(tables)?;
        let raw = usage.iter().map(|record| {
            let value = record.value.as_deref().unwrap_or_default();
            json!({
                "partition": record.partition, "offset": record.offset,
                "logged_millis": record.logged_at, "value": String::from_utf8_lossy(value),
            })
        });
        second.insert("raw", raw)?;
        let books = prices.iter().map(|(version, rates)| {
            let [input, cached, answer] = rates.map(|rate| rate.to_string());
            json!({"version": version, "input": input, "cached": cached, "answer": answer})
        });
        second.insert("books", books)?;
        second.insert("budgets", budgets.lines().into_iter())?;
        let voided = book.voided.iter();
        second.insert(
            "voided",
            voided.map(|number| json!({"id": format!("call-{number}")})),
        )?;
        let amended = book.amended.iter().map(|(number, to)| {
            json!({"id": format!("call-{number}"), "customer": to.customer, "answer": to.output})
        });
        second.insert("amended", amended)?;
        second.execute(questions)?;
        Ok(second)
    }

    fn execute(&self, statements: &str) -> Result<()> {
        for statement in statements.split(";\n") {
            let statement = statement.replace("{warehouse}", self.pipeline);
            let done = self.warehouse.execute(&statement);
            done.map_err(|error| anyhow!("{error}: {statement}"))?;
        }
        Ok(())
    }

    fn insert(&self, table: &str, rows: impl Iterator<Item = Value>) -> Result<()> {
        let inserted = self.warehouse.insert(table, rows);
        inserted.map_err(|error| anyhow!("{error}: filling {table}"))
    }

    fn differences(&self, question: &str) -> Result<Vec<String>> {
        let question = question.replace("{warehouse}", self.pipeline);
        let sql = format!("SELECT * FROM ({question}) LIMIT {ASKED}");
        let rows = self.warehouse.rows(&sql);
        let rows = rows.map_err(|error| anyhow!("{error}: {sql}"))?;
        Ok(rows.into_iter().map(|row| row.join(": ")).collect())
    }

    fn count(&self, of: &str) -> Result<i128> {
        let count = self.warehouse.numbers(&format!("SELECT count() FROM {of}"));
        Ok(count.map_err(|error| anyhow!(error))?[0])
    }

    /// Every event of the log is a row, and says what the log says, at its price.
    pub(super) fn rows(&self) -> Result<Check> {
        let mut differences = self.differences(COUNTED)?;
        differences.extend(self.differences(CONTENTS)?);
        differences.extend(self.differences(VOIDED)?);
        differences.extend(self.differences(AMENDED)?);
        Ok(Check {
            name: "rows = SQL over the usage topic",
            compared: format!(
                "{} records, {} of them readable, {} rows",
                self.count("raw")?,
                self.count("accepted")?,
                self.count("rows")?
            ),
            differences,
        })
    }

    /// The views' sums by hour and day are those of the log.
    pub(super) fn rollups(&self) -> Result<Check> {
        let mut differences = Vec::new();
        for (table, column, start) in [
            ("spend_hourly", "hour", "toStartOfHour"),
            ("spend_daily", "day", "toDate"),
        ] {
            let question = ROLLUP.replace("{table}", table);
            let question = question
                .replace("{column}", column)
                .replace("{start}", start);
            differences.extend(self.differences(&question)?);
        }
        Ok(Check {
            name: "rollups = SQL over the usage topic",
            compared: "hours and days by customer, feature and plan".to_owned(),
            differences,
        })
    }

    /// Windows, verdicts and the blocklist are those of the log, when every state was told anew.
    pub(super) fn windows(&self, system: &mut System, logs: &Logs) -> Result<Check> {
        let entries = logs.table("blocklist")?.into_iter();
        let entries = entries.map(|(key, value)| json!({"key": key, "value": value.to_string()}));
        self.insert("entries", entries)?;
        let begin = Instant::now();
        let mut differences = self.differences(BLOCKLIST)?;
        differences.extend(self.differences(LINES)?);
        loop {
            // The previous release does not write the way back of a session's verdict.
            if system.had_two_releases() {
                break;
            }
            let written = self.differences(WRITTEN_VERDICTS)?;
            if written.is_empty() || begin.elapsed() >= LOADED_WITHIN {
                differences.extend(written);
                break;
            }
            system.wait_until(Instant::now() + BETWEEN)?;
        }
        Ok(Check {
            name: "windows, verdicts and blocklist = SQL over the usage topic",
            compared: format!(
                "{} states of {}",
                self.count("standings")?,
                self.count("windows")?
            ),
            differences,
        })
    }
}
