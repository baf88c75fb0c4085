//! Tasks of items, or of the values of an item field such as its creator.
//!
//! The support of an outcome holds outcomes of other persons alone, all of them in what is trained on. Where outcomes have times, an
//! item's are cut at 80 % of their number, again at 80 % of those, and so on down to none, and an outcome is asked from the
//! largest cut that lies before its person first met the item. A person meets a creator again and again, so that would be the
//! distant past: there persons are dealt to two folds, and an outcome is asked from the largest cut of the other fold that lies
//! before it. Without times nobody knows which of two persons came first: an outcome is asked from all outcomes of
//! four folds of five, its person in the fifth (cross-fitting).

use super::super::plan::{Plan, TaskSet};
use super::ragged::Ragged;
use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::model::{Value, column_value};
use crate::options::ItemKind;
use crate::random::hash64;
use std::collections::HashMap;

/// The share of an entity's outcomes that one cut asks for is one in this many.
const CUT: usize = 5;
/// Folds of persons where outcomes have no times.
const UNTIMED_FOLDS: u64 = 5;
/// Folds of persons where one meets an entity again and again.
const REPEATED_FOLDS: u64 = 2;

/// Tasks of items, or of values of an item field, over the outcomes of a plan.
#[derive(Debug, Clone)]
pub(crate) struct ItemTasks {
    /// The entity of each task: an item, or a value.
    pub keys: Vec<u32>,
    /// Its outcomes known, oldest first (places in the plan's outcomes). An adaptation reads the latest of them.
    pub supports: Ragged,
    /// The outcomes that are trained on and asked from these.
    pub queries: Ragged,
    /// The tasks that each outcome of the plan is asked from: one for each entity of its item.
    pub tasks_of: Ragged,
    /// The place of the person's task that asks for each outcome.
    pub asked_by: Vec<u32>,
    /// All outcomes of each entity that may be adapted to, oldest first.
    pub members: Ragged,
    /// The entities of each item.
    pub of_item: Ragged,
}

impl ItemTasks {
    /// Cuts the outcomes of a plan.
    ///
    /// # Errors
    /// `InvalidConfig` for a field that items do not have, or of another kind.
    pub(crate) fn new(plan: &Plan<'_>, kind: &ItemKind) -> Result<Self> {
        let (of_item, keys) = entities(plan, kind)?;
        let n = plan.impressions.len();
        // What may be adapted to, and what is asked in training.
        let (mut known, mut trained, mut asked_by) = (vec![false; n], vec![false; n], vec![0u32; n]);
        for set in [TaskSet::Train, TaskSet::Validation, TaskSet::Known, TaskSet::HiddenCuts] {
            for place in plan.places(set) {
                for i in plan.task(*place).query.clone() {
                    known[i] = matches!(set, TaskSet::Train | TaskSet::Validation);
                    trained[i] = set == TaskSet::Train;
                    asked_by[i] = *place;
                }
            }
        }
        let person = |i: u32| plan.task(asked_by[i as usize]).entity;
        let time = &plan.impressions.time;
        let keys_of = |i: usize| of_item.get(plan.impressions.item[i] as usize);
        let mut by_key = vec![Vec::new(); keys];
        let mut asking = vec![Vec::new(); keys];
        for (i, known) in known.iter().enumerate() {
            for key in keys_of(i) {
                asking[*key as usize].push(i as u32);
                if *known {
                    by_key[*key as usize].push(i as u32);
                }
            }
        }
        let timed = !time.is_empty();
        let folds = match (timed, kind) {
            (false, _) => UNTIMED_FOLDS,
            (true, ItemKind::Field(_)) => REPEATED_FOLDS,
            (true, _) => 1,
        };
        let fold = |i: u32| hash64(37, u64::from(person(i))) % folds;
        // Without times, the latest are a sample.
        let order = |i: &u32| if timed { (time[*i as usize], *i) } else { (hash64(38, u64::from(*i)) as i64, *i) };
        let (mut found, mut supports, mut queries, mut members) =
            (Vec::new(), Ragged::new(), Ragged::new(), Ragged::new());
        let mut tasks_of: Vec<Vec<u32>> = vec![Vec::new(); n];
        for (key, (mut own, asking)) in by_key.into_iter().zip(asking).enumerate() {
            own.sort_unstable_by_key(order);
            // When each person first met the entity.
            let mut first: HashMap<u32, i64> = HashMap::new();
            for i in asking.iter().filter(|_| timed && folds == 1) {
                let t = time[*i as usize];
                first.entry(person(*i)).and_modify(|f| *f = t.min(*f)).or_insert(t);
            }
            for f in 0..folds {
                let others: Vec<u32> = own.iter().copied().filter(|i| folds == 1 || fold(*i) != f).collect();
                let cuts = if timed { cuts(others.len()) } else { vec![others.len()] };
                let mut asked: Vec<Vec<u32>> = vec![Vec::new(); cuts.len()];
                for i in asking.iter().copied().filter(|i| folds == 1 || fold(*i) == f) {
                    let before = match timed {
                        false => others.len(),
                        true => {
                            let until = first.get(&person(i)).copied().unwrap_or(time[i as usize]);
                            others.partition_point(|o| time[*o as usize] < until)
                        }
                    };
                    // The cuts fall, to 0 where there are times.
                    let cut = cuts.partition_point(|c| *c > before);
                    asked[cut].push(i);
                }
                for (cut, asked) in cuts.iter().zip(asked).filter(|(_, asked)| !asked.is_empty()) {
                    let task = found.len() as u32;
                    asked.iter().for_each(|i| tasks_of[*i as usize].push(task));
                    found.push(key as u32);
                    supports.push(others[..*cut].iter().copied());
                    queries.push(asked.into_iter().filter(|i| trained[*i as usize]));
                }
            }
            members.push(own);
        }
        let mut all = Ragged::new();
        tasks_of.into_iter().for_each(|tasks| all.push(tasks));
        Ok(Self { keys: found, supports, queries, tasks_of: all, asked_by, members, of_item })
    }

