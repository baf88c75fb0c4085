//! Answers to tasks: logits of the query outcomes after any number of inner steps.

use super::impressions::Surface;
use super::pairs::read;
use super::plan::{Plan, TaskSet};
use super::settle::Settled;
use crate::error::{Result, err};
use crate::ranker::{Adapter, OnSurfaces, Ranker, RankerShape, RankerView, SurfaceBlock};
use crate::threads;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Answers the tasks of a plan with a ranker.
#[derive(Debug, Clone)]
pub struct Predictor<'a> {
    plan: &'a Plan<'a>,
    ranker: &'a Ranker,
    labels: &'a [f32],
    threads: usize,
    /// Where the outcomes' items were shown, and the shape of the block of people there.
    surface: Option<(&'a Surface, RankerShape)>,
    /// The embeddings of items or creators, once they were asked for.
    settled: OnceLock<Arc<Settled>>,
}

/// How many tasks a job answers.
const JOB: usize = 16;

impl<'a> Predictor<'a> {
    /// Prepares the answers.
    ///
    /// # Errors
    /// `StateMismatch` if the ranker reads other widths than the plan has; `InvalidConfig` if outcomes lack its surface.
    pub fn new(plan: &'a Plan<'a>, ranker: &'a Ranker, threads: usize) -> Result<Self> {
        let s = &ranker.shape;
        let items = ranker.items.len() / s.options.item_width as usize;
        if s.inputs != plan.inputs.width()
            || s.state != plan.width
            || s.impression != plan.numbers()
            || s.heads != plan.means.len()
            || items != plan.data.items.len()
        {
            return Err(err!(
                StateMismatch,
                "the ranker was trained for other data: it reads inputs of {} and {items} items, the data have {} and {}; train it \
                 on them",
                s.inputs,
                plan.inputs.width(),
                plan.data.items.len()
            ));
        }
        let surface = plan.surface(&s.options)?.zip(s.of_surface());
        Ok(Self { plan, ranker, labels: &plan.impressions.labels, threads, surface, settled: OnceLock::new() })
    }

    /// Adapts to these labels (`[n, heads]`) instead of the true ones: the control that must not gain.
    pub fn adapting_to(mut self, labels: &'a [f32]) -> Self {
        self.labels = labels;
        self.settled = OnceLock::new();
        self
    }

    /// Takes embeddings of all kinds that are at hand, instead of making them.
    pub(crate) fn beside(self, settled: Option<&Arc<Settled>>) -> Self {
        settled.map(|settled| self.settled.set(Arc::clone(settled)));
        self
    }

    /// The embeddings of all kinds; `None` for a ranker without a part of items: the others are made as they are asked.
    pub(crate) fn settled(&self) -> Result<Option<&Arc<Settled>>> {
        if self.settled.get().is_none() && self.ranker.shape.options.items.is_on() {
            let found = Settled::new(self.plan, self.ranker, self.labels, self.threads)?;
            found.map(|found| self.settled.set(Arc::new(found)));
        }
        Ok(self.settled.get())
    }

    /// Logits of the query outcomes of a part, `[n, heads]` in the order of tasks, after each number of `steps`.
    ///
    /// # Errors
    /// `InvalidArgument` for labels of another length; `Diverged` for a logit that is not finite.
    pub fn predict(&self, who: TaskSet, steps: &[usize]) -> Result<Vec<Vec<f32>>> {
        if self.labels.len() != self.plan.impressions.labels.len() {
            return Err(err!(
                InvalidArgument,
                "the labels to adapt to are not as many as the outcomes; pass one for each"
            ));
        }
        let places = self.plan.places(who);
        let jobs = places.len().div_ceil(JOB);
        let adapter = self.ranker.adapter()?;
        let block = self.block()?;
        let settled = self.settled()?.map(Arc::as_ref);
        let parts = threads::map(
            self.threads,
            jobs,
            || (adapter.clone(), block.clone()),
            |job, (adapter, block)| -> Result<Vec<Vec<f32>>> {
                let mut out = vec![Vec::new(); steps.len()];
                for place in &places[job * JOB..((job + 1) * JOB).min(places.len())] {
                    self.one(*place, steps, settled, adapter, block.as_mut(), &mut out)?;
                }
                Ok(out)
            },
        );
        let mut all = vec![Vec::new(); steps.len()];
        for part in parts {
            all.iter_mut().zip(part?).for_each(|(a, p)| a.extend(p));
        }
        if all.iter().flatten().any(|x| !x.is_finite()) {
            return Err(err!(Diverged, "an adapted ranker gave a logit that is not finite; lower the inner rate"));
        }
        Ok(all)
    }

