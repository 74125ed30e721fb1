//! Why a command ended without its result: for people, for programs, and as an exit code.

use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde_json::{Value, json};
use spendfuse_domain::printable::is_obeyed;
use spendfuse_warehouse::WarehouseError;

use super::output;
use crate::settings::SettingsError;

/// What kind of failure; its code is for programs, and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WrongUsage,
    WrongSettings,
    WrongBudgetsFile,
    KafkaUnreachable,
    ClickHouseUnreachable,
    Failed,
}

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::WrongUsage => "wrong_usage",
            Self::WrongSettings => "wrong_settings",
            Self::WrongBudgetsFile => "wrong_budgets_file",
            Self::KafkaUnreachable => "kafka_unreachable",
            Self::ClickHouseUnreachable => "clickhouse_unreachable",
            Self::Failed => "failed",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::WrongUsage | Self::WrongSettings => 2,
            Self::WrongBudgetsFile
            | Self::KafkaUnreachable
            | Self::ClickHouseUnreachable
            | Self::Failed => 1,
        }
    }
}

/// Why a command ended without its result.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    /// What is wrong; from outside it may hold anything, so that it is printed as one line.
    message: String,
    /// Lines after it, one for each mistake.
    details: Vec<String>,
}

impl Failure {
    fn new(kind: Kind, error: impl fmt::Display) -> Self {
        Self {
            kind,
            message: error.to_string(),
            details: Vec::new(),
        }
    }

    /// The work failed: exit code 1.
    pub fn work(error: impl fmt::Display) -> Self {
        Self::new(Kind::Failed, error)
    }

    /// No broker answers: exit code 1.
    pub fn kafka_unreachable(error: impl fmt::Display) -> Self {
        Self::new(Kind::KafkaUnreachable, error)
    }

    /// ClickHouse does not answer, or refuses: exit code 1; or it cannot be reached as it is
    /// configured: exit code 2.
    pub fn warehouse(error: WarehouseError) -> Self {
        let kind = match error {
            WarehouseError::Unreachable { .. } => Kind::ClickHouseUnreachable,
            WarehouseError::BadUrl { .. }
            | WarehouseError::BadDatabase { .. }
            | WarehouseError::BadCa { .. } => Kind::WrongSettings,
            _ => Kind::Failed,
        };
        Self::new(kind, error)
    }

    /// The command was called or configured wrongly: exit code 2.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self::new(Kind::WrongUsage, error)
    }

    /// The configuration cannot be used: exit code 2.
    pub fn settings(error: &SettingsError) -> Self {
        Self::new(Kind::WrongSettings, error)
    }

    /// A budgets file with mistakes, one a line: exit code 1.
    pub fn budgets_file(error: impl fmt::Display, mistakes: Vec<String>) -> Self {
        Self {
            details: mistakes,
            ..Self::new(Kind::WrongBudgetsFile, error)
        }
    }

    fn in_lines(mut self) -> Self {
        let mut lines = self.message.lines().map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        self.details = lines.collect();
        self.message = first;
        self
    }

    /// Whether only other arguments or settings help.
    pub fn is_misuse(&self) -> bool {
        self.kind.exit_code() == 2
    }

    /// Its exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        match output::is_json() {
            true => output::json_note(&self.to_json()),
            false => {
                output::note(format!("error: {}", self.message));
                self.details.iter().for_each(output::note);
            }
        }
    }

    fn to_json(&self) -> Value {
        let mut error = json!({"code": self.kind.code(), "message": self.message});
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        json!({"error": error})
    }
}

impl From<WarehouseError> for Failure {
    fn from(error: WarehouseError) -> Self {
        Self::warehouse(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        let mut details = self.details.iter();
        details.try_for_each(|line| write!(formatter, "\n{line}"))
    }
}

/// Ends a command whose arguments cannot be read; help and version are asked for, and no failure.
pub fn misused(error: &clap::Error) -> ExitCode {
    let is_asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let text = error.render().to_string();
    if is_asked_for || !output::is_json() && !text.contains(|one| one != '\n' && is_obeyed(one)) {
        // In colours, to the stream where it belongs.
        error.exit();
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let failure = Failure::usage(text.trim_end()).in_lines();
    failure.tell();
    failure.exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_a_silent_clickhouse_from_a_wrong_address() {
        let silent = WarehouseError::Unreachable {
            url: "http://clickhouse:8123".to_owned(),
            doing: "a query".to_owned(),
            detail: "connection closed".to_owned(),
        };
        let wrong = WarehouseError::BadUrl {
            url: "clickhouse".to_owned(),
        };
        let refused = WarehouseError::StillInserting {
            token: "t".to_owned(),
        };
        let told = [silent, wrong, refused].map(|error| {
            let failure = Failure::from(error);
            let code = failure.to_json()["error"]["code"].clone();
            (code, failure.is_misuse())
        });
        let wanted = [
            (json!("clickhouse_unreachable"), false),
            (json!("wrong_settings"), true),
            (json!("failed"), false),
        ];
        assert_eq!(told, wanted);
    }
}
