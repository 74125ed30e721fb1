//! What the loader keeps in the metadata of its committed offsets: the intent of an insert that may
//! be under way, and how far each writer's chain of blocks has come.

mod links;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;

use crate::batch::TokenKind;
pub use links::{BrokenLink, Chain, Links};

/// What every program reads.
const FORMAT: u32 = 1;
/// With an intent whose tokens an older program would not make: it must leave the partition alone.
const FORMAT_OF_CONTENT_TOKENS: u32 = 2;

/// Metadata of a committed offset `a` of one rows partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The insert of `[a, intent.end)` that was about to begin; `None` where `a` is simply how far
    /// everything is in the warehouse.
    pub intent: Option<Intent>,
    /// The chains up to `a`.
    pub links: Links,
    /// What may not be on ClickHouse's disk yet; `None` where an older program wrote, and with
    /// replicated tables.
    pub unsynced: Option<Unsynced>,
    /// Which database has everything before `a` ([`Warehouse::database_id`]); `None` where that cannot
    /// be told.
    ///
    /// [`Warehouse::database_id`]: spendfuse_warehouse::Warehouse::database_id
    pub warehouse: Option<String>,
}

/// What a restart of ClickHouse may have taken although it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsynced {
    /// The run of the server that took the last inserts ([`Warehouse::server_run`]).
    ///
    /// [`Warehouse::server_run`]: spendfuse_warehouse::Warehouse::server_run
    #[serde(rename = "server")]
    pub server_run: i64,
    /// Everything before this offset went in so long before that it is on disk.
    pub from: i64,
}

/// An insert that was about to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// End of the range (exclusive): last offset + 1.
    pub end: i64,
    /// Records in the range.
    pub records: u32,
    /// Hash over offsets and values of these records.
    #[serde(with = "hex")]
    pub hash: u64,
    /// When it was written, by the loader's clock.
    #[serde(with = "millis")]
    pub at: UnixMillis,
    /// The table's insert counter shortly before, for each table of the range: tells how much of
    /// ClickHouse's memory for tokens has been used up since.
    pub inserts: BTreeMap<String, u64>,
    /// What its tokens are made of.
    #[serde(flatten)]
    pub tokens: TokenKind,
}

#[derive(Serialize, Deserialize)]
struct Text {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    intent: Option<Intent>,
    /// (table, writer partition, seq)
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    links: Vec<(String, u32, u64)>,
    /// Of each link; absent where all are of epoch 0.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    epochs: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    unsynced: Option<Unsynced>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    warehouse: Option<String>,
}

impl Checkpoint {
    /// The metadata's text.
    pub fn encode(&self) -> String {
        let chains = || self.links.newest();
        let has_epochs = chains().any(|(chain, _)| chain.epoch > 0);
        let tokens = self.intent.as_ref().map(|intent| intent.tokens);
        let text = Text {
            v: match tokens {
                None | Some(TokenKind::Range) => FORMAT,
                Some(TokenKind::Content { .. }) => FORMAT_OF_CONTENT_TOKENS,
            },
            intent: self.intent.clone(),
            unsynced: self.unsynced,
            warehouse: self.warehouse.clone(),
            links: chains()
                .map(|(chain, seq)| (chain.table.clone(), chain.partition, seq))
                .collect(),
            epochs: match has_epochs {
                true => chains().map(|(chain, _)| chain.epoch).collect(),
                false => Vec::new(),
            },
        };
        serde_json::to_string(&text).expect("numbers and texts become JSON")
    }

    /// Reads metadata; the empty text is a partition that was never loaded from.
    ///
    /// # Errors
    /// What is wrong with the text, or that a newer program wrote it.
    pub fn decode(metadata: &str) -> Result<Self, CheckpointError> {
        if metadata.is_empty() {
            return Ok(Self::default());
        }
        let text: Text = serde_json::from_str(metadata)
            .map_err(|error| CheckpointError::Unreadable(error.to_string()))?;
        if !(FORMAT..=FORMAT_OF_CONTENT_TOKENS).contains(&text.v) {
            return Err(CheckpointError::Version(text.v));
        }
        let epochs = text.epochs.into_iter().chain(std::iter::repeat(0));
        let links = text.links.into_iter().zip(epochs);
        let links = links.map(|((table, partition, seq), epoch)| {
            let chain = Chain {
                table,
                partition,
                epoch,
            };
            (chain, seq)
        });
        Ok(Self {
            intent: text.intent,
            unsynced: text.unsynced,
            warehouse: text.warehouse,
            links: Links::new(links),
        })
    }
}

