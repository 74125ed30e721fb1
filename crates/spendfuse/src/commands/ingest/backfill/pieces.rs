//! The lines of the input, read and priced ahead, a piece at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, EnvelopeDefaults, Event, Flags, RemovedMembers, redact};
use spendfuse_domain::growth::ToldCall;
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_pricing::Pricer;

use super::super::super::output;
use super::super::forecast::{Met, OpenWindows, met};
use super::super::send::tell_unreadable;
use super::super::sent_lately::SentCall;
use super::super::{Failure, InputLines, read_line};

/// Events that are judged with one question, or as many as have come within this time.
const PIECE: usize = 50_000;
/// Bytes that are kept of a piece's lines, but for the last one of them.
const PIECE_BYTES: usize = 64 << 20;
const PIECE_WITHIN: Duration = Duration::from_secs(1);

/// Events that are judged together, in the order of the input.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) candidates: Vec<Candidate>,
    /// Of the candidates' values.
    bytes: usize,
    pub(super) names: Names,
    /// When the first and the last of them happened.
    pub(super) times: Option<(UnixMillis, UnixMillis)>,
    pub(super) read: ReadLines,
    /// Up to where the input was read, bytes.
    pub(super) position: u64,
    pub(super) is_last: bool,
}

/// An event that is to be judged.
pub(super) struct Candidate {
    pub(super) identity: Identity,
    pub(super) id: String,
    /// Workspace and source, by their place in the piece's names.
    pub(super) name: usize,
    pub(super) home: u32,
    /// The key that it is sent with, where that is not its identity.
    pub(super) routing: Option<Box<[u8]>>,
    pub(super) value: Box<[u8]>,
    /// What it tells of its call, where it is one.
    told: Option<ToldCall>,
    pub(super) spend: Spend,
    pub(super) at_ceiling: Nanos,
    pub(super) met: Vec<Met>,
}

impl Candidate {
    pub(super) fn take_call(&mut self) -> Option<SentCall> {
        Some(SentCall {
            told: self.told.take()?,
            spend: self.spend,
            at_ceiling: self.at_ceiling,
        })
    }
}

/// Workspaces and sources, each once.
#[derive(Default)]
pub(super) struct Names {
    pub(super) all: Vec<Name>,
    places: HashMap<Identity, usize>,
}

/// Who an event's id belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) workspace: String,
    pub(super) source: String,
}

impl Names {
    fn place_of(&mut self, workspace: &str, source: &str) -> usize {
        let hash = known_as(workspace, source, "");
        *self.places.entry(hash).or_insert_with(|| {
            self.all.push(Name {
                workspace: workspace.to_owned(),
                source: source.to_owned(),
            });
            self.all.len() - 1
        })
    }
}

/// What the warehouse knows an event by, whatever its phase.
pub(super) fn known_as(workspace: &str, source: &str, id: &str) -> Identity {
    Identity::of(workspace, source, id, "")
}

/// What stood in the lines.
#[derive(Default)]
pub(super) struct ReadLines {
    /// Lines that are events.
    pub(super) events: u64,
    /// Of those, calls without a price.
    pub(super) unpriced: u64,
    /// Older than what the warehouse keeps.
    pub(super) too_old: u64,
    pub(super) session_ends: u64,
    pub(super) unreadable: BTreeMap<&'static str, u64>,
    pub(super) unknown: RemovedMembers,
}

impl ReadLines {
    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.unpriced += other.unpriced;
        self.too_old += other.too_old;
        self.session_ends += other.session_ends;
        for (reason, lines) in other.unreadable {
            *self.unreadable.entry(reason).or_default() += lines;
        }
        self.unknown.add(other.unknown);
    }
}

/// What bare objects lack.
pub(super) struct Bare {
    pub(super) source: String,
    pub(super) workspace: String,
    pub(super) now: UnixMillis,
}

/// What events are priced by, and where they count.
pub(super) struct Pricing {
    pub(super) pricer: Pricer,
    pub(super) windows: OpenWindows,
    /// Older events may have been removed from the warehouse.
    pub(super) kept_from: UnixMillis,
    /// Of the usage topic.
    pub(super) partitions: u32,
}

