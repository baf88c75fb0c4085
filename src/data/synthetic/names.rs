//! Titles that a person can read.

use crate::random::Rng;

const QUALITIES: [&str; 40] = [
    "Quiet",
    "Golden",
    "Hidden",
    "Northern",
    "Silver",
    "Last",
    "Distant",
    "Secret",
    "Wandering",
    "Burning",
    "Gentle",
    "Broken",
    "Endless",
    "Crimson",
    "Forgotten",
    "Winter",
    "Paper",
    "Midnight",
    "Crooked",
    "Bright",
    "Hollow",
    "Salt",
    "Velvet",
    "Little",
    "Amber",
    "Stolen",
    "Patient",
    "Glass",
    "Second",
    "Wild",
    "Blue",
    "Ancient",
    "Honest",
    "Lost",
    "Morning",
    "Restless",
    "Copper",
    "Invisible",
    "Long",
    "Tender",
];
const THINGS: [&str; 40] = [
    "Harbour",
    "Garden",
    "Lantern",
    "Railway",
    "Orchard",
    "Letter",
    "Mountain",
    "Clockmaker",
    "River",
    "Island",
    "Library",
    "Bridge",
    "Sparrow",
    "Lighthouse",
    "Market",
    "Summer",
    "Kitchen",
    "Voyage",
    "Forest",
    "Violin",
    "Window",
    "Carnival",
    "Cartographer",
    "Valley",
    "Promise",
    "Station",
    "Tide",
    "Museum",
    "Neighbour",
    "Comet",
    "Bakery",
    "Horizon",
    "Staircase",
    "Inheritance",
    "Meadow",
    "Signal",
    "Theatre",
    "Ferry",
    "Chimney",
    "Weaver",
];

/// Draws titles; none comes twice.
pub(super) struct Titles {
    /// Pairs of words in a random order.
    order: Vec<usize>,
    drawn: usize,
}

impl Titles {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut order: Vec<usize> = (0..QUALITIES.len() * THINGS.len()).collect();
        rng.shuffle(&mut order);
        Self { order, drawn: 0 }
    }

    pub(super) fn draw(&mut self, rng: &mut Rng) -> String {
        let pair = self.order.get(self.drawn % self.order.len()).copied().unwrap_or(0);
        let round = self.drawn / self.order.len();
        self.drawn += 1;
        let quality = QUALITIES.get(pair / THINGS.len()).copied().unwrap_or_default();
        let thing = THINGS.get(pair % THINGS.len()).copied().unwrap_or_default();
        let article = if rng.uniform() < 0.75 { "The " } else { "" };
        match round {
            0 => format!("{article}{quality} {thing}"),
            _ => format!("{article}{quality} {thing} No. {}", round + 1),
        }
    }
}

/// The words of a title that tell something: lower case, without article, part and year.
pub(super) fn words(title: &str) -> Vec<String> {
    let body = title.rsplit_once(" (").map_or(title, |(body, _)| body);
    let body = body.split_once(':').map_or(body, |(body, _)| body);
    body.split_whitespace().filter(|w| *w != "The").map(str::to_lowercase).collect()
}
