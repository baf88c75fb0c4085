//! Tasks of persons on surfaces.
//!
//! A task of a person is divided by surface: what it knows there is the support, what it asks there the query. So a part of a
//! surface knows what its person knows and nothing else.

use super::super::impressions::Surface;
use super::super::plan::{Plan, TaskSet};
use super::ragged::Ragged;

/// Tasks of persons on surfaces over those tasks of persons that are trained on or validate.
#[derive(Debug, Clone)]
pub(crate) struct SurfaceTasks {
    /// Those of each person's task, by its place: `offsets[place]..offsets[place + 1]`, in the order of surfaces.
    offsets: Vec<usize>,
    /// The person's task and the surface of each.
    pub keys: Vec<(u32, u32)>,
    /// Its outcomes known, oldest first: those that an adaptation of the person reads.
    pub supports: Ragged,
    /// The outcomes that are asked.
    pub queries: Ragged,
    /// The surface of each outcome of the plan; 0 is unknown.
    pub codes: Vec<u32>,
}

impl SurfaceTasks {
    /// Divides the tasks of a plan; an adaptation reads `most` outcomes.
    pub(crate) fn new(plan: &Plan<'_>, surface: &Surface, most: u32) -> Self {
        let mut wanted = vec![false; plan.len()];
        for place in plan.places(TaskSet::Train).iter().chain(plan.places(TaskSet::Validation)) {
            wanted[*place as usize] = true;
        }
        let (codes, mut offsets, mut keys) = (surface.codes.clone(), vec![0], Vec::new());
        let (mut supports, mut queries) = (Ragged::new(), Ragged::new());
        for place in 0..plan.len() as u32 {
            if wanted[place as usize] {
                let (read, asked) = (plan.latest(place, most), plan.task(place).query.clone());
                let mut own: Vec<u32> = codes[read.clone()].iter().chain(&codes[asked.clone()]).copied().collect();
                own.sort_unstable();
                own.dedup();
                for surface in own.into_iter().filter(|s| *s > 0) {
                    let there = |i: &usize| codes[*i] == surface;
                    keys.push((place, surface));
                    supports.push(read.clone().filter(there).map(|i| i as u32));
                    queries.push(asked.clone().filter(there).map(|i| i as u32));
                }
            }
            offsets.push(keys.len());
        }
        Self { offsets, keys, supports, queries, codes }
    }

    /// The task of the person's task `place` on the surface of outcome `i`; `None` where it has none there.
    pub(crate) fn find(&self, place: u32, i: u32) -> Option<usize> {
        let own = self.offsets[place as usize]..self.offsets[place as usize + 1];
        let found = self.keys[own.clone()].binary_search_by_key(&self.codes[i as usize], |key| key.1);
        found.ok().map(|at| own.start + at)
    }
}
