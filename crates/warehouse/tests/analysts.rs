//! What analysts are promised: every SQL text of the documentation runs, answers, and is quick.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use spendfuse_devstack::{ClickHouse, ClickHouseOptions};
use spendfuse_warehouse::{Table, Warehouse, WarehouseConfig, WarehouseError};

const SAMPLE: &str = include_str!("analysts/sample.sql");
/// What the documentation promises for ten million rows.
const PROMISE: Duration = Duration::from_secs(1);

/// One statement of the documentation.
struct Documented {
    file: PathBuf,
    sql: String,
}

impl Documented {
    /// The comment above it, which is the question in words.
    fn question(&self) -> &str {
        self.sql.lines().next().unwrap_or_default()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn markdown_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let opening = format!("```{language}\n");
    let opened: Vec<&str> = text.split(opening.as_str()).skip(1).collect();
    opened
        .into_iter()
        .map(|block| block.split_once("```").unwrap().0)
}

/// Statements that stand in the running text. Those that change who may do what are only parsed: the
/// development engine keeps no users.
fn in_running_text(text: &str) -> impl Iterator<Item = String> {
    const BEGINNINGS: [&str; 7] = [
        "SELECT", "WITH", "DESCRIBE", "SHOW", "CREATE", "ALTER", "GRANT",
    ];
    let prose = text.split("```").step_by(2);
    let spans = prose.flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let is_sql = |span: &&str| {
        let mut words = span.split_whitespace();
        BEGINNINGS.contains(&words.next().unwrap_or_default())
            && words.next().is_some_and(|word| word != "TABLE")
    };
    spans.filter(is_sql).map(|sql| match &sql[..2] {
        "CR" | "AL" | "GR" => format!("EXPLAIN AST {sql}"),
        _ => sql.to_owned(),
    })
}

/// The statements of all fenced `sql` blocks, and of the running text.
fn documented_sql() -> Vec<Documented> {
    let mut files = vec![repository().join("README.md")];
    markdown_files(&repository().join("docs"), &mut files);
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(in_running_text(&text).map(|sql| {
            let file = file.clone();
            Documented { file, sql }
        }));
        for block in blocks(&text, "sql") {
            let statements = block.split(";\n").map(str::trim);
            found.extend(statements.filter(|sql| !sql.is_empty()).map(|sql| {
                let file = file.clone();
                Documented {
                    file,
                    sql: sql.to_owned(),
                }
            }));
        }
    }
    found
}

async fn loaded(server: &ClickHouse, rows: u64) -> Warehouse {
    let config = WarehouseConfig {
        url: server.url(),
        query_timeout: Duration::from_secs(900),
        ..WarehouseConfig::default()
    };
    let warehouse = Warehouse::new(config).unwrap();
    warehouse.migrate().await.unwrap();
    let sample = SAMPLE.replace("{rows}", &rows.to_string());
    for statement in sample.split(";\n").filter(|text| !text.trim().is_empty()) {
        warehouse.execute(statement, "the sample").await.unwrap();
    }
    warehouse
}

/// An answer and how long it took: the best of three where the first was over the promise, because
/// other tests share the machine.
async fn asked(warehouse: &Warehouse, sql: &str) -> (Result<Table, WarehouseError>, Duration) {
    let mut best = Duration::MAX;
    let mut tries = 0;
    loop {
        let begin = Instant::now();
        let answer = warehouse.query_table(sql).await;
        best = best.min(begin.elapsed());
        tries += 1;
        if best < PROMISE || tries == 3 {
            return (answer, best);
        }
    }
}

/// Asks every question of the documentation; what is wrong with the answers, and how long each took.
async fn ask_all(warehouse: &Warehouse) -> (Vec<String>, Vec<(String, Duration)>) {
    let mut wrong = Vec::new();
    let mut times = Vec::new();
    for documented in documented_sql() {
        let (answer, time) = asked(warehouse, &documented.sql).await;
        times.push((documented.question().to_owned(), time));
        let fault = match answer {
            Err(error) => error.to_string(),
            Ok(table) if table.rows.is_empty() => "no answer".to_owned(),
            Ok(table) => {
                let mut cells = table.rows.iter().flatten();
                let broken = cells.find(|cell| matches!(cell.as_str(), "inf" | "-inf" | "nan"));
                broken.cloned().unwrap_or_default()
            }
        };
        if !fault.is_empty() {
            let file = documented.file.display();
            wrong.push(format!("{file}: {fault}\n{}", documented.sql));
        }
    }
    (wrong, times)
}

#[tokio::test]
async fn every_sql_text_of_the_documentation_answers() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = loaded(&server, 100_000).await;
    let (wrong, times) = ask_all(&warehouse).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(times.len() >= 20, "{times:?}");
    for (question, time) in times {
        assert!(time < PROMISE, "{question}: {time:?}");
    }
}

