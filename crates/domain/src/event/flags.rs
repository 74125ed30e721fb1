//! Marks on counted events: what was sanitized or is in doubt.

/// A set of flags of one event. The names are those of column `flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// `time` lay more than five minutes after the arrival; counted at arrival time.
    pub const TIME_CLAMPED: Self = Self(1);
    /// An over-long text was cut to a prefix and hash, or tags beyond the 16th were dropped.
    pub const FIELD_TRUNCATED: Self = Self(1 << 1);
    /// An optional field had the wrong type.
    pub const FIELD_DROPPED: Self = Self(1 << 2);
    /// Money had more than nine fraction digits.
    pub const MONEY_ROUNDED: Self = Self(1 << 3);
    /// A key that holds prompt text was removed.
    pub const PROMPT_REMOVED: Self = Self(1 << 4);
    /// The counts contradict their format; charged by the larger reading.
    pub const DISPUTED: Self = Self(1 << 5);
    /// No price known; charged at a ceiling.
    pub const UNPRICED: Self = Self(1 << 6);
    /// Several providers sell a model of this name, and the dearest is charged; or the price is of
    /// another provider than the call's.
    pub const AMBIGUOUS_PRICE: Self = Self(1 << 7);

    /// The usage holds a number that no rule reads and that looks billed.
    pub const PARTLY_READ: Self = Self(1 << 8);
    /// The usage says nothing that could be charged, or output without any input.
    pub const NO_USAGE: Self = Self(1 << 9);
    /// History, counted by `ingest --backfill`.
    pub const BACKFILLED: Self = Self(1 << 10);

    /// Nobody has counted the tokens: they are the estimate of whoever told of the call.
    pub const USAGE_ESTIMATED: Self = Self(1 << 11);
    /// The call was counted before; the row counts nothing, and says what else is known of whose it is.
    pub const TOLD_AGAIN: Self = Self(1 << 12);
    /// Told by a client that knows no cached tokens: they are charged as others, or are missing.
    pub const COMPAT_NO_CACHE: Self = Self(1 << 13);
    /// A budget has put a cheaper model in the place of the one that was asked for.
    pub const DOWNGRADED: Self = Self(1 << 14);

    /// Those that whoever tells of a call says itself, in member `flags`; all others are found out.
    pub const TOLD: Self = Self(Self::COMPAT_NO_CACHE.0 | Self::DOWNGRADED.0);

    const NAMES: [(Self, &'static str); 15] = [
        (Self::TIME_CLAMPED, "time_clamped"),
        (Self::FIELD_TRUNCATED, "field_truncated"),
        (Self::FIELD_DROPPED, "field_dropped"),
        (Self::MONEY_ROUNDED, "money_rounded"),
        (Self::PROMPT_REMOVED, "prompt_removed"),
        (Self::DISPUTED, "disputed"),
        (Self::UNPRICED, "unpriced"),
        (Self::AMBIGUOUS_PRICE, "ambiguous_price"),
        (Self::PARTLY_READ, "partly_read"),
        (Self::NO_USAGE, "no_usage"),
        (Self::BACKFILLED, "backfilled"),
        (Self::USAGE_ESTIMATED, "usage_estimated"),
        (Self::TOLD_AGAIN, "told_again"),
        (Self::COMPAT_NO_CACHE, "compat_no_cache"),
        (Self::DOWNGRADED, "downgraded"),
    ];

    /// Adds `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Takes `other` away.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Those that are set in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flag of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut known = Self::NAMES.into_iter();
        known.find_map(|(flag, known)| (known == name).then_some(flag))
    }

    /// The flag that a sender tells by `json`; `None` where that is no such name.
    pub(super) fn told(json: &str) -> Option<Self> {
        let name: String = serde_json::from_str(json).ok()?;
        Self::named(&name).filter(|flag| Self::TOLD.contains(*flag))
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| name)
    }
}
