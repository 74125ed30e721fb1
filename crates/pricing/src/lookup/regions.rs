//! Entries of one region: `sa-east-1/meta.llama3-8b-instruct-v1:0`, `eu/gpt-5`. A call names the model
//! and says its region beside it.

use hashbrown::HashMap;

use super::name;
use super::names::{Names, NamesRef};
use crate::book::ModelPrices;

/// Whose price lists have entries by region.
const PROVIDERS: [&str; 2] = ["azure", "bedrock"];

/// A region, and the place of its entry in the book.
type Entry = (String, u32);

/// Which regions have prices of their own.
#[derive(Debug, Default)]
pub(super) struct Regions(HashMap<Names, Vec<Entry>>);

impl Regions {
    /// Takes the entry at `index` of the book, where it is a region's.
    pub(super) fn take(&mut self, entry: &Names, index: u32) {
        let Some((region, model)) = entry.model.split_once('/') else {
            return;
        };
        // Names with more parts say sizes and commitments.
        if model.contains('/') || !PROVIDERS.contains(&&*entry.provider) {
            return;
        }
        let named = Names {
            provider: entry.provider.clone(),
            model: model.to_owned(),
        };
        let entries = self.0.entry(named).or_default();
        entries.push((region.to_owned(), index));
    }

    /// The regions with prices of their own for `prices`, which calls of `model` were found to be;
    /// none where the name itself says where it is served.
    pub(super) fn of(&self, prices: &ModelPrices, model: &str) -> Vec<(String, usize)> {
        let mut found: Vec<(String, usize)> = Vec::new();
        let names_region = prices.model.contains('/') || name::has_region_of_bedrock(model);
        if names_region || !PROVIDERS.contains(&&*prices.provider) {
            return found;
        }
        for form in name::forms(&prices.model) {
            let named = NamesRef {
                provider: &prices.provider,
                model: &form,
            };
            for (region, index) in self.0.get(&named).into_iter().flatten() {
                if !found.iter().any(|(known, _)| known == region) {
                    found.push((region.clone(), *index as usize));
                }
            }
        }
        found
    }
}
