//! The connection to ClickHouse: statements, queries and inserts of Native blocks.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use clickhouse::{Client, Compression};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use crate::broken;
use crate::config::WarehouseConfig;
use crate::error::{WarehouseError, without_secrets};
pub use crate::escapes::quoted;
use crate::escapes::{literal, unescaped};
use crate::tls::https;

/// A migration may rewrite months of rows.
const LONGEST_STATEMENT: Duration = Duration::from_secs(6 * 3600);

/// Bytes of a statement that carries what it asks about; ClickHouse's own limit is 256 KiB.
const LONGEST_TEXT: &str = "1000000000";

/// A ClickHouse server and database. Cheap to clone; connections are shared.
#[derive(Clone)]
pub struct Warehouse {
    client: Client,
    config: WarehouseConfig,
}

impl std::fmt::Debug for Warehouse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(formatter)
    }
}

/// The answer to a query, as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values as ClickHouse writes them in `TabSeparated`; null is `NULL`.
    pub rows: Vec<Vec<String>>,
}

impl Warehouse {
    /// A client, without a connection yet.
    ///
    /// # Errors
    /// Where address or database name cannot be used.
    pub fn new(config: WarehouseConfig) -> Result<Self, WarehouseError> {
        let is_https = config.url.starts_with("https://");
        if !is_https && !config.url.starts_with("http://") {
            return Err(WarehouseError::BadUrl {
                url: without_secrets(&config.url),
            });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if config.database.is_empty() || !config.database.bytes().all(allowed) {
            return Err(WarehouseError::BadDatabase {
                name: config.database,
            });
        }
        let http = HttpClient::builder(TokioExecutor::new())
            // Below ClickHouse's own 3 s, so that no request meets a connection that is just closing.
            .pool_idle_timeout(Duration::from_secs(2))
            .clone();
        let client = if is_https {
            let connector = https(connector(false), config.ca_file.as_deref())?;
            Client::with_http_client(http.build(connector))
        } else {
            Client::with_http_client(http.build(connector(true)))
        };
        let mut client = client
            .with_url(&config.url)
            .with_compression(Compression::None);
        if !config.user.is_empty() {
            client = client.with_user(&config.user);
        }
        if !config.password.is_empty() {
            client = client.with_password(&config.password);
        }
        Ok(Self { client, config })
    }

    /// A client of a server that answers.
    ///
    /// # Errors
    /// Also where it does not answer or refuses user or password.
    pub async fn connect(config: WarehouseConfig) -> Result<Self, WarehouseError> {
        let warehouse = Self::new(config)?;
        warehouse
            .execute_without_database("SELECT 1", "connecting")
            .await?;
        Ok(warehouse)
    }

    /// The settings.
    pub fn config(&self) -> &WarehouseConfig {
        &self.config
    }

    fn in_database(&self) -> Client {
        self.client.clone().with_database(&self.config.database)
    }

    /// The same warehouse in a session of its own: temporary tables stay from one request to the next,
    /// in the server's memory, and go with the session.
    #[must_use]
    pub fn in_session(&self) -> Self {
        // Each `RandomState` has keys of its own, which nobody else guesses or repeats.
        let id = RandomState::new().build_hasher().finish();
        Self {
            client: self
                .client
                .clone()
                .with_setting("session_id", format!("spendfuse-{id:016x}")),
            ..self.clone()
        }
    }

    /// Carries out a statement that has no answer.
    ///
    /// # Errors
    /// [`WarehouseError::Unreachable`] or [`WarehouseError::Refused`].
    pub async fn execute(&self, sql: &str, doing: &str) -> Result<(), WarehouseError> {
        self.run(self.in_database(), sql, doing).await
    }

    /// Like [`Warehouse::execute`], for statements that go over all rows of a table.
    pub(crate) async fn execute_at_length(
        &self,
        sql: &str,
        doing: &str,
    ) -> Result<(), WarehouseError> {
        let statement = self.in_database().query(&literal(sql)).execute();
        self.within(LONGEST_STATEMENT, statement, doing).await
    }

    /// Like [`Warehouse::execute`], also where the database does not exist yet.
    pub(crate) async fn execute_without_database(
        &self,
        sql: &str,
        doing: &str,
    ) -> Result<(), WarehouseError> {
        self.run(self.client.clone(), sql, doing).await
    }

    async fn run(&self, client: Client, sql: &str, doing: &str) -> Result<(), WarehouseError> {
        let statement = client.query(&literal(sql)).execute();
        self.within(self.config.query_timeout, statement, doing)
            .await
    }

    async fn within<T>(
        &self,
        longest: Duration,
        work: impl Future<Output = clickhouse::error::Result<T>>,
        doing: &str,
    ) -> Result<T, WarehouseError> {
        let error = match timeout(longest, work).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => clickhouse::error::Error::TimedOut,
        };
        Err(WarehouseError::from_client(&self.config.url, doing, &error))
    }

