//! Which settings suit the data? Successive halving (Jamieson & Talwalkar 2016) over the few that matter.
//!
//! Candidate 0 is what the caller would train with anyway, the default; the others differ from it in drawn settings. All
//! are trained for a while, the best third of the others goes on to the next rung, and the default always does. Every
//! rung gets the same time, so that fewer candidates get more of it each.
//!
//! A candidate is one training, with the bound of epochs and the patience that it would have alone, that a rung carries on from
//! where the one before left it. A score is therefore that of a prefix of the very training which the settings
//! describe; what it would score at its end is not known, and settings that learn fast look better than they are.

use super::foundation::trainer::{Stopped, Trainer};
use crate::data::{Dataset, Split};
use crate::error::{Error, ErrorKind, Result, err};
use crate::options::{Device, Loss, ModelOptions, Negatives, TokenizerOptions, TrainOptions};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::random::Rng;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Of the candidates other than the default, one in so many goes on to the next rung.
const KEEP: usize = 3;
/// The drawn learning rate lies within this factor of the default's, on a log scale.
const RATE_FACTOR: f64 = 3.0;
/// Dropouts to draw from.
const DROPOUTS: [f32; 6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
/// Widths to draw from, in halves of the default's; the hidden width keeps its proportion.
const WIDTH_HALVES: [u32; 4] = [1, 2, 3, 4];
/// Blocks to draw from.
const BLOCKS: [u32; 3] = [1, 2, 3];
/// Batches to draw from, in halves of the default's.
const BATCH_HALVES: [u32; 4] = [1, 2, 4, 8];
/// Temperatures of normalized vectors to draw from.
const TEMPERATURES: [f32; 4] = [0.03, 0.05, 0.07, 0.1];
/// Negatives of a sampled softmax to draw from.
const COUNTS: [u32; 2] = [256, 1024];

/// How long and how widely to search.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneOptions {
    /// Seconds of search. It ends at most a step and a validation later.
    pub seconds: f64,
    /// Candidates of the first rung, the default included.
    pub candidates: usize,
    /// Seed of the drawn settings: the same seed draws the same candidates.
    pub seed: u64,
}

impl Default for TuneOptions {
    fn default() -> Self {
        Self { seconds: 1800.0, candidates: 9, seed: 1 }
    }
}

impl TuneOptions {
    fn check(&self) -> Result<()> {
        if !(self.seconds > 0.0 && self.seconds < 1e9) {
            return Err(err!(InvalidConfig, "the search's time is {} seconds; give it some", self.seconds));
        }
        if !(2..=1000).contains(&self.candidates) {
            return Err(err!(InvalidConfig, "the search has {} candidates; choose 2 to 1000", self.candidates));
        }
        Ok(())
    }
}

/// A candidate's standing at the end of a rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The rung, from 0.
    pub rung: usize,
    /// Seconds trained, over all rungs so far.
    pub seconds: f64,
    /// Epochs begun.
    pub epochs: u32,
    /// Metrics of its best validation.
    pub validation: Vec<(String, f64)>,
    /// Whether its training came to its own end, by patience or by epochs.
    pub ended: bool,
}

impl Score {
    /// NDCG@10 of its best validation.
    pub fn ndcg(&self) -> f64 {
        self.validation.iter().find(|(name, _)| name == "ndcg@10").map_or(0.0, |(_, v)| *v)
    }
}

/// A candidate and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The shape of its model.
    pub model: ModelOptions,
    /// How it is trained.
    pub train: TrainOptions,
    /// Its standing at the end of each rung that it was in.
    pub scores: Vec<Score>,
    /// Why it was given up: its training diverged.
    pub failed: Option<String>,
}

impl Candidate {
    fn new(model: ModelOptions, train: TrainOptions) -> Self {
        Self { model, train, scores: Vec::new(), failed: None }
    }

