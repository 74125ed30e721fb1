//! What hardly any call has: kept apart, so that nearly every event is smaller without it.

use std::borrow::Cow;
use std::ops::Deref;

use super::SubCalls;
use crate::money::Nanos;

/// What hardly any call has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Particulars<'a> {
    /// Parts that are billed at other rates; their tokens are not in those of the call.
    pub sub_calls: SubCalls<'a>,
    /// The speed that was served, `fast`; empty = the usual one.
    pub speed: Cow<'a, str>,
    /// Where it was served, `us`; empty = anywhere.
    pub inference_geo: Cow<'a, str>,
    /// Path of a number in the usage that looks billed and that nothing reads.
    pub unread: Option<Box<str>>,
    /// What the app lets the call's session spend.
    pub session_limit: Option<Nanos>,
}

static NOTHING: Particulars<'static> = Particulars {
    sub_calls: Vec::new(),
    speed: Cow::Borrowed(""),
    inference_geo: Cow::Borrowed(""),
    unread: None,
    session_limit: None,
};

/// [`Particulars`] that take room only where there are some.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rare<'a>(Option<Box<Particulars<'a>>>);

impl<'a> From<Particulars<'a>> for Rare<'a> {
    #[inline]
    fn from(particulars: Particulars<'a>) -> Self {
        let has_some = !particulars.sub_calls.is_empty()
            || !particulars.speed.is_empty()
            || !particulars.inference_geo.is_empty()
            || particulars.unread.is_some()
            || particulars.session_limit.is_some();
        Self(has_some.then(|| Box::new(particulars)))
    }
}

impl<'a> Deref for Rare<'a> {
    type Target = Particulars<'a>;

    #[inline]
    fn deref(&self) -> &Particulars<'a> {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}