    /// The block of people on surfaces, where there is one.
    fn block(&self) -> Result<Option<SurfaceBlock<'_>>> {
        let Some((_, shape)) = &self.surface else { return Ok(None) };
        SurfaceBlock::new(RankerView { shape, ..self.ranker.view() }, &self.plan.means).map(Some)
    }

    fn one(
        &self,
        place: u32,
        steps: &[usize],
        settled: Option<&Settled>,
        adapter: &mut Adapter<'_>,
        mut block: Option<&mut SurfaceBlock<'_>>,
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let (task, heads) = (plan.task(place), shape.heads);
        let most = steps.iter().copied().max().unwrap_or(0);
        let mut input = vec![0.0; shape.inputs];
        plan.input(place, self.labels, false, &mut input)?;
        let mut candidates = Vec::new();
        // Without steps nothing is read but how the outcomes on a surface went.
        let range = read(plan, place, if most > 0 || block.is_some() { shape.options.support } else { 0 });
        self.rows(place, range.clone(), settled, &mut candidates);
        let labels = &self.labels[range.start * heads..range.end * heads];
        let vector = self.ranker.entity(task.entity);
        let mut known = Vec::new();
        if let (Some((surface, _)), Some(block)) = (&self.surface, &mut block) {
            known.clone_from(&candidates);
            block.shift(&surface.codes[range.clone()], &mut candidates)?;
        }
        adapter.adapt(&input, vector, &candidates, labels, most)?;
        let taken = if range.is_empty() { 0 } else { most };
        let embeddings: Vec<Vec<f32>> = steps.iter().map(|k| adapter.embedding_after(taken.min(*k)).to_vec()).collect();
        candidates.clear();
        self.rows(place, task.query.clone(), settled, &mut candidates);
        let n = task.query.len() * heads;
        if block.is_none() {
            adapter.read(&candidates, n)?;
        }
        for ((embedding, k), out) in embeddings.iter().zip(steps).zip(out) {
            let at = out.len();
            out.resize(at + n, 0.0);
            if let (Some((surface, _)), Some(block)) = (&self.surface, &mut block) {
                let known = OnSurfaces { rows: &known, labels, surfaces: &surface.codes[range.clone()] };
                let asked = &surface.codes[task.query.clone()];
                let mut rows = candidates.clone();
                block.shift_adapted(embedding, known, *k, asked, &mut rows)?;
                adapter.read(&rows, n)?;
            }
            adapter.score_read(embedding, &mut out[at..])?;
        }
        Ok(())
    }

    /// Appends the candidates of outcomes `range`, with the embeddings of their items or creators.
    fn rows(&self, place: u32, range: Range<usize>, settled: Option<&Settled>, out: &mut Vec<f32>) {
        let options = &self.ranker.shape.options;
        let (own, width, e) = (&self.ranker.items, options.item_width as usize, self.ranker.shape.shift());
        for i in range {
            self.plan.candidate(place, i, own, width, out);
            match settled {
                Some(settled) => settled.shift(i, e, out),
                None => out.resize(out.len() + e, 0.0),
            }
        }
    }

    /// The labels of the query outcomes of a part, in the order of [`Predictor::predict`].
    pub fn labels(&self, who: TaskSet) -> Vec<f32> {
        labels(self.plan, who)
    }
}

/// The labels of a part's query outcomes, `[n, heads]` in the order of tasks.
pub(crate) fn labels(plan: &Plan<'_>, who: TaskSet) -> Vec<f32> {
    let h = plan.means.len();
    plan.tasks(who).flat_map(|t| &plan.impressions.labels[t.query.start * h..t.query.end * h]).copied().collect()
}

/// Mean log loss of logits against labels; NaN labels do not count.
pub(crate) fn log_loss(logits: &[f32], labels: &[f32]) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0f64);
    for (x, y) in logits.iter().zip(labels).filter(|(_, y)| !y.is_nan()) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        sum += x.max(0.0) + (-x.abs()).exp().ln_1p() - y * x;
        n += 1.0;
    }
    sum / n.max(1.0)
}

/// Slope and intercept that make logits calibrated on these labels: Platt scaling by Newton's method with a weak pull to
/// (1, 0).
pub(crate) fn calibrate(logits: impl Iterator<Item = (f32, f32)> + Clone) -> [f32; 2] {
    let (mut a, mut b) = (1.0f64, 0.0f64);
    for _ in 0..30 {
        let pull = 1.0;
        let (mut ga, mut gb) = (pull * (a - 1.0), pull * b);
        let (mut haa, mut hab, mut hbb) = (pull, 0.0, pull);
        for (x, y) in logits.clone().filter(|(_, y)| !y.is_nan()) {
            let (x, y) = (f64::from(x), f64::from(y));
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            let (d, w) = (p - y, p * (1.0 - p));
            ga += d * x;
            gb += d;
            haa += w * x * x;
            hab += w * x;
            hbb += w;
        }
        let det = haa * hbb - hab * hab;
        let (da, db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
        if !da.is_finite() || !db.is_finite() {
            break;
        }
        a -= da.clamp(-1.0, 1.0);
        b -= db.clamp(-1.0, 1.0);
        if da.abs() + db.abs() < 1e-9 {
            break;
        }
    }
    [a as f32, b as f32]
}
