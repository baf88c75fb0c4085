//! How large the synthetic world is, and the fixed strengths of what is planted in it.

use crate::error::{Result, err};

/// Milliseconds in a day.
pub(super) const DAY: i64 = 86_400_000;
/// The first day, a Monday: 2024-01-01.
pub(super) const START: i64 = 19_723 * DAY;

/// 0 is Monday.
pub(super) fn weekday(ms: i64) -> usize {
    (ms - START).div_euclid(DAY).rem_euclid(7) as usize
}

/// The size of a synthetic world. The defaults train in about a minute on two cores.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticOptions {
    /// People, 1 to 1,000,000.
    pub entities: u32,
    /// Items, 50 to 1,000,000. Of more than 20,000 everybody knows of 4,000, drawn by lot, and meets no others.
    pub items: u32,
    /// Days that the events span, 7 to 3,650.
    pub days: u32,
    /// Mean events per person, 2 to 10,000; most have fewer, some have many more. Nobody meets an item twice, so that
    /// small catalogues end long histories early.
    pub events_per_entity: f64,
    /// Most parts of a series, 3 to 100. In a world of long series what comes next is not what comes in two days.
    pub longest_series: u32,
    /// How strongly the next part of a series calls, 0 to 20: `exp` of it times the odds of a work that nothing speaks for.
    pub sequel: f64,
    /// Items of each slate of impressions, 0 to 100; every second session, on average, starts with a slate.
    pub slate: u32,
    /// How strongly clicks on slates follow the taste that the history shows, 0 to 100: the weight on the logit of the product of a
    /// person's and an item's taste, unit vectors both.
    pub liking: f64,
    /// The deviation of what draws or repels a person in each category besides, 0 to 100, on the logit; no history shows it.
    pub quirks: f64,
    /// How people click on slates beyond taste. 0: each category draws or repels a person on its own. Above: a person is drawn to
    /// one half of the categories and repelled by the other by this much on the logit, so that few outcomes tell which half.
    pub poles: f64,
    /// How people click on each device beyond that. 0: alike on all. Above: on each device a person is drawn to one half of the
    /// categories and repelled by the other by this much on the logit, and which half is drawn by lot for each person and device.
    pub surface: f64,
    /// A planted change of taste: from then on some people click by the opposite of their quirks. Nothing else of the world
    /// changes.
    pub turn: Option<Turn>,
    /// Seed: the same options give the same world, byte for byte.
    pub seed: u64,
}

/// A change of taste.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// When, in milliseconds since 1970.
    pub time: i64,
    /// Share of the people who change, 0 to 1.
    pub share: f64,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self {
            entities: 2_000,
            items: 600,
            days: 120,
            events_per_entity: 60.0,
            longest_series: 5,
            sequel: 5.0,
            slate: 6,
            liking: 2.0,
            quirks: 1.5,
            poles: 0.0,
            surface: 0.0,
            turn: None,
            seed: 1,
        }
    }
}

impl SyntheticOptions {
    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidArgument` naming the option.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, v: f64, low: f64, high: f64| match (low..=high).contains(&v) {
            true => Ok(()),
            false => Err(err!(InvalidArgument, "{name} of the synthetic world is {v}; choose {low} to {high}")),
        };
        range("entities", f64::from(self.entities), 1.0, 1e6)?;
        range("items", f64::from(self.items), 50.0, 1e6)?;
        range("days", f64::from(self.days), 7.0, 3650.0)?;
        range("events_per_entity", self.events_per_entity, 2.0, 1e4)?;
        range("longest_series", f64::from(self.longest_series), 3.0, 100.0)?;
        range("sequel", self.sequel, 0.0, 20.0)?;
        range("liking", self.liking, 0.0, 100.0)?;
        range("quirks", self.quirks, 0.0, 100.0)?;
        range("poles", self.poles, 0.0, 100.0)?;
        range("surface", self.surface, 0.0, 100.0)?;
        range("turn's share", self.turn.map_or(0.0, |t| t.share), 0.0, 1.0)?;
        range("slate", f64::from(self.slate), 0.0, 100.0)
    }
}
