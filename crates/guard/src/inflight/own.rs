//! What a holder knows of its own sums.

/// What was admitted of a key without asking.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    /// Held when the last heartbeat that was heard was sent, and admitted since.
    pub(super) used: i64,
    /// The same of the heartbeat that is to be heard next.
    pub(super) used_since_next: i64,
}

/// What is told of a key.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Number of the record that was sent last, and when.
    pub(super) number: u64,
    pub(super) sent_at: i64,
    /// Where it stands, once that is known.
    pub(super) place: Option<i64>,
    /// What it asks for: tickets and amounts.
    pub(super) asking: Vec<(u64, i64)>,
    /// What the next one asks for.
    pub(super) next: Vec<(u64, i64)>,
    /// Until then others may answer.
    pub(super) deadline: i64,
    /// Granted, and not among what is held yet.
    pub(super) promised: i64,
    /// What the record that was sent last asks for beyond that: room for later calls.
    pub(super) asking_room: i64,
    /// What is left of it, once it is granted.
    pub(super) room: i64,
    /// Somebody waits to hear what is held, or something was asked for that nobody wants.
    pub(super) is_to_be_told: bool,
    /// Others have asked, and may want less to be held here.
    pub(super) is_asked_by_others: bool,
}

impl Own {
    /// Whether something is to be told, or may be.
    pub(super) fn has_news(&self) -> bool {
        self.is_to_be_told || self.is_asked_by_others
    }
}
