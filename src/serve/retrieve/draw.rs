//! Items drawn at random by their scores.

use super::super::list::Source;
use crate::error::{Error, Result, err};
use crate::kernels::retrieve::Scored;
use crate::random::Rng;
use std::fmt;
use std::str::FromStr;

/// How items are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
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

impl Sampling {
    /// How many take part in a draw, the probability that those who stay have together, and the temperature; `None` without
    /// chance.
    fn parts(self) -> Option<(usize, f64, f64)> {
        match self {
            Self::Greedy => None,
            Self::All { temperature } => Some((usize::MAX, 1.0, temperature)),
            Self::TopK { count, temperature } => Some((count, 1.0, temperature)),
            Self::TopP { p, temperature } => Some((usize::MAX, p, temperature)),
            Self::TopKThenTopP { count, p, temperature } => Some((count, p, temperature)),
        }
    }
}

/// How items are drawn, and the seed of the draws. Written as `temperature=0.8,top-p=0.9,top-k=50,seed=7`, each part optional and in
/// any order; temperature 0 is [`Sampling::Greedy`].
///
/// A draw costs time in proportion to the items that take part, and of a list the order of all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// How.
    pub sampling: Sampling,
    /// The seed: the same one gives the same draws.
    pub seed: u64,
}

impl Sampler {
    /// No chance at all.
    pub(in crate::serve) const GREEDY: Self = Self { sampling: Sampling::Greedy, seed: 0 };

    /// Checks the ranges of all numbers.
    ///
    /// # Errors
    /// `InvalidArgument` naming the number.
    pub fn check(&self) -> Result<()> {
        let Some((count, p, temperature)) = self.sampling.parts() else { return Ok(()) };
        if count == 0 {
            return Err(err!(InvalidArgument, "top-k is 0; let at least 1 item take part"));
        }
        if !(p > 0.0 && p <= 1.0) {
            return Err(err!(InvalidArgument, "top-p is {p}; choose a number above 0 and at most 1"));
        }
        match (1e-6..=1e6).contains(&temperature) {
            true => Ok(()),
            false => Err(err!(InvalidArgument, "temperature is {temperature}; choose 1e-6 to 1e6, or greedy")),
        }
    }

    /// How many of the best have to be known for a list of `k` draws.
    pub(in crate::serve) fn candidates(&self, k: usize) -> usize {
        self.sampling.parts().map_or(k, |(count, ..)| count.saturating_add(k - 1))
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sampling.parts() {
            None => write!(f, "temperature=0")?,
            Some((count, p, temperature)) => {
                write!(f, "temperature={temperature}")?;
                if p < 1.0 || matches!(self.sampling, Sampling::TopP { .. } | Sampling::TopKThenTopP { .. }) {
                    write!(f, ",top-p={p}")?;
                }
                if count < usize::MAX {
                    write!(f, ",top-k={count}")?;
                }
            }
        }
        write!(f, ",seed={}", self.seed)
    }
}

impl FromStr for Sampler {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (mut temperature, mut top_p, mut top_k, mut seed) = (1.0, None, None, 0);
        for part in text.split(',') {
            let read = |(key, value): (&str, &str)| -> Option<()> {
                let value = value.trim();
                match key.trim() {
                    "temperature" => temperature = value.parse::<f64>().ok()?,
                    "top-p" => top_p = Some(value.parse::<f64>().ok()?),
                    "top-k" => top_k = Some(value.parse::<usize>().ok()?),
                    "seed" => seed = value.parse::<u64>().ok()?,
                    _ => return None,
                }
                Some(())
            };
            part.split_once('=').and_then(read).ok_or_else(|| {
                err!(InvalidArgument, "{part:?} is none of temperature=0.8, top-p=0.9, top-k=50, seed=1")
            })?;
        }
        let sampling = match (top_k, top_p) {
            _ if temperature == 0.0 => Sampling::Greedy,
            (None, None) => Sampling::All { temperature },
            (Some(count), None) => Sampling::TopK { count, temperature },
            (None, Some(p)) => Sampling::TopP { p, temperature },
            (Some(count), Some(p)) => Sampling::TopKThenTopP { count, p, temperature },
        };
        let sampler = Self { sampling, seed };
        sampler.check()?;
        Ok(sampler)
    }
}

/// The place of one of `from`, which are in order, best first; `weights` is memory.
pub(in crate::serve) fn draw(
    sampling: Sampling,
    random: &mut Rng,
    from: &[Scored],
    source: Source,
    weights: &mut Vec<f64>,
) -> usize {
    let Some((count, p, temperature)) = sampling.parts() else { return 0 };
    let logit = |s: &Scored| match source {
        // Shares are probabilities.
        Source::Popularity => f64::from(s.score.max(f32::MIN_POSITIVE)).ln(),
        Source::Model | Source::Ranker => f64::from(s.score),
    };
    let best = from.first().map_or(0.0, logit);
    weights.clear();
    weights.extend(from.iter().take(count).map(|s| ((logit(s) - best) / temperature).exp()));
    let wanted = p * weights.iter().sum::<f64>();
    let mut kept = 0.0;
    let most = weights.iter().position(|w| {
        kept += w;
        kept >= wanted
    });
    // Rounding may keep the sum below: then all stay.
    weights.truncate(most.map_or(weights.len(), |last| last + 1));
    let mut left = random.uniform() * kept;
    let drawn = weights.iter().position(|w| {
        left -= w;
        left < 0.0
    });
    drawn.unwrap_or(weights.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_read_and_written() {
        let read = |t: &str| t.parse::<Sampler>().unwrap();
        assert_eq!(read("seed=7"), Sampler { sampling: Sampling::All { temperature: 1.0 }, seed: 7 });
        assert_eq!(read("temperature=0").sampling, Sampling::Greedy);
        assert_eq!(read("top-k=5,temperature=0.5").sampling, Sampling::TopK { count: 5, temperature: 0.5 });
        assert_eq!(read("top-p=0.9").sampling, Sampling::TopP { p: 0.9, temperature: 1.0 });
        let both = Sampling::TopKThenTopP { count: 3, p: 0.9, temperature: 1.0 };
        assert_eq!(read("top-p=0.9, top-k=3").sampling, both);
        for text in ["seed=7", "temperature=0", "top-k=5,temperature=0.5", "top-p=1", "top-p=0.9, top-k=3"] {
            assert_eq!(read(&read(text).to_string()), read(text));
        }
        for bad in ["", "hot", "temperature=warm", "temperature=-1", "top-p=1.5", "top-k=0", "seed=-1", "top=1"] {
            assert!(bad.parse::<Sampler>().is_err(), "{bad}");
        }
    }

    #[test]
    fn top_p_keeps_the_fewest_that_suffice() {
        let from: Vec<Scored> =
            (0..4).map(|row| Scored { score: [0.4f32, 0.3, 0.2, 0.1][row as usize], row }).collect();
        let mut drawn = |p: f64| {
            let (mut random, mut weights) = (Rng::new(5), Vec::new());
            let sampling = Sampling::TopP { p, temperature: 1.0 };
            let all = (0..400).map(|_| draw(sampling, &mut random, &from, Source::Popularity, &mut weights));
            all.max().unwrap()
        };
        assert_eq!([0.1, 0.39, 0.41, 0.69, 0.71, 0.95].map(&mut drawn), [0, 0, 1, 1, 2, 3]);
    }
}
