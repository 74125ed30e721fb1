//! Which detector rule holds for a lane.

use std::cmp::Reverse;

use super::{Detector, DetectorRule};
use crate::scope::{Dimension, Dimensions};

/// All detector rules in force, ready to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorRules {
    /// By detector in the order of [`Detector::ALL`]; the most specific rule first, the default last.
    by_detector: [Vec<DetectorRule>; Detector::ALL.len()],
}

impl DetectorRules {
    /// The rules of all records, in any order.
    pub fn new(rules: impl IntoIterator<Item = DetectorRule>) -> Self {
        let mut by_detector =
            Detector::ALL.map(|detector| vec![DetectorRule::default_for(detector)]);
        for rule in rules {
            by_detector[position(rule.detector())].push(rule);
        }
        for rules in &mut by_detector {
            rules.sort_by_cached_key(|rule| {
                (Reverse(rule.filter.0.len()), rule.order, rule.id.clone())
            });
        }
        Self { by_detector }
    }

    /// Whether nothing is configured.
    pub fn are_defaults(&self) -> bool {
        self.by_detector.iter().all(|rules| rules.len() == 1)
    }

    /// The rule of `detector` for a lane: the one with the most conditions among those that hold,
    /// among equals the one that comes first in the file, the default where none holds.
    pub fn for_lane(
        &self,
        workspace: &str,
        feature: &str,
        agent: &str,
        detector: Detector,
    ) -> &DetectorRule {
        let lane = Lane {
            workspace,
            feature,
            agent,
        };
        self.by_detector[position(detector)]
            .iter()
            .find(|rule| rule.filter.holds(&lane))
            .expect("the default rule of every detector is there and has no condition")
    }
}

impl Default for DetectorRules {
    fn default() -> Self {
        Self::new([])
    }
}

fn position(detector: Detector) -> usize {
    // `Detector::ALL` lists the variants in the order of their declaration.
    detector as usize
}

struct Lane<'a> {
    workspace: &'a str,
    feature: &'a str,
    agent: &'a str,
}

impl Dimensions for Lane<'_> {
    fn value(&self, dimension: &Dimension) -> &str {
        match dimension {
            Dimension::Workspace => self.workspace,
            Dimension::Feature => self.feature,
            Dimension::Agent => self.agent,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Filter;

    fn rule(id: &str, order: u32, conditions: &[(Dimension, &str)]) -> DetectorRule {
        let condition =
            |(dimension, value): &(Dimension, &str)| (dimension.clone(), vec![(*value).to_owned()]);
        DetectorRule {
            id: id.to_owned(),
            order,
            filter: Filter::new(conditions.iter().map(condition).collect()),
            ..DetectorRule::default_for(Detector::RetryLoop)
        }
    }

    #[test]
    fn the_most_specific_rule_wins_then_file_order_then_the_default() {
        let rules = DetectorRules::new([
            rule("b-acme", 1, &[(Dimension::Workspace, "acme")]),
            rule("a-agent", 2, &[(Dimension::Feature, "agent")]),
            rule(
                "both",
                3,
                &[
                    (Dimension::Workspace, "acme"),
                    (Dimension::Feature, "agent"),
                ],
            ),
        ]);
        let id = |workspace, feature| {
            let rule = rules.for_lane(workspace, feature, "planner", Detector::RetryLoop);
            rule.id.as_str()
        };
        assert_eq!(id("acme", "agent"), "both");
        assert_eq!(id("acme", "chat"), "b-acme");
        assert_eq!(id("other", "agent"), "a-agent");
        assert_eq!(id("other", "chat"), "default");
        for detector in Detector::ALL {
            assert_eq!(
                rules.for_lane("other", "", "", detector).detector(),
                detector
            );
        }

        let equal = DetectorRules::new([
            rule("later", 1, &[(Dimension::Feature, "agent")]),
            rule("earlier", 0, &[(Dimension::Workspace, "acme")]),
        ]);
        let winner = equal.for_lane("acme", "agent", "", Detector::RetryLoop);
        assert_eq!(winner.id, "earlier");
    }
}
