//! `spendfuse alerts list|show|test|resend|mute`.

mod list;
mod request;
mod show;
mod told;
mod trial;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use spendfuse_domain::Severity;

use super::Failure;
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct AlertsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the latest alerts, and whether people were told
    #[command(
        after_help = "Examples:\n  spendfuse alerts list\n  spendfuse alerts list --severity critical --scope acme/ --untold"
    )]
    List(ListArgs),
    /// Show everything about an alert: figures, cause, each message with its attempts
    #[command(after_help = "Example:\n  spendfuse alerts show 6f2c01d7a9e4b833")]
    Show(ShowArgs),
    /// Send a message to try out a channel or an address; says what the other side answered
    #[command(
        after_help = "Examples:\n  spendfuse alerts test slack-ops\n  spendfuse alerts test mailto:ops@example.com"
    )]
    Test(TestArgs),
    /// Have the notifier tell people of an alert once more
    #[command(after_help = "Example:\n  spendfuse alerts resend 6f2c01d7a9e4b833")]
    Resend(ShowArgs),
    /// Tell nobody of a scope for a while; alerts are still counted and listed
    #[command(
        after_help = "Examples:\n  spendfuse alerts mute acme/customer=c-42 --for 2h\n  spendfuse alerts mute acme/ --off"
    )]
    Mute(MuteArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Only from this severity on: info, warning, critical
    #[arg(long, value_parser = known_severity)]
    severity: Option<Severity>,
    /// Only scopes that begin with this, such as acme/customer=
    #[arg(long, value_name = "PREFIX")]
    scope: Option<String>,
    /// Only alerts of which nobody was told yet
    #[arg(long)]
    untold: bool,
    /// Alerts to print at most; 0 = all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print JSON, always with all alerts
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Id from `alerts list`
    alert: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct TestArgs {
    /// Name of a channel, or mailto: and an address
    to: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct MuteArgs {
    /// The scope, or how scopes begin; every scope of a workspace begins with its name and /
    #[arg(value_parser = known_scope)]
    scope: String,
    /// For how long, such as 30m or 2h; at most 30 days
    #[arg(long = "for", value_name = "TIME", value_parser = known_span, default_value = "1h")]
    span: Duration,
    /// Tell people again from now on; ends every mute of a scope that begins so
    #[arg(long, conflicts_with = "span")]
    off: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &AlertsArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::List(args) => list::run(settings, args),
        Action::Show(args) => show::run(settings, args),
        Action::Test(args) => trial::run(settings, args),
        Action::Resend(args) => request::resend(settings, args),
        Action::Mute(args) => request::mute(settings, args),
    }
}

fn known_severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Info, Severity::Warning, Severity::Critical];
    all.into_iter()
        .find(|severity| severity.name() == text)
        .ok_or_else(|| "use one of info, warning, critical".to_owned())
}

fn known_scope(text: &str) -> Result<String, String> {
    // Every scope begins with nothing.
    match text.trim().is_empty() {
        true => {
            Err("write a scope or its beginning, such as acme/: nothing means everybody".to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

fn known_span(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(30 * 24 * 3_600);
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let span = parsed.and_then(|span| Duration::try_from(span).ok());
    span.filter(|span| !span.is_zero() && *span <= longest)
        .ok_or_else(|| "write a time such as 30m or 2h, at most 720h".to_owned())
}