    /// One task for each entity, which knows all that may be adapted to and asks nothing.
    pub(crate) fn of_members(&self) -> Self {
        let mut queries = Ragged::new();
        (0..self.members.len()).for_each(|_| queries.push([]));
        Self { keys: (0..self.members.len() as u32).collect(), supports: self.members.clone(), queries, ..self.clone() }
    }

    /// The mean of the foundation model's vectors of each entity's items, `[entities, width]`; of one item, its vector.
    pub(crate) fn vectors(&self, plan: &Plan<'_>) -> Vec<f32> {
        let (d, entities) = (plan.width, self.members.len());
        let (mut sums, mut counts) = (vec![0.0f32; entities * d], vec![0.0f32; entities]);
        for (item, vector) in plan.items.chunks_exact(d).enumerate() {
            for key in self.of_item.get(item) {
                let key = *key as usize;
                counts[key] += 1.0;
                add(&mut sums[key * d..(key + 1) * d], vector);
            }
        }
        for (sum, count) in sums.chunks_exact_mut(d).zip(&counts) {
            sum.iter_mut().for_each(|s| *s /= count.max(1.0));
        }
        sums
    }
}

/// From all of `n` down to none, each a fifth less than the one before.
fn cuts(n: usize) -> Vec<usize> {
    let mut found = vec![n];
    let mut to = n;
    while to > 0 {
        to -= to.div_ceil(CUT);
        found.push(to);
    }
    found
}

/// The entities of each item, and how many there are.
fn entities(plan: &Plan<'_>, kind: &ItemKind) -> Result<(Ragged, usize)> {
    let items = plan.data.items.len();
    let mut found = Ragged::new();
    let ItemKind::Field(name) = kind else {
        (0..items as u32).for_each(|item| found.push([item]));
        return Ok((found, items));
    };
    let fields = &plan.data.schema.item_fields;
    let at = fields.iter().position(|f| f.name == *name);
    let (Some(field), Some(column)) =
        (at.and_then(|at| fields.get(at)), at.and_then(|at| plan.data.item_columns.get(at)))
    else {
        let known: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
        return Err(err!(
            InvalidConfig,
            "ranker.items names the field {name:?}, items have {known:?}; name one of them, or \"item\""
        ));
    };
    for item in 0..items {
        match column_value(column, item) {
            Value::Codes(codes) => found.push(codes.iter().filter(|c| **c > 0).map(|c| c - 1)),
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "ranker.items names the field {name:?}, which has no categories; name a categorical or multi-valued one"
                ));
            }
        }
    }
    Ok((found, field.kind.codes().saturating_sub(1)))
}
