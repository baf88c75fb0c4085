//! Beyond the best k: lists drawn at random by their scores, and what comes after what comes next.

use super::filter::Filter;
use super::generation::Generation;
use super::query::Query;
use super::retrieve::{Recommendations, Recommended, Source, check_k};
use super::session::Work;
use crate::error::{Error, Result, err};
use crate::kernels::retrieve::Scored;
use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling as Processing};

/// The most steps of [`super::Engine::steps`].
pub const MAX_STEPS: usize = 1000;

/// How items are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Always the highest score: no chance at all.
    Greedy,
    /// In proportion to `exp(score / temperature)`, out of all items that the filter lets pass.
    All {
        /// 1 is the model's own distribution; lower is bolder on the best, higher more even. 1e-6 to 1e6.
        temperature: f64,
    },
    /// As `All`, out of the best `count` of those left.
    TopK {
        /// How many take part in each draw; at least 1.
        count: usize,
        /// As in `All`.
        temperature: f64,
    },
    /// As `All`, out of the fewest best that together have the probability `p` among those left.
    TopP {
        /// Above 0, at most 1.
        p: f64,
        /// As in `All`.
        temperature: f64,
    },
    /// As `TopP`, out of the best `count` of those left.
    TopKThenTopP {
        /// How many take part in each draw; at least 1.
        count: usize,
        /// Above 0, at most 1.
        p: f64,
        /// As in `All`.
        temperature: f64,
    },
}

/// How items are drawn, and the seed of the draws.
///
/// Draws go through candle's `LogitsProcessor`, whose softmax asks for a rayon pool; so that it does not start the global
/// one in the host, all draws of a call run on one thread that lives for the call (except under [`Sampling::Greedy`]).
/// A draw costs time in proportion to the items that take part, `TopP` a sort of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// How.
    pub sampling: Sampling,
    /// The seed: the same one gives the same draws.
    pub seed: u64,
}

impl Sampler {
    /// Checks the ranges of all numbers.
    ///
    /// # Errors
    /// `InvalidArgument` naming the number.
    pub fn check(&self) -> Result<()> {
        let (count, p, temperature) = match self.sampling {
            Sampling::Greedy => (None, None, None),
            Sampling::All { temperature } => (None, None, Some(temperature)),
            Sampling::TopK { count, temperature } => (Some(count), None, Some(temperature)),
            Sampling::TopP { p, temperature } => (None, Some(p), Some(temperature)),
            Sampling::TopKThenTopP { count, p, temperature } => (Some(count), Some(p), Some(temperature)),
        };
        if count == Some(0) {
            return Err(err!(InvalidArgument, "top-k is 0; let at least 1 item take part"));
        }
        if let Some(p) = p
            && !(p > 0.0 && p <= 1.0)
        {
            return Err(err!(InvalidArgument, "top-p is {p}; choose a number above 0 and at most 1"));
        }
        match temperature {
            Some(t) if !(1e-6..=1e6).contains(&t) => {
                Err(err!(InvalidArgument, "temperature is {t}; choose 1e-6 to 1e6, or greedy"))
            }
            _ => Ok(()),
        }
    }

    /// How many of the best have to be known for a list of `k` draws.
    fn candidates(&self, k: usize) -> usize {
        match self.sampling {
            Sampling::Greedy => k,
            Sampling::TopK { count, .. } | Sampling::TopKThenTopP { count, .. } => count.saturating_add(k - 1),
            Sampling::All { .. } | Sampling::TopP { .. } => usize::MAX,
        }
    }

    /// How many of those left take part in a draw.
    fn partakers(&self) -> usize {
        match self.sampling {
            Sampling::TopK { count, .. } | Sampling::TopKThenTopP { count, .. } => count,
            Sampling::Greedy | Sampling::All { .. } | Sampling::TopP { .. } => usize::MAX,
        }
    }

