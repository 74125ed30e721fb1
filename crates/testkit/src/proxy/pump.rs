//! One connection through the proxy: two directions, each a loop of reading, waiting and writing.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::kafka::{ApiKey, Request, Waiting};
use super::metadata;
use super::{Conditions, Protocol, Shared, Toward};

const READ_BYTES: usize = 64 * 1024;

/// Why a direction of a connection stops.
enum Stop {
    /// The sender has nothing more: the receiver is told.
    Ended,
    /// The whole connection breaks.
    Broken,
}

/// What becomes of a request or response.
enum Fate {
    Arrives,
    /// With other content, given without its size.
    ArrivesAs(Vec<u8>),
    /// It goes nowhere, and the connection stays open.
    Vanishes,
    BreaksConnection,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Carries bytes until both sides have ended or the connection breaks.
pub(super) async fn connection(client: TcpStream, server: TcpStream, shared: &Shared) {
    // Without it small packets wait for each other.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let waiting = Mutex::new(Waiting::default());
    let requests = Pump::new(Toward::Server, from_client, to_server, shared, &waiting);
    let responses = Pump::new(Toward::Client, from_server, to_client, shared, &waiting);
    // The first that breaks takes the other with it.
    let both = async { tokio::try_join!(requests.run(), responses.run()) };
    let _ = both.await;
}

struct Pump<'a> {
    toward: Toward,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: &'a Shared,
    waiting: &'a Mutex<Waiting>,
    opened: Instant,
    conditions: watch::Receiver<Conditions>,
    half_closes: u64,
    cuts: u64,
    /// Bytes until the connection breaks.
    left: Option<u64>,
}

impl<'a> Pump<'a> {
    fn new(
        toward: Toward,
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        shared: &'a Shared,
        waiting: &'a Mutex<Waiting>,
    ) -> Self {
        let mut conditions = shared.conditions.subscribe();
        let now = *conditions.borrow_and_update();
        Self {
            toward,
            from,
            to,
            shared,
            waiting,
            opened: Instant::now(),
            conditions,
            half_closes: now.half_closes,
            cuts: now.cuts,
            left: None,
        }
    }

    async fn run(mut self) -> Result<(), ()> {
        match self.carry().await {
            Stop::Broken => Err(()),
            Stop::Ended => {
                // The receiver may be gone already.
                let _ = self.to.shutdown().await;
                Ok(())
            }
        }
    }

    async fn carry(&mut self) -> Stop {
        let mut held = Vec::with_capacity(READ_BYTES);
        loop {
            let read = tokio::select! {
                read = self.from.read_buf(&mut held) => Some(read),
                changed = self.conditions.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return Stop::Broken,
                },
            };
            let step = match read {
                Some(Ok(0)) => return Stop::Ended,
                Some(Ok(_)) => self.pass_on(&mut held).await,
                Some(Err(_)) => return Stop::Broken,
                None => self.follow().await,
            };
            if let Err(stop) = step {
                return stop;
            }
        }
    }

    /// Passes on what is complete, and keeps the rest.
    async fn pass_on(&mut self, held: &mut Vec<u8>) -> Result<(), Stop> {
        if self.shared.protocol == Protocol::Bytes {
            self.wait().await?;
            self.write(held).await?;
            held.clear();
            return Ok(());
        }
        let mut begin = 0;
        while let Some(end) = end_of_frame(held, begin) {
            let frame = &held[begin..end];
            self.wait().await?;
            match self.fate(&frame[4..]) {
                Fate::Arrives => self.write(frame).await?,
                Fate::ArrivesAs(other) => self.write(&framed(&other)).await?,
                Fate::Vanishes => {}
                Fate::BreaksConnection => return Err(Stop::Broken),
            }
            begin = end;
        }
        held.drain(..begin);
        Ok(())
    }

    /// What becomes of a request or response (without its size).
    fn fate(&self, frame: &[u8]) -> Fate {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (api, version) = match self.toward {
            Toward::Server => {
                let Some(request) = Request::read(frame) else {
                    return Fate::Arrives;
                };
                if let Some(observer) = &self.shared.observer {
                    observer(&request, self.opened);
                }
                waiting.asked(&request);
                (request.api, request.version)
            }
            Toward::Client => match waiting.answered(frame) {
                Some(answered) => answered,
                None => return Fate::Arrives,
            },
        };
        let is_response = self.toward == Toward::Client;
        if self.shared.loses(api, is_response) {
            return Fate::BreaksConnection;
        }
        if is_response && self.shared.unanswered().contains(&api) {
            return Fate::Vanishes;
        }
        let names_none = self.shared.names_no_broker.load(Ordering::Relaxed);
        if is_response && names_none && api == ApiKey::METADATA {
            let nameless = metadata::without_brokers(frame, version);
            return nameless.map_or(Fate::Arrives, Fate::ArrivesAs);
        }
        Fate::Arrives
    }

    /// Waits as the network does now.
    async fn wait(&mut self) -> Result<(), Stop> {
        loop {
            self.follow().await?;
            let now = *self.conditions.borrow();
            let is_silent = match self.toward {
                Toward::Client => now.silent_to_client,
                Toward::Server => now.silent_to_server,
            };
            if !is_silent {
                if !now.delay.is_zero() {
                    tokio::time::sleep(now.delay).await;
                }
                return Ok(());
            }
            if self.conditions.changed().await.is_err() {
                return Err(Stop::Broken);
            }
        }
    }

    /// Does what concerns open connections as a whole.
    async fn follow(&mut self) -> Result<(), Stop> {
        let now = *self.conditions.borrow_and_update();
        if now.cuts != self.cuts {
            self.cuts = now.cuts;
            self.left = now
                .cut
                .filter(|(toward, _)| *toward == self.toward)
                .map(|(_, bytes)| bytes);
        }
        if now.half_closes != self.half_closes {
            self.half_closes = now.half_closes;
            if now.half_closed == Some(self.toward) {
                self.to.shutdown().await?;
                // The sender notices nothing; what it sends goes nowhere.
                let mut nowhere = Vec::with_capacity(READ_BYTES);
                while self.from.read_buf(&mut nowhere).await? > 0 {
                    nowhere.clear();
                }
                return Err(Stop::Broken);
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let Some(left) = self.left else {
            return Ok(self.to.write_all(bytes).await?);
        };
        let passing = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.to.write_all(&bytes[..passing]).await?;
        self.left = Some(left - passing as u64);
        if passing < bytes.len() {
            return Err(Stop::Broken);
        }
        Ok(())
    }
}

/// Where the frame that begins at `begin` ends, if it is there as a whole.
fn end_of_frame(bytes: &[u8], begin: usize) -> Option<usize> {
    let size: [u8; 4] = bytes.get(begin..begin + 4)?.try_into().ok()?;
    let end = begin + 4 + u32::from_be_bytes(size) as usize;
    (end <= bytes.len()).then_some(end)
}

/// A frame with its size before it.
fn framed(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    [&size.to_be_bytes(), content].concat()
}
