//! The record of a detector rule: only the parameters that its detector has.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration::{duration_text, parse_duration};
use super::hundredths::Hundredths;
use super::record::{RecordError, VERSION, check_version, detector_id};
use crate::finding::{Detector, DetectorAction, DetectorRule, Parameters, RateBasis, Severity};
use crate::scope::Filter;

#[derive(Serialize, Deserialize)]
struct DetectorRecord {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    detector: Detector,
    /// Position in the budgets file: among equally specific rules the earlier one wins.
    order: u32,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    filter: Option<Map<String, Value>>,
    #[serde(default)]
    action: DetectorAction,
    at: Option<Severity>,
    cooldown: Option<String>,
    #[serde(flatten)]
    parameters: StoredParameters,
}

#[derive(Default, Serialize, Deserialize)]
struct StoredParameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<ToolRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    growth_pct: Option<Hundredths>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<Hundredths>,
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<RateBasis>,
}

#[derive(Serialize, Deserialize)]
struct ToolRule {
    repeats: u32,
    within: u32,
}

impl DetectorRule {
    /// The value of this rule's record; the key is [`super::detector_key`] of its id.
    pub fn to_record(&self) -> Vec<u8> {
        let record = DetectorRecord {
            v: VERSION,
            id: Some(self.id.clone()),
            detector: self.detector(),
            order: self.order,
            filter: self.filter.to_json(),
            action: self.action,
            at: Some(self.at),
            cooldown: Some(duration_text(self.cooldown_millis)),
            parameters: StoredParameters::of(&self.parameters),
        };
        serde_json::to_vec(&record).expect("a record of texts and numbers is always JSON")
    }

    /// Reads a rule's record; parameters that it does not name have their defaults.
    ///
    /// # Errors
    /// [`RecordError`] naming the key and what is wrong.
    pub fn from_record(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        let wrong = |detail: String| RecordError::new(key, detail);
        let id = detector_id(key).ok_or_else(|| wrong("the key has no rule id".into()))?;
        check_version(key, value)?;
        let record: DetectorRecord =
            serde_json::from_slice(value).map_err(|error| wrong(error.to_string()))?;
        if record.id.as_ref().is_some_and(|inner| inner != id) {
            return Err(wrong("the id in the value differs from the key".into()));
        }
        let filter = record.filter.as_ref().map(Filter::from_json).transpose();
        let filter = filter.map_err(wrong)?.unwrap_or_default();
        let foreign = filter
            .0
            .iter()
            .find(|(dimension, _)| !DetectorRule::DIMENSIONS.contains(dimension));
        if let Some((dimension, _)) = foreign {
            return Err(wrong(format!(
                "where.{} is not a dimension of a lane",
                dimension.name()
            )));
        }
        let mut rule = Self::default_for(record.detector);
        rule.id = id.to_owned();
        rule.order = record.order;
        rule.filter = filter;
        rule.action = record.action;
        rule.at = record.at.unwrap_or(rule.at);
        if let Some(text) = record.cooldown {
            rule.cooldown_millis = parse_duration(&text)
                .ok_or_else(|| wrong(format!("`{text}` is not a duration such as 15m")))?;
        }
        record.parameters.put_into(&mut rule.parameters);
        Ok(rule)
    }
}

impl StoredParameters {
    fn of(parameters: &Parameters) -> Self {
        let mut stored = Self::default();
        match parameters {
            Parameters::RetryLoop(own) => {
                stored.repeats = Some(own.repeats);
                stored.tool = Some(ToolRule {
                    repeats: own.tool_repeats,
                    within: own.tool_within,
                });
            }
            Parameters::ContextBloat(own) => {
                stored.growth_pct = Some(Hundredths(own.growth_basis_points));
                stored.min_tokens = Some(own.min_tokens);
            }
            Parameters::TokenAcceleration(own) => {
                stored.factor = Some(Hundredths(own.factor_hundredths));
                stored.min_tokens = Some(own.min_tokens);
                stored.basis = Some(own.basis);
            }
            Parameters::ToolAmplification(own) => {
                stored.factor = Some(Hundredths(own.factor_hundredths));
                stored.within = Some(own.within);
                stored.min_tokens = Some(own.min_tokens);
            }
            Parameters::BudgetExceeded => {}
        }
        stored
    }

    /// What is named takes the place of the default.
    fn put_into(&self, parameters: &mut Parameters) {
        let growth = self.growth_pct.map(|growth| growth.0);
        let factor = self.factor.map(|factor| factor.0);
        match parameters {
            Parameters::RetryLoop(own) => {
                put(self.repeats, &mut own.repeats);
                put(
                    self.tool.as_ref().map(|tool| tool.repeats),
                    &mut own.tool_repeats,
                );
                put(
                    self.tool.as_ref().map(|tool| tool.within),
                    &mut own.tool_within,
                );
            }
            Parameters::ContextBloat(own) => {
                put(growth, &mut own.growth_basis_points);
                put(self.min_tokens, &mut own.min_tokens);
            }
            Parameters::TokenAcceleration(own) => {
                put(factor, &mut own.factor_hundredths);
                put(self.min_tokens, &mut own.min_tokens);
                put(self.basis, &mut own.basis);
            }
            Parameters::ToolAmplification(own) => {
                put(factor, &mut own.factor_hundredths);
                put(self.within, &mut own.within);
                put(self.min_tokens, &mut own.min_tokens);
            }
            Parameters::BudgetExceeded => {}
        }
    }
}

fn put<T>(named: Option<T>, target: &mut T) {
    if let Some(value) = named {
        *target = value;
    }
}
