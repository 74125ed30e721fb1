//! Who is about to spend, from the command line.

use std::borrow::Cow;

use clap::Args;
use spendfuse_domain::Attribution;

use super::Failure;

/// Dimensions of a call; each may be absent.
#[derive(Args, Debug)]
#[allow(missing_docs)]
pub struct ContextArgs {
    #[arg(long)]
    pub workspace: Option<String>,
    #[arg(long)]
    pub customer: Option<String>,
    #[arg(long)]
    pub feature: Option<String>,
    #[arg(long)]
    pub user: Option<String>,
    #[arg(long)]
    pub agent: Option<String>,
    #[arg(long)]
    pub model: Option<String>,
    #[arg(long)]
    pub provider: Option<String>,
    #[arg(long)]
    pub environment: Option<String>,
    #[arg(long)]
    pub account: Option<String>,
    #[arg(long)]
    pub plan: Option<String>,
    #[arg(long)]
    pub session: Option<String>,
    #[arg(long)]
    pub root_session: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub tags: Vec<String>,
}

impl ContextArgs {
    /// The call's dimensions, with texts as long as those of events; `workspace` stands in where none
    /// is given.
    pub fn attribution<'a>(&'a self, workspace: &'a str) -> Result<Attribution<'a>, Failure> {
        fn text(value: &Option<String>) -> Cow<'_, str> {
            Cow::Borrowed(value.as_deref().unwrap_or_default())
        }
        let mut tags = Vec::with_capacity(self.tags.len());
        for tag in &self.tags {
            let Some((name, value)) = tag.split_once('=').filter(|(name, _)| !name.is_empty())
            else {
                return Err(Failure::usage(format!(
                    "--tag {tag}: write NAME=VALUE, such as --tag team=growth"
                )));
            };
            tags.push((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        tags.sort();
        Ok(Attribution {
            workspace: Cow::Borrowed(self.workspace.as_deref().unwrap_or(workspace)),
            customer: text(&self.customer),
            feature: text(&self.feature),
            user: text(&self.user),
            agent: text(&self.agent),
            model: text(&self.model),
            provider: text(&self.provider),
            environment: text(&self.environment),
            account: text(&self.account),
            plan: text(&self.plan),
            session: text(&self.session),
            root_session: text(&self.root_session),
            tags,
        }
        .mended())
    }
}
