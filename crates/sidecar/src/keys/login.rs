//! Whose request it is.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use metrics::counter;

use super::{Caller, Keyring, PREFIX, Place};
use crate::config::Token;
use crate::metrics::FAILED_LOGINS;

/// Failed logins are logged this often at most, with how many there were.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The keys' own header. Gateways pass `Authorization` on as their caller sent it: there it is the
/// provider's key, which is none of our business.
pub const TOKEN_HEADER: &str = "x-spendfuse-token";

/// Something in a request that may be a key.
#[derive(Clone, Copy)]
pub struct Presented<'r> {
    /// Where it stands.
    pub place: Place,
    /// The text.
    pub text: &'r [u8],
    /// Whether it was meant to be one of ours; a provider's key was not.
    pub is_ours: bool,
}

/// Why a request is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It presents nothing.
    Missing,
    /// No key of those in force, or not where it may be presented.
    Wrong,
    /// Its address has presented too many wrong ones; for how long it waits.
    TooMany(Duration),
}

impl Denied {
    /// As the metric has it.
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::TooMany(_) => "limited",
        }
    }
}

impl<'r> Presented<'r> {
    /// In a header of ours, or as a bearer.
    pub(crate) fn in_headers(headers: &'r HeaderMap) -> Vec<Self> {
        let own = headers.get(TOKEN_HEADER);
        let own = own.map(|value| (Place::Header, value.as_bytes()));
        // What is no bearer is presented, and wrong.
        let other = headers.get(header::AUTHORIZATION).map(|_| &b""[..]);
        let bearer = Self::bearer(headers).or(other);
        let bearer = bearer.map(|text| (Place::Bearer, text));
        let both = [own, bearer].into_iter().flatten();
        both.map(|(place, text)| Self {
            place,
            text,
            is_ours: true,
        })
        .collect()
    }

    /// What `Authorization` has after its scheme, whose letter case is free (RFC 9110, 11.1).
    pub fn bearer(headers: &'r HeaderMap) -> Option<&'r [u8]> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, rest) = value.split_at_checked("bearer".len())?;
        let given = rest.trim_ascii_start();
        (scheme.eq_ignore_ascii_case(b"bearer") && given.len() < rest.len()).then_some(given)
    }
}

impl Keyring {
    /// Whose request it is that presents these, and which of them says so. `token` is a key with all
    /// rights; people choose it, so it is not compared for an address that has guessed too often.
    ///
    /// # Errors
    /// [`Denied`], counted and logged without what was presented.
    pub fn login(
        &self,
        presented: &[Presented<'_>],
        token: Option<&Token>,
        address: Option<IpAddr>,
    ) -> Result<(Caller, usize), Denied> {
        let wait = self.failures().wait(address);
        let token = token.filter(|_| wait.is_none());
        for (index, one) in presented.iter().enumerate() {
            if token.is_some_and(|token| token.is(one.text)) && one.place != Place::Query {
                return Ok((Caller::default(), index));
            }
            let key = one.text.starts_with(PREFIX.as_bytes());
            let key = key.then(|| self.find(one.text)).flatten();
            if let Some(key) = key.filter(|key| key.accept.contains(&one.place)) {
                return Ok((Caller::of(key), index));
            }
        }
        let denied = match (presented.iter().any(|one| one.is_ours), wait) {
            (false, _) => Denied::Missing,
            (true, Some(wait)) => Denied::TooMany(wait),
            (true, None) => {
                self.failures().count(address);
                Denied::Wrong
            }
        };
        counter!(FAILED_LOGINS, "reason" => denied.name()).increment(1);
        log_failure(denied, address);
        Err(denied)
    }
}

/// Never what was presented: it may be the right key of something else.
fn log_failure(denied: Denied, address: Option<IpAddr>) {
    static SINCE_LAST: Mutex<(u64, Option<Instant>)> = Mutex::new((0, None));
    let mut since_last = SINCE_LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, logged_at) = &mut *since_last;
    *count += 1;
    if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
        let address = address.map(tracing::field::display);
        let reason = denied.name();
        tracing::warn!(
            count,
            reason,
            address,
            "requests without a right key or token"
        );
        *since_last = (0, Some(Instant::now()));
    }
}
