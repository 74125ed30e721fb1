//! Somebody who runs commands of the executable while faults happen.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spendfuse_tests::lab::{BREAK_VARIABLE, Said, WORKSPACE, run_to_end};
use spendfuse_tests::pause;

use crate::events::SOURCE;
use crate::ledger::Amendment;

const COMMAND_PATIENCE: Duration = Duration::from_secs(150);

/// Runs commands.
#[derive(Clone)]
pub struct Operator {
    pub program: PathBuf,
    pub settings: Vec<String>,
    pub folder: PathBuf,
    pub broken: Option<String>,
    pub environment: Vec<(String, String)>,
}

impl Operator {
    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(&self.settings);
        command.current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Some guarantees are those of tables. What else an operator does is not broken.
        if arguments[0] == "migrate" {
            command.envs(self.broken.as_ref().map(|broken| (BREAK_VARIABLE, broken)));
        }
        let output = self.folder.join(format!("command-{}", arguments[0]));
        run_to_end(command, &output, COMMAND_PATIENCE)
    }

    /// Puts budgets into force, and tries until that works.
    pub fn apply_budgets(&self, yaml: &str, patience: Duration) -> Result<()> {
        let file = self.folder.join("budgets.yaml");
        fs::write(&file, yaml)?;
        let file = file.display().to_string();
        // Faults hold back who would have to report; what is in force is checked at the end.
        self.insist(
            &["budgets", "apply", "--prune", "--no-wait", &file],
            patience,
        )?;
        Ok(())
    }

    /// Changes rates of a model, and tries until that works; the new version's name.
    pub fn set_prices(&self, model: &str, rates: &[String], patience: Duration) -> Result<String> {
        let mut arguments = vec!["prices", "set", model];
        arguments.extend(rates.iter().map(String::as_str));
        arguments.extend(["--no-clickhouse", "--json"]);
        let said = self.insist(&arguments, patience)?;
        let answer: Value = serde_json::from_str(&said.stdout)?;
        let version = answer["version"].as_str().context("a version")?;
        Ok(version.to_owned())
    }

    /// Takes back a call that was counted, and tries until it is taken back.
    pub fn void(&self, number: usize, patience: Duration) -> Result<()> {
        self.correct(number, &["void"], patience)
    }

    /// Lets something else stand for a call that was counted, and tries until it does.
    pub fn amend(&self, number: usize, to: &Amendment, patience: Duration) -> Result<()> {
        let output = to.output.to_string();
        let amend = [
            "amend",
            "--customer",
            &to.customer,
            "--output-tokens",
            &output,
        ];
        self.correct(number, &amend, patience)
    }

    fn correct(&self, number: usize, how: &[&str], patience: Duration) -> Result<()> {
        let id = format!("call-{number}");
        let call = ["--workspace", WORKSPACE, "--source", SOURCE, "--id", &id];
        let why = ["--by", "chaos", "--reason", "a fault", "--json"];
        self.insist(&[&["correct"], how, &call, &why].concat(), patience)?;
        Ok(())
    }

    pub fn insist(&self, arguments: &[&str], patience: Duration) -> Result<Said> {
        let deadline = Instant::now() + patience;
        loop {
            let said = self.run(arguments);
            if said.code == Some(0) {
                return Ok(said);
            }
            ensure!(
                Instant::now() < deadline,
                "spendfuse {arguments:?} never works: {said:?}"
            );
            pause(Duration::from_millis(500));
        }
    }
}
