//! How large every state is, day by day, and whether any of them goes on growing.

use std::collections::BTreeMap;

/// Sizes of one day.
pub type Sizes = BTreeMap<String, usize>;

/// Less than this is noise.
const SMALL: usize = 60;

/// What is known to grow (`docs/operations.md`, names from outside): closed findings stay.
const GROWS: [&str; 1] = ["topic.findings"];

/// The curve of every state.
#[derive(Debug, Default)]
pub struct Growth {
    days: Vec<(u32, Sizes)>,
}

impl Growth {
    /// Takes the sizes of a day.
    pub fn note(&mut self, day: u32, sizes: Sizes) {
        self.days.push((day, sizes));
    }

    /// States whose largest size in the last third of the year is more than one and a half times the
    /// largest in the third before: traffic is the same, so such a state grows without end.
    pub fn growing(&self) -> Vec<String> {
        let last = self.days.last().map_or(0, |(day, _)| *day);
        // A cycle of busy and quiet weeks takes 70 days: in less nothing can be told.
        if last < 300 {
            return Vec::new();
        }
        let most = |name: &str, days: std::ops::Range<u32>| {
            let sizes = self.days.iter().filter(|(day, _)| days.contains(day));
            sizes
                .filter_map(|(_, sizes)| sizes.get(name).copied())
                .max()
                .unwrap_or(0)
        };
        let third = last / 3;
        let names = self.days.iter().flat_map(|(_, sizes)| sizes.keys());
        let names: std::collections::BTreeSet<&String> = names.collect();
        let names = names.into_iter();
        let bounded = names.filter(|name| !GROWS.contains(&name.as_str()));
        let grown = bounded.filter_map(|name| {
            let (before, after) = (
                most(name, third..2 * third),
                most(name, 2 * third..last + 1),
            );
            (after > SMALL && after * 2 > before * 3)
                .then(|| format!("{name}: {before}, then {after}"))
        });
        grown.collect()
    }

    /// The curve as comma-separated text: a line each `every` days, a column for each state.
    pub fn table(&self, every: u32) -> String {
        let names: std::collections::BTreeSet<&String> = self
            .days
            .iter()
            .flat_map(|(_, sizes)| sizes.keys())
            .collect();
        let mut text = String::from("day");
        names
            .iter()
            .for_each(|name| text = format!("{text},{name}"));
        for (day, sizes) in self.days.iter().filter(|(day, _)| day % every == 0) {
            text = format!("{text}\n{day}");
            for name in &names {
                text = format!("{text},{}", sizes.get(*name).copied().unwrap_or(0));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(size: impl Fn(u32) -> usize) -> Growth {
        let mut growth = Growth::default();
        for day in 0..365 {
            growth.note(day, Sizes::from([("state".to_owned(), size(day))]));
        }
        growth
    }

    #[test]
    fn what_grows_with_the_year_is_told_from_what_goes_up_and_down() {
        assert_eq!(
            year(|day| 1_000 + day as usize % 70 * 10).growing(),
            Vec::<String>::new()
        );
        assert_eq!(year(|day| day as usize * 10).growing().len(), 1);
    }
}
