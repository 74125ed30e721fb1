//! One budget: its entry of the file, its scopes, and what it says of them.

use spendfuse_domain::Nanos;
use spendfuse_tests::lab::WORKSPACE;

use super::{Standing, strictness};
use crate::ledger::Call;

/// One budget, in the words of the reference.
#[derive(Clone, Debug)]
pub struct Budget {
    pub id: &'static str,
    pub scope: Scope,
    pub only_free: bool,
    pub window: &'static str,
    pub in_calls: bool,
    /// Nano-dollars or calls.
    pub limit: i128,
    /// Percent and action.
    pub steps: Vec<(u32, &'static str)>,
}

/// Whose spend a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Workspace,
    Customer,
    Feature,
    Session,
    CustomerFeature,
    FeaturePlan,
    Plan,
}

impl Scope {
    /// Whether it has calls of a workspace in it.
    pub fn is_in(self, workspace: &str) -> bool {
        self == Self::All || workspace == WORKSPACE
    }

    /// Those that it tells apart.
    pub fn dimensions(self) -> &'static [&'static str] {
        match self {
            Self::All | Self::Workspace => &[],
            Self::Customer => &["customer"],
            Self::Feature => &["feature"],
            Self::Session => &["session"],
            Self::CustomerFeature => &["customer", "feature"],
            Self::FeaturePlan => &["feature", "plan"],
            Self::Plan => &["plan"],
        }
    }
}

impl Budget {
    /// A budget with the usual steps.
    pub fn new(id: &'static str, scope: Scope, window: &'static str, limit: i128) -> Self {
        Self {
            id,
            scope,
            only_free: false,
            window,
            in_calls: false,
            limit,
            steps: vec![(50, "warn"), (80, "downgrade"), (100, "block")],
        }
    }

    /// Its entry of the file.
    pub fn yaml(&self) -> String {
        let scope = match self.scope {
            Scope::All => String::new(),
            Scope::Workspace => format!("workspace: {WORKSPACE}"),
            Scope::Customer => format!("workspace: {WORKSPACE}, customer: \"*\""),
            Scope::Feature => format!("workspace: {WORKSPACE}, feature: \"*\""),
            Scope::Session => format!("workspace: {WORKSPACE}, session: \"*\""),
            Scope::CustomerFeature => {
                format!("workspace: {WORKSPACE}, customer: \"*\", feature: \"*\"")
            }
            Scope::FeaturePlan => format!("workspace: {WORKSPACE}, feature: \"*\", plan: \"*\""),
            Scope::Plan => format!("workspace: {WORKSPACE}, plan: \"*\""),
        };
        let limit = if self.in_calls {
            format!("limit_calls: {}", self.limit)
        } else {
            format!("limit: \"{}\"", Nanos::new(self.limit))
        };
        let filter = if self.only_free {
            "where: {plan: free}, "
        } else {
            ""
        };
        let steps: Vec<String> = self
            .steps
            .iter()
            .map(|(at, action)| match *action {
                "downgrade" => format!("{{at: {at}, do: downgrade, to: gpt-4o-mini}}"),
                action => format!("{{at: {at}, do: {action}}}"),
            })
            .collect();
        format!(
            "  - {{id: {}, scope: {{{scope}}}, {filter}{limit}, window: {}, steps: [{}]}}\n",
            self.id,
            self.window,
            steps.join(", ")
        )
    }

    /// The scope in which a call counts.
    pub fn scope_of(&self, call: &Call) -> String {
        match self.scope {
            Scope::All => "*".to_owned(),
            Scope::Workspace => WORKSPACE.to_owned(),
            Scope::Customer => format!("{WORKSPACE}/customer={}", call.customer),
            Scope::Feature => format!("{WORKSPACE}/feature={}", call.feature),
            Scope::Session => format!("{WORKSPACE}/session={}", call.session),
            Scope::CustomerFeature => {
                let Call {
                    customer, feature, ..
                } = call;
                format!("{WORKSPACE}/customer={customer}/feature={feature}")
            }
            Scope::FeaturePlan => {
                format!("{WORKSPACE}/feature={}/plan={}", call.feature, call.plan)
            }
            Scope::Plan => format!("{WORKSPACE}/plan={}", call.plan),
        }
    }

    /// What its entry must say after this was spent.
    pub fn standing(&self, spent: i128) -> Standing {
        let reached = self
            .steps
            .iter()
            .filter(|(at, _)| spent * 100 >= self.limit * i128::from(*at))
            .map(|(_, action)| *action);
        Standing {
            verdict: reached
                .max_by_key(|action| strictness(action))
                .unwrap_or("ok")
                .to_owned(),
            spent,
            limit: self.limit,
        }
    }

    /// What may be spent until the next step that blocks; the limit, where none is left.
    pub fn remaining(&self, spent: i128) -> i128 {
        let blocking = self.steps.iter().filter(|(_, action)| *action == "block");
        let until = blocking.map(|(at, _)| self.limit * i128::from(*at) / 100 - spent);
        until.filter(|until| *until > 0).min().unwrap_or(self.limit)
    }
}
