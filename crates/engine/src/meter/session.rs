//! Sessions: session budgets and the detectors' lanes, from the first call to the end.

use minicbor::{Decode, Encode};
use spendfuse_domain::budget::{CompiledBudget, CountId, Spend};
use spendfuse_domain::event::Event;
use spendfuse_domain::{Nanos, Unit, UnixMillis};

use super::session_name::SessionName;
use crate::account::{Account, AccountPlace};
use crate::codec;
use crate::detect::lane::{Lane, LaneRule};
use crate::recent::Recent;

/// Lanes of a session: more agents and models than that take turns. A session is written as a whole
/// with every commit that changes it, so that many lanes cost much with every call.
pub const MOST_LANES: usize = 64;
/// Accounts of session budgets in a session. A session is written as a whole with every commit that
/// changes it, and a record has a largest size.
pub const MOST_ACCOUNTS: usize = 256;

/// What the meter knows of one session.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Session {
    /// The workspace.
    #[n(0)]
    pub workspace: String,
    /// Whether it is a root session.
    #[n(1)]
    pub root: bool,
    /// Its name.
    #[n(2)]
    pub name: String,
    /// Engine time of its first event.
    #[n(3)]
    #[cbor(with = "codec::millis")]
    pub opened_at: UnixMillis,
    /// Engine time of its last event.
    #[n(4)]
    #[cbor(with = "codec::millis")]
    pub last_at: UnixMillis,
    /// Accounts of session budgets.
    #[n(5)]
    pub accounts: Vec<SessionAccount>,
    /// Detector memory, one lane per agent and model.
    #[n(6)]
    pub lanes: Vec<Lane>,
    /// Detectors whose block of the session was published, ended or not.
    #[n(7)]
    #[cbor(default)]
    pub blocked_by: Vec<String>,
    /// Until when the published block of each of these holds, milliseconds since 1970, in the same
    /// order; older versions did not say.
    #[n(8)]
    #[cbor(default)]
    pub blocked_until_millis: Vec<i64>,
    /// What was spent lately, in dollars; of the session itself, not of the root.
    #[n(9)]
    #[cbor(default)]
    pub recent: Recent,
    /// What its app lets it spend, as told last.
    #[n(10)]
    pub limit_nanos: Option<i64>,
    /// Commit of its first event, and that one's place in it; older versions did not say.
    #[n(11)]
    pub first_event: Option<(u64, u32)>,
    /// Whether the running commit changed it.
    #[cbor(skip)]
    pub touched: bool,
    /// When it is looked at whether it has ended.
    #[cbor(skip)]
    pub looked_at: UnixMillis,
}

/// The account of one session budget.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct SessionAccount {
    /// The budget's id.
    #[n(0)]
    pub budget: String,
    /// The terms of the count that it belongs to.
    #[n(1)]
    pub count_terms: u64,
    /// Scope text, the session included.
    #[n(2)]
    pub scope: String,
    /// The sums.
    #[n(3)]
    pub account: Account,
    /// Since when that count runs.
    #[n(4)]
    #[cbor(default, with = "codec::optional_millis")]
    pub count_since: Option<UnixMillis>,
    /// Commit of the event that it began with, and that one's place in it; older versions did not say.
    #[n(5)]
    pub first_event: Option<(u64, u32)>,
}

impl SessionAccount {
    /// The count that it belongs to.
    pub fn count(&self) -> CountId {
        CountId {
            terms: self.count_terms,
            since: self.count_since,
        }
    }
}

/// Where the steps of an agent on a model are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanePlace {
    /// In the lane of this index.
    Own(usize),
    /// As [`Self::Own`], and what was known of the lane there before is forgotten.
    InsteadOfAnother(usize),
    /// Not at all: every lane there may be has an open episode.
    Nowhere,
}

impl Session {
    /// A session that begins now.
    pub fn begin(name: SessionName<'_>, now: UnixMillis) -> Self {
        Self {
            workspace: name.workspace.to_owned(),
            root: name.root,
            name: name.name.to_owned(),
            opened_at: now,
            last_at: now,
            ..Self::default()
        }
    }

    /// Gives back room that decoding took in advance.
    pub fn shrink(&mut self) {
        self.accounts.shrink_to_fit();
        self.lanes.shrink_to_fit();
    }

    /// What its app lets it spend.
    pub fn limit(&self) -> Option<Nanos> {
        self.limit_nanos.map(|nanos| Nanos::new(nanos.into()))
    }

    /// Its app lets it spend `limit` from now on.
    pub fn set_limit(&mut self, limit: Nanos) {
        self.limit_nanos = i64::try_from(limit.get()).ok();
    }

    /// Whether enforcement points were told to warn of it or to refuse it.
    pub fn is_restrained(&self) -> bool {
        let has_verdict = |one: &SessionAccount| {
            let published = one.account.published.as_ref();
            published.is_some_and(|published| published.verdict > 0)
        };
        !self.blocked_by.is_empty() || self.accounts.iter().any(has_verdict)
    }

    /// Until when `detector`'s published block of the session holds.
    pub fn blocked_until(&self, detector: &str) -> Option<UnixMillis> {
        let place = self.blocked_by.iter().position(|one| one == detector)?;
        self.blocked_until_millis
            .get(place)
            .copied()
            .map(UnixMillis)
    }

    /// Notes that `detector` blocks the session until `until`.
    pub fn block(&mut self, detector: &str, until: UnixMillis) {
        let known = self.blocked_by.iter().position(|one| one == detector);
        let place = known.unwrap_or_else(|| {
            self.blocked_by.push(detector.to_owned());
            self.blocked_by.len() - 1
        });
        self.blocked_until_millis.resize(self.blocked_by.len(), 0);
        self.blocked_until_millis[place] = until.0;
    }

