//! Asks the warehouse which events of a piece it knows, while the piece before it is sent.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use spendfuse_domain::Identity;
use spendfuse_warehouse::client::quoted;
use spendfuse_warehouse::{EventKey, Table};

use super::super::super::warehouse::Connection;
use super::super::Failure;
use super::judgement::{AsOf, Told};
use super::pieces::{Candidate, Name, Piece, known_as};

/// Names that are asked about at once. Of a piece with more each event is looked for.
const MOST_NAMES: usize = 500;
/// Fewer are looked for one by one.
const LEAST_BY_TIMES: usize = 2_000;

/// A piece, and what the warehouse knows of it.
pub(super) struct Asked {
    pub(super) piece: Piece,
    /// What the warehouse knew at the least when it was asked.
    pub(super) as_of: AsOf,
    known: HashSet<Identity>,
}

impl Asked {
    /// Whether the warehouse knows `one` of the piece.
    pub(super) fn knows(&self, one: &Candidate) -> bool {
        !self.known.is_empty() && self.known.contains(&hash_of(&self.piece, one))
    }
}

fn hash_of(piece: &Piece, one: &Candidate) -> Identity {
    let name = &piece.names.all[one.name];
    known_as(&name.workspace, &name.source, &one.id)
}

/// Asks on a thread of its own, a piece ahead of whoever takes the answers.
pub(super) fn ask_ahead(
    pieces: Receiver<Result<Piece, Failure>>,
    connection: Connection,
    told: Arc<Told>,
) -> Result<Receiver<Result<Asked, Failure>>, Failure> {
    let (answers, taken) = sync_channel(0);
    let asking = Asking::new(connection, told);
    let thread = thread::Builder::new().name("asking".to_owned());
    let thread = thread.spawn(move || asking.run(&pieces, &answers));
    thread.map(|_| taken).map_err(Failure::work)
}

/// Asks about one piece after the other.
pub(super) struct Asking {
    connection: Connection,
    told: Arc<Told>,
    sources: Sources,
    /// Whether most events of the last piece were found by its times.
    do_times_tell: bool,
}

impl Asking {
    pub(super) fn new(connection: Connection, told: Arc<Told>) -> Self {
        Self {
            connection,
            told,
            sources: Sources::default(),
            do_times_tell: true,
        }
    }

    fn run(
        mut self,
        pieces: &Receiver<Result<Piece, Failure>>,
        answers: &SyncSender<Result<Asked, Failure>>,
    ) {
        for piece in pieces {
            let asked = piece.and_then(|piece| self.ask(piece));
            let goes_on = asked.is_ok();
            if answers.send(asked).is_err() || !goes_on {
                return;
            }
        }
    }

    pub(super) fn ask(&mut self, piece: Piece) -> Result<Asked, Failure> {
        // Before anything is asked: what the warehouse has later is more.
        let as_of = self.told.as_of();
        self.look_for_sources(&piece, as_of)?;
        let is_of_known_source = |one: &&Candidate| {
            let name = &piece.names.all[one.name];
            !self.sources.absent.contains(name)
        };
        let mut open: Vec<&Candidate> =
            piece.candidates.iter().filter(is_of_known_source).collect();
        let mut known = HashSet::new();
        if !open.is_empty() {
            self.told.note_asked();
            let wanted = open.len();
            // A file that was sent before is answered by its times alone, without a look at every row.
            if self.do_times_tell && wanted >= LEAST_BY_TIMES {
                known = self.of_its_times(&piece, 2 * wanted)?;
                open.retain(|one| !known.contains(&hash_of(&piece, one)));
                self.do_times_tell = open.len() * 2 <= wanted;
            }
            // Those may have been counted at any other time.
            let keys: Vec<EventKey> = open.into_iter().map(|one| key_of(&piece, one)).collect();
            let found = self.connection.warehouse.contains_events(&keys);
            let found = self.connection.wait(found)?;
            known.extend(
                found
                    .iter()
                    .map(|key| known_as(&key.workspace, &key.source, &key.id)),
            );
        }
        Ok(Asked {
            piece,
            as_of,
            known,
        })
    }

