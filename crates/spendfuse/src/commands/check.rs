//! `spendfuse check`: the decision for a call, from the topics themselves.

use std::process::ExitCode;
use std::sync::mpsc;

use clap::Args;
use spendfuse_bus::Follower;
use spendfuse_domain::{Percent, UnixMillis, Verdict};
use spendfuse_guard::{
    BudgetLine, CheckResponse, Clock, Followed, Following, Guard, GuardConfig, decision_name,
    follow,
};
use spendfuse_pricing::PricingPolicy;
use spendfuse_sidecar::{ApiError, Checker, Prices, Question};
use tokio::runtime::Runtime;

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
    #[arg(long, value_name = "USD", allow_negative_numbers = true, conflicts_with_all = ["input_tokens", "max_output_tokens"])]
    estimated_cost_usd: Option<String>,
    /// Estimate from tokens of --model instead, at the prices in force
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        requires = "model"
    )]
    input_tokens: Option<u64>,
    /// The most that the model may write
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        requires = "model"
    )]
    max_output_tokens: Option<u64>,
    /// What the session may spend, for budgets with limit_from: event, US dollars
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    session_limit_usd: Option<String>,
    /// Print JSON: the answer of the sidecar's /v1/check
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let question = question(args)?;
    let prices = prices(settings, args)?;
    let replica = replica(settings)?;
    let checker = Checker {
        guard: replica.guard.clone(),
        prices,
        clock: replica.clock,
        default_workspace: settings.values.sidecar.default_workspace.clone(),
        // A person reads the warnings.
        strict: false,
        reserving: None,
        hint: "",
    };
    let runtime = Runtime::new().map_err(Failure::work)?;
    let response = runtime.block_on(checker.answer(question, "command"));
    let response = response.map_err(refused)?;
    if args.json {
        output::json(&response);
    } else {
        print(&response, output::now());
    }
    Ok(match response.decision {
        Verdict::Block => found_wrong(),
        _ => ExitCode::SUCCESS,
    })
}

/// What a sidecar would be asked.
fn question(args: &CheckArgs) -> Result<Question, Failure> {
    let count = |count: Option<u64>| count.map(|count| count.to_string());
    let estimate = [
        ("estimated_cost_usd", args.estimated_cost_usd.clone()),
        ("estimate.input_tokens", count(args.input_tokens)),
        ("estimate.max_output_tokens", count(args.max_output_tokens)),
        ("session_limit_usd", args.session_limit_usd.clone()),
    ];
    let mut question = Question::default();
    for (name, value) in args.context.fields()? {
        question.put(&name, value.to_owned()).map_err(refused)?;
    }
    for (name, value) in estimate {
        if let Some(value) = value {
            question.put(name, value).map_err(refused)?;
        }
    }
    Ok(question)
}

/// A sidecar's refusal, with the option's own name.
fn refused(error: ApiError) -> Failure {
    let message = error.to_string();
    let message = message.replace("estimated_cost_usd", "--estimated-cost-usd");
    Failure::usage(message.replace("session_limit_usd", "--session-limit-usd"))
}

/// The prices in force; those of this program where nothing is to be priced.
fn prices(settings: &Settings, args: &CheckArgs) -> Result<Prices, Failure> {
    if args.input_tokens.is_none() && args.max_output_tokens.is_none() {
        return Ok(Prices::new(PricingPolicy::default()));
    }
    let prices = Prices::new(settings.pricing());
    prices.activate(book::in_force(settings)?);
    Ok(prices)
}

/// A guard that has read everything there is now.
struct Replica {
    guard: Guard,
    clock: Clock,
    _follower: Follower,
}

fn replica(settings: &Settings) -> Result<Replica, Failure> {
    let topics = settings.topics();
    let blocklist = kafka::ranges(settings, &topics.blocklist)?;
    let partitions = u32::try_from(blocklist.len()).unwrap_or(u32::MAX);
    let stale_after = settings.values.sidecar.stale_after.0;
    let config = GuardConfig {
        stale_after_millis: u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX),
        ..GuardConfig::new(partitions)
    };
    let (writer, guard) = Guard::new(config);
    let clock = Clock::new();
    let following = Following {
        kafka: &settings.kafka(),
        name: "check",
        topics: &topics,
        others: &[],
        clock,
    };
    let (tell, told) = mpsc::channel();
    let follower = follow(following, writer, move |event| {
        // Nobody listens any more after the first word.
        match event {
            Followed::CaughtUp => drop(tell.send(Ok(()))),
            Followed::Failed(error) => drop(tell.send(Err(error.to_string()))),
            Followed::Bad(_, error) => output::warning(error),
            Followed::FormerBudgets => {
                output::warning(
                    "the budgets topic was made anew and is empty; run `spendfuse budgets apply FILE`",
                );
            }
            Followed::Record(_)
            | Followed::Published
            | Followed::Recovered
            | Followed::Reset
            | Followed::OtherPartitions { .. } => {}
        }
    });
    let follower = follower.map_err(|error| kafka::failure(settings, &error))?;
    told.recv()
        .map_err(Failure::work)?
        .map_err(Failure::kafka_unreachable)?;
    Ok(Replica {
        guard,
        clock,
        _follower: follower,
    })
}

fn print(response: &CheckResponse, now: UnixMillis) {
    let advice = match (&response.downgrade_to, response.retry_after_seconds) {
        (Some(model), _) => format!(": use {model} instead"),
        (None, Some(seconds)) => {
            let wait = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
            format!(": try again in {}", span(wait))
        }
        (None, None) => String::new(),
    };
    let decision = decision_name(response.decision);
    let colour = verdict_colour(response.decision);
    output::parts(&[(decision, Some(colour)), (&advice, None)]);
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
        let (spent, limit) = output::figures(line.figures.counted());
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
