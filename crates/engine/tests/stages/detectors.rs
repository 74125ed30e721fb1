//! Detectors, step by step, through the whole meter: tables in `golden/detectors`, and what the
//! real agent runs in `data/agent_runs.csv` must lead to.

use std::path::Path;

use spendfuse_domain::Detector;
use spendfuse_domain::finding::{DetectorRule, Finding, Parameters, RateBasis};
use spendfuse_domain::{Dimension, Filter};

use crate::steps::{Lane, Step};

#[test]
fn retry_loop_follows_its_table() {
    follow("retry_loop");
}

#[test]
fn context_bloat_follows_its_table() {
    follow("context_bloat");
}

#[test]
fn token_acceleration_follows_its_table() {
    follow("token_acceleration");
}

#[test]
fn tool_amplification_follows_its_table() {
    follow("tool_amplification");
}

fn follow(table: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detectors");
    let text = std::fs::read_to_string(folder.join(format!("{table}.txt"))).unwrap();
    let mut lane = Lane::new();
    let mut rules = Vec::new();
    let mut case = String::new();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (what, expected) = line.split_once("=>").unwrap_or((line, ""));
        let what = what.trim();
        let (joined, what) = match what.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, what),
        };
        let (verb, words) = what.split_once(' ').unwrap_or((what, ""));
        match verb {
            "" | "#" => continue,
            "case" => {
                lane = Lane::new();
                rules.clear();
                case = words.to_owned();
                continue;
            }
            "rule" => {
                rules.push(rule(words, rules.len() as u32));
                lane.use_rules(rules.clone());
                continue;
            }
            "step" => lane.step(&step(words)),
            "end" => lane.end_session(),
            "idle" => lane.wait_until_idle(),
            _ => panic!("{table} line {}: what is {verb:?}?", number + 1),
        }
        if joined {
            continue;
        }
        let found = lane.commit().told.findings;
        if !says(&found, expected) {
            let found: Vec<_> = found.iter().map(|(_, finding)| written(finding)).collect();
            wrong.push(format!(
                "line {} ({case}): {line}\n    found {}",
                number + 1,
                found.join("; ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{table}:\n{}", wrong.join("\n"));
}

/// `detector/rule state severity measured wasted`, as in the tables.
fn written(finding: &Finding) -> String {
    format!(
        "{}/{} {:?} {} {} {}",
        finding.detector.name(),
        finding.rule,
        finding.state,
        finding.severity.name(),
        finding.measured,
        finding.wasted_usd.get()
    )
    .to_lowercase()
}

fn says(found: &[(String, Finding)], expected: &str) -> bool {
    let mut found: Vec<_> = found.iter().map(|(_, finding)| written(finding)).collect();
    let expected = expected
        .split(';')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    let mut expected: Vec<_> = expected.collect();
    found.sort();
    expected.sort_unstable();
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            let found: Vec<_> = found.split(' ').collect();
            let expected: Vec<_> = expected.split_whitespace().collect();
            let number = |word: &str| word.parse::<f64>().unwrap_or(f64::NAN);
            let close = (number(found[3]) - number(expected[3])).abs() < 1e-9;
            close && found[..3] == expected[..3] && found[4] == expected[4]
        })
}

fn step(words: &str) -> Step {
    let mut step = Step::default();
    for (name, value) in pairs(words) {
        let number = || value.parse::<u64>().unwrap();
        match name {
            "in" => step.input = number(),
            "cached" => step.cached = number(),
            "out" => step.output = number(),
            "ci" => step.input_cost = i128::from(number()),
            "co" => step.output_cost = i128::from(number()),
            "p" => step.prompt = Some(u64::from(value.as_bytes()[0])),
            "t" => step.tool = Some(u64::from(value.as_bytes()[0])),
            "calls" => step.tool_calls = number() as u32,
            "at" => step.at_millis = Some((value.parse::<f64>().unwrap() * 1000.0) as i64),
            "agent" => step.agent = value.to_owned(),
            "model" => step.model = value.to_owned(),
            "feature" => step.feature = value.to_owned(),
            "op" => step.operation = value.to_owned(),
            _ => panic!("what is {name:?}?"),
        }
    }
    step
}