    /// The settings that are searched, with its values.
    pub fn settings(&self) -> [(&'static str, String); 7] {
        let loss = match self.train.loss {
            Some(Loss::Sampled(n)) => format!("sampled {}", n.count),
            Some(Loss::Gbce(g)) => format!("gbce {}", g.negatives.count),
            Some(Loss::Full) => "full".to_owned(),
            None => "auto".to_owned(),
        };
        [
            ("learning_rate", self.train.learning_rate.to_string()),
            ("dropout", self.train.dropout.to_string()),
            ("width", self.model.width.to_string()),
            ("blocks", self.model.blocks.to_string()),
            ("batch", self.train.batch.to_string()),
            ("temperature", self.model.temperature.to_string()),
            ("loss", loss),
        ]
    }
}

/// A round in which some candidates were trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// Who was in it; the default, 0, always.
    pub candidates: Vec<usize>,
    /// Seconds that it was given.
    pub seconds: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// All candidates; the default is the first.
    pub candidates: Vec<Candidate>,
    /// The rungs that were begun.
    pub rungs: Vec<Rung>,
    /// The best one, by validation NDCG@10 at the end of the last rung that all in it came through.
    pub winner: usize,
    /// Seconds of the search.
    pub seconds: f64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

impl Tuned {
    /// The winner.
    pub fn best(&self) -> Option<&Candidate> {
        self.candidates.get(self.winner)
    }
}

/// Searches for settings.
///
/// ```no_run
/// # use docent::{data, progress, train};
/// # fn f(data: data::Dataset, split: data::Split) -> docent::Result<()> {
/// let options = train::TuneOptions { seconds: 600.0, ..Default::default() };
/// let tuned = train::Tuner::new(&data, &split, "checkpoints").options(options).run(
///     &mut progress::Silent,
///     &progress::Cancel::new(),
/// )?;
/// println!("{:?}", tuned.best());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Tuner<'a> {
    data: &'a Dataset,
    split: &'a Split,
    directory: PathBuf,
    base: Option<(ModelOptions, TrainOptions)>,
    tokenizer: TokenizerOptions,
    options: TuneOptions,
    device: Device,
}

impl<'a> Tuner<'a> {
    /// A search that keeps the candidates' checkpoints under `directory`. The default is what
    /// [`defaults`](super::defaults()) chooses.
    pub fn new(data: &'a Dataset, split: &'a Split, directory: impl Into<PathBuf>) -> Self {
        let (base, options, device) = (None, TuneOptions::default(), Device::Cpu);
        Self { data, split, directory: directory.into(), base, tokenizer: TokenizerOptions::default(), options, device }
    }

    /// The default, candidate 0, which the others differ from in the settings that are searched.
    pub fn base(mut self, model: ModelOptions, train: TrainOptions) -> Self {
        self.base = Some((model, train));
        self
    }

    /// How events become tokens, the same for all candidates.
    pub fn tokenizer(mut self, options: TokenizerOptions) -> Self {
        self.tokenizer = options;
        self
    }

    /// How long and how widely to search.
    pub fn options(mut self, options: TuneOptions) -> Self {
        self.options = options;
        self
    }

