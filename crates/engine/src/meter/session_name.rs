//! How sessions and root sessions are called, in events, scopes and the changelog.

use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::event::Event;
use spendfuse_domain::scope::{Dimension, scope_of};
use spendfuse_domain::window::WindowKind;

/// Names a session or a root session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName<'a> {
    /// The workspace.
    pub workspace: &'a str,
    /// Whether it is a root session, which accounts for all sessions below it.
    pub root: bool,
    /// What the app calls it.
    pub name: &'a str,
}

impl<'a> SessionName<'a> {
    /// The session that `event` names itself; `None` where it has none.
    pub fn of(event: &'a Event<'_>) -> Option<Self> {
        let name = &*event.attribution.session;
        let workspace = &*event.attribution.workspace;
        (!name.is_empty()).then_some(Self {
            workspace,
            root: false,
            name,
        })
    }

    /// The root session of `event`; a session without a root is its own.
    pub fn root_of(event: &'a Event<'_>) -> Option<Self> {
        let name = event.session_key()?;
        let workspace = &*event.attribution.workspace;
        (!name.is_empty()).then_some(Self {
            workspace,
            root: true,
            name,
        })
    }

    /// The session of `event` that a session budget counts in.
    pub fn counted_by(compiled: &CompiledBudget, event: &'a Event<'_>) -> Option<Self> {
        match compiled.budget.window == WindowKind::RootSession {
            true => Self::root_of(event),
            false => Self::of(event),
        }
    }

    /// The key in the changelog.
    pub fn to_bytes(self) -> Vec<u8> {
        let kind = if self.root { "root" } else { "session" };
        let scope = self.scope_in(&Dimension::Session);
        format!("{kind}|{scope}").into_bytes()
    }

    /// Scope text: `acme/session=s-1` or `acme/root_session=s-0`.
    pub fn scope(self) -> String {
        self.scope_in(match self.root {
            true => &Dimension::RootSession,
            false => &Dimension::Session,
        })
    }

    fn scope_in(self, dimension: &Dimension) -> String {
        scope_of([
            (&Dimension::Workspace, self.workspace),
            (dimension, self.name),
        ])
    }

    /// The window's label: `session:s-1`.
    pub fn window_label(self) -> String {
        let kind = match self.root {
            true => WindowKind::RootSession,
            false => WindowKind::Session,
        };
        kind.label(self.name)
    }
}
