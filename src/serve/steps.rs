//! Beyond the best k: lists drawn at random by their scores, and what comes after what comes next.

use super::answer::View;
use super::list::{Recommendations, Recommended, check_k, name};
use super::request::{Filter, Query};
use super::retrieve::{Sampler, draw};
use super::session::Work;
use crate::error::{Result, err};
use crate::random::Rng;

/// The most steps of [`super::Engine::steps`].
pub const MAX_STEPS: usize = 1000;

/// One list for each of `steps` steps, drawn by `sampler` or else the best `k`.
pub(super) fn steps(
    view: &View<'_>,
    work: &mut Work,
    query: &Query<'_>,
    filter: &Filter<'_>,
    k: usize,
    steps: usize,
    sampler: Option<&Sampler>,
) -> Result<Vec<Recommendations>> {
    check_k(k)?;
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(err!(InvalidArgument, "steps is {steps}; choose 1 to {MAX_STEPS}"));
    }
    let sampler = sampler.copied().unwrap_or(Sampler::GREEDY);
    sampler.check()?;
    view.ask(work, query, None)?;
    work.mask.read(view.generation, filter, Some(&work.asked))?;
    let (mut random, mut weights) = (Rng::new(sampler.seed), Vec::new());
    let mut lists = Vec::new();
    for step in 0..steps {
        let source = view.retrieve(work, filter, sampler.candidates(k))?;
        let mut left = work.top.finish().to_vec();
        let mut items: Vec<Recommended> = Vec::new();
        while items.len() < k && !left.is_empty() {
            // In exact order of scores: at high temperatures probabilities cannot be told apart any more.
            let drawn = left.remove(draw(sampler.sampling, &mut random, &left, source, &mut weights));
            items.push(name(view.generation, &drawn)?);
        }
        let next = items.first().map(|item| item.row);
        // The first list is given even where it is empty; an empty one after it says nothing.
        if step == 0 || next.is_some() {
            lists.push(Recommendations { generation: view.generation.id(), source, items });
        }
        let Some(next) = next else { break };
        work.asked.imagine(view.generation, next);
        work.mask.leave_out(next);
    }
    Ok(lists)
}

/// One list of `k` items drawn by `sampler`.
pub(super) fn sample(
    view: &View<'_>,
    work: &mut Work,
    query: &Query<'_>,
    filter: &Filter<'_>,
    k: usize,
    sampler: &Sampler,
) -> Result<Recommendations> {
    let mut lists = steps(view, work, query, filter, k, 1, Some(sampler))?;
    lists.pop().ok_or_else(|| err!(Internal, "decoding gave no list; please report it"))
}
