//! The entities of the synthetic world, and what they do on each day.

use super::catalogue::{CATEGORIES, DIMS, Item, dot, near, unit};
use super::choice::{Moment, TRAILERS, distributions, draw, known};
use super::options::{DAY, START, SyntheticOptions, weekday};
use crate::random::{Rng, hash64};

/// Households; each has its own habit for every weekday.
pub(super) const HOUSEHOLDS: [&str; 4] = ["single", "couple", "family", "shared"];
/// Regions, of no consequence.
pub(super) const REGIONS: [&str; 6] = ["north", "east", "south", "west", "coast", "city"];
/// Devices.
pub(super) const DEVICES: [&str; 3] = ["tv", "phone", "tablet"];
/// What an entity does with a work.
pub(super) const ACTIONS: [&str; 4] = ["trailer", "view", "finish", "like"];

/// One entity of the world.
#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub id: String,
    pub household: usize,
    pub region: usize,
    /// What draws the entity to click on a slate, beyond taste, by category.
    pub quirks: [f64; CATEGORIES.len()],
    /// What draws the entity there on each device, by category.
    pub habits: [[f64; CATEGORIES.len()]; DEVICES.len()],
    pub log: Vec<Entry>,
}

/// One event as the world knows it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub item: u32,
    pub time: i64,
    pub action: usize,
    pub device: usize,
    /// Minutes watched.
    pub minutes: f32,
    /// The share of the work that was watched.
    pub completion: f32,
    /// The taste at this moment.
    pub taste: [f64; DIMS],
}

/// One work that a slate showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Impression {
    /// The entity's place in the world, from 0.
    pub entity: u32,
    /// The item's place in the world, from 0.
    pub item: u32,
    /// Unix milliseconds.
    pub time: i64,
    /// Place on the slate, from 1.
    pub position: u32,
    /// The device that it was shown on, an index of the world's devices.
    pub device: usize,
    /// Whether it was clicked.
    pub clicked: bool,
    /// The probability that it would be: the known optimum of a click predictor.
    pub probability: f64,
}

/// Lives the life of entity `row`: events in order of time, and the impressions of its slates.
pub(super) fn live(
    options: &SyntheticOptions,
    items: &[Item],
    centres: &[[f64; DIMS]],
    row: u32,
) -> (Entity, Vec<Impression>) {
    let mut rng = Rng::for_stream(options.seed, 1 + 2 * u64::from(row));
    let mut slates = Rng::for_stream(options.seed, 2 + 2 * u64::from(row));
    let favourite = |rng: &mut Rng| centres.get(rng.below(centres.len())).copied().unwrap_or([0.0; DIMS]);
    let (first, second) = (favourite(&mut rng), favourite(&mut rng));
    let mut base = first;
    base.iter_mut().zip(second).for_each(|(a, b)| *a += 0.6 * b);
    let base = near(&base, 0.15, &mut rng);
    let mut drift = [0.0; DIMS];
    let mut entity = Entity {
        id: format!("p{:04}", row + 1),
        household: rng.below(HOUSEHOLDS.len()),
        region: rng.below(REGIONS.len()),
        quirks: std::array::from_fn(|_| options.quirks * slates.normal()),
        habits: habits(options, row),
        log: Vec::new(),
    };
    if options.poles > 0.0 {
        let side = if entity.quirks.first().is_some_and(|q| *q > 0.0) { options.poles } else { -options.poles };
        let half = CATEGORIES.len() / 2;
        entity.quirks = std::array::from_fn(|category| if category < half { side } else { -side });
    }
    let turn = turned(options, row).then_some(options.turn).flatten();
    let opposite = entity.quirks.map(|q| -q);
    let days = i64::from(options.days);
    let joined = if rng.uniform() < 0.3 { rng.below((options.days as usize) * 6 / 10) as i64 } else { 0 };
    // A session has three events on average; the log-normal spread makes a few people very busy.
    let rate = options.events_per_entity / (3.0 * f64::from(options.days)) * (0.5 * rng.normal() - 0.125).exp();
    let hour = 8.0 + 13.0 * rng.uniform();
    let (mut impressions, mut met) = (Vec::new(), Vec::new());
    let (mut choice, mut trailer) = (Vec::new(), Vec::new());
    let known = known(options.seed, items, row);
    let mut free = i64::MIN;
    // Those who join late come more often, so that they do not stay strangers.
    let rate = rate * days as f64 / (days - joined) as f64;
    for day in joined..days {
        let weekend = weekday(START + DAY * day) >= 5;
        let mut sessions = rate * if weekend { 1.4 } else { 0.84 };
        if entity.log.is_empty() && day + 1 == days {
            sessions = sessions.max(1.0);
        }
        let sessions = sessions as usize + usize::from(rng.uniform() < sessions.fract());
        for _ in 0..sessions {
            let clock = (hour + 1.5 * rng.normal() + if weekend { -2.0 } else { 0.0 }).clamp(0.0, 23.9);
            let mut time = (START + DAY * day + (clock * 3_600.0) as i64 * 1000).max(free);
            drift.iter_mut().for_each(|d| *d = 0.95 * *d + 0.06 * rng.normal());
            let mut taste = base;
            taste.iter_mut().zip(drift).for_each(|(t, d)| *t += d);
            let taste = unit(taste);
            let home = clock >= 18.0 || weekend;
            let device = match rng.uniform() {
                u if u < if home { 0.7 } else { 0.2 } => 0,
                u if u < 0.9 => 1,
                _ => 2,
            };
            let moment = |time: i64, met: &[u32], choice: &mut Vec<f64>, trailer: &mut Vec<f64>| {
                let (household, phone, sequel) = (entity.household, device == 1, options.sequel);
                let moment = Moment { taste: &taste, household, phone, time, sequel, met };
                distributions(options.seed, items, &known, &moment, choice, trailer);
            };
            if options.slate > 0 && slates.uniform() < 0.5 {
                moment(time, &met, &mut choice, &mut trailer);
                show(
                    options,
                    (items, &known),
                    if turn.is_some_and(|t| time >= t.time) { &opposite } else { &entity.quirks },
                    (&taste, &entity.habits),
                    (row, time, device),
                    (&choice, &trailer),
                    &mut slates,
                    &mut impressions,
                );
            }
            loop {
                moment(time, &met, &mut choice, &mut trailer);
                let teased = rng.uniform() < TRAILERS;
                let Some(item) = draw(&known, if teased { &trailer } else { &choice }, &mut rng) else { break };
                let Some(work) = items.get(item as usize) else { break };
                let liking = dot(&taste, &work.taste);
                let completion = if teased {
                    0.01 + 0.02 * rng.uniform()
                } else {
                    (1.0 / (1.0 + (-(0.5 + 2.0 * liking + 1.2 * rng.normal())).exp())).max(0.05)
                };
                let completion = if completion > 0.9 { 1.0 } else { (completion * 100.0).round() / 100.0 };
                let action = match () {
                    () if teased => 0,
                    () if rng.uniform() < 0.25 * liking => 3,
                    () => 1 + usize::from(completion >= 1.0),
                };
                let minutes = ((f64::from(work.minutes) * completion * 10.0).round() / 10.0).max(0.1);
                entity.log.push(Entry {
                    item,
                    time,
                    action,
                    device,
                    minutes: minutes as f32,
                    completion: completion as f32,
                    taste,
                });
                met.push(item);
                time += (minutes * 60_000.0) as i64 / 1000 * 1000 + 1000 * (20 + rng.below(280) as i64);
                if rng.uniform() < 1.0 / 3.0 {
                    break;
                }
            }
            free = time;
        }
    }
    (entity, impressions)
}