    async fn fetch(
        &self,
        client: Client,
        sql: &str,
        format: &str,
        longest: Duration,
    ) -> Result<Vec<u8>, WarehouseError> {
        // Decimals as texts: as numbers they would become floats in readers of JSON.
        let query = client
            .with_setting("output_format_json_quote_decimals", "1")
            .query(&literal(sql));
        let answer = async {
            let mut cursor = query.fetch_bytes(format)?;
            cursor.collect().await
        };
        let bytes = self.within(longest, answer, "a query").await?;
        Ok(bytes.to_vec())
    }

    /// The answer to `sql`, which names no `FORMAT`, as texts. Amounts of money are decimal numbers
    /// of dollars.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    pub async fn query_table(&self, sql: &str) -> Result<Table, WarehouseError> {
        self.table_from(self.in_database(), sql, self.config.query_timeout)
            .await
    }

    /// Like [`Warehouse::query_table`], for queries that go over all rows of a table.
    pub(crate) async fn query_at_length(&self, sql: &str) -> Result<Table, WarehouseError> {
        self.table_from(self.in_database(), sql, LONGEST_STATEMENT)
            .await
    }

    /// Like [`Warehouse::query_table`], for a statement with megabytes of text in it.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    pub async fn query_long_text(&self, sql: &str) -> Result<Table, WarehouseError> {
        let client = self
            .in_database()
            .with_setting("max_query_size", LONGEST_TEXT);
        self.table_from(client, sql, self.config.query_timeout)
            .await
    }

    /// Like [`Warehouse::query_table`], also where the database does not exist yet.
    pub(crate) async fn query_without_database(&self, sql: &str) -> Result<Table, WarehouseError> {
        self.table_from(self.client.clone(), sql, self.config.query_timeout)
            .await
    }

    async fn table_from(
        &self,
        client: Client,
        sql: &str,
        longest: Duration,
    ) -> Result<Table, WarehouseError> {
        let bytes = self
            .fetch(client, sql, "TabSeparatedWithNames", longest)
            .await?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text
            .split_terminator('\n')
            .map(|line| line.split('\t').map(unescaped).collect());
        Ok(Table {
            columns: lines.next().unwrap_or_default(),
            rows: lines.collect(),
        })
    }

    /// The answer to `sql`, which names no `FORMAT`, as JSON objects. Amounts of money are decimal
    /// strings.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    pub async fn query_json(&self, sql: &str) -> Result<Vec<serde_json::Value>, WarehouseError> {
        let bytes = self
            .fetch(
                self.in_database(),
                sql,
                "JSONEachRow",
                self.config.query_timeout,
            )
            .await?;
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| WarehouseError::UnexpectedAnswer {
                    doing: "a query".to_owned(),
                    detail: error.to_string(),
                })
            })
            .collect()
    }

    /// Inserts Native blocks as one insert, once for a `token`: the same blocks with the same token
    /// again change nothing, or complete what was torn.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]; whether the insert happened is unknown unless it is
    /// [`WarehouseError::Refused`].
    pub async fn insert_native(
        &self,
        table: &str,
        columns: &str,
        token: &str,
        blocks: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), WarehouseError> {
        self.insert_as("Native", table, columns, token, blocks)
            .await
    }

    /// Like [`Warehouse::insert_native`] with rows in another of ClickHouse's formats, such as
    /// `JSONEachRow`.
    ///
    /// # Errors
    /// As [`Warehouse::insert_native`].
    pub async fn insert_as(
        &self,
        format: &str,
        table: &str,
        columns: &str,
        token: &str,
        blocks: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), WarehouseError> {
        let limit = Some(self.config.insert_timeout);
        // 26.x inserts asynchronously by default, where the token covers something else; and views
        // double their sums on a replay unless they deduplicate as well. One thread: a replay must
        // cut the rows into the same parts.
        let mut insert = self
            .in_database()
            .insert_formatted_with(format!("INSERT INTO {table} ({columns}) FORMAT {format}"))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token)
            .with_setting(
                "deduplicate_blocks_in_dependent_materialized_views",
                broken::deduplicate_views(),
            )
            .with_setting("max_insert_threads", "1")
            .with_setting("max_partitions_per_insert_block", "0")
            .with_timeouts(limit, limit);
        if self.config.replicated {
            // Acknowledged by most replicas, so that the loss of one takes nothing.
            insert = insert.with_setting("insert_quorum", "auto");
        }
        let work = async {
            for block in blocks {
                insert.send(block).await?;
            }
            insert.end().await
        };
        work.await.map_err(|error| {
            let doing = format!("an insert into {table}");
            WarehouseError::from_client(&self.config.url, &doing, &error)
        })
    }
}

/// Sends small packets at once: with the crate's own (0.15.3) an insert of a thousand rows waits 40 ms
/// for the other side's delayed acknowledgement.
fn connector(is_plain: bool) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(is_plain);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    connector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_work_are_refused_without_secrets() {
        let config = WarehouseConfig {
            url: "tcp://user:secret@host".to_owned(),
            ..WarehouseConfig::default()
        };
        assert!(!format!("{config:?}").contains("secret"));
        let error = Warehouse::new(config).unwrap_err().to_string();
        assert!(
            !error.contains("secret") && error.contains("tcp://host"),
            "{error}"
        );
    }
}