    /// Of a source that has no row nothing was counted before: none of its events need be looked for.
    fn look_for_sources(&mut self, piece: &Piece, as_of: AsOf) -> Result<(), Failure> {
        let names = self.sources.unknown_among(&piece.names.all, as_of);
        if names.is_empty() || names.len() > MOST_NAMES {
            return Ok(());
        }
        let pairs: Vec<String> = names
            .iter()
            .map(|name| format!("({}, {})", quoted(&name.workspace), quoted(&name.source)))
            .collect();
        let question = format!(
            "SELECT DISTINCT workspace, source FROM spend WHERE (workspace, source) IN ({})",
            pairs.join(", ")
        );
        let table = self.rows(&question)?;
        let found = table.rows.into_iter().filter_map(|row| {
            let [workspace, source]: [String; 2] = row.try_into().ok()?;
            Some(Name { workspace, source })
        });
        self.sources.learn(names, &found.collect());
        Ok(())
    }

    /// Events that happened in the time of the piece, of its sources: `most` of them.
    fn of_its_times(&self, piece: &Piece, most: usize) -> Result<HashSet<Identity>, Failure> {
        let Some((first, last)) = piece.times else {
            return Ok(HashSet::new());
        };
        let names = &piece.names.all;
        let question = format!(
            "SELECT workspace, source, event_id FROM spend \
             WHERE time BETWEEN fromUnixTimestamp64Milli({}) AND fromUnixTimestamp64Milli({}) \
             AND workspace IN ({}) AND source IN ({}) LIMIT {most}",
            first.0,
            last.0,
            each(names.iter().map(|name| &*name.workspace)),
            each(names.iter().map(|name| &*name.source)),
        );
        let table = self.rows(&question)?;
        let known = table.rows.iter().filter_map(|row| match &row[..] {
            [workspace, source, id] => Some(known_as(workspace, source, id)),
            _ => None,
        });
        Ok(known.collect())
    }

    fn rows(&self, question: &str) -> Result<Table, Failure> {
        let answer = self.connection.warehouse.query_long_text(question);
        self.connection.wait(answer)
    }
}

/// A list for SQL, without repetitions.
fn each<'n>(values: impl Iterator<Item = &'n str>) -> String {
    let values: BTreeSet<String> = values.map(quoted).collect();
    Vec::from_iter(values).join(", ")
}

fn key_of(piece: &Piece, one: &Candidate) -> EventKey {
    let Name { workspace, source } = piece.names.all[one.name].clone();
    EventKey {
        workspace,
        source,
        id: one.id.clone(),
    }
}

/// Workspaces and sources of events, and whether the warehouse has rows of them.
#[derive(Default)]
struct Sources {
    present: HashSet<Name>,
    /// Nothing of them was counted before the time of `as_of`. What is counted since the meter knows.
    absent: HashSet<Name>,
    as_of: AsOf,
}

impl Sources {
    /// Those of `names` of which it is not known.
    fn unknown_among(&mut self, names: &[Name], as_of: AsOf) -> Vec<Name> {
        if as_of != self.as_of {
            self.absent.clear();
            self.as_of = as_of;
        }
        let is_open = |name: &&Name| !self.present.contains(*name) && !self.absent.contains(*name);
        names.iter().filter(is_open).cloned().collect()
    }

    /// Of `names` the warehouse has `found`.
    fn learn(&mut self, names: Vec<Name>, found: &HashSet<Name>) {
        for name in names {
            match found.contains(&name) {
                true => self.present.insert(name),
                false => self.absent.insert(name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: &str) -> Name {
        Name {
            workspace: "acme".to_owned(),
            source: source.to_owned(),
        }
    }

    #[test]
    fn a_source_without_rows_is_looked_for_again_once_the_warehouse_has_more() {
        let mut sources = Sources::default();
        let both = [named("old"), named("new")];
        let [first, later, last] = [1, 2, 3].map(|changes| AsOf {
            changes,
            ..AsOf::default()
        });
        assert_eq!(sources.unknown_among(&both, first), both);
        sources.learn(both.to_vec(), &HashSet::from([named("old")]));
        assert!(sources.unknown_among(&both, first).is_empty());
        assert!(sources.absent.contains(&named("new")));
        assert_eq!(sources.unknown_among(&both, later), [named("new")]);
        assert!(
            !sources.absent.contains(&named("new")),
            "what this run sent may be loaded"
        );
        sources.learn(vec![named("new")], &HashSet::from([named("new")]));
        assert!(sources.unknown_among(&both, last).is_empty());
    }
}
