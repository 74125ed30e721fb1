//! What the loader keeps in the metadata of its committed offsets: the intent of an insert that may
//! be under way, and how far each writer's chain of blocks has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::record::Link;

use crate::batch::TokenKind;

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

/// The blocks of one table that one writer partition has written in one set of topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// The table.
    pub table: String,
    /// The writer's partition.
    pub partition: u32,
    /// The set of topics.
    pub epoch: u32,
}

/// The last commit number seen of each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<Chain, u64>);

/// A chain that does not continue where it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenLink {
    /// The table.
    pub table: String,
    /// What the block says.
    pub link: Link,
    /// The number that it should continue, 0 = the first block.
    pub expected: u64,
}

impl BrokenLink {
    /// All that [`kind`](Self::kind) can be.
    pub const KINDS: [&str; 2] = ["gap", "overlap"];

    /// `gap` where blocks are missing, `overlap` where some come again.
    pub fn kind(&self) -> &'static str {
        if self.link.previous > self.expected {
            "gap"
        } else {
            "overlap"
        }
    }
}

impl Links {
    /// Chains of which each is known up to a commit.
    pub fn new(ends: impl IntoIterator<Item = (Chain, u64)>) -> Self {
        Self(ends.into_iter().collect())
    }

    /// The last commit number seen of a chain.
    pub fn end_of(&self, chain: &Chain) -> Option<u64> {
        self.0.get(chain).copied()
    }

    /// The number that a block of `chain` with this link has to continue, 0 = none. A writer's first
    /// commit in a set of topics follows none, or its last one before, where its state went on.
    pub(crate) fn expected(&self, chain: &Chain, link: Link) -> u64 {
        let before = self.0.range(..=chain).next_back();
        match before {
            Some((known, end)) if known == chain => *end,
            Some((known, end))
                if (&known.table, known.partition) == (&chain.table, chain.partition)
                    && link.previous == *end =>
            {
                *end
            }
            _ => 0,
        }
    }

    /// Goes on from the block, wherever the chain was before.
    pub(crate) fn adopt(&mut self, chain: Chain, link: Link) {
        self.set(chain, link.seq);
    }

    pub(crate) fn set(&mut self, chain: Chain, seq: u64) {
        self.0.insert(chain, seq);
    }

    /// Takes over the chains that are known only to `other`.
    pub(crate) fn add_unknown(&mut self, other: &Self) {
        for (chain, seq) in &other.0 {
            self.0.entry(chain.clone()).or_insert(*seq);
        }
    }

    /// Each chain as far as it or `others` know it.
    pub(crate) fn advance(&mut self, others: Self) {
        for (chain, seq) in others.0 {
            let end = self.0.entry(chain).or_default();
            *end = seq.max(*end);
        }
    }

    /// Takes a block in; an error where it does not continue the chain. The chain goes on from the
    /// block in either case.
    ///
    /// # Errors
    /// [`BrokenLink`], to be counted and reported: the loader loads the block nevertheless, because
    /// only people can know what a break means.
    pub fn follow(&mut self, chain: Chain, link: Link) -> Result<(), BrokenLink> {
        let expected = self.expected(&chain, link);
        let table = chain.table.clone();
        self.adopt(chain, link);
        if link.previous == expected {
            return Ok(());
        }
        Err(BrokenLink {
            table,
            link,
            expected,
        })
    }

    /// The chains that are still written: of each table and partition the one of the newest epoch.
    fn newest(&self) -> impl Iterator<Item = (&Chain, u64)> {
        let mut all = self.0.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let (chain, seq) = all.next()?;
                let is_followed = all.peek().is_some_and(|(next, _)| {
                    (&next.table, next.partition) == (&chain.table, chain.partition)
                });
                if !is_followed {
                    return Some((chain, *seq));
                }
            }
        })
    }
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
            links: Links(links.collect()),
        })
    }
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
    use super::*;

    fn link(previous: u64, seq: u64) -> Link {
        Link {
            partition: 3,
            previous,
            seq,
        }
    }

    fn chain(table: &str) -> Chain {
        Chain {
            table: table.to_owned(),
            partition: 3,
            epoch: 0,
        }
    }

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

    #[test]
    fn gaps_and_overlaps_of_a_chain_are_told_apart() {
        let mut links = Links::default();
        assert_eq!(links.follow(chain("spend"), link(0, 5)), Ok(()));
        assert_eq!(links.follow(chain("spend"), link(5, 6)), Ok(()));
        let second = links.follow(chain("spend"), link(6, 6));
        assert_eq!(second, Ok(()), "a second block");
        let gap = links.follow(chain("spend"), link(8, 9)).unwrap_err();
        assert_eq!((gap.kind(), gap.expected), ("gap", 6));
        let overlap = links.follow(chain("spend"), link(8, 9)).unwrap_err();
        assert_eq!((overlap.kind(), overlap.expected), ("overlap", 9));
        assert_eq!(links.follow(chain("verdicts"), link(0, 2)), Ok(()));
    }

    /// Topics of the rows may stay where others of their set are made anew.
    #[test]
    fn a_chain_begins_anew_with_each_epoch_or_goes_on() {
        let of_epoch = |epoch| Chain {
            epoch,
            ..chain("spend")
        };
        let mut links = Links::default();
        assert_eq!(links.follow(of_epoch(0), link(0, 40)), Ok(()));
        let mut goes_on = links.clone();
        assert_eq!(goes_on.follow(of_epoch(2), link(40, 41)), Ok(()));
        assert!(goes_on.follow(of_epoch(2), link(40, 42)).is_err());
        let mut lacks = links.clone();
        let gap = lacks.follow(of_epoch(2), link(7, 8)).unwrap_err();
        assert_eq!((gap.kind(), gap.expected), ("gap", 0));

        assert_eq!(links.follow(of_epoch(2), link(0, 1)), Ok(()));
        assert_eq!(links.follow(of_epoch(2), link(1, 2)), Ok(()));
        // What an older program reads stays what it was, and only what is still written is kept.
        let checkpoint = Checkpoint {
            links,
            ..Checkpoint::default()
        };
        let text = checkpoint.encode();
        assert_eq!(text, r#"{"v":1,"links":[["spend",3,2]],"epochs":[2]}"#);
        let kept = Checkpoint::decode(&text).unwrap().links;
        assert_eq!(kept, Links::new([(of_epoch(2), 2)]));
    }
}
