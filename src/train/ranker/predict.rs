//! Answers to tasks: logits of the query outcomes after any number of inner steps.

use super::embeddings::Embeddings;
use super::impressions::Surface;
use super::kinds::Kinds;
use super::plan::{Plan, TaskSet};
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
    /// Where the outcomes' items were shown, and the shape of the block of persons there.
    surface: Option<(&'a Surface, RankerShape)>,
    /// The embeddings of all kinds, once those of items were asked for.
    embeddings: OnceLock<Arc<Embeddings>>,
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
            || s.numbers != plan.numbers()
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
        Ok(Self { plan, ranker, labels: &plan.impressions.labels, threads, surface, embeddings: OnceLock::new() })
    }

    /// Adapts to these labels (`[n, heads]`) instead of the true ones: the control that must not gain.
    pub fn adapting_to(mut self, labels: &'a [f32]) -> Self {
        self.labels = labels;
        self.embeddings = OnceLock::new();
        self
    }

    /// Takes embeddings of all kinds that are at hand, instead of making them.
    pub(crate) fn beside(self, embeddings: Option<&Arc<Embeddings>>) -> Self {
        embeddings.map(|embeddings| self.embeddings.set(Arc::clone(embeddings)));
        self
    }

    /// The embeddings of all kinds; `None` for a ranker without a part of items: the others are made as they are asked.
    fn embeddings(&self) -> Result<Option<&Embeddings>> {
        let shape = &self.ranker.shape;
        if self.embeddings.get().is_none() && shape.options.items.is_on() {
            let kinds = Arc::new(Kinds::new(self.plan, shape)?);
            let found = Embeddings::adapt(self.plan, self.ranker, self.labels, kinds, self.threads)?;
            // Whoever else made them made the same.
            let _ = self.embeddings.set(Arc::new(found));
        }
        Ok(self.embeddings.get().map(Arc::as_ref))
    }

    /// Logits of the query outcomes of a part, `[n, heads]` in the order of tasks, after each number of `steps`.
    ///
    /// # Errors
    /// `InvalidArgument` for labels of another length; `Diverged` for a logit that is not finite.
    pub fn predict(&self, set: TaskSet, steps: &[usize]) -> Result<Vec<Vec<f32>>> {
        if self.labels.len() != self.plan.impressions.labels.len() {
            return Err(err!(
                InvalidArgument,
                "the labels to adapt to are not as many as the outcomes; pass one for each"
            ));
        }
        let places = self.plan.places(set);
        let jobs = places.len().div_ceil(JOB);
        let adapter = self.ranker.adapter()?;
        let block = self.block()?;
        let embeddings = self.embeddings()?;
        let parts = threads::map(
            self.threads,
            jobs,
            || (adapter.clone(), block.clone()),
            |job, (adapter, block)| -> Result<Vec<Vec<f32>>> {
                let mut out = vec![Vec::new(); steps.len()];
                for place in &places[job * JOB..((job + 1) * JOB).min(places.len())] {
                    self.one(*place, steps, embeddings, adapter, block.as_mut(), &mut out)?;
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

    /// The block of persons on surfaces, where there is one.
    fn block(&self) -> Result<Option<SurfaceBlock<'_>>> {
        let Some((_, shape)) = &self.surface else { return Ok(None) };
        SurfaceBlock::new(RankerView { shape, ..self.ranker.view() }, &self.plan.means).map(Some)
    }

    fn one(
        &self,
        place: u32,
        steps: &[usize],
        beside: Option<&Embeddings>,
        adapter: &mut Adapter<'_>,
        mut block: Option<&mut SurfaceBlock<'_>>,
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let (task, heads) = (plan.task(place), shape.heads);
        let most = steps.iter().copied().max().unwrap_or(0);
        let (range, known) = self.adapt(place, most, beside, adapter, block.as_deref_mut())?;
        let labels = &self.labels[range.start * heads..range.end * heads];
        let mut candidates = Vec::new();
        let taken = if range.is_empty() { 0 } else { most };
        let embeddings: Vec<Vec<f32>> = steps.iter().map(|k| adapter.embedding_after(taken.min(*k)).to_vec()).collect();
        self.rows(place, task.query.clone(), beside, &mut candidates);
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

    /// Adapts to what a task knows, by up to `most` steps: gives the outcomes that were read and, where surfaces are told apart, their rows
    /// before these shift them.
    fn adapt(
        &self,
        place: u32,
        most: usize,
        beside: Option<&Embeddings>,
        adapter: &mut Adapter<'_>,
        block: Option<&mut SurfaceBlock<'_>>,
    ) -> Result<(Range<usize>, Vec<f32>)> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let mut input = vec![0.0; shape.inputs];
        plan.input(place, self.labels, false, &mut input)?;
        let (mut candidates, mut known) = (Vec::new(), Vec::new());
        // Without steps nothing is read but how the outcomes on a surface went.
        let range = plan.latest(place, if most > 0 || block.is_some() { shape.options.support } else { 0 });
        self.rows(place, range.clone(), beside, &mut candidates);
        if let (Some((surface, _)), Some(block)) = (&self.surface, block) {
            known.clone_from(&candidates);
            block.shift(&surface.codes[range.clone()], &mut candidates)?;
        }
        let labels = &self.labels[range.start * shape.heads..range.end * shape.heads];
        adapter.adapt(&input, self.ranker.entity(plan.task(place).entity), &candidates, labels, most)?;
        Ok((range, known))
    }

    /// Logits of items, `[items, heads]`, for the entity of a task after all steps on what the task knows: under the user vector `state`,
    /// with nothing known of how the items are shown. `embeddings` are those of all items, where items have a part.
    pub(super) fn of_items(&self, place: u32, state: &[f32], items: &[u32], embeddings: &[f32]) -> Result<Vec<f32>> {
        let shape = &self.ranker.shape;
        let (steps, beside) = (shape.options.steps as usize, self.embeddings()?);
        let (mut adapter, mut block) = (self.ranker.adapter()?, self.block()?);
        let (range, _) = self.adapt(place, steps, beside, &mut adapter, block.as_mut())?;
        let embedding = adapter.embedding_after(if range.is_empty() { 0 } else { steps }).to_vec();
        let (own, width) = (shape.options.item_width as usize, shape.shift());
        let mut candidates = Vec::new();
        for item in items {
            self.plan.unshown(*item, state, &self.ranker.items, own, &mut candidates);
            let at = candidates.len();
            candidates.resize(at + width, 0.0);
            if let Some(from) = embeddings.get(*item as usize * width..(*item as usize + 1) * width)
                && !from.is_empty()
            {
                candidates[at..].copy_from_slice(from);
            }
        }
        let mut logits = vec![0.0; items.len() * shape.heads];
        adapter.score(&embedding, &candidates, &mut logits)?;
        match logits.iter().all(|x| x.is_finite()) {
            true => Ok(logits),
            false => Err(err!(Diverged, "an adapted ranker gave a logit that is not finite; lower the inner rate")),
        }
    }

    /// Appends the rows of outcomes `range`, shifted by their items.
    fn rows(&self, place: u32, range: Range<usize>, beside: Option<&Embeddings>, out: &mut Vec<f32>) {
        let shape = &self.ranker.shape;
        for i in range {
            self.plan.candidate(place, i, &self.ranker.items, shape.options.item_width as usize, out);
            let at = out.len();
            out.resize(at + shape.shift(), 0.0);
            if let Some(embeddings) = beside {
                embeddings.shift_by_item(i, &mut out[at..]);
            }
        }
    }

    /// Calibrated logits of the first head, as by [`Predictor::predict`].
    pub(crate) fn calibrated(&self, set: TaskSet, steps: &[usize]) -> Result<Vec<Vec<f32>>> {
        let [slope, intercept] = self.ranker.calibration.first().copied().unwrap_or([1.0, 0.0]);
        let first =
            |run: Vec<f32>| run.iter().step_by(self.ranker.shape.heads).map(|x| slope * x + intercept).collect();
        Ok(self.predict(set, steps)?.into_iter().map(first).collect())
    }

    /// The labels of the query outcomes of a part, in the order of [`Predictor::predict`].
    pub fn labels(&self, set: TaskSet) -> Vec<f32> {
        self.plan.query_labels(set)
    }
}
