//! How good are the weights of this moment? Full ranking of the validation questions, on the granted threads.

use super::corpus::encode_events;
use crate::data::{Case, Dataset, Split, newest_runs};
use crate::error::{Result, err};
use crate::kernels::matmul::{View, matmul};
use crate::kernels::rank::mean_rank;
use crate::model::{History, Inference, Request, Scratch, Weights};
use crate::options::Seen;
use crate::random::Rng;
use crate::threads;
use crate::tokenizer::Tokenizer;

/// Most questions asked at a validation; more are sampled once, from the seed.
const MOST: usize = 10_000;
/// Questions scored together.
const BLOCK: usize = 64;

/// The validation questions of a split, ready to be asked again and again.
pub(crate) struct Validation<'a> {
    data: &'a Dataset,
    seen: Seen,
    tokenizer: Option<&'a Tokenizer>,
    cases: Vec<Case>,
}

impl<'a> Validation<'a> {
    /// Takes the questions of a split; where seen items are excluded, those that ask for one are none. Under a tokenizer those whose target goes on with the last token are none.
    pub(crate) fn new(data: &'a Dataset, split: &Split, tokenizer: Option<&'a Tokenizer>, seed: u64) -> Self {
        let mut cases = split.validation.clone();
        cases.retain(|case| split.asks(data, case) && tokenizer.is_none_or(|t| case.starts_run(data, t.rule())));
        if cases.len() > MOST {
            Rng::for_stream(seed, 5).shuffle(&mut cases);
            cases.truncate(MOST);
        }
        Self { data, seen: split.seen, tokenizer, cases }
    }

    /// Whether there is nothing to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Metrics of the weights: `ndcg@10`, `hr@10`, `mrr`. Items that the entity has had are left out of the
    /// ranking where the split says so, ties get the mean rank.
    pub(crate) fn run(
        &self,
        inference: &Inference,
        weights: Weights<'_>,
        threads: usize,
    ) -> Result<Vec<(String, f64)>> {
        let block = |i: usize, scratch: &mut Scratch| {
            let cases = &self.cases[i * BLOCK..((i + 1) * BLOCK).min(self.cases.len())];
            self.ranks(inference, weights, cases, scratch)
        };
        let blocks = self.cases.len().div_ceil(BLOCK);
        let parts: Result<Vec<Vec<f64>>> = threads::map(threads, blocks, Scratch::default, block).into_iter().collect();
        let ranks = parts?.concat();
        let n = ranks.len().max(1) as f64;
        let mean = |f: &dyn Fn(f64) -> f64| ranks.iter().map(|r| f(*r)).sum::<f64>() / n;
        Ok(vec![
            ("ndcg@10".into(), mean(&|r| if r < 10.0 { 1.0 / (r + 2.0).log2() } else { 0.0 })),
            ("hr@10".into(), mean(&|r| f64::from(r < 10.0))),
            ("mrr".into(), mean(&|r| 1.0 / (r + 1.0))),
        ])
    }

    fn ranks(
        &self,
        inference: &Inference,
        weights: Weights<'_>,
        cases: &[Case],
        scratch: &mut Scratch,
    ) -> Result<Vec<f64>> {
        let d = inference.width();
        let v = weights.items.len() / d;
        let mut users = vec![0.0f32; cases.len() * d];
        for (case, user) in cases.iter().zip(users.chunks_exact_mut(d)) {
            let (history, request) = question(self.data, case, self.tokenizer, inference.max_length());
            inference.user_vector(weights, &history, &request, scratch, user)?;
        }
        let mut scores = vec![0.0f32; cases.len() * v];
        matmul(View::dense(&users, cases.len(), d), View::dense(weights.items, v, d).t(), &mut scores, v, false);
        let rank = |(case, scores): (&Case, &mut [f32])| -> Result<f64> {
            let target = self.data.events.item[case.target] as usize;
            if !scores[target].is_finite() {
                return Err(err!(Diverged, "the score of item {} is not finite", self.data.items.id(target as u32)));
            }
            leave_out(self.data, self.seen, case, scores);
            Ok(mean_rank(scores, target))
        };
        cases.iter().zip(scores.chunks_exact_mut(v)).map(rank).collect()
    }
}

/// Takes the items that the entity has had out of the ranking of a question, where seen items are excluded.
pub(crate) fn leave_out(data: &Dataset, seen: Seen, case: &Case, scores: &mut [f32]) {
    if seen == Seen::Excluded {
        data.events.item[case.history.clone()].iter().for_each(|had| scores[*had as usize] = f32::NEG_INFINITY);
    }
}

/// What the model is told about a question: the newest `length` tokens before the target, and the request-time fields
/// of the target.
pub(crate) fn question(
    data: &Dataset,
    case: &Case,
    tokenizer: Option<&Tokenizer>,
    length: usize,
) -> (History, Request) {
    let joins = |a, b| tokenizer.is_some_and(|t| t.rule().joins(t.rule().place(data, a), t.rule().place(data, b)));
    let start = newest_runs(case.history.clone(), length, joins);
    let mut history = encode_events(data, start..case.history.end);
    if let Some(tokenizer) = tokenizer {
        let mut merged = History::default();
        tokenizer.merge(&history, 0..history.items.len(), &mut merged);
        history = merged;
    }
    let target = encode_events(data, case.target..case.target + 1);
    let fields = match case.at {
        None => target.fields.iter().map(|f| f.first().copied().unwrap_or(0)).collect(),
        Some(_) => Vec::new(),
    };
    (history, Request { time: case.at.or(target.time.first().copied()).filter(|_| data.schema.has_time), fields })
}
