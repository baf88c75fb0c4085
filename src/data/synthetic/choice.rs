//! What an entity does next: the explicit distribution that events are drawn from and that the optimum reads.
//!
//! Over the works that are out, that the entity knows of ([`known`]) and that it has not met,
//! `p = (1 - t) p_choice + t p_trailer`, with `t` = [`TRAILERS`], `p_trailer` proportional to
//! `exp(1.5 popularity + 2 freshness)`, and `p_choice` a softmax over the sum of
//! - the match of the work with the entity's taste *now* (tastes drift), [`TASTE`] times the dot product;
//! - the work's popularity (a long tail);
//! - [`Moment::sequel`] for the next part of a series if the part before is among the last [`SPAN`] works met;
//! - [`HABIT`] for the category that the entity's household prefers on this weekday;
//! - [`MOOD`] for the mood of the work met last;
//! - freshness, [`FRESH`] at launch and fading within two weeks;
//! - [`POCKET`] for short works on the phone.

use super::catalogue::{CATEGORIES, DIMS, Item, dot};
use super::options::{DAY, weekday};
use crate::random::{Rng, hash64};
use std::collections::BTreeSet;

/// The share of trailers: short views that say nothing about taste.
pub(super) const TRAILERS: f64 = 0.1;
const TASTE: f64 = 5.0;
const HABIT: f64 = 2.0;
const MOOD: f64 = 1.0;
const FRESH: f64 = 1.5;
const POCKET: f64 = 1.2;
/// Up to so many works of a world, everybody knows of all of them.
const COMMON: usize = 20_000;
/// In a larger world, everybody knows of about so many.
const KNOWN: usize = 4_000;
/// How far back the part before still calls for its sequel.
const SPAN: usize = 15;

/// The moment of a choice, all that the world knows about it.
pub(super) struct Moment<'a> {
    pub taste: &'a [f64; DIMS],
    /// The entity's household, an index of [`super::entities::HOUSEHOLDS`].
    pub household: usize,
    pub phone: bool,
    /// Unix milliseconds.
    pub time: i64,
    /// How strongly the next part of a series calls.
    pub sequel: f64,
    /// Works met before, oldest first.
    pub met: &'a [u32],
}

/// The category that a household prefers on a weekday.
pub(super) fn habit(seed: u64, household: usize, weekday: usize) -> usize {
    (hash64(seed, (household * 7 + weekday) as u64) % CATEGORIES.len() as u64) as usize
}

/// The works that entity `row` can meet, ascending: all of them, or in a large world some that are drawn by lot, each with the later
/// parts of its series. So a world takes time in proportion to its works and its events, not to their product.
pub(super) fn known(seed: u64, items: &[Item], row: u32) -> Vec<u32> {
    if items.len() <= COMMON {
        return (0..items.len() as u32).collect();
    }
    let mut lots = Rng::for_stream(hash64(seed, 71), u64::from(row));
    let mut known = BTreeSet::new();
    while known.len() < KNOWN {
        let mut drawn = Some(lots.below(items.len()) as u32);
        while let Some(item) = drawn.filter(|item| known.insert(*item)) {
            drawn = items.get(item as usize).and_then(|i| i.next);
        }
    }
    known.into_iter().collect()
}

/// How a choice at this moment and a trailer at this moment are distributed over the works `known` (ascending), into `choice` and
/// `trailer`; each sums to 1, or is all zero where nothing is left. Works that cannot be drawn get 0.
pub(super) fn distributions(
    seed: u64,
    items: &[Item],
    known: &[u32],
    moment: &Moment<'_>,
    choice: &mut Vec<f64>,
    trailer: &mut Vec<f64>,
) {
    let preferred = habit(seed, moment.household, weekday(moment.time));
    let mood = moment.met.last().and_then(|i| items.get(*i as usize)).map(|i| i.mood);
    let mark = |flags: &mut [bool], item: u32| {
        if let Some(flag) = known.binary_search(&item).ok().and_then(|at| flags.get_mut(at)) {
            *flag = true;
        }
    };
    let mut met = vec![false; known.len()];
    moment.met.iter().for_each(|item| mark(&mut met, *item));
    let mut called = vec![false; known.len()];
    for item in moment.met.iter().rev().take(SPAN) {
        if let Some(next) = items.get(*item as usize).and_then(|i| i.next) {
            mark(&mut called, next);
        }
    }
    choice.clear();
    trailer.clear();
    for ((item, met), called) in known.iter().zip(met).zip(called) {
        let Some(item) = items.get(*item as usize) else { continue };
        if met || item.launched > moment.time {
            choice.push(0.0);
            trailer.push(0.0);
            continue;
        }
        let fresh = (-((moment.time - item.launched) / DAY) as f64 / 14.0).exp();
        let flag = |on: bool, weight: f64| if on { weight } else { 0.0 };
        let logit = TASTE * dot(moment.taste, &item.taste)
            + item.popularity
            + flag(called, moment.sequel)
            + flag(item.category == preferred, HABIT)
            + flag(mood == Some(item.mood), MOOD)
            + FRESH * fresh
            + flag(moment.phone && item.minutes <= 60.0, POCKET);
        choice.push(logit.exp());
        trailer.push((1.5 * item.popularity + 2.0 * fresh).exp());
    }
    for weights in [choice, trailer] {
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            weights.iter_mut().for_each(|w| *w /= sum);
        }
    }
}

/// Draws one of the works `known` by weights that sum to 1; `None` where all are zero.
pub(super) fn draw(known: &[u32], weights: &[f64], rng: &mut Rng) -> Option<u32> {
    let mut left = rng.uniform();
    let mut last = None;
    for (i, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        last = Some(i);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last.and_then(|i| known.get(i)).copied()
}
