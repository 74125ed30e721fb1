//! The record of a detector rule: only the parameters that its detector has.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration::{duration_text, parse_duration};
use super::hundredths::Hundredths;
use super::record::{RecordError, VERSION, check_version, detector_id};
use crate::finding::{Detector, DetectorAction, DetectorRule, RateBasis, Severity};
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
    parameters: Parameters,
}

#[derive(Default, Serialize, Deserialize)]
struct Parameters {
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
            detector: self.detector,
            order: self.order,
            filter: self.filter.to_json(),
            action: self.action,
            at: Some(self.at),
            cooldown: Some(duration_text(self.cooldown_millis)),
            parameters: self.parameters(),
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
        rule.set(&record.parameters);
        Ok(rule)
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::default();
        match self.detector {
            Detector::RetryLoop => {
                parameters.repeats = Some(self.repeats);
                parameters.tool = Some(ToolRule {
                    repeats: self.tool_repeats,
                    within: self.tool_within,
                });
            }
            Detector::ContextBloat => {
                parameters.growth_pct = Some(Hundredths(self.growth_basis_points));
                parameters.min_tokens = Some(self.min_tokens);
            }
            Detector::TokenAcceleration => {
                parameters.factor = Some(Hundredths(self.factor_hundredths));
                parameters.min_tokens = Some(self.min_tokens);
                parameters.basis = Some(self.basis);
            }
            Detector::ToolAmplification => {
                parameters.factor = Some(Hundredths(self.factor_hundredths));
                parameters.within = Some(self.within);
                parameters.min_tokens = Some(self.min_tokens);
            }
            Detector::BudgetExceeded => {}
        }
        parameters
    }

    fn set(&mut self, parameters: &Parameters) {
        let growth = parameters.growth_pct.map(|growth| growth.0);
        let factor = parameters.factor.map(|factor| factor.0);
        self.repeats = parameters.repeats.unwrap_or(self.repeats);
        self.growth_basis_points = growth.unwrap_or(self.growth_basis_points);
        self.factor_hundredths = factor.unwrap_or(self.factor_hundredths);
        self.within = parameters.within.unwrap_or(self.within);
        self.min_tokens = parameters.min_tokens.unwrap_or(self.min_tokens);
        self.basis = parameters.basis.unwrap_or(self.basis);
        if let Some(tool) = &parameters.tool {
            self.tool_repeats = tool.repeats;
            self.tool_within = tool.within;
        }
    }
}