/// Reads and prices on a thread of its own, a piece ahead of whoever takes them. The last piece says so;
/// an error comes in its turn, and nothing after it. Where nobody takes any more the thread ends.
pub(super) fn read_ahead(
    lines: InputLines,
    bare: Bare,
    pricing: Pricing,
) -> Result<Receiver<Result<Piece, Failure>>, Failure> {
    let (pieces, taken) = sync_channel(0);
    let reader = Reader {
        lines,
        line: Vec::new(),
        bare,
        pricing,
        unreadable: 0,
        most: PIECE,
        most_bytes: PIECE_BYTES,
    };
    let thread = thread::Builder::new().name("reading".to_owned());
    let thread = thread.spawn(move || reader.run(&pieces));
    thread.map(|_| taken).map_err(Failure::work)
}

struct Reader {
    lines: InputLines,
    line: Vec<u8>,
    bare: Bare,
    pricing: Pricing,
    /// Lines so far.
    unreadable: u64,
    /// Events of a piece, and bytes.
    most: usize,
    most_bytes: usize,
}

impl Reader {
    fn run(mut self, pieces: &SyncSender<Result<Piece, Failure>>) {
        loop {
            let piece = self.next_piece();
            let goes_on = piece.as_ref().is_ok_and(|piece| !piece.is_last);
            if pieces.send(piece).is_err() || !goes_on {
                return;
            }
        }
    }

    fn next_piece(&mut self) -> Result<Piece, Failure> {
        let (began, arrival) = (Instant::now(), output::now());
        let mut piece = Piece::default();
        while piece.candidates.len() < self.most
            && piece.bytes < self.most_bytes
            && began.elapsed() < PIECE_WITHIN
        {
            if !self.lines.next(&mut self.line)? {
                piece.is_last = true;
                break;
            }
            self.take_line(&mut piece, arrival)?;
        }
        piece.position = self.lines.position;
        Ok(piece)
    }

    fn take_line(&mut self, piece: &mut Piece, arrival: UnixMillis) -> Result<(), Failure> {
        let defaults = EnvelopeDefaults {
            source: &self.bare.source,
            workspace: &self.bare.workspace,
            now: self.bare.now,
        };
        let kept = redact(&self.line, &[]);
        piece.read.unknown.add(kept.removed);
        let pricing = &mut self.pricing;
        let taken = read_line(&kept.value, &defaults, arrival, |event, bytes| {
            pricing.take(piece, event, bytes)
        });
        match taken {
            Ok(taken) => {
                taken.map_err(|why| Failure::work(format!("line {}: {why}", self.lines.number)))
            }
            Err(rejection) => {
                let reason = rejection.reason.name();
                *piece.read.unreadable.entry(reason).or_default() += 1;
                self.unreadable += 1;
                tell_unreadable(&self.lines, &rejection, self.unreadable);
                Ok(())
            }
        }
    }
}