    /// Whether nothing is left of it but blocks that outlive it: see [`Self::take_blocks`].
    pub fn is_over(&self) -> bool {
        self.accounts.is_empty() && self.lanes.is_empty() && !self.blocked_by.is_empty()
    }

    /// When the last of its blocks is over.
    pub fn last_block_until(&self) -> UnixMillis {
        UnixMillis(
            self.blocked_until_millis
                .iter()
                .max()
                .copied()
                .unwrap_or_default(),
        )
    }

    /// Takes what outlives the session's end at `now`: the blocks that still hold. A runaway frees
    /// itself neither by saying that it has ended nor by a pause.
    pub fn take_blocks(&mut self, now: UnixMillis) -> Option<Self> {
        let mut left = Self::begin(self.name(), now);
        let mut over = Self::begin(self.name(), now);
        let until = self
            .blocked_until_millis
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        for (detector, until) in self.blocked_by.iter().zip(until) {
            let until = UnixMillis(until);
            let kept = if until > now { &mut left } else { &mut over };
            kept.block(detector, until);
        }
        self.blocked_by = over.blocked_by;
        self.blocked_until_millis = over.blocked_until_millis;
        (!left.blocked_by.is_empty()).then_some(left)
    }

    /// Its name.
    pub fn name(&self) -> SessionName<'_> {
        SessionName {
            workspace: &self.workspace,
            root: self.root,
            name: &self.name,
        }
    }

    /// The account of a budget in `scope`, made by `event` where it is new, and the one that it
    /// replaces where that belongs to another count, or where there are [`MOST_ACCOUNTS`]: then the
    /// one with the least spent, which invented names have.
    pub fn account_mut(
        &mut self,
        compiled: &CompiledBudget,
        scope: String,
        event: (u64, u32),
    ) -> (&mut SessionAccount, Option<SessionAccount>) {
        let (budget, count) = (compiled.budget.id.as_str(), compiled.count);
        let known = self
            .accounts
            .iter()
            .position(|one| one.budget == budget && one.scope == scope);
        if let Some(index) = known
            && self.accounts[index]
                .count()
                .goes_on_in(count, self.opened_at)
        {
            self.accounts[index].count_since = count.since;
            return (&mut self.accounts[index], None);
        }
        let gives_way = known.or_else(|| self.least_account());
        let outdated = gives_way.map(|index| self.accounts.remove(index));
        self.accounts.reserve_exact(1);
        self.accounts.push(SessionAccount {
            budget: budget.to_owned(),
            count_terms: count.terms,
            scope,
            account: Account::default(),
            count_since: count.since,
            first_event: Some(event),
        });
        let last = self.accounts.len() - 1;
        (&mut self.accounts[last], outdated)
    }

    /// Where there are as many accounts as there may be, the index of the one with the least spent.
    fn least_account(&self) -> Option<usize> {
        if self.accounts.len() < MOST_ACCOUNTS {
            return None;
        }
        let all = self.accounts.iter().enumerate();
        let least = all.min_by_key(|(_, one)| (one.account.cost, one.account.tokens, &one.scope));
        least.map(|(index, _)| index)
    }

    /// Place of the lane of `agent` on `model`, made where it is new. It stays the same as long as
    /// an episode is open in it; of [`MOST_LANES`] without one the longest unused gives way.
    pub fn lane_place(&mut self, agent: &str, model: &str) -> LanePlace {
        let is_it = |lane: &Lane| lane.agent == agent && lane.model == model;
        if let Some(known) = self.lanes.iter().position(is_it) {
            return LanePlace::Own(known);
        }
        if self.lanes.len() < MOST_LANES {
            self.lanes.reserve_exact(1);
            self.lanes.push(Lane::new(agent, model));
            return LanePlace::Own(self.lanes.len() - 1);
        }
        let quiet = self.lanes.iter().enumerate();
        let quiet = quiet.filter(|(_, lane)| lane.is_quiet());
        let Some((index, _)) = quiet.min_by_key(|(_, lane)| lane.last_step()) else {
            return LanePlace::Nowhere;
        };
        self.lanes[index] = Lane::new(agent, model);
        LanePlace::InsteadOfAnother(index)
    }

    /// Another lane of the same agent in which `rule` is open.
    pub fn open_namesake(&self, lane: usize, rule: LaneRule) -> Option<usize> {
        let agent = &self.lanes[lane].agent;
        let mut others = self.lanes.iter().enumerate();
        let found = others.find(|(index, other)| {
            *index != lane && other.agent == *agent && other.episode(rule).is_some()
        });
        found.map(|(index, _)| index)
    }
}

impl SessionAccount {
    /// Adds one call, counted at `now` against a limit in `unit`.
    pub fn add(
        &mut self,
        spend: Spend,
        unpriced: Nanos,
        event: &Event<'_>,
        unit: Unit,
        now: UnixMillis,
    ) {
        let account = &mut self.account;
        account.add(spend, unpriced, &event.source, &event.id, event.time);
        let recent = &mut account.recent;
        recent.add(spend.counted(unit), event.time.minute(), now);
    }
}

/// Where an account of the session stands, for its blocklist entry.
pub fn account_place<'a>(
    scope: &'a str,
    window: &'a str,
    opened_at: UnixMillis,
    expires_at: UnixMillis,
) -> AccountPlace<'a> {
    AccountPlace {
        scope,
        window,
        window_start: opened_at,
        resets_at: None,
        expires_at: Some(expires_at),
        is_whole: false,
    }
}
