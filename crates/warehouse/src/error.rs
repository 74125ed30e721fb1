//! What can go wrong with ClickHouse, and whether trying again can help.

use std::path::PathBuf;

/// An error of the warehouse. None of them holds a password.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The configured address cannot be used.
    #[error("clickhouse.url \"{url}\" is not an http:// or https:// address")]
    BadUrl {
        /// The address, without credentials.
        url: String,
    },
    /// The configured database name cannot be used.
    #[error("clickhouse.database \"{name}\" may only have letters, digits and underscores")]
    BadDatabase {
        /// The name.
        name: String,
    },
    /// The CA's file cannot be used.
    #[error("clickhouse.ca_file {}: {reason}; name a file with certificates in PEM", path.display())]
    BadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No answer.
    #[error("ClickHouse at {url} does not answer while {doing}: {detail}")]
    Unreachable {
        /// The address, without credentials.
        url: String,
        /// What was being done.
        doing: String,
        /// What happened.
        detail: String,
    },
    /// ClickHouse said no.
    #[error("ClickHouse refused {doing}: {detail}")]
    Refused {
        /// What was being done.
        doing: String,
        /// ClickHouse's error code, where it gave one.
        code: Option<u32>,
        /// ClickHouse's words.
        detail: String,
    },
    /// The database was migrated by a newer program.
    #[error(
        "database {database} has schema {found}, this program knows up to {known}; use a newer program"
    )]
    SchemaTooNew {
        /// The database.
        database: String,
        /// Its schema's number.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// A table does not remember enough tokens for exactly-once inserts.
    #[error(
        "table {table} remembers {found} inserts for deduplication, {required} are needed; \
         run ALTER TABLE {table} MODIFY SETTING {setting} = {required}"
    )]
    DeduplicationWindow {
        /// The table, with its database.
        table: String,
        /// The setting.
        setting: &'static str,
        /// Its value in force.
        found: u64,
        /// The least that is needed.
        required: u64,
    },
    /// A table that migrations create is not there.
    #[error(
        "table {table} does not exist; start a role that migrates, or check clickhouse.database"
    )]
    MissingTable {
        /// The table, with its database.
        table: String,
    },
    /// The database has rows of other topics under this epoch.
    #[error(
        "epoch {epoch} of database {database} has other topics: these were made anew, or another set of topics loads into the same database; `spendfuse topics new-epoch` begins the next one"
    )]
    EpochTaken {
        /// The database.
        database: String,
        /// The epoch.
        epoch: u32,
    },
    /// An earlier attempt of an insert goes on.
    #[error("ClickHouse is still at an earlier attempt of the insert {token}")]
    StillInserting {
        /// The insert's token.
        token: String,
    },
    /// The tables have something that an insert does not explain.
    #[error("after the insert {token}, {detail}")]
    InDoubt {
        /// The insert's token.
        token: String,
        /// What differs.
        detail: String,
    },
    /// An answer of a form that was not asked for.
    #[error("unexpected answer of ClickHouse to {doing}: {detail}")]
    UnexpectedAnswer {
        /// What was being done.
        doing: String,
        /// What was wrong with it.
        detail: String,
    },
}

/// ClickHouse's codes for rows that it will never take, whatever is tried: columns that do not fit,
/// values that cannot be converted, data that cannot be read.
const NEVER: [u32; 14] = [6, 16, 20, 27, 32, 33, 41, 53, 69, 70, 72, 117, 131, 349];

impl WarehouseError {
    /// Whether the same insert can never succeed, so that trying again is useless.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::InDoubt { .. }) || self.is_one_of(&NEVER)
    }

    pub(crate) fn is_unknown_table(&self) -> bool {
        const UNKNOWN_TABLE: u32 = 60;
        self.is_one_of(&[UNKNOWN_TABLE])
    }

    /// Whether ClickHouse refused with one of these codes.
    pub(crate) fn is_one_of(&self, codes: &[u32]) -> bool {
        matches!(self, Self::Refused { code: Some(code), .. } if codes.contains(code))
    }

    /// Wraps an error of the client.
    pub(crate) fn from_client(url: &str, doing: &str, error: &clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        let doing = doing.to_owned();
        match error {
            Error::BadResponse(detail) => Self::Refused {
                doing,
                code: code_of(detail),
                detail: shortened(detail),
            },
            Error::Network(_) | Error::TimedOut => Self::Unreachable {
                url: without_secrets(url),
                doing,
                detail: with_hint(with_causes(error)),
            },
            other => Self::UnexpectedAnswer {
                doing,
                detail: shortened(&with_causes(other)),
            },
        }
    }
}

/// The code in `Code: 60. DB::Exception: …`.
fn code_of(detail: &str) -> Option<u32> {
    let (_, after) = detail.split_once("Code: ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// ClickHouse repeats statements and stacks in its errors; a log line needs neither.
fn shortened(detail: &str) -> String {
    const LONGEST: usize = 600;
    let line = detail.trim().replace('\n', " ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn with_hint(detail: String) -> String {
    match detail.contains("UnknownIssuer") {
        true => format!("{detail}; a CA of your own is named by clickhouse.ca_file"),
        false => detail,
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A URL without user, password and query. Up to the last `@`: a password may hold anything.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host_on = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
    let host = host_on.split(['?', '#']).next().unwrap_or_default();
    match scheme {
        "" => host.to_owned(),
        scheme => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_reach_messages() {
        for (url, shown) in [
            ("https://bob:pa/s?s@host:8443/x", "https://host:8443/x"),
            ("http://host:8123/?password=secret", "http://host:8123/"),
            ("bob:secret@host", "host"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn codes_are_read_from_clickhouses_words() {
        assert_eq!(code_of("Code: 60. DB::Exception: Unknown table"), Some(60));
        assert_eq!(code_of("connection reset"), None);
        let refused = |code| WarehouseError::Refused {
            doing: "an insert".to_owned(),
            code,
            detail: String::new(),
        };
        assert!(refused(Some(70)).is_final());
        assert!(!refused(Some(252)).is_final(), "too many parts passes");
        assert!(!refused(None).is_final());
    }
}
