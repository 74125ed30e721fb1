//! What a pricer knows of names: found in the book once, and remembered.

use std::sync::Arc;

use super::Pricer;
use crate::lookup::ceiling::Ceiling;
use crate::lookup::names::{Names, NamesRef};
use crate::lookup::{Match, Variant, WORLD};
use crate::provider;
use crate::resolved::{Regional, Resolved};
use crate::sheet::CompiledModel;

impl Pricer {
    /// The index of what is known about the name where a call is served in `region` (empty = not
    /// said), from memory or from the book.
    #[inline]
    pub(super) fn resolve(&mut self, provider: &str, model: &str, region: &str) -> usize {
        let known = self.names.get(&NamesRef { provider, model }).copied();
        let index = known.unwrap_or_else(|| self.look_up(provider, model));
        if region.is_empty() || self.resolved[index].regions.is_empty() {
            return index;
        }
        self.in_region(index, region)
    }

    /// The index of the same name at the prices of `region`, where that has its own.
    fn in_region(&mut self, index: usize, region: &str) -> usize {
        let mut regions = self.resolved[index].regions.iter();
        let Some(at) = regions.position(|one| one.name.eq_ignore_ascii_case(region)) else {
            return index;
        };
        let Regional { place, known, .. } = self.resolved[index].regions[at];
        known.unwrap_or_else(|| {
            let resolved = Resolved {
                how: Some(Match::Region),
                prices: Some((place, self.compile(place))),
                regions: Vec::new(),
                ceiling: None,
                ..self.resolved[index].clone()
            };
            self.resolved.push(resolved);
            let known = self.resolved.len() - 1;
            self.resolved[index].regions[at].known = Some(known);
            known
        })
    }

    #[cold]
    fn look_up(&mut self, provider: &str, model: &str) -> usize {
        let index = self.book.index();
        let found = index.find(self.book.models(), provider, model);
        let variant = match self.policy.is_free(provider, model) {
            true => Variant::Free,
            false => index.variant(provider, model, found),
        };
        let models = self.book.models();
        let regions = found.map(|found| index.regions(models, model, found.index));
        let mut regions = regions.unwrap_or_default();
        let charged = found.map(|found| index.charged(models, model, found));
        if let (Some(found), Some(charged)) = (found, charged)
            && found.index != charged.index
        {
            regions.push((WORLD.to_owned(), found.index));
        }
        let regional = |(name, place)| Regional {
            name,
            place,
            known: None,
        };
        let regions = regions.into_iter().map(regional).collect();
        let trusted = &self.policy.trust_reported_cost;
        let name = provider::canonical(provider);
        let resolved = Resolved {
            trusts_reports: trusted
                .iter()
                .any(|other| provider::canonical(other) == name),
            ambiguous: charged.is_some_and(|charged| charged.ambiguous) && variant != Variant::Free,
            how: charged.map(|charged| charged.how),
            variant,
            prices: charged.map(|charged| (charged.index, self.compile(charged.index))),
            regions,
            named_region: location(model).to_ascii_lowercase(),
            ceiling: None,
        };
        let owned = Names {
            provider: provider.to_owned(),
            model: model.to_owned(),
        };
        self.names.insert(owned, self.resolved.len());
        self.resolved.push(resolved);
        self.resolved.len() - 1
    }

    /// The rates of the model at this index of the book.
    fn compile(&mut self, index: usize) -> Arc<CompiledModel> {
        let compile = || Arc::new(CompiledModel::new(&self.book.models()[index]));
        Arc::clone(self.compiled.entry(index).or_insert_with(compile))
    }

    pub(super) fn work_out_ceiling(&mut self, index: usize, provider: &str, model: &str) {
        let models = self.book.models();
        let known = self.resolved[index].prices.as_ref();
        let known_provider = known.map(|(index, _)| models[*index].provider.as_str());
        let provider = known_provider.unwrap_or(provider);
        let ceiling = Ceiling::of(&self.book, &self.policy.ceiling, provider, model);
        self.resolved[index].ceiling = Some(ceiling);
    }
}

/// The region in a resource's name of Vertex AI, `projects/…/locations/us-east5/publishers/…`; empty =
/// none.
fn location(model: &str) -> &str {
    let mut parts = model.split('/');
    let is_before = |part: &str| part.eq_ignore_ascii_case("locations");
    match parts.any(is_before) {
        true => parts.next().unwrap_or(""),
        false => "",
    }
}