fn rule(words: &str, order: u32) -> DetectorRule {
    let named = |wanted: &str| pairs(words).find(|(name, _)| *name == wanted);
    let detector = Detector::from_name(named("detector").unwrap().1).unwrap();
    let mut rule = DetectorRule {
        order,
        ..DetectorRule::default_for(detector)
    };
    let mut conditions = Vec::new();
    for (name, value) in pairs(words) {
        let hundredths = || (value.parse::<f64>().unwrap() * 100.0).round() as u32;
        let number = || value.parse::<u32>().unwrap();
        match name {
            "id" => rule.id = value.to_owned(),
            "detector" => {}
            "feature" => conditions.push((Dimension::Feature, vec![value.to_owned()])),
            "agent" => conditions.push((Dimension::Agent, vec![value.to_owned()])),
            _ => match (&mut rule.parameters, name) {
                (Parameters::RetryLoop(own), "repeats") => own.repeats = number(),
                (Parameters::RetryLoop(own), "tool_repeats") => own.tool_repeats = number(),
                (Parameters::RetryLoop(own), "tool_within") => own.tool_within = number(),
                (Parameters::ContextBloat(own), "growth_pct") => {
                    own.growth_basis_points = hundredths();
                }
                (Parameters::ContextBloat(own), "min_tokens") => own.min_tokens = number().into(),
                (Parameters::TokenAcceleration(own), "factor") => {
                    own.factor_hundredths = hundredths();
                }
                (Parameters::TokenAcceleration(own), "min_tokens") => {
                    own.min_tokens = number().into();
                }
                (Parameters::TokenAcceleration(own), "basis") if value == "second" => {
                    own.basis = RateBasis::Second;
                }
                (Parameters::ToolAmplification(own), "factor") => {
                    own.factor_hundredths = hundredths();
                }
                (Parameters::ToolAmplification(own), "within") => own.within = number(),
                (Parameters::ToolAmplification(own), "min_tokens") => {
                    own.min_tokens = number().into();
                }
                _ => panic!("what is {name:?}?"),
            },
        }
    }
    rule.filter = Filter::new(conditions);
    rule
}

fn pairs(words: &str) -> impl Iterator<Item = (&str, &str)> {
    words.split_whitespace().map(|word| {
        word.split_once('=')
            .unwrap_or_else(|| panic!("{word:?} has no value"))
    })
}

/// Findings of the six real runs, derived from the same file by an independent program: run, step,
/// detector, state, measured. A thousandth of a dollar a million tokens makes a token a nano-dollar,
/// so that wasted dollars are tokens.
#[test]
fn real_agent_runs_lead_to_exactly_these_findings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let runs = std::fs::read_to_string(root.join("data/agent_runs.csv")).unwrap();
    let expected = include_str!("../golden/agent_runs_findings.txt");
    let mut found = vec![];
    let mut lane = Lane::new();
    let mut run_before = "";
    for line in runs.lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let number = |place: usize| fields[place].parse::<u64>().unwrap();
        if fields[0] != run_before {
            run_before = fields[0];
            lane = Lane::new();
        }
        let [input, output, cached, thoughts, tool] = [4, 5, 6, 7, 8].map(number);
        lane.step(&Step {
            input: input + tool - cached,
            cached,
            output: output + thoughts,
            input_cost: i128::from(input + tool),
            output_cost: i128::from(output + thoughts),
            tool: u64::from_str_radix(fields[12], 16).ok(),
            tool_calls: number(10) as u32,
            time: Some(spendfuse_domain::UnixMillis::parse_rfc3339(fields[2]).unwrap()),
            ..Step::default()
        });
        for (_, finding) in lane.commit().told.findings {
            found.push(format!("{} {} {}", fields[0], fields[1], rounded(&finding)));
        }
    }
    let expected = expected.lines().filter(|line| !line.starts_with('#'));
    let (found, expected) = (found.join("\n"), expected.collect::<Vec<_>>().join("\n"));
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

fn rounded(finding: &Finding) -> String {
    let text = written(finding);
    let words: Vec<_> = text.split(' ').collect();
    format!(
        "{} {} {} {:.2} {}",
        words[0], words[1], words[2], finding.measured, words[4]
    )
}
