//! `spendfuse budgets validate FILE`.

use std::process::ExitCode;

use serde_json::json;

use super::super::output::{self, counted};
use super::super::{Failure, found_wrong};
use super::{FileArgs, mistake_lines, read_file, unknown_places};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &FileArgs) -> Result<ExitCode, Failure> {
    let file = args.file.display().to_string();
    let parsed = match read_file(&args.file)? {
        Ok(parsed) => parsed,
        Err(mistakes) => {
            if args.json {
                let listed: Vec<_> = mistakes
                    .iter()
                    .map(|mistake| {
                        json!({
                            "line": mistake.line,
                            "column": mistake.column,
                            "message": mistake.message,
                            "suggestion": mistake.suggestion,
                        })
                    })
                    .collect();
                output::json(&json!({"file": file, "valid": false, "mistakes": listed}));
            } else {
                for line in mistake_lines(&args.file, &mistakes) {
                    output::line(line);
                }
                output::note(counted(mistakes.len() as u64, "mistake"));
            }
            return Ok(found_wrong());
        }
    };
    let unknown = unknown_places(settings, &args.file, &parsed);
    if !unknown.is_empty() {
        if args.json {
            let listed: Vec<_> = { unknown.iter() }
                .map(|message| {
                    json!({"line": null, "column": null, "message": message, "suggestion": null})
                })
                .collect();
            output::json(&json!({"file": file, "valid": false, "mistakes": listed}));
        } else {
            unknown.iter().for_each(output::line);
            output::note(counted(unknown.len() as u64, "mistake"));
        }
        return Ok(found_wrong());
    }
    let (budgets, detectors) = (parsed.budgets.len(), parsed.detectors.len());
    if args.json {
        output::json(&json!({
            "file": file, "valid": true, "budgets": budgets, "detectors": detectors, "mistakes": [],
        }));
    } else {
        output::line(format!(
            "{file} is valid: {}, {}",
            counted(budgets as u64, "budget"),
            counted(detectors as u64, "detector rule")
        ));
    }
    Ok(ExitCode::SUCCESS)
}