/// Whether an entity's quirks turn into their opposite at the world's change of taste.
pub(super) fn turned(options: &SyntheticOptions, row: u32) -> bool {
    let share = options.turn.map_or(0.0, |t| t.share);
    Rng::for_stream(hash64(options.seed, 61), u64::from(row)).uniform() < share
}

/// What draws an entity to click on each device, by category ([`SyntheticOptions::surface`]).
fn habits(options: &SyntheticOptions, row: u32) -> [[f64; CATEGORIES.len()]; DEVICES.len()] {
    let mut lots = Rng::for_stream(hash64(options.seed, 67), u64::from(row));
    let half = CATEGORIES.len() / 2;
    std::array::from_fn(|_| {
        let side = if lots.uniform() < 0.5 { options.surface } else { -options.surface };
        std::array::from_fn(|category| if category < half { side } else { -side })
    })
}

/// Shows a slate, half of it drawn as the entity would choose and half as trailers are, and draws its clicks.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only name them twice")]
fn show(
    options: &SyntheticOptions,
    (items, known): (&[Item], &[u32]),
    quirks: &[f64; CATEGORIES.len()],
    (taste, habits): (&[f64; DIMS], &[[f64; CATEGORIES.len()]; DEVICES.len()]),
    (entity, time, device): (u32, i64, usize),
    (choice, trailer): (&[f64], &[f64]),
    rng: &mut Rng,
    impressions: &mut Vec<Impression>,
) {
    let mut shown: Vec<u32> = Vec::new();
    for _ in 0..4 * options.slate {
        let weights = if rng.uniform() < 0.5 { choice } else { trailer };
        match draw(known, weights, rng) {
            Some(item) if !shown.contains(&item) => shown.push(item),
            _ => {}
        }
        if shown.len() >= options.slate as usize {
            break;
        }
    }
    for (position, item) in (1u32..).zip(shown) {
        let Some(work) = items.get(item as usize) else { continue };
        let habit = habits.get(device).and_then(|on| on.get(work.category)).copied().unwrap_or(0.0);
        let quirk = quirks.get(work.category).copied().unwrap_or(0.0) + habit;
        let logit = -1.6 + options.liking * dot(taste, &work.taste) + quirk - 0.25 * f64::from(position - 1);
        let probability = 1.0 / (1.0 + (-logit).exp());
        let clicked = rng.uniform() < probability;
        impressions.push(Impression { entity, item, time, position, device, clicked, probability });
    }
}
