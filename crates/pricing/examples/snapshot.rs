//! Makes `data/prices/snapshot.jsonl`, the prices inside the binary, from a LiteLLM price file:
//! `snapshot FILE LABEL SOURCE > data/prices/snapshot.jsonl`. The report goes to standard error.

use std::io::Write;

use spendfuse_pricing::import;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, label, source] = arguments.as_slice() else {
        return Err("usage: snapshot FILE LABEL SOURCE > data/prices/snapshot.jsonl".into());
    };
    let imported = import::litellm(&std::fs::read(file)?, label, source)?;
    let book = imported.draft.finish()?;
    std::io::stdout().write_all(book.text().as_bytes())?;
    let report = imported.report;
    eprintln!("version {}", book.version());
    eprintln!(
        "{} entries read, {} models priced, {} merged, {} unpriced",
        report.models_read,
        report.models_priced,
        report.merged.len(),
        report.unpriced.len()
    );
    for (field, skipped) in &report.skipped_fields {
        let (count, reason, example) = (skipped.count, skipped.reason, &skipped.example);
        eprintln!("skipped {field} ({count}, as in {example}): {reason}");
    }
    Ok(())
}
