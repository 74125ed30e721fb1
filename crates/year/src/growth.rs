//! How large every state is, day by day, and whether any of them goes on growing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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

    /// States whose smallest size goes up from each fifth of the year to the next, by a seventh at
    /// least: quiet weeks come in every fifth, so what falls back to nothing in them has an end, and
    /// what grows by the day does not.
    pub fn growing(&self) -> Vec<String> {
        let last = self.days.last().map_or(0, |(day, _)| *day);
        // A cycle of busy and quiet weeks takes 70 days: in less nothing can be told.
        if last < 5 * 70 {
            return Vec::new();
        }
        let names: BTreeSet<&String> = self
            .days
            .iter()
            .flat_map(|(_, sizes)| sizes.keys())
            .collect();
        let bounded = names
            .into_iter()
            .filter(|name| !GROWS.contains(&name.as_str()));
        let grown = bounded.filter_map(|name| {
            // The first fifth begins with nothing.
            let least = [1, 2, 3, 4]
                .map(|fifth| self.least(name, fifth * last / 5..(fifth + 1) * last / 5));
            let goes_up = least.windows(2).all(|two| two[1] * 7 > two[0] * 8);
            (goes_up && least[3] > SMALL).then(|| format!("{name}: at least {least:?}"))
        });
        grown.collect()
    }

    fn least(&self, name: &str, days: Range<u32>) -> usize {
        let sizes = self.days.iter().filter(|(day, _)| days.contains(day));
        let sizes = sizes.map(|(_, sizes)| sizes.get(name).copied().unwrap_or(0));
        sizes.min().unwrap_or(0)
    }

    /// The curve as comma-separated text: a line each `every` days, a column for each state.
    pub fn table(&self, every: u32) -> String {
        let names: BTreeSet<&String> = self
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