    /// Where to train.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Searches until the time is up, all are trained to their end, or `cancel`; what was found until then is given.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range; `InvalidArgument` where the split has no validation questions;
    /// `Cancelled` where nothing was scored yet; `Diverged` where every candidate diverged; and what training causes.
    pub fn run(&self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Tuned> {
        self.options.check()?;
        if !self.split.validation.iter().any(|case| self.split.asks(self.data, case)) {
            return Err(err!(
                InvalidArgument,
                "protocol `{}` has no validation questions to choose by; tune with leave-one-out",
                self.split.protocol
            ));
        }
        let (model, train) = match &self.base {
            Some(base) => base.clone(),
            None => super::defaults(self.data, self.split).map(|d| (d.model, d.train))?,
        };
        let mut search = Search {
            tuner: self,
            candidates: candidates(&model, &train, &self.options),
            rungs: Vec::new(),
            begun: Instant::now(),
            limit: train.max_seconds,
        };
        search.run(observer, cancel)?;
        search.end(cancel.is_cancelled())
    }
}

/// How many candidates other than the default each rung has at most, when the first has `first`.
fn sizes(first: usize) -> Vec<usize> {
    let mut sizes = vec![first.max(1)];
    while let Some(&last) = sizes.last().filter(|n| **n > 1) {
        sizes.push(last.div_ceil(KEEP));
    }
    sizes
}

/// Who goes on: the default, and the `count` best of the others by score; the earlier one where scores are equal.
fn kept(scores: &[(usize, f64)], count: usize) -> Vec<usize> {
    let mut others: Vec<(usize, f64)> = scores.iter().filter(|s| s.0 != 0).copied().collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut kept: Vec<usize> = others.iter().take(count).map(|s| s.0).collect();
    kept.extend(scores.iter().map(|s| s.0).filter(|id| *id == 0));
    kept.sort_unstable();
    kept
}

/// The default and its variations. Candidate `i` depends on the seed and on `i`, not on how many there are.
fn candidates(model: &ModelOptions, train: &TrainOptions, options: &TuneOptions) -> Vec<Candidate> {
    let mut all = vec![Candidate::new(model.clone(), train.clone())];
    let mut tries = 0;
    while all.len() < options.candidates && tries < 100 * options.candidates as u64 {
        tries += 1;
        let drawn = draw(model, train, &mut Rng::for_stream(options.seed, tries));
        let new = drawn.model.check().is_ok() && all.iter().all(|c| c.settings() != drawn.settings());
        if new {
            all.push(drawn);
        }
    }
    all
}

fn draw(model: &ModelOptions, train: &TrainOptions, rng: &mut Rng) -> Candidate {
    let (mut model, mut train) = (model.clone(), train.clone());
    let factor = RATE_FACTOR.powf(2.0 * rng.uniform() - 1.0);
    // Two digits, so that it is written as short as it is read.
    let rate = format!("{:.1e}", f64::from(train.learning_rate) * factor);
    train.learning_rate = rate.parse().unwrap_or(train.learning_rate);
    train.dropout = pick(&DROPOUTS, rng).unwrap_or(train.dropout);
    let halves = pick(&WIDTH_HALVES, rng).unwrap_or(2);
    // A whole number of heads of even width.
    let unit = 2 * model.heads;
    let width = (model.width * halves / 2).next_multiple_of(unit);
    model.hidden = (u64::from(model.hidden) * u64::from(width) / u64::from(model.width.max(1))).max(1) as u32;
    model.width = width;
    model.blocks = pick(&BLOCKS, rng).unwrap_or(model.blocks);
    train.batch = (train.batch * pick(&BATCH_HALVES, rng).unwrap_or(2) / 2).max(1);
    if model.normalized {
        model.temperature = pick(&TEMPERATURES, rng).unwrap_or(model.temperature);
    }
    let sampled = pick(&COUNTS, rng).map(|n| Loss::Sampled(Negatives::mixed(n)));
    let full = rng.below(2) == 0;
    // Where the default samples, the full softmax costs too much to be tried.
    let affordable = !matches!(train.loss, Some(Loss::Sampled(_)));
    train.loss = if full && affordable { Some(Loss::Full) } else { sampled };
    Candidate::new(model, train)
}

fn pick<T: Copy>(from: &[T], rng: &mut Rng) -> Option<T> {
    from.get(rng.below(from.len())).copied()
}

/// A search under way.
struct Search<'a> {
    tuner: &'a Tuner<'a>,
    candidates: Vec<Candidate>,
    rungs: Vec<Rung>,
    begun: Instant,
    /// The default's own time limit, which the winner gets back.
    limit: u64,
}

