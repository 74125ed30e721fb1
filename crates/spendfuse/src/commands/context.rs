//! Who is about to spend, from the command line.

use std::borrow::Cow;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use spendfuse_domain::{Attribution, FixedDimension};

use super::Failure;

/// Dimensions of a call; each may be absent.
#[derive(Args, Debug)]
#[allow(missing_docs)]
pub struct ContextArgs {
    #[command(flatten)]
    texts: Texts,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub tags: Vec<String>,
}

/// An argument for each dimension that is no tag, such as `--root-session`; by their numbers.
#[derive(Debug)]
struct Texts([Option<String>; FixedDimension::COUNT]);

impl FromArgMatches for Texts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |dimension: FixedDimension| matches.get_one(dimension.name()).cloned();
        Ok(Self(FixedDimension::BY_NUMBER.map(value)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Texts {
    fn augment_args(command: Command) -> Command {
        command.args(FixedDimension::NAMES.map(|name| {
            Arg::new(name)
                .long(name.replace('_', "-"))
                .value_name(name.to_uppercase())
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl ContextArgs {
    /// The call's dimensions, with texts as long as those of events; `workspace` stands in where none
    /// is given.
    pub fn attribution<'a>(&'a self, workspace: &'a str) -> Result<Attribution<'a>, Failure> {
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
        let mut who = Attribution::of(tags, |dimension| {
            let value = self.texts.0[dimension as usize].as_deref();
            Cow::Borrowed(value.unwrap_or_default())
        });
        if self.texts.0[FixedDimension::Workspace as usize].is_none() {
            who.workspace = Cow::Borrowed(workspace);
        }
        Ok(who.sanitized())
    }
}
