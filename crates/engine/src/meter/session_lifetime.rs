//! How long a session lives: from its first call until its app says so, until it is silent for too
//! long, or until there is no room for it.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::Event;
use spendfuse_domain::window::WindowKind;

use super::session::Session;
use super::session_name::SessionName;
use super::sessions::SessionId;
use super::{Meter, SLICE};
use crate::book::BudgetBook;

/// Sessions with a verdict that are passed over to make room for one call.
const MOST_SPARED: usize = 16;

impl Meter {
    /// Every call of a session keeps it alive, whether or not a budget or a detector looks at it.
    /// Returns the session that the call names, where it is live.
    pub(super) fn keep_alive(
        &mut self,
        book: &BudgetBook,
        session: Option<SessionName<'_>>,
        root: SessionName<'_>,
    ) -> Option<SessionId> {
        let known = session.and_then(|session| self.touch_if_live(session));
        let is_rooted = |index: &u32| book.budget(*index).budget.window == WindowKind::RootSession;
        if book.session_budgets.iter().any(is_rooted) {
            self.touch_if_live(root);
        }
        known
    }

    fn touch_if_live(&mut self, name: SessionName<'_>) -> Option<SessionId> {
        let id = self.find_unless_idle(name)?;
        self.touch(id);
        Some(id)
    }

    /// The session, begun where it is new; one that was idle for too long ends first, whether or
    /// not a tick came by in between. `known`: it was found for this event already.
    pub(super) fn live_session(
        &mut self,
        name: SessionName<'_>,
        known: Option<SessionId>,
    ) -> (SessionId, &mut Session) {
        let known = known.or_else(|| self.find_unless_idle(name));
        let id = known.unwrap_or_else(|| {
            let id = self.sessions.begin(name, self.now);
            let first_event = self.running_event();
            self.sessions[id].first_event = Some(first_event);
            self.look_again(id);
            id
        });
        let session = self.sessions.get_mut(id).expect("found or begun above");
        (id, session)
    }

    /// Notes that the running commit changes a live session.
    pub(super) fn touch(&mut self, id: SessionId) {
        let event = self.running_event();
        let idle_at = self.now.plus(self.config.session_idle_millis);
        if let Some(session) = self.sessions.get_mut(id) {
            session.last_at = self.now;
            if session.is_over() {
                session.opened_at = self.now;
                session.first_event = Some(event);
            }
            if session.looked_at > idle_at {
                // It was to be looked at when the last block of the one before is over.
                self.expiry.remove(&(session.looked_at, id));
                self.look_at(id, idle_at);
            }
        }
        self.settle_at_end(id);
    }

    /// The session of that name; where it was idle for too long, it ends now and is not there.
    fn find_unless_idle(&mut self, name: SessionName<'_>) -> Option<SessionId> {
        let id = self.sessions.find(name)?;
        if self.ends_at(id) < self.now {
            self.end_session_but_blocks(id);
            return self.sessions.find(name);
        }
        Some(id)
    }

    /// `spendfuse.session_end`: the named session ends, and the root if it is its own.
    pub(super) fn end_named_session(&mut self, event: &Event<'_>) {
        let session = SessionName::of(event);
        let root = SessionName::root_of(event);
        let own_root = root.filter(|root| session.is_none_or(|session| session.name == root.name));
        for name in session.into_iter().chain(own_root) {
            if let Some(id) = self.sessions.find(name) {
                self.end_session_but_blocks(id);
            }
        }
    }

    /// Ends a session as its app or its silence wants it; what blocks it goes on until it is over.
    fn end_session_but_blocks(&mut self, id: SessionId) {
        let now = self.now;
        let session = self.sessions.get_mut(id);
        let left = session.and_then(|session| session.take_blocks(now));
        self.end_session(id);
        if let Some(left) = left {
            let id = self.sessions.insert(left);
            self.look_again(id);
            self.settle_at_end(id);
        }
    }

    pub(super) fn end_idle_sessions(&mut self) {
        let mut ended = 0;
        while ended < SLICE
            && let Some((time, id)) = self.expiry.first().copied()
            && time < self.now
        {
            self.expiry.pop_first();
            if self.ends_at(id) < self.now {
                self.end_session_but_blocks(id);
                ended += 1;
            } else {
                self.look_again(id);
            }
        }
    }

    /// A call names at most two new sessions. Where the memory has no room for them, those end that
    /// were idle for the longest, and of those the ones that nobody warns of or refuses: what is
    /// counted of calls stays, but a session's own budgets and detectors begin anew when it goes on.
    pub(super) fn make_room_for_sessions(&mut self) {
        let most = self.config.session_capacity.max(4) - 2;
        let mut spared = 0;
        for _ in 0..SLICE {
            if self.sessions.len() <= most {
                return;
            }
            let Some((time, id)) = self.expiry.pop_first() else {
                return;
            };
            if self.ends_at(id) > time {
                self.look_again(id);
            } else if spared < MOST_SPARED && self.sessions[id].is_restrained() {
                // Else whoever makes enough sessions would free one that is refused.
                spared += 1;
                let later = self.now.plus(self.config.session_idle_millis);
                self.look_at(id, later);
            } else {
                self.end_session(id);
                self.outputs.sessions_ended_early += 1;
            }
        }
    }

    /// When a session ends unless something comes.
    pub(super) fn ends_at(&self, id: SessionId) -> UnixMillis {
        let Some(session) = self.sessions.get(id) else {
            return UnixMillis::default();
        };
        match session.is_over() {
            true => session.last_block_until(),
            false => session.last_at.plus(self.config.session_idle_millis),
        }
    }

    /// Looks again at the session when it may have ended.
    pub(super) fn look_again(&mut self, id: SessionId) {
        let time = self.ends_at(id);
        self.look_at(id, time);
    }

    fn look_at(&mut self, id: SessionId, time: UnixMillis) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.looked_at = time;
            self.expiry.insert((time, id));
        }
    }
}
