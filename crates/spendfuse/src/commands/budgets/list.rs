//! `spendfuse budgets list`: what is in force.

use std::process::ExitCode;

use serde_json::Value;
use spendfuse_domain::budget::{Action, Budget, BudgetsRecord};
use spendfuse_domain::finding::{DetectorAction, DetectorRule};
use spendfuse_domain::scope::Filter;

use super::super::output::{self, Side, print_table, table};
use super::{Failure, records_in_force};
use crate::settings::Settings;

pub fn run(settings: &Settings, as_json: bool) -> Result<ExitCode, Failure> {
    let records = records_in_force(settings)?;
    if as_json {
        let values: Vec<Value> = records
            .iter()
            .map(|record| {
                serde_json::from_slice(&record.to_record())
                    .expect("records of this program are JSON")
            })
            .collect();
        output::json(&values);
        return Ok(ExitCode::SUCCESS);
    }
    if records.is_empty() {
        output::line("no budgets are in force; put some with `spendfuse budgets apply FILE`");
        return Ok(ExitCode::SUCCESS);
    }
    let mut budgets = table([
        ("BUDGET", Side::Left),
        ("SCOPE", Side::Left),
        ("WHERE", Side::Left),
        ("LIMIT", Side::Right),
        ("WINDOW", Side::Left),
        ("STEPS", Side::Left),
    ]);
    let mut rules = table([
        ("DETECTOR RULE", Side::Left),
        ("DETECTOR", Side::Left),
        ("WHERE", Side::Left),
        ("FROM", Side::Left),
        ("ACTION", Side::Left),
    ]);
    for record in &records {
        match record {
            BudgetsRecord::Budget(budget) => {
                budgets.add_row(budget_row(budget));
            }
            BudgetsRecord::Detector(rule) => {
                rules.add_row(rule_row(rule));
            }
        }
    }
    let has_both = !budgets.is_empty() && !rules.is_empty();
    if !budgets.is_empty() {
        output::keep_whole(&mut budgets, &[3]);
        print_table(&budgets);
    }
    if has_both {
        output::line("");
    }
    if !rules.is_empty() {
        print_table(&rules);
    }
    Ok(ExitCode::SUCCESS)
}

fn budget_row(budget: &Budget) -> [String; 6] {
    let zone = match budget.timezone.as_str() {
        "UTC" => String::new(),
        zone => format!(" {zone}"),
    };
    let steps: Vec<String> = budget
        .steps
        .iter()
        .map(|step| {
            let (whole, rest) = (step.at.0 / 100, step.at.0 % 100);
            let at = match rest {
                0 => format!("{whole}%"),
                _ => format!("{whole}.{rest:02}%"),
            };
            match &step.action {
                Action::Warn => format!("{at} warn"),
                Action::Downgrade(model) => format!("{at} use {model}"),
                Action::Block => format!("{at} block"),
            }
        })
        .collect();
    [
        budget.id.to_string(),
        budget.scope.to_string(),
        filter_text(&budget.filter),
        limit_text(budget),
        format!("{}{zone}", budget.window.name()),
        steps.join(", "),
    ]
}

fn limit_text(budget: &Budget) -> String {
    let limit = format!("{:#}", budget.limit);
    match (budget.limit_from_event, budget.opening) {
        (true, _) => format!("{limit} or as told"),
        (false, Some(opening)) => format!("{limit}, opening {opening:#}"),
        (false, None) => limit,
    }
}

fn rule_row(rule: &DetectorRule) -> [String; 5] {
    let action = match rule.action {
        DetectorAction::Observe => "observe".to_owned(),
        DetectorAction::Warn => "warn".to_owned(),
        DetectorAction::BlockSession => {
            format!("block session for {}", output::span(rule.cooldown_millis))
        }
    };
    [
        rule.id.clone(),
        rule.detector().name().to_owned(),
        filter_text(&rule.filter),
        rule.at.name().to_owned(),
        action,
    ]
}

fn filter_text(filter: &Filter) -> String {
    let conditions = filter.0.iter();
    let texts: Vec<String> = conditions
        .map(|(dimension, values)| format!("{}={}", dimension.name(), values.join("|")))
        .collect();
    texts.join(", ")
}