impl Pricing {
    /// Prices an event and puts it to those that are judged next.
    fn take(&mut self, piece: &mut Piece, event: &Event<'_>, bytes: &[u8]) -> Result<(), String> {
        piece.read.events += 1;
        if event.body == Body::SessionEnd {
            piece.read.session_ends += 1;
            return Ok(());
        }
        if event.time < self.kept_from {
            piece.read.too_old += 1;
            return Ok(());
        }
        let who = &event.attribution;
        let mut spend = Spend::default();
        let mut at_ceiling = Nanos::ZERO;
        let mut counts_in = Vec::new();
        if let Body::Usage(call) = &event.body {
            let pricer = &mut self.pricer;
            let priced = pricer
                .price(&who.provider, &who.account, call, &who.model, event.time)
                .map_err(|error| error.to_string())?;
            spend = Spend::of_call(priced.parts.total(), call.tokens.total());
            at_ceiling = priced.at_ceiling;
            piece.read.unpriced += u64::from(priced.flags.contains(Flags::UNPRICED));
            counts_in = met(&self.windows, event);
        }
        let times = piece.times.get_or_insert((event.time, event.time));
        *times = (times.0.min(event.time), times.1.max(event.time));
        piece.bytes += bytes.len();
        piece.candidates.push(Candidate {
            identity: event.identity,
            id: event.id.clone().into_owned(),
            name: piece.names.place_of(&who.workspace, &event.source),
            home: event.home(self.partitions),
            routing: event.session_key().map(|key| key.as_bytes().into()),
            value: bytes.into(),
            told: ToldCall::of(event),
            spend,
            at_ceiling,
            met: counts_in,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead, BufReader, Cursor};
    use std::sync::Arc;

    use indicatif::ProgressBar;
    use spendfuse_pricing::{PriceBook, PricingPolicy};

    use super::*;

    fn event(number: usize) -> String {
        format!(
            r#"{{"id":"e-{number}","workspace":"w","model":"gpt-4o","usage":{{"input_tokens":{number}}}}}"#
        )
    }

    /// Pieces of three events or `most_bytes`, and how it ended.
    fn pieces_of(
        input: impl BufRead + Send + 'static,
        most_bytes: usize,
    ) -> (Vec<Piece>, Option<Failure>) {
        let reader = Reader {
            lines: InputLines {
                input: Box::new(input),
                progress: ProgressBar::hidden(),
                position: 0,
                is_ahead: true,
                name: "a test".to_owned(),
                number: 0,
            },
            line: Vec::new(),
            bare: Bare {
                source: "app".to_owned(),
                workspace: String::new(),
                now: output::now(),
            },
            pricing: Pricing {
                pricer: Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default())),
                windows: Vec::new().into(),
                kept_from: UnixMillis(0),
                partitions: 4,
            },
            unreadable: 0,
            most: 3,
            most_bytes,
        };
        let (send, taken) = sync_channel(0);
        let thread = thread::spawn(move || reader.run(&send));
        let (mut pieces, mut failure) = (Vec::new(), None);
        for piece in taken {
            match piece {
                Ok(piece) => pieces.push(piece),
                Err(error) => failure = Some(error),
            }
        }
        thread.join().expect("the reader ends");
        (pieces, failure)
    }

    fn ids(piece: &Piece) -> Vec<&str> {
        piece.candidates.iter().map(|one| &*one.id).collect()
    }

    #[test]
    fn pieces_come_in_the_order_of_the_input_and_the_last_one_says_so() {
        let mut lines: Vec<String> = (0..7).map(event).collect();
        lines.insert(4, "no event".to_owned());
        let text = lines.join("\n");
        let bytes = text.len() as u64;
        let (pieces, failure) = pieces_of(Cursor::new(text), PIECE_BYTES);
        assert!(failure.is_none());
        let found: Vec<Vec<&str>> = pieces.iter().map(ids).collect();
        let wanted = [
            vec!["e-0", "e-1", "e-2"],
            vec!["e-3", "e-4", "e-5"],
            vec!["e-6"],
        ];
        assert_eq!(found, wanted);
        assert!(pieces[2].is_last && !pieces[1].is_last);
        assert_eq!(pieces[2].position, bytes);
        let unreadable = |piece: &Piece| piece.read.unreadable.values().sum::<u64>();
        assert_eq!(unreadable(&pieces[0]), 0);
        assert_eq!(unreadable(&pieces[1]), 1);
        assert_eq!(pieces[1].read.events, 3);
        assert_eq!(pieces[1].names.all.len(), 1);
    }

    #[test]
    fn of_long_events_a_piece_has_fewer() {
        let text: String = (0..2).map(|number| event(number) + "\n").collect();
        let (pieces, failure) = pieces_of(Cursor::new(text), 1);
        assert!(failure.is_none());
        let found: Vec<Vec<&str>> = pieces.iter().map(ids).collect();
        assert_eq!(found, [vec!["e-0"], vec!["e-1"], vec![]]);
    }

    /// Fails once everything before was read.
    struct Torn(Cursor<String>);

    impl io::Read for Torn {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                bytes => Ok(bytes),
            }
        }
    }

    #[test]
    fn an_error_comes_after_the_pieces_before_it_and_ends_them() {
        let text: String = (0..4).map(|number| event(number) + "\n").collect();
        let (pieces, failure) = pieces_of(BufReader::new(Torn(Cursor::new(text))), PIECE_BYTES);
        assert_eq!(pieces.len(), 1);
        assert_eq!(ids(&pieces[0]), ["e-0", "e-1", "e-2"]);
        let failure = failure.expect("it fails").to_string();
        assert!(failure.contains("the disk is gone"), "{failure}");
    }
}
