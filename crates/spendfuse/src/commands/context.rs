//! Who is about to spend, from the command line.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use spendfuse_domain::FixedDimension;

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
    /// What is given of the call's dimensions, by the names that a question has for them.
    pub fn fields(&self) -> Result<Vec<(String, &str)>, Failure> {
        let mut fields = Vec::with_capacity(FixedDimension::COUNT);
        for dimension in FixedDimension::BY_NUMBER {
            let value = self.texts.0[dimension as usize].as_deref();
            fields.extend(value.map(|value| (dimension.name().to_owned(), value)));
        }
        for tag in &self.tags {
            let Some((name, value)) = tag.split_once('=').filter(|(name, _)| !name.is_empty())
            else {
                return Err(Failure::usage(format!(
                    "--tag {tag}: write NAME=VALUE, such as --tag team=growth"
                )));
            };
            fields.push((format!("tags.{name}"), value));
        }
        Ok(fields)
    }
}
