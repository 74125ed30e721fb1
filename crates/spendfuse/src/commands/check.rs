//! `spendfuse check`: the decision for a call, from the topics themselves.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Call, Nanos, Percent, TokenClasses, UnixMillis, Verdict};
use spendfuse_guard::{
    BudgetLine, CheckRequest, CheckResponse, Guard, GuardConfig, GuardError, GuardWriter, Now,
    Warning,
};
use spendfuse_pricing::Pricer;

use super::context::ContextArgs;
use super::output::{self, Cell, Side, print_table, span, table, verdict_colour};
use super::prices::book;
use super::{Failure, found_wrong, kafka};
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse check --workspace acme --customer c-42 --estimated-cost-usd 0.02\n  spendfuse check --workspace acme --session s-1 --tag team=growth --json\n\nExit code 0: go ahead (allow, warn, downgrade); 1: block."
)]
pub struct CheckArgs {
    #[command(flatten)]
    context: ContextArgs,
    /// What the call is expected to cost, US dollars
    #[arg(long, value_name = "USD", conflicts_with_all = ["input_tokens", "max_output_tokens"])]
    estimated_cost_usd: Option<String>,
    /// Estimate from tokens of --model instead, at the prices in force
    #[arg(long, value_name = "N", requires = "model")]
    input_tokens: Option<u64>,
    /// The most that the model may write
    #[arg(long, value_name = "N", requires = "model")]
    max_output_tokens: Option<u64>,
    /// Print JSON: the answer of the sidecar's /v1/check
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let workspace = settings.text("sidecar.default_workspace");
    let attribution = args.context.attribution(workspace)?;
    let mut request = CheckRequest {
        attribution,
        estimate: Spend::default(),
    };
    request.estimate = estimate(settings, args, &request)?;
    let (guard, clock) = replica(settings)?;
    let now = clock.now();
    let decision = guard.check_with_reasons(&request, now);
    let mut response = decision.explain();
    let lack = Warning::of_lack(&args.context.attribution("")?, workspace);
    response.warnings.extend(lack);
    if args.json {
        output::json(&response);
    } else {
        print(&response, decision.verdict(), now.wall);
    }
    Ok(match decision.verdict() {
        Verdict::Block => found_wrong(),
        _ => ExitCode::SUCCESS,
    })
}

fn estimate(
    settings: &Settings,
    args: &CheckArgs,
    request: &CheckRequest<'_>,
) -> Result<Spend, Failure> {
    if let Some(text) = &args.estimated_cost_usd {
        let parsed = Nanos::parse_usd(text)
            .map_err(|error| Failure::usage(format!("--estimated-cost-usd: {error}")))?;
        if parsed.amount < Nanos::ZERO {
            return Err(Failure::usage(
                "--estimated-cost-usd: an estimate cannot be negative",
            ));
        }
        return Ok(Spend {
            cost: parsed.amount,
            tokens: 0,
            calls: 0,
        });
    }
    if args.input_tokens.is_none() && args.max_output_tokens.is_none() {
        return Ok(Spend::default());
    }
    let call = Call {
        tokens: TokenClasses {
            input: args.input_tokens.unwrap_or_default(),
            output: args.max_output_tokens.unwrap_or_default(),
            ..TokenClasses::default()
        },
        ..Call::default()
    };
    let policy = settings.pricing().map_err(Failure::usage)?;
    let mut pricer = Pricer::new(book::in_force(settings)?, Arc::new(policy));
    let who = &request.attribution;
    let priced = pricer
        .price(
            &who.provider,
            &who.account,
            &call,
            &who.model,
            output::now(),
        )
        .map_err(Failure::work)?;
    Ok(Spend {
        cost: priced.parts.total(),
        tokens: call.tokens.total(),
        calls: 1,
    })
}

/// This process's clocks, as a guard wants them.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        let elapsed = self.0.elapsed().as_millis();
        Now {
            wall: output::now(),
            monotonic_millis: i64::try_from(elapsed).unwrap_or(i64::MAX),
        }
    }
}

