//! What the protocol decides is carried out: commits at once, ClickHouse's part by tasks that report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spendfuse_bus::LogPartition;
use spendfuse_warehouse::{Warehouse, WarehouseError};

use super::{Session, now, stage_of};
use crate::LoaderError;
use crate::batch::Batch;
use crate::inserting::{Attempt, insert_until_done, inspect_until_done, restore};
use crate::metrics as names;
use crate::protocol::Action;
use crate::recovery::TableFacts;

/// How long inserts under way may take when partitions are taken back or the loader ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a task on the runtime reports.
pub(super) enum Report {
    Inserted(u64, LogPartition, Result<(), WarehouseError>),
    Inspected(u64, LogPartition, Result<Vec<TableFacts>, WarehouseError>),
    Server(Result<Server, WarehouseError>),
}

/// What ClickHouse says of itself.
pub(super) struct Server {
    /// See [`Warehouse::database_id`].
    pub(super) database: Option<String>,
    /// Insert counters of the tables.
    pub(super) counters: BTreeMap<String, u64>,
    /// Which run of it this is; `None` where inserts go to several replicas.
    pub(super) run: Option<i64>,
}

impl Server {
    pub(super) async fn ask(warehouse: &Warehouse) -> Result<Self, WarehouseError> {
        let database = warehouse.database_id().await?;
        Self::of(database, warehouse).await
    }

    /// The same, where another database than `known` has nothing more to say: it may have no tables.
    async fn ask_again(
        warehouse: &Warehouse,
        known: Option<String>,
    ) -> Result<Self, WarehouseError> {
        let database = warehouse.database_id().await?;
        if database != known {
            return Ok(Self {
                database,
                counters: BTreeMap::new(),
                run: None,
            });
        }
        Self::of(database, warehouse).await
    }

    async fn of(database: Option<String>, warehouse: &Warehouse) -> Result<Self, WarehouseError> {
        Ok(Self {
            database,
            counters: warehouse.insert_counters().await?,
            run: warehouse.server_run().await?,
        })
    }
}

/// What is done with a batch in ClickHouse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Insert(Attempt),
    Restore,
    Inspect,
    Compare,
}

impl Session<'_> {
    pub(super) fn take_reports(&mut self) -> Result<(), LoaderError> {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report)?;
        }
        Ok(())
    }

    fn take_report(&mut self, report: Report) -> Result<(), LoaderError> {
        let (at, action) = match report {
            Report::Server(Ok(server)) => {
                if server.database != self.server.database {
                    return Err(LoaderError::OtherDatabase);
                }
                self.parts.clickhouse.ready();
                self.server.counters = server.counters;
                if let Some(run) = server.run {
                    self.server_runs(run);
                }
                return Ok(());
            }
            // The older figures err on the safe side.
            Report::Server(Err(error)) => {
                self.parts.clickhouse.not_ready(error.to_string());
                return Ok(());
            }
            Report::Inserted(assignment, ..) | Report::Inspected(assignment, ..)
                if assignment != self.assignment =>
            {
                return Ok(());
            }
            Report::Inserted(_, at, result) => {
                let Some(lane) = self.lanes.get_mut(&at) else {
                    return Ok(());
                };
                lane.work = None;
                let action = match result {
                    Ok(()) => lane.protocol.inserted(),
                    Err(error) => lane.protocol.failed(error),
                };
                (at, action)
            }
            Report::Inspected(_, at, result) => {
                let Some(lane) = self.lanes.get_mut(&at) else {
                    return Ok(());
                };
                lane.work = None;
                let action = match result {
                    Ok(facts) => lane.protocol.inspected(now(), &facts),
                    Err(error) => lane.protocol.failed(error),
                };
                let outcome = match &action {
                    Some(Action::InsertAgain(_)) => "replayed",
                    Some(Action::Restore(_)) => "restored",
                    Some(Action::Stop(_)) => "doubt",
                    _ => "complete",
                };
                metrics::counter!(
                    names::LOADER_RECOVERIES_TOTAL,
                    "topic" => lane.topic.clone(),
                    "outcome" => outcome
                )
                .increment(1);
                (at, action)
            }
        };
        self.carry_out(at, action)
    }

    /// Does what the protocol wants until it waits for something.
    pub(super) fn carry_out(
        &mut self,
        at: LogPartition,
        first: Option<Action>,
    ) -> Result<(), LoaderError> {
        let mut next = first;
        while let Some(action) = next.take() {
            match action {
                Action::Commit { offset, metadata } => {
                    self.consumer.commit(at, offset, &metadata)?;
                    next = self.lanes.get_mut(&at).and_then(|lane| {
                        lane.committed = Some(offset);
                        lane.protocol.committed()
                    });
                }
                Action::Insert(batch) => self.begin(at, batch, Work::Insert(Attempt::First)),
                Action::InsertAgain(batch) => self.begin(at, batch, Work::Insert(Attempt::Again)),
                Action::Restore(batch) => self.begin(at, batch, Work::Restore),
                Action::Inspect(batch) => self.begin(at, batch, Work::Inspect),
                Action::Compare(batch) => self.begin(at, batch, Work::Compare),
                Action::Stop(reason) => {
                    let topic = self.topic(at).to_owned();
                    if let Some(lane) = self.lanes.get_mut(&at) {
                        lane.stopped_by = Some(reason.clone());
                    }
                    self.stopped(&topic, at, reason);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, at: LogPartition, batch: Batch, work: Work) {
        let (warehouse, reporter) = (self.warehouse.clone(), self.reporter.clone());
        let (assignment, stage) = (self.assignment, stage_of(at));
        let gate = Arc::clone(&self.gate);
        let whole = Arc::clone(&self.whole_sums);
        let task = self.runtime.spawn(async move {
            let report = match work {
                Work::Insert(attempt) => {
                    let done = insert_until_done(&warehouse, &gate, &batch, stage, attempt).await;
                    Report::Inserted(assignment, at, done)
                }
                Work::Restore => {
                    let done = restore(&warehouse, &gate, &batch, stage).await;
                    Report::Inserted(assignment, at, done)
                }
                Work::Inspect | Work::Compare => {
                    let compares_content = work == Work::Compare;
                    let looked =
                        inspect_until_done(&warehouse, &batch, stage, compares_content, &whole);
                    let facts = looked.await;
                    Report::Inspected(assignment, at, facts)
                }
            };
            // Nobody listens any more where the session has ended.
            let _ = reporter.send(report);
        });
        if let Some(lane) = self.lanes.get_mut(&at) {
            lane.work = Some(task);
        }
    }

    pub(super) fn ask_server(&self) {
        let (warehouse, reporter) = (self.warehouse.clone(), self.reporter.clone());
        let known = self.server.database.clone();
        self.runtime.spawn(async move {
            let server = Server::ask_again(&warehouse, known).await;
            let _ = reporter.send(Report::Server(server));
        });
    }

    /// Gives inserts under way some time, and commits those that end.
    pub(super) fn finish_work(&mut self) -> Result<(), LoaderError> {
        let deadline = Instant::now() + FAREWELL;
        while self.lanes.values().any(|lane| lane.work.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.take_report(report)?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}
