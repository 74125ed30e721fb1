//! What the ledger knows, the blocklist says and the sidecar answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_tests::pause;

use super::input::Input;
use super::{BETWEEN, Check, LEDGER_PATIENCE};
use crate::budgets::{Budgets, Figures, Standing};
use crate::clock::now;
use crate::http;
use crate::ledger::Call;
use crate::logs::Logs;
use crate::rows::Row;
use crate::system::System;

/// Before limits are changed, figures come by themselves within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

impl Figures {
    fn patience(self) -> Duration {
        match self {
            Self::AsTold => TOLD_WITHIN,
            Self::Anew => LEDGER_PATIENCE,
        }
    }
}

/// Every scope's spend, limit and verdict on the blocklist is the reference's, and there is no other.
pub(super) fn verdicts(
    system: &mut System,
    logs: &Logs,
    budgets: &Budgets,
    rows: &[Row],
    figures: Figures,
) -> Result<Check> {
    let wanted = budgets.standings(rows);
    let is_right = |key: &String, found: Option<&Standing>| match (found, wanted.get(key)) {
        (Some(found), Some(wanted)) => budgets.agrees(key, found, wanted, figures),
        _ => false,
    };
    let begin = Instant::now();
    loop {
        let found = published(logs, budgets)?;
        let keys: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        let differences: Vec<String> = keys
            .into_iter()
            .filter(|key| !is_right(key, found.get(*key)))
            .map(|key| format!("{key}: {:?}, must be {:?}", found.get(key), wanted.get(key)))
            .collect();
        if differences.is_empty() || begin.elapsed() >= figures.patience() {
            let of = |verdict: &str| wanted.values().filter(|one| one.verdict == verdict).count();
            return Ok(Check {
                name: match figures {
                    Figures::AsTold => "ledger and blocklist = reference, as they stand",
                    Figures::Anew => "ledger and blocklist = reference, after limits changed",
                },
                compared: format!(
                    "{} scopes: {} ok, {} warn, {} downgrade, {} block",
                    wanted.len(),
                    of("ok"),
                    of("warn"),
                    of("downgrade"),
                    of("block")
                ),
                differences,
            });
        }
        system.wait_until(Instant::now() + BETWEEN)?;
    }
}

/// The sidecar answers by these verdicts.
pub(super) fn decisions(
    system: &System,
    budgets: &Budgets,
    rows: &[Row],
    figures: Figures,
) -> Check {
    let standings = budgets.standings(rows);
    let kind = |call: &Call| Call {
        workspace: call.workspace.clone(),
        customer: call.customer.clone(),
        feature: call.feature.clone(),
        plan: call.plan.clone(),
        ..Call::default()
    };
    let calls = rows.iter().filter(|row| row.revenue.is_none());
    let kinds: BTreeSet<Call> = calls.map(|row| kind(&row.call)).collect();
    let ask = |call: &Call| -> Result<String> {
        let question = json!({
            "workspace": call.workspace, "customer": call.customer, "feature": call.feature,
            "plan": call.plan,
        });
        let (_, answer) = http::post(&system.socket(), "/v1/check", &question.to_string())?;
        let answer: Value = serde_json::from_str(&answer)?;
        let (state, decision) = (&answer["state"], &answer["decision"]);
        ensure!(state == "live", "the sidecar's state is {state}");
        Ok(decision.as_str().unwrap_or_default().to_owned())
    };
    let begin = Instant::now();
    loop {
        let mut differences = Vec::new();
        for call in &kinds {
            let must = budgets.decision(call, &standings);
            match ask(call) {
                Ok(is) if is == must => {}
                Ok(is) => differences.push(format!("{call:?}: {is}, must be {must}")),
                Err(error) => differences.push(format!("{call:?}: {error}, must be {must}")),
            }
        }
        if differences.is_empty() || begin.elapsed() >= figures.patience() {
            return Check {
                name: match figures {
                    Figures::AsTold => "the sidecar decides as the reference does",
                    Figures::Anew => "the sidecar decides by the new limits",
                },
                compared: format!("{} kinds of calls", kinds.len()),
                differences,
            };
        }
        pause(BETWEEN);
    }
}

/// The entries of budgets, those that are gone included: what they leave behind is wrong whatever it
/// says.
fn published(logs: &Logs, budgets: &Budgets) -> Result<BTreeMap<String, Standing>> {
    let mut found = BTreeMap::new();
    for (key, entry) in logs.table("blocklist")? {
        let id = entry["budget"].as_str().unwrap_or_default();
        if key.starts_with("finding|") || !budgets.knows(id) {
            continue;
        }
        let standing = Standing {
            verdict: entry["verdict"].as_str().unwrap_or_default().to_owned(),
            spent: amount(&entry, "spent").context("a figure of what is spent")?,
            limit: amount(&entry, "limit").context("a limit")?,
        };
        found.insert(key, standing);
    }
    Ok(found)
}

/// An amount of an entry, in nano-dollars or calls.
fn amount(entry: &Value, name: &str) -> Option<i128> {
    let Some(dollars) = entry[format!("{name}_usd")].as_str() else {
        return Some(entry[format!("{name}_calls")].as_u64()?.into());
    };
    let (whole, fraction) = dollars.split_once('.')?;
    format!("{whole}{fraction:0<9}").parse().ok()
}

/// A session that runs in circles was blocked when its last step came, however often the block
/// before had expired.
pub(super) fn blocked_loops(logs: &Logs, input: &Input) -> Result<Check> {
    let table = logs.table("blocklist")?;
    let mut differences = Vec::new();
    let last_steps = input.last_steps(now());
    for (session, (steps, last_step)) in &last_steps {
        if *steps < 3 {
            continue;
        }
        let key = format!("finding|retry_loop|acme/session={session}");
        let expires = table
            .get(&key)
            .and_then(|entry| entry["expires_at"].as_str());
        let expires = expires.and_then(|text| UnixMillis::parse_rfc3339(text).ok());
        if expires.is_none_or(|expires| expires.0 <= *last_step) {
            differences.push(format!(
                "{key}: blocked until {expires:?}, but a step came at {}",
                UnixMillis(*last_step)
            ));
        }
    }
    Ok(Check {
        name: "looping sessions are blocked again after each cool-down",
        compared: format!("{} sessions", last_steps.len()),
        differences,
    })
}