/// A guard that has read everything there is now.
fn replica(settings: &Settings) -> Result<(Guard, Clock), Failure> {
    let topics = settings.topics();
    let blocklist = kafka::ranges(settings, &topics.blocklist)?;
    let partitions = u32::try_from(blocklist.len()).unwrap_or(u32::MAX);
    let stale_after = settings
        .duration("sidecar.stale_after")
        .map_err(Failure::usage)?;
    let config = GuardConfig {
        stale_after_millis: u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX),
        ..GuardConfig::new(partitions)
    };
    let (mut writer, guard) = Guard::new(config);
    let clock = Clock(Instant::now());
    follow(settings, &topics.budgets, |key, value, record| {
        let version = record.offset.unsigned_abs() + 1;
        writer.apply_budget(key, value, version)
    })?;
    follow(settings, &topics.findings, |key, value, _| {
        writer.apply_finding(key, value)
    })?;
    let apply = |writer: &mut GuardWriter, key: &str, value: Option<&[u8]>, logged_at| {
        writer.apply(key, value, UnixMillis(logged_at), clock.now())
    };
    follow(settings, &topics.blocklist, |key, value, record| {
        apply(&mut writer, key, value, record.timestamp_millis)
    })?;
    writer.caught_up();
    writer.publish(clock.now().wall);
    Ok((guard, clock))
}

/// Hands key and value of every record to `take`; what it cannot read is told.
fn follow(
    settings: &Settings,
    topic: &str,
    mut take: impl FnMut(&str, Option<&[u8]>, &spendfuse_bus::InputRecord<'_>) -> Result<(), GuardError>,
) -> Result<(), Failure> {
    kafka::read_topic(settings, topic, |record| {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(key) = key else { return };
        if let Err(error) = take(key, record.value, record) {
            output::warning(error);
        }
    })
}

fn print(response: &CheckResponse, verdict: Verdict, now: UnixMillis) {
    let advice = match (&response.downgrade_to, response.retry_after_seconds) {
        (Some(model), _) => format!(": use {model} instead"),
        (None, Some(seconds)) => {
            let wait = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
            format!(": try again in {}", span(wait))
        }
        (None, None) => String::new(),
    };
    let colour = verdict_colour(verdict);
    output::parts(&[(response.decision, Some(colour)), (&advice, None)]);
    if response.budgets.is_empty() {
        output::line("no budget applies to this call");
    } else {
        print_budgets(&response.budgets, now);
    }
    for line in &response.budgets {
        let Some(message) = line.message.as_ref().filter(|_| line.verdict > Verdict::Ok) else {
            continue;
        };
        let url = line.help_url.as_ref();
        let url = url.map_or_else(String::new, |url| format!(" ({url})"));
        output::line(format!("{}: {message}{url}", line.budget));
    }
    for warning in &response.warnings {
        let wasted = warning.wasted_usd;
        let wasted = wasted.map_or_else(String::new, |usd| {
            format!(", wasted {}", output::dollars(usd))
        });
        output::line(format!(
            "{} {}: {}{wasted}",
            warning.severity, warning.kind, warning.message
        ));
    }
    print_state(response);
}

fn print_budgets(lines: &[BudgetLine], now: UnixMillis) {
    let mut rows = table([
        ("BUDGET", Side::Left),
        ("SCOPE", Side::Left),
        ("VERDICT", Side::Left),
        ("SPENT", Side::Right),
        ("LIMIT", Side::Right),
        ("USED", Side::Right),
        ("WINDOW", Side::Left),
        ("RESETS", Side::Left),
    ]);
    for line in lines {
        let (spent, limit) = output::figures(line.figures);
        let used = line.percent.map(Percent::as_f64);
        rows.add_row(vec![
            Cell::from(&line.budget),
            Cell::from(&line.scope),
            output::verdict_cell(line.verdict),
            Cell::from(spent),
            Cell::from(limit),
            Cell::from(used.map_or_else(|| "-".to_owned(), |used| format!("{used:.1}%"))),
            Cell::from(&line.window),
            Cell::from(output::resets(&line.window, line.resets_at, now)),
        ]);
    }
    output::hide_below(&mut rows, 6, 100);
    output::keep_whole(&mut rows, &[2, 3, 4, 5, 7]);
    print_table(&rows);
}

fn print_state(response: &CheckResponse) {
    let age = response.state_age_ms.map(|age| match age {
        0..1000 => format!("{age} ms old"),
        _ => format!("{} old", span(i64::try_from(age).unwrap_or(i64::MAX))),
    });
    let complete = response
        .complete_to
        .map(|to| format!("everything up to {to} is counted"));
    let parts: Vec<String> = [age, complete].into_iter().flatten().collect();
    output::line(if parts.is_empty() {
        "state: unknown age; no processor has reported on every partition yet".to_owned()
    } else {
        format!("state: {}, {}", response.state, parts.join(", "))
    });
}
