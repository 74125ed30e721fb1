//! What the command line and the warehouse answer, as several tests want it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, WORKSPACE};
use crate::wait::eventually;

impl Lab {
    /// The audit's exit code and answer.
    ///
    /// # Panics
    /// Where that is not JSON.
    pub fn audit(&self) -> (Option<i32>, Value) {
        let said = self.run(&["audit", "--json"]);
        let answer = serde_json::from_str(&said.stdout);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (said.code, answer)
    }

    /// The audit finds nothing. Its answer.
    ///
    /// # Panics
    /// Where it finds something.
    pub fn assert_no_drift(&self) -> Value {
        let (code, answer) = self.audit();
        assert_eq!(code, Some(0), "{answer:#}");
        assert_eq!(answer["drift_events"], 0, "{answer:#}");
        assert_eq!(answer["drift_nanodollars"], "0", "{answer:#}");
        answer
    }

    /// The audit finds nothing, and has compared everything, windows among it.
    ///
    /// # Panics
    /// Where it finds something, or has left something out.
    pub fn assert_no_drift_anywhere(&self) {
        let answer = self.assert_no_drift();
        assert_eq!(answer["not_compared"], json!([]), "{answer:#}");
        let windows = answer["compared"]["windows"].as_u64();
        assert!(windows > Some(0), "{answer:#}");
    }

    /// Waits until a check of a call of `who` (`--customer c-1`) is answered with this decision.
    ///
    /// # Panics
    /// Where it is not within `patience`.
    pub fn await_decision(&self, who: &[&str], wanted: &str, patience: Duration) {
        eventually(&format!("{who:?}: {wanted}"), patience, || {
            let arguments = [&["check", "--workspace", WORKSPACE, "--json"], who].concat();
            let said = self.run(&arguments);
            let answer: Value =
                serde_json::from_str(&said.stdout).map_err(|error| error.to_string())?;
            match answer["decision"] == wanted {
                true => Ok(()),
                false => Err(answer.to_string()),
            }
        });
    }

    /// Calls, tokens and nano-dollars of a customer, over all rows.
    ///
    /// # Panics
    /// Where ClickHouse does not answer.
    pub fn sums_of(&self, customer: &str) -> Vec<i128> {
        let sql = format!(
            "SELECT sum(calls), sum(input_tokens + output_tokens), toInt64(sum(cost) * 1000000000) \
             FROM spend WHERE customer = '{customer}'"
        );
        let sums = self.warehouse().numbers(&sql);
        sums.unwrap_or_else(|error| panic!("{error}: {sql}"))
    }
}
