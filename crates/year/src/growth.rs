//! How large every state is, day by day, and whether any of them goes on growing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Sizes of one day.
pub type Sizes = BTreeMap<String, Size>;

/// How large a state is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Records or entries.
    pub all: usize,
    /// Those that must be there, as the reference knows: budgets that count for a lifetime hold a
    /// scope more with every new name. `None` where all of it has a bound by time, which the broker
    /// keeps and not we: how much comes within it follows the traffic.
    pub needed: Option<usize>,
}

/// Less than this is noise.
const SMALL: usize = 60;

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

    /// States that hold more than is needed, and ever more of it: whose smallest surplus goes up from
    /// each fifth of the year to the next, by a seventh at least. Quiet weeks come in every fifth, so
    /// what falls back to nothing in them has an end, and what grows by the day does not.
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
        let grown = names.into_iter().filter_map(|name| {
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
        let surplus = sizes.map(|(_, sizes)| {
            let size = sizes.get(name).copied().unwrap_or_default();
            size.needed
                .map_or(0, |needed| size.all.saturating_sub(needed))
        });
        surplus.min().unwrap_or(0)
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
                text = format!("{text},{}", sizes.get(*name).map_or(0, |size| size.all));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(size: impl Fn(u32) -> (usize, Option<usize>)) -> Growth {
        let mut growth = Growth::default();
        for day in 0..365 {
            let (all, needed) = size(day);
            let size = Size { all, needed };
            growth.note(day, Sizes::from([("state".to_owned(), size)]));
        }
        growth
    }

    #[test]
    fn what_grows_with_the_year_is_told_from_what_goes_up_and_down() {
        let none = Vec::<String>::new();
        let up_and_down = year(|day| (1_000 + day as usize % 70 * 10, Some(0)));
        assert_eq!(up_and_down.growing(), none);
        let ever_more = |day: u32| day as usize * 10;
        assert_eq!(year(|day| (ever_more(day), Some(0))).growing().len(), 1);
        assert_eq!(
            year(|day| (ever_more(day) + 90, Some(ever_more(day)))).growing(),
            none
        );
        assert_eq!(year(|day| (ever_more(day), None)).growing(), none);
    }
}
