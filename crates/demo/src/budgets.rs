//! The demo's budgets: put into force at the beginning, and changed once in the middle.

use std::time::Duration;

use jiff::tz::TimeZone;
use spendfuse_bus::{KafkaConfig, OutputRecord, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::budget::diff::{Missing, Plan};
use spendfuse_domain::budget::file::BudgetsFile;

use crate::error::DemoError;

const FILE: &str = include_str!("budgets.yaml");
const PATIENCE: Duration = Duration::from_secs(15);
/// Dollars that the upgrading customer may spend a day, before and after.
const BEFORE: &str = "0.40";
const AFTER: &str = "25.00";

/// The budgets in force.
#[derive(Debug)]
pub struct DemoBudgets {
    kafka: KafkaConfig,
    topic: String,
    transactional_id: String,
    in_force: Vec<BudgetsRecord>,
    timezone: &'static str,
}

impl DemoBudgets {
    /// Puts the demo's budgets into force.
    ///
    /// # Errors
    /// What Kafka says.
    pub fn apply(
        kafka: &KafkaConfig,
        topic: &str,
        transactional_id: &str,
        now: UnixMillis,
    ) -> Result<Self, DemoError> {
        let mut budgets = Self {
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            transactional_id: transactional_id.to_owned(),
            in_force: Vec::new(),
            timezone: timezone_with_a_long_day(now),
        };
        budgets.replace(&budgets.file(BEFORE), now)?;
        Ok(budgets)
    }

    /// The upgrade: the customer's limit is raised.
    ///
    /// # Errors
    /// What Kafka says.
    pub fn upgrade(&mut self, now: UnixMillis) -> Result<(), DemoError> {
        let file = self.file(AFTER);
        self.replace(&file, now)
    }

    fn file(&self, upgrading_limit: &str) -> BudgetsFile {
        let text = FILE
            .replace("{timezone}", self.timezone)
            .replace("{upgrading_limit}", upgrading_limit);
        BudgetsFile::parse(&text).expect("the file in the binary is valid; a test reads it")
    }

    fn replace(&mut self, file: &BudgetsFile, now: UnixMillis) -> Result<(), DemoError> {
        let plan = Plan::new(&self.in_force, file, now, Missing::Remove);
        let writes = plan.writes();
        let records: Vec<OutputRecord> = writes
            .iter()
            .map(|(key, value)| OutputRecord {
                topic: self.topic.clone(),
                partition: 0,
                key: Some(key.clone().into_bytes()),
                value: value.clone(),
                headers: Vec::new(),
            })
            .collect();
        write_in_one_transaction(&self.kafka, &self.transactional_id, &records, PATIENCE)?;
        for (key, value) in &writes {
            self.in_force.retain(|record| record.key() != *key);
            let read = value
                .as_ref()
                .and_then(|value| BudgetsRecord::parse(key, value).ok());
            self.in_force.extend(read);
        }
        Ok(())
    }
}

/// A time zone whose midnight is hours away, so that no daily budget begins anew in the middle.
fn timezone_with_a_long_day(now: UnixMillis) -> &'static str {
    let hour = now.timestamp().to_zoned(TimeZone::UTC).hour();
    if hour < 12 {
        "Asia/Tokyo"
    } else {
        "America/Los_Angeles"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upgrade_changes_one_limit_and_nothing_else() {
        let budgets = DemoBudgets {
            kafka: KafkaConfig::new("localhost:9092", "test"),
            topic: "t".to_owned(),
            transactional_id: "t".to_owned(),
            in_force: Vec::new(),
            timezone: timezone_with_a_long_day(UnixMillis(0)),
        };
        let now = UnixMillis(0);
        let before = Plan::new(&[], &budgets.file(BEFORE), now, Missing::Remove);
        let records: Vec<BudgetsRecord> = before
            .writes()
            .iter()
            .filter_map(|(key, value)| BudgetsRecord::parse(key, value.as_ref()?).ok())
            .collect();
        assert_eq!(records.len(), 9);
        let after = Plan::new(&records, &budgets.file(AFTER), now, Missing::Remove);
        let keys: Vec<String> = after.writes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["hooli-day"]);
    }
}
