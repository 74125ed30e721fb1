//! `GET /v1/blocklist`: the blocklist for those who cannot follow Kafka.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use spendfuse_domain::scope::{Dimension, ScopeText};
use spendfuse_guard::{BlocklistPage, CursorExpired};

use super::check::is_of;
use super::query::AskedQuery;
use super::{ApiError, Shared, Sidecar, json};
use crate::keys::Caller;

/// Entries in a page, where the caller does not say.
const PAGE: usize = 5_000;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    pub(super) cursor: Option<String>,
    limit: Option<usize>,
    wait: Option<String>,
    #[serde(default)]
    view: View,
}

/// What pages are made of.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum View {
    /// The topic's own entries.
    #[default]
    Entries,
    /// How calls stand, for those who decide by themselves.
    Standings,
}

impl Asked {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE)
    }
}

/// An answer that may be waited for.
pub(super) trait Page: Serialize {
    /// Whether there is nothing in it, and nothing behind it.
    fn is_empty(&self) -> bool;
    /// What to ask with next.
    fn cursor(&self) -> &str;
    /// Of what it is made, where it says so: a change of it is told at once.
    fn state(&self) -> &'static str {
        ""
    }
}

impl Page for BlocklistPage {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.more
    }

    fn cursor(&self) -> &str {
        &self.cursor
    }
}

pub(super) async fn get_blocklist(
    State(sidecar): Shared,
    caller: Caller,
    AskedQuery(asked): AskedQuery<Asked>,
) -> Response {
    match asked.view {
        View::Entries => answer(&sidecar, asked, |asked, _| page(&sidecar, &caller, asked)).await,
        View::Standings => {
            let standings = |asked: &Asked, waited| sidecar.standings(&caller, asked, waited);
            answer(&sidecar, asked, standings).await
        }
    }
}

/// The first page with something in it, or what there is at the end of the wait.
async fn answer<P: Page>(
    sidecar: &Sidecar,
    mut asked: Asked,
    look: impl Fn(&Asked, std::time::Duration) -> Result<P, CursorExpired>,
) -> Response {
    let mut wait = match sidecar.waiting.begin(asked.wait.as_deref()) {
        Ok(wait) => wait,
        Err(refused) => return refused.into(),
    };
    let mut state = None;
    loop {
        // Before the look: a change after it ends the wait.
        let may_wait = wait.may_wait();
        let page = match look(&asked, wait.waited()) {
            Ok(page) => page,
            Err(expired) => {
                let expired = ApiError::new("cursor_expired", expired.to_string());
                return expired.response(StatusCode::GONE);
            }
        };
        let is_first = asked.cursor.is_none();
        let is_told =
            is_first || !page.is_empty() || page.state() != *state.get_or_insert(page.state());
        if is_told || !may_wait {
            return json(StatusCode::OK, &page);
        }
        wait.wait().await;
        asked.cursor = Some(page.cursor().to_owned());
    }
}

fn page(sidecar: &Sidecar, caller: &Caller, asked: &Asked) -> Result<BlocklistPage, CursorExpired> {
    let checker = &sidecar.checker;
    let now = checker.clock.now().wall;
    let cursor = asked.cursor.as_deref();
    let mut page = checker.guard.blocklist(cursor, asked.limit(), now)?;
    if caller.key().is_some() {
        page.entries.retain(|entry| is_for(caller, &entry.key));
    }
    Ok(page)
}

/// Whether an entry tells of the caller's own spend alone: `{budget}|{scope}`, `finding|{detector}|{scope}`.
/// Those across workspaces are left out: their figures tell what others spend.
pub(super) fn is_for(caller: &Caller, key: &str) -> bool {
    if key.starts_with("heartbeat|") {
        return true;
    }
    let scope = key.rsplit('|').next().unwrap_or_default();
    let is_own = caller.workspace().is_none_or(|own| is_of(scope, own));
    let parts = ScopeText::parse(scope).map(|scope| scope.parts);
    let mut parts = parts.unwrap_or_default().into_iter();
    let is_others = |(dimension, value): (Dimension, String)| {
        let mut imposed = caller.imposed();
        imposed.any(|(name, own)| name == dimension.name() && own != value)
    };
    is_own && !parts.any(is_others)
}