    fn processor(&self) -> LogitsProcessor {
        let processing = match self.sampling {
            Sampling::Greedy => Processing::ArgMax,
            Sampling::All { temperature } => Processing::All { temperature },
            Sampling::TopK { count, temperature } => Processing::TopK { k: count, temperature },
            Sampling::TopP { p, temperature } => Processing::TopP { p, temperature },
            Sampling::TopKThenTopP { count, p, temperature } => Processing::TopKThenTopP { k: count, p, temperature },
        };
        LogitsProcessor::from_sampling(self.seed, processing)
    }
}

impl Generation {
    /// As [`super::Engine::sample`], from this generation.
    ///
    /// # Errors
    /// As [`super::Engine::sample`].
    pub fn sample(
        &self,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        sampler: &Sampler,
    ) -> Result<Recommendations> {
        let mut lists = self.steps(query, filter, k, 1, Some(sampler))?;
        lists.pop().ok_or_else(|| err!(Internal, "decoding gave no list; please report it"))
    }

    /// As [`super::Engine::steps`], from this generation.
    ///
    /// # Errors
    /// As [`super::Engine::steps`].
    pub fn steps(
        &self,
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
        let sampler = sampler.copied().unwrap_or(Sampler { sampling: Sampling::Greedy, seed: 0 });
        sampler.check()?;
        let mut work = Work::default();
        self.prepare(&mut work, query, filter)?;
        match sampler.sampling {
            Sampling::Greedy => self.decode(&mut work, filter, k, steps, &sampler),
            _ => {
                let pool = rayon_core::ThreadPoolBuilder::new().num_threads(1).build();
                let pool =
                    pool.map_err(|e| err!(Io, "cannot start the thread of a sampled list: {e}; free threads"))?;
                pool.install(|| self.decode(&mut work, filter, k, steps, &sampler))
            }
        }
    }

    fn decode(
        &self,
        work: &mut Work,
        filter: &Filter<'_>,
        k: usize,
        steps: usize,
        sampler: &Sampler,
    ) -> Result<Vec<Recommendations>> {
        let mut processor = sampler.processor();
        let mut lists = Vec::new();
        for step in 0..steps {
            let source = self.rank(work, filter, sampler.candidates(k))?;
            let mut left = work.top.finish().to_vec();
            let mut items: Vec<Recommended> = Vec::new();
            while items.len() < k && !left.is_empty() {
                // In exact order of scores: at high temperatures probabilities cannot be told apart any more.
                let partakers = left.get(..sampler.partakers().min(left.len())).unwrap_or_default();
                let drawn = draw(&mut processor, partakers, source)?;
                items.push(self.name(drawn.row, drawn.score)?);
                left.retain(|s| s.row != drawn.row);
            }
            let next = items.first().map(|item| item.row);
            // The first list is given even where it is empty; an empty one after it says nothing.
            if step == 0 || next.is_some() {
                lists.push(Recommendations { generation: self.id(), source, items });
            }
            let Some(next) = next else { break };
            work.resolved.imagine(self, next);
            work.mask.leave_out(next);
        }
        Ok(lists)
    }
}

/// Draws one of `from`, which are in order, best first.
fn draw(processor: &mut LogitsProcessor, from: &[Scored], source: Source) -> Result<Scored> {
    let logit = |s: &Scored| match source {
        Source::Model | Source::Ranker => s.score,
        // Shares are probabilities.
        Source::Popularity => s.score.max(f32::MIN_POSITIVE).ln(),
    };
    let best = from.first().map_or(0.0, logit);
    let logits = from.iter().map(|s| (logit(s) - best).max(f32::MIN)).collect();
    let failed = |e| Error::tensor("drawing an item", e);
    let logits = Tensor::from_vec(logits, from.len(), &Device::Cpu).map_err(failed)?;
    let place = processor.sample(&logits).map_err(failed)?;
    from.get(place as usize)
        .copied()
        .ok_or_else(|| err!(Internal, "an item beyond the last was drawn; please report it"))
}
