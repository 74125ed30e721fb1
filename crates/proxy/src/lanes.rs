//! Connections to upstreams, in lanes: each lane has its own.
//!
//! hyper-util 0.1.21 has one connection of HTTP/2 to an address, and its server takes so many requests at
//! once; further ones wait there until others end, and streams end late.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Requests of one lane at once, by address. Servers of HTTP/2 take 100 and more (RFC 9113, 6.5.2).
const MOST_AT_ONCE: usize = 96;
/// How long connections wait for another call.
const IDLE: Duration = Duration::from_secs(60);
/// How soon a connection of HTTP/2 is asked whether it lives, where nothing comes; all calls would go
/// into a dead one.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Connector = HttpsConnector<HttpConnector>;

/// All lanes.
pub(crate) struct Lanes {
    connector: Connector,
    /// By the number of the lane.
    clients: Mutex<Vec<Client<Connector, Body>>>,
    taken: Taken,
}

impl Lanes {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            clients: Mutex::default(),
            taken: Taken::default(),
        }
    }

    /// Sends a request on a lane that has room.
    ///
    /// # Errors
    /// Those of the connection. Never sent twice: only a connection that was closed before the first
    /// byte is tried again.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let address = request.uri().authority();
        let place = self
            .taken
            .place(address.map_or("", |address| address.as_str()));
        let client = self.client(place.lane);
        let answer = client.request(request).await?;
        Ok(answer.map(|body| Incoming {
            body,
            _place: place,
        }))
    }

    fn client(&self, lane: usize) -> Client<Connector, Body> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        while clients.len() <= lane {
            let client = Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .http2_keep_alive_interval(PING_AFTER)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(self.connector.clone());
            clients.push(client);
        }
        clients[lane].clone()
    }
}

/// How many requests are on each lane, by address; addresses without any are not there.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<HashMap<String, Vec<usize>>>>);

impl Taken {
    /// On the first lane with room.
    fn place(&self, address: &str) -> Place {
        let mut all = self.lock();
        let lanes = all.entry(address.to_owned()).or_default();
        let free = lanes.iter().position(|count| *count < MOST_AT_ONCE);
        let lane = free.unwrap_or(lanes.len());
        match lanes.get_mut(lane) {
            Some(count) => *count += 1,
            None => lanes.push(1),
        }
        Place {
            lane,
            address: address.to_owned(),
            taken: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place on a lane, until its answer is at its end.
struct Place {
    lane: usize,
    address: String,
    taken: Taken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.taken.lock();
        let Some(lanes) = all.get_mut(&self.address) else {
            return;
        };
        if let Some(count) = lanes.get_mut(self.lane) {
            *count = count.saturating_sub(1);
        }
        while lanes.last() == Some(&0) {
            lanes.pop();
        }
        if lanes.is_empty() {
            all.remove(&self.address);
        }
    }
}

/// The body of an upstream's answer.
pub(crate) struct Incoming {
    body: hyper::body::Incoming,
    _place: Place,
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lane_takes_more_than_it_has_room_for_and_places_are_given_back() {
        let taken = Taken::default();
        let mut places: Vec<Place> = (0..250).map(|_| taken.place("a:443")).collect();
        let lanes: Vec<usize> = places.iter().map(|place| place.lane).collect();
        for (lane, wanted) in [(0, 96), (1, 96), (2, 58)] {
            assert_eq!(lanes.iter().filter(|one| **one == lane).count(), wanted);
        }
        assert_eq!(taken.place("b:443").lane, 0);
        drop(places.remove(0));
        assert_eq!(taken.place("a:443").lane, 0);
        places.clear();
        assert!(taken.lock().is_empty());
    }
}