/// Whether this metadata of a committed offset says that what lies before it was loaded into another
/// database than `database` ([`Warehouse::database_id`]), and so may not be in that one. `false` where
/// one of both is not known.
///
/// [`Warehouse::database_id`]: spendfuse_warehouse::Warehouse::database_id
pub fn is_of_another_database(metadata: &str, database: Option<&str>) -> bool {
    let loaded = Checkpoint::decode(metadata).ok();
    let loaded = loaded.and_then(|checkpoint| checkpoint.warehouse);
    matches!((loaded, database), (Some(loaded), Some(found)) if loaded != found)
}

/// Offset metadata that this program cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not the loader's text.
    #[error("the committed offset's metadata is not the loader's: {0}")]
    Unreadable(String),
    /// Another format.
    #[error(
        "the committed offset's metadata has format {0}; this program knows formats up to \
         {FORMAT_OF_CONTENT_TOKENS}: start the newer program again"
    )]
    Version(u32),
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{hash:016x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
        let text = String::deserialize(source)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use spendfuse_domain::UnixMillis;

    pub(crate) fn serialize<S: Serializer>(
        at: &UnixMillis,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<UnixMillis, D::Error> {
        i64::deserialize(source).map(UnixMillis)
    }
}

#[cfg(test)]
mod tests {
    use super::links::tests::{chain, link};
    use super::*;

    #[test]
    fn metadata_round_trips_and_stays_far_below_kafkas_limit() {
        let mut checkpoint = Checkpoint::default();
        assert_eq!(Checkpoint::decode("").unwrap(), checkpoint);
        for table in ["spend", "finding_changes", "verdicts", "budget_windows"] {
            let chain = Chain {
                epoch: u32::MAX,
                ..chain(table)
            };
            checkpoint.links.follow(chain, link(0, u64::MAX)).unwrap();
        }
        let tables = ["spend", "finding_changes", "verdicts", "budget_windows"];
        checkpoint.intent = Some(Intent {
            end: i64::MAX,
            records: u32::MAX,
            hash: 1,
            at: UnixMillis(i64::MAX),
            inserts: tables.map(|table| (table.to_owned(), u64::MAX)).into(),
            tokens: TokenKind::Content { epoch: u32::MAX },
        });
        checkpoint.unsynced = Some(Unsynced {
            server_run: i64::MAX,
            from: i64::MAX,
        });
        checkpoint.warehouse = Some("c9d1a5b2-2a4b-4c4e-9d7e-0a4f3f1f6b11".to_owned());
        let text = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&text).unwrap(), checkpoint);
        // `offset.metadata.max.bytes` is 4096 by default.
        assert!(text.len() < 1024, "{}", text.len());
    }

    #[test]
    fn an_offset_says_nothing_of_a_database_that_was_not_loaded() {
        let loaded_into = |database: Option<&str>| {
            let checkpoint = Checkpoint {
                warehouse: database.map(str::to_owned),
                ..Checkpoint::default()
            };
            checkpoint.encode()
        };
        let is_of_another = |loaded, found| is_of_another_database(&loaded_into(loaded), found);
        assert!(is_of_another(Some("old"), Some("restored")));
        assert!(!is_of_another(Some("old"), Some("old")));
        // Replicated tables have no id, and a release before wrote none.
        assert!(!is_of_another(Some("old"), None));
        assert!(!is_of_another(None, Some("restored")));
        assert!(!is_of_another_database("", Some("restored")));
    }

    #[test]
    fn metadata_of_others_is_refused() {
        assert!(matches!(
            Checkpoint::decode("hello"),
            Err(CheckpointError::Unreadable(_))
        ));
        assert_eq!(
            Checkpoint::decode(r#"{"v":3}"#),
            Err(CheckpointError::Version(3))
        );
    }

    /// An older program would insert again what it cannot find under its own tokens.
    #[test]
    fn only_an_intent_of_the_new_kind_keeps_older_programs_away() {
        let format_of = |tokens: Option<TokenKind>| {
            let intent = tokens.map(|tokens| Intent {
                end: 9,
                records: 1,
                hash: 7,
                at: UnixMillis(0),
                inserts: BTreeMap::new(),
                tokens,
            });
            let checkpoint = Checkpoint {
                intent,
                ..Checkpoint::default()
            };
            let text = checkpoint.encode();
            assert_eq!(Checkpoint::decode(&text).unwrap(), checkpoint, "{text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["v"].clone()
        };
        assert_eq!(format_of(None), 1);
        assert_eq!(format_of(Some(TokenKind::Range)), 1);
        assert_eq!(format_of(Some(TokenKind::Content { epoch: 0 })), 2);
        let old = r#"{"v":1,"intent":{"end":9,"records":1,"hash":"07","at":0,"inserts":{}}}"#;
        let intent = Checkpoint::decode(old).unwrap().intent.unwrap();
        assert_eq!(intent.tokens, TokenKind::Range);
    }
}
