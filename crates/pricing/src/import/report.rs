//! What an import read, and what it did not take over.

use std::collections::BTreeMap;

/// What an import read, and what it did not take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries in the file that describe models.
    pub models_read: usize,
    /// (provider, model) pairs with a price in the draft.
    pub models_priced: usize,
    /// Entries that are one model under two names, merged line by line, the dearer rate kept.
    pub merged: Vec<String>,
    /// Entries without any price that could be taken over, with the reason.
    pub unpriced: BTreeMap<String, String>,
    /// Fields that look like prices and were not taken over.
    pub skipped_fields: BTreeMap<String, SkippedField>,
}

/// A field that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedField {
    /// In how many entries.
    pub count: usize,
    /// Why.
    pub reason: &'static str,
    /// The first entry that has it.
    pub example: String,
}

impl Report {
    pub(super) fn skip(&mut self, field: &str, reason: &'static str, entry: &str) {
        let skipped = self.skipped_fields.entry(field.to_owned());
        let skipped = skipped.or_insert_with(|| SkippedField {
            count: 0,
            reason,
            example: entry.to_owned(),
        });
        skipped.count += 1;
    }
}