impl Search<'_> {
    /// Seconds left.
    fn left(&self) -> f64 {
        self.tuner.options.seconds - self.begun.elapsed().as_secs_f64()
    }

    fn run(&mut self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<()> {
        let sizes = sizes(self.candidates.len() - 1);
        let mut who: Vec<usize> = (0..self.candidates.len()).collect();
        for rung in 0..sizes.len() {
            let seconds = self.left() / (sizes.len() - rung) as f64;
            if seconds <= 0.0 {
                return Ok(());
            }
            self.rungs.push(Rung { candidates: who.clone(), seconds });
            let end = self.begun.elapsed().as_secs_f64() + seconds;
            for (place, &id) in who.iter().enumerate() {
                let share = (end - self.begun.elapsed().as_secs_f64()) / (who.len() - place) as f64;
                if share <= 0.0 || cancel.is_cancelled() {
                    break;
                }
                let name = format!("rung {}/{}, candidate {id} ({}/{})", rung + 1, sizes.len(), place + 1, who.len());
                observer.on_event(&ProgressEvent::Stage { name, total: share.ceil() as u64, unit: "seconds" });
                self.carry_on(rung, id, share, observer, cancel)?;
            }
            if cancel.is_cancelled() {
                return Ok(());
            }
            who = kept(&self.scores(rung), sizes.get(rung + 1).copied().unwrap_or(0));
        }
        Ok(())
    }

    /// Trains a candidate for `seconds` more, and scores it.
    fn carry_on(
        &mut self,
        rung: usize,
        id: usize,
        seconds: f64,
        observer: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<()> {
        let tuner = self.tuner;
        let Some(candidate) = self.candidates.get_mut(id) else { return Ok(()) };
        let before = candidate.scores.last().cloned();
        if let Some(ended) = before.as_ref().filter(|s| s.ended) {
            candidate.scores.push(Score { rung, ..ended.clone() });
            return Ok(());
        }
        let until = before.map_or(0.0, |s| s.seconds) + seconds;
        let train = TrainOptions { max_seconds: (until.round() as u64).max(1), ..candidate.train.clone() };
        let trainer = Trainer::new(tuner.data, tuner.split).model(candidate.model.clone()).options(train);
        let directory = folder(&tuner.directory, id);
        match trainer
            .tokenizer(tuner.tokenizer.clone())
            .device(tuner.device)
            .checkpoints(directory, rung > 0)
            .run(observer, cancel)
        {
            Err(e) if e.kind() == ErrorKind::Diverged => candidate.failed = Some(e.message().to_owned()),
            Err(e) => return Err(e),
            // Stopped halfway, it has had less time than the others.
            Ok(t) if t.stopped == Stopped::Interrupted => {}
            Ok(t) => candidate.scores.push(Score {
                rung,
                seconds: t.seconds,
                epochs: t.epochs,
                validation: t.validation,
                ended: t.stopped != Stopped::Time,
            }),
        }
        Ok(())
    }

    /// The NDCG@10 of those that were scored at the end of a rung.
    fn scores(&self, rung: usize) -> Vec<(usize, f64)> {
        let score = |id: &usize| {
            let candidate = self.candidates.get(*id).filter(|c| c.failed.is_none())?;
            Some((*id, candidate.scores.iter().find(|s| s.rung == rung)?.ndcg()))
        };
        self.rungs.get(rung).map_or_else(Vec::new, |r| r.candidates.iter().filter_map(score).collect())
    }

    /// The best of the last rung that all in it came through, or of the first one so far; the earlier candidate, so the
    /// default before all, where scores are equal.
    fn winner(&self) -> Option<usize> {
        let alive = |id: &&usize| self.candidates.get(**id).is_some_and(|c| c.failed.is_none());
        let rungs = self.rungs.iter().enumerate().rev();
        let complete = |(rung, r): &(usize, &Rung)| {
            *rung == 0 || self.scores(*rung).len() == r.candidates.iter().filter(alive).count()
        };
        let scores = rungs.filter(complete).map(|(rung, _)| self.scores(rung)).find(|s| !s.is_empty())?;
        scores.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|s| s.0)
    }

    fn end(mut self, interrupted: bool) -> Result<Tuned> {
        let Some(winner) = self.winner() else { return Err(self.nothing(interrupted)) };
        for candidate in &mut self.candidates {
            candidate.train.max_seconds = self.limit;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        Ok(Tuned { candidates: self.candidates, rungs: self.rungs, winner, seconds, interrupted })
    }

    /// Why there is no winner.
    fn nothing(&self, interrupted: bool) -> Error {
        let failed = self.candidates.iter().find_map(|c| c.failed.as_deref());
        match failed {
            _ if interrupted => err!(Cancelled, "the search was stopped before any candidate was scored"),
            Some(why) => err!(Diverged, "every candidate that was tried diverged; the first: {why}"),
            None => err!(InvalidConfig, "the time was up before any candidate was scored; give the search more"),
        }
    }
}

/// Where the checkpoint of a candidate lies.
fn folder(directory: &Path, id: usize) -> PathBuf {
    directory.join(format!("candidate-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_shrink_to_a_duel_with_the_default() {
        assert_eq!(sizes(8), [8, 3, 1]);
        assert_eq!(sizes(26), [26, 9, 3, 1]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(2), [2, 1]);
    }

    #[test]
    fn the_best_third_goes_on_and_the_default_always() {
        let scores = [(0, 0.1), (1, 0.3), (2, 0.2), (3, 0.4), (4, 0.3), (5, 0.0)];
        assert_eq!(kept(&scores, 2), [0, 1, 3]);
        assert_eq!(kept(&scores, 0), [0]);
        assert_eq!(kept(&scores[1..], 1), [3]);
        assert_eq!(kept(&[], 3), [0usize; 0]);
    }

    #[test]
    fn candidates_are_the_seeds_valid_and_differ() {
        let (model, train) = (ModelOptions::default(), TrainOptions::default());
        let options = |candidates, seed| TuneOptions { candidates, seed, ..TuneOptions::default() };
        let some = candidates(&model, &train, &options(9, 1));
        assert_eq!((&some[0].model, &some[0].train), (&model, &train));
        assert_eq!(some[..], candidates(&model, &train, &options(30, 1))[..9]);
        assert_ne!(some, candidates(&model, &train, &options(9, 2)));
        for (i, c) in some.iter().enumerate() {
            c.model.check().unwrap();
            c.train.check().unwrap();
            assert!((3e-4..=3.1e-3).contains(&c.train.learning_rate), "{}", c.train.learning_rate);
            assert!(some[..i].iter().all(|other| other.settings() != c.settings()));
        }
        let sampled = TrainOptions { loss: Some(Loss::Sampled(Negatives::uniform(256))), ..train.clone() };
        let large = candidates(&model, &sampled, &options(30, 1));
        assert!(large[1..].iter().all(|c| matches!(c.train.loss, Some(Loss::Sampled(_)))));
        let narrow = ModelOptions { width: 4, heads: 2, hidden: 4, ..model };
        assert!(candidates(&narrow, &train, &options(50, 3)).iter().all(|c| c.model.check().is_ok()));
    }

    fn search<'a>(tuner: &'a Tuner<'a>, ndcg: &[&[f64]], rungs: &[&[usize]]) -> Search<'a> {
        let mut all: Vec<Candidate> =
            ndcg.iter().map(|_| Candidate::new(ModelOptions::default(), TrainOptions::default())).collect();
        for (candidate, scores) in all.iter_mut().zip(ndcg) {
            candidate.scores = (0..)
                .zip(*scores)
                .map(|(rung, v)| Score {
                    rung,
                    seconds: 1.0,
                    epochs: 1,
                    validation: vec![("ndcg@10".into(), *v)],
                    ended: false,
                })
                .collect();
        }
        let rungs = rungs.iter().map(|r| Rung { candidates: r.to_vec(), seconds: 1.0 }).collect();
        Search { tuner, candidates: all, rungs, begun: Instant::now(), limit: 7 }
    }

    #[test]
    fn the_winner_is_that_of_the_last_complete_rung() {
        let world = crate::data::SyntheticOptions { entities: 30, items: 60, days: 20, ..Default::default() };
        let data = crate::data::World::new(&world, 1).unwrap().dataset().unwrap();
        let split = Split::new(&data, &crate::data::Protocol::LeaveOneOut).unwrap();
        let tuner = Tuner::new(&data, &split, "");
        let won = |ndcg: &[&[f64]], rungs: &[&[usize]]| search(&tuner, ndcg, rungs).winner();
        assert_eq!(won(&[&[0.1, 0.5], &[0.3, 0.4], &[0.2]], &[&[0, 1, 2], &[0, 1]]), Some(0));
        assert_eq!(won(&[&[0.1, 0.5], &[0.3, 0.6], &[0.2]], &[&[0, 1, 2], &[0, 1]]), Some(1));
        // Stopped in the second rung after candidate 0: the first one counts.
        assert_eq!(won(&[&[0.1, 0.5], &[0.3], &[0.2]], &[&[0, 1, 2], &[0, 1]]), Some(1));
        assert_eq!(won(&[&[0.3], &[0.3], &[]], &[&[0, 1, 2]]), Some(0));
        assert_eq!(won(&[&[], &[]], &[&[0, 1]]), None);
        let mut diverged = search(&tuner, &[&[0.1, 0.5], &[0.3]], &[&[0, 1], &[0, 1]]);
        diverged.candidates[1].failed = Some("it diverged".into());
        assert_eq!(diverged.winner(), Some(0));
        let tuned = diverged.end(false).unwrap();
        assert_eq!((tuned.winner, tuned.best().unwrap().train.max_seconds), (0, 7));
        let none = search(&tuner, &[&[], &[]], &[&[0, 1]]);
        assert_eq!(none.end(true).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