/// `cargo test --release -p spendfuse-warehouse --test analysts -- --ignored --nocapture`
#[tokio::test]
#[ignore = "loads ten million rows: minutes"]
async fn every_question_answers_within_a_second_on_ten_million_rows() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = loaded(&server, 10_000_000).await;
    let (wrong, _) = ask_all(&warehouse).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (_, times) = ask_all(&warehouse).await;
    for (question, time) in &times {
        println!("{:7.3} s  {question}", time.as_secs_f64());
    }
    let slow: Vec<_> = times.iter().filter(|(_, time)| *time >= PROMISE).collect();
    assert!(slow.is_empty(), "{slow:?}");
}

#[tokio::test]
async fn the_views_add_up_and_divide_by_nothing() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = loaded(&server, 20_000).await;
    let one = async |sql: &str| -> String {
        let table = warehouse.query_table(sql).await.unwrap();
        table.rows[0][0].clone()
    };

    let spent = one("SELECT sum(cost) FROM spend").await;
    assert_eq!(one("SELECT sum(cost) FROM margin_by_month").await, spent);
    assert_eq!(
        one("SELECT sum(cost) FROM session_percentiles").await,
        spent
    );
    let by_team = "SELECT sum(cost) FROM chargeback_by_tag WHERE tag IN ('team', '')";
    assert_eq!(one(by_team).await, spent);

    let rerated =
        "SELECT toInt64(countIf(priced = 'ceiling')), sum(calls) FROM spend WHERE kind = 'rerate'";
    let rerated = warehouse.query_table(rerated).await.unwrap();
    assert_eq!(rerated.rows, [["20", "0"]]);
    let known = "SELECT sumIf(cost, received_at < now64(3) - 3600) = sumIf(cost, kind = 'usage' AND time < now64(3) - 3600) \
                        AND sum(cost) < sumIf(cost, kind = 'usage') FROM spend";
    assert_eq!(one(known).await, "1");

    let paid = one("SELECT sum(revenue) FROM spend").await;
    assert_eq!(one("SELECT sum(revenue) FROM revenue_events").await, paid);
    assert_eq!(one("SELECT sum(revenue) FROM calls").await, "0");

    let unpaid = "SELECT countIf(margin_percent IS NOT NULL), count() FROM margin_by_month WHERE revenue = 0";
    let unpaid = warehouse.query_table(unpaid).await.unwrap();
    assert_eq!(unpaid.rows[0][0], "0");
    assert_ne!(unpaid.rows[0][1], "0");

    // The sample charges 2.50, 0.25 and 3.125 dollars a million tokens.
    let saved = "SELECT sum(saved) FROM cache_savings";
    let expected = "SELECT sum(cache_read_tokens * toDecimal128('0.00000225', 9) \
                           - cache_write_5m_tokens * toDecimal128('0.000000625', 9)) \
                    FROM spend WHERE priced = 'book'";
    assert_eq!(one(saved).await, one(expected).await);
    let all_cached = "INSERT INTO spend (time, kind, workspace, model, cache_read_tokens, priced) \
                      SELECT now64(3), 'usage', 'cached-only', 'm', 10, 'book'";
    warehouse.execute(all_cached, "a test").await.unwrap();
    let unknown = "SELECT saved IS NULL AND share_cached = 1 FROM cache_savings \
                   WHERE workspace = 'cached-only'";
    assert_eq!(one(unknown).await, "1");
}

#[tokio::test]
async fn the_snippets_for_python_run_as_printed() {
    let requirements = "crates/warehouse/tests/analysts/requirements.txt";
    let prepared = Command::new(repository().join("scripts/python-venv"))
        .arg(repository().join(requirements))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&prepared.stderr);
    assert!(prepared.status.success(), "{said}");
    let environment = String::from_utf8(prepared.stdout).unwrap();

    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    loaded(&server, 20_000).await;
    let page = fs::read_to_string(repository().join("docs/analysts.md")).unwrap();
    let snippets: Vec<&str> = blocks(&page, "python").collect();
    assert!(snippets.len() >= 6, "{snippets:?}");
    // The snippets print; that there was something to print is checked here.
    let checks = "assert len(months) and total > 0 and len(teams) and calls > 0\n\
                  assert len(dearest) and losses.fetchall()\n\
                  # The sample's re-ratings arrived just now, and made calls cheaper.\n\
                  assert len(known) and (known.known_then > known.known_now).any()\n";
    let folder = server.folder().join("python");
    fs::create_dir(&folder).unwrap();
    let run = Command::new(Path::new(environment.trim()).join("bin/python"))
        .args(["-c", &(snippets.concat() + checks)])
        .env("SPENDFUSE_CLICKHOUSE_URL", server.url())
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
}
