//! SQL on a lab's database, through the official client.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

const QUERY_PATIENCE: Duration = Duration::from_secs(30);
const ROWS_AN_INSERT: usize = 10_000;

/// Queries of one database.
#[derive(Clone)]
pub struct Warehouse {
    client: clickhouse::Client,
}

impl Warehouse {
    /// Queries of `database` at `url`.
    pub fn new(url: &str, database: &str) -> Self {
        let client = clickhouse::Client::default();
        Self {
            client: client.with_url(url).with_database(database),
        }
    }

    /// The answer as rows of texts.
    ///
    /// # Errors
    /// What ClickHouse or the client says; an answer that takes longer than 30 s.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let query = async {
            let answer = self.client.query(sql).fetch_bytes("TabSeparated");
            answer?.collect().await
        };
        let timed = runtime().block_on(async { tokio::time::timeout(QUERY_PATIENCE, query).await });
        let bytes = timed
            .map_err(|_| format!("no answer within {QUERY_PATIENCE:?}: {sql}"))?
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&bytes);
        let cells = |line: &str| line.split('\t').map(str::to_owned).collect();
        Ok(text.lines().map(cells).collect())
    }

    /// The first row's numbers.
    ///
    /// # Errors
    /// As [`Warehouse::rows`]; an answer that is not numbers.
    pub fn numbers(&self, sql: &str) -> Result<Vec<i128>, String> {
        let rows = self.rows(sql)?;
        let first = rows.first().ok_or_else(|| format!("no row: {sql}"))?;
        let number = |cell: &String| cell.parse().map_err(|_| format!("{cell:?} in: {sql}"));
        first.iter().map(number).collect()
    }

    /// Fills a table with rows, each as JSON; numbers may be texts.
    ///
    /// # Errors
    /// What ClickHouse or the client says.
    pub fn insert(&self, table: &str, rows: impl Iterator<Item = Value>) -> Result<(), String> {
        let lines: Vec<String> = rows.map(|row| row.to_string()).collect();
        for some in lines.chunks(ROWS_AN_INSERT) {
            // The crate takes `?` for a placeholder.
            let data = some.join("\n").replace('?', "??");
            self.execute(&format!("INSERT INTO {table} FORMAT JSONEachRow\n{data}"))?;
        }
        Ok(())
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// What ClickHouse or the client says.
    pub fn execute(&self, sql: &str) -> Result<(), String> {
        let statement = self.client.query(sql).execute();
        runtime()
            .block_on(async { tokio::time::timeout(QUERY_PATIENCE, statement).await })
            .map_err(|_| format!("no answer within {QUERY_PATIENCE:?}: {sql}"))?
            .map_err(|error| error.to_string())
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("the system starts threads"))
}
