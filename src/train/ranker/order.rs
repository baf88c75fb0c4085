//! The order of lists: how much the outcome weighs beside the foundation model's score.
//!
//! It is chosen on the validation questions of the entities that validate the ranker, whose latest outcomes it was not trained on. A
//! question is answered as serving answers it: the best items are retrieved, those that the entity has had left out, and
//! put in order under the embedding that is adapted to the outcomes known.

use super::embeddings::adapt_items;
use super::plan::{Plan, TaskSet};
use super::predict::Predictor;
use super::trainer::TrainedRanker;
use crate::data::{Case, Split};
use crate::error::{Result, err};
use crate::kernels::matmul::{View, matmul};
use crate::kernels::rank::{auc, mean_rank};
use crate::kernels::retrieve::{TopK, dot};
use crate::model::{Request, Scratch};
use crate::options::{ListOrder, RankerGoal};
use crate::random::Rng;
use crate::ranker::{RETRIEVED, list_score};
use crate::threads;
use crate::train::foundation::validate::{leave_out, question};

/// The weights that are tried.
pub const WEIGHTS: [f32; 8] = [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// The fewest questions that a weight is chosen by; with fewer it is 0.
pub const LEAST_QUESTIONS: usize = 20;
/// The most questions that are asked; of more some are drawn by lot.
const MOST_QUESTIONS: usize = 2000;

/// What there is to order: the score of each candidate and the probability of its outcome, by place.
struct Candidates {
    scores: Vec<f32>,
    probabilities: Vec<f32>,
    /// The place of the item that comes next; `None` where it was not retrieved.
    target: Option<usize>,
}

impl Candidates {
    fn ordered(&self, order: ListOrder) -> Vec<f32> {
        self.scores.iter().zip(&self.probabilities).map(|(s, p)| list_score(order, *s, *p)).collect()
    }

    fn ndcg(&self, order: ListOrder) -> f64 {
        let rank = self.target.map_or(f64::INFINITY, |target| mean_rank(&self.ordered(order), target));
        if rank < 10.0 { 1.0 / (rank + 2.0).log2() } else { 0.0 }
    }
}

/// The order of lists for a goal, and figures of it (`ndcg@10`, `auc`), of the lists as they are retrieved (`@retrieval`) and of those by the
/// probability of the outcome alone (`@outcome`); those that nothing can be told of are left out. `auc` is the mean over entities of
/// the area under the curve of the outcomes of one entity.
///
/// # Errors
/// `InvalidConfig` for a head that the ranker does not have; `InvalidArgument` for a plan without the foundation model's vectors; what
/// predictions return.
pub fn choose_order(
    plan: &Plan<'_>,
    split: &Split,
    trained: &TrainedRanker,
    goal: &RankerGoal,
    threads: usize,
) -> Result<(ListOrder, Vec<(String, f64)>)> {
    let head = goal.head(&trained.heads)?;
    let predictor = Predictor::new(plan, &trained.ranker, threads)?;
    let asked = questions(plan, split, trained, &predictor, head, threads)?;
    let outcomes = outcomes(plan, trained, &predictor, head)?;
    let by = |weight| ListOrder { head: head as u32, weight };
    let ndcg = |weight| {
        let sum = asked.iter().map(|list| list.ndcg(by(weight))).sum::<f64>();
        (!asked.is_empty()).then(|| sum / asked.len() as f64)
    };
    let within = |weight| {
        let found: Vec<f64> = outcomes.iter().filter_map(|(of, labels)| auc(&of.ordered(by(weight)), labels)).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let weight = match goal {
        RankerGoal::Outcome(_) => None,
        RankerGoal::Weight(weight) => Some(*weight),
        RankerGoal::Next if asked.len() < LEAST_QUESTIONS => Some(0.0),
        RankerGoal::Next => {
            let tried = WEIGHTS.map(|weight| (weight, ndcg(Some(weight)).unwrap_or(0.0)));
            // Of equal ones the smallest.
            let best = tried.into_iter().reduce(|best, one| if one.1 > best.1 { one } else { best });
            best.map(|(weight, _)| weight)
        }
    };
    let mut figures = Vec::new();
    for (suffix, weight) in [("", weight), ("@retrieval", Some(0.0)), ("@outcome", None)] {
        figures.extend(ndcg(weight).map(|value| (format!("ndcg@10{suffix}"), value)));
        figures.extend(within(weight).map(|value| (format!("auc{suffix}"), value)));
    }
    Ok((by(weight), figures))
}

/// The candidates of the validation questions of entities that validate the ranker.
fn questions(
    plan: &Plan<'_>,
    split: &Split,
    trained: &TrainedRanker,
    predictor: &Predictor<'_>,
    head: usize,
    threads: usize,
) -> Result<Vec<Candidates>> {
    let features = plan.features.ok_or_else(|| {
        err!(InvalidArgument, "the order of lists needs the foundation model's vectors; give a plan that has them")
    })?;
    let mut task_of = vec![None; plan.data.entities.len()];
    for place in plan.places(TaskSet::Validation) {
        task_of[plan.task(*place).entity as usize] = Some(*place);
    }
    let place = |case: &Case| task_of.get(case.entity as usize).copied().flatten();
    let validation = split.validation.iter().filter(|case| split.asks(plan.data, case));
    let mut asked: Vec<(u32, &Case)> = validation.filter_map(|c| Some((place(c)?, c))).collect();
    if asked.len() > MOST_QUESTIONS {
        Rng::for_stream(trained.options.seed, 31).shuffle(&mut asked);
        asked.truncate(MOST_QUESTIONS);
    }
    let (d, v) = (plan.width, plan.data.items.len());
    let item_embeddings = adapt_items(plan, &trained.ranker, threads)?;
    let one = |at: usize, (scratch, scores): &mut (Scratch, Vec<f32>)| -> Result<Candidates> {
        let (place, case) = asked[at];
        let (history, request) = question(plan.data, case, None, features.inference.max_length());
        let (mut user, mut state) = (vec![0.0; d], vec![0.0; d]);
        features.inference.user_vector(features.weights, &history, &request, scratch, &mut user)?;
        features.inference.user_vector(features.weights, &history, &Request::default(), scratch, &mut state)?;
        scores.resize(v, 0.0);
        matmul(View::dense(&user, 1, d), View::dense(&plan.items, v, d).t(), scores, v, false);
        leave_out(plan.data, split.seen, case, scores);
        let mut top = TopK::default();
        top.reset(RETRIEVED.min(v));
        for (row, score) in scores.iter().enumerate().filter(|(_, score)| score.is_finite()) {
            top.offer(*score, row as u32);
        }
        let best = top.finish();
        let rows: Vec<u32> = best.iter().map(|s| s.row).collect();
        let logits = predictor.of_items(place, &state, &rows, &item_embeddings)?;
        let target = plan.data.events.item[case.target];
        Ok(Candidates {
            scores: best.iter().map(|s| s.score).collect(),
            probabilities: probabilities(trained, &logits, head),
            target: rows.iter().position(|row| *row == target),
        })
    };
    threads::map(threads, asked.len(), || (Scratch::default(), Vec::new()), one).into_iter().collect()
}

/// The outcomes of each task that validates, with their labels.
fn outcomes(
    plan: &Plan<'_>,
    trained: &TrainedRanker,
    predictor: &Predictor<'_>,
    head: usize,
) -> Result<Vec<(Candidates, Vec<bool>)>> {
    let (d, heads) = (plan.width, trained.heads.len());
    let logits = predictor.predict(TaskSet::Validation, &[trained.ranker.shape.options.steps as usize])?;
    let all = probabilities(trained, logits.first().map_or(&[][..], Vec::as_slice), head);
    let mut at = 0;
    let one = |place: &u32| {
        let query = plan.task(*place).query.clone();
        let mut of = Candidates { scores: Vec::new(), probabilities: Vec::new(), target: None };
        let mut labels = Vec::new();
        for (i, probability) in query.clone().zip(&all[at..]) {
            let label = plan.impressions.labels[i * heads + head];
            if label.is_nan() {
                continue;
            }
            let item = plan.impressions.item[i] as usize;
            of.scores.push(dot(plan.state(*place), &plan.items[item * d..(item + 1) * d]));
            of.probabilities.push(*probability);
            labels.push(label > 0.5);
        }
        at += query.len();
        (of, labels)
    };
    Ok(plan.places(TaskSet::Validation).iter().map(one).collect())
}

/// The calibrated probabilities of a head.
fn probabilities(trained: &TrainedRanker, logits: &[f32], head: usize) -> Vec<f32> {
    let view = trained.ranker.view();
    logits.chunks_exact(trained.heads.len()).map(|logits| view.probability(head, logits[head])).collect()
}
