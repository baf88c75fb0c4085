//! The items of the synthetic world: series and single works, with categories, moods, lengths and launch dates.

use super::names;
use super::options::{DAY, START, SyntheticOptions};
use crate::random::Rng;

/// How many dimensions taste has.
pub(super) const DIMS: usize = 8;
/// Categories, the head of the taste space.
pub(super) const CATEGORIES: [&str; 12] = [
    "Drama",
    "Mystery",
    "Comedy",
    "Adventure",
    "Romance",
    "Science",
    "History",
    "Nature",
    "Music",
    "Thriller",
    "Family",
    "Travel",
];
/// Moods; two works in a row tend to share theirs.
pub(super) const MOODS: [&str; 6] = ["warm", "tense", "playful", "quiet", "epic", "bittersweet"];
/// Further tags, of no consequence.
const EXTRAS: [&str; 8] = ["award", "debut", "island", "night", "orchestra", "remastered", "rural", "short"];

/// One work.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub id: String,
    pub title: String,
    pub category: usize,
    pub mood: usize,
    pub tags: Vec<&'static str>,
    /// Length in minutes.
    pub minutes: f32,
    /// Unix milliseconds.
    pub launched: i64,
    /// Log-popularity.
    pub popularity: f64,
    pub taste: [f64; DIMS],
    /// The next part of its series.
    pub next: Option<u32>,
}

/// The year of a moment since 1970.
fn year(ms: i64) -> i64 {
    let (mut year, mut day) = (1970, ms.div_euclid(DAY));
    loop {
        let days = if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
        if day < days {
            return year;
        }
        (year, day) = (year + 1, day - days);
    }
}

/// A point of the taste space on the unit sphere near `centre`.
pub(super) fn near(centre: &[f64; DIMS], spread: f64, rng: &mut Rng) -> [f64; DIMS] {
    let mut point = *centre;
    point.iter_mut().for_each(|x| *x += spread * rng.normal());
    unit(point)
}

/// The same direction at length 1.
pub(super) fn unit(mut point: [f64; DIMS]) -> [f64; DIMS] {
    let length = dot(&point, &point).sqrt().max(1e-9);
    point.iter_mut().for_each(|x| *x /= length);
    point
}

pub(super) fn dot(a: &[f64; DIMS], b: &[f64; DIMS]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The centre of each category.
pub(super) fn centres(rng: &mut Rng) -> Vec<[f64; DIMS]> {
    CATEGORIES.iter().map(|_| near(&[0.0; DIMS], 1.0, rng)).collect()
}

/// All items, the parts of a series side by side.
pub(super) fn items(options: &SyntheticOptions, centres: &[[f64; DIMS]], rng: &mut Rng) -> Vec<Item> {
    let count = options.items as usize;
    let mut titles = names::Titles::new(rng);
    let mut items: Vec<Item> = Vec::with_capacity(count);
    while items.len() < count {
        let parts = if rng.uniform() < 0.12 { 3 + rng.below(options.longest_series.max(3) as usize - 2) } else { 1 };
        let category = rng.below(CATEGORIES.len());
        let centre = centres.get(category).copied().unwrap_or([0.0; DIMS]);
        let (taste, mood) = (near(&centre, 0.2, rng), rng.below(MOODS.len()));
        let (popularity, minutes) = (0.9 * rng.normal(), 5.0 * (4 + rng.below(26)) as f32);
        let title = titles.draw(rng);
        // Two thirds were there before the first event; the others come out while events happen.
        let mut launched = if rng.uniform() < 0.67 {
            START - DAY * (1 + (20.0 * 365.0 * rng.uniform().powi(3)) as i64)
        } else {
            START + DAY * rng.below(options.days as usize) as i64
        };
        for part in 0..parts.min(count - items.len()) {
            let row = items.len() as u32;
            let year = year(launched);
            let numbered = if part == 0 { title.clone() } else { format!("{title}: Part {}", part + 1) };
            let mut tags: Vec<&'static str> = MOODS.get(mood).copied().into_iter().collect();
            tags.extend((0..rng.below(3)).filter_map(|_| EXTRAS.get(rng.below(EXTRAS.len())).copied()));
            tags.sort_unstable();
            tags.dedup();
            items.push(Item {
                id: format!("i{:04}", row + 1),
                title: format!("{numbered} ({year})"),
                category,
                mood,
                tags,
                minutes: minutes + 5.0 * rng.below(3) as f32,
                launched,
                popularity: popularity - 0.3 * f64::from(part as u32),
                taste: near(&taste, 0.05, rng),
                next: (part + 1 < parts && items.len() + 1 < count).then_some(row + 1),
            });
            launched += DAY * (3 + rng.below(12) as i64);
        }
    }
    items
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;

    #[test]
    fn years_are_those_of_the_calendar() {
        for day in 0..60_000 {
            let written = crate::data::iso_date(day * DAY);
            assert_eq!(written.split('-').next(), Some(year(day * DAY).to_string().as_str()), "{written}");
        }
    }
}
