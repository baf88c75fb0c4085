//! A trained ranker on the CPU: adapts its meta block to an entity, and scores candidates under the entity's embedding.

use super::shape::RankerShape;
use super::trunk::{self, Passed};
use crate::error::{Result, err};
use crate::kernels::first_order::{Step, first_order};
use crate::kernels::heads::{Heads, Rows, Work};
use crate::kernels::inner::{Adaptation, Layer, Trace, adapt, logits, loss};
use crate::kernels::math::{dot, sigmoid};

/// The weights of a ranker.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranker {
    /// Widths and names.
    pub shape: RankerShape,
    /// The dense weights, in the order of the layout.
    pub dense: Vec<f32>,
    /// The ranker's own item vectors, `[items, item_width]`.
    pub items: Vec<f32>,
    /// The entities' own vectors, `[entities, embedding]`; empty without [`identity`](crate::options::RankerOptions::identity).
    pub entities: Vec<f32>,
    /// Slope and intercept per head that turn a logit into that of a calibrated probability (Platt 1999).
    pub calibration: Vec<[f32; 2]>,
}

impl Ranker {
    /// The same weights, borrowed.
    pub fn view(&self) -> RankerView<'_> {
        RankerView {
            shape: &self.shape,
            dense: &self.dense,
            items: &self.items,
            entities: &self.entities,
            calibration: &self.calibration,
        }
    }

    /// Prepares adaptations; see [`RankerView::adapter`].
    ///
    /// # Errors
    /// As [`RankerView::adapter`].
    pub fn adapter(&self) -> Result<Adapter<'_>> {
        self.view().adapter()
    }

    /// An entity's own vector, where it has one.
    pub fn entity(&self, row: u32) -> Option<&[f32]> {
        self.view().entity(row)
    }
}

/// The weights of a ranker wherever they lie: in a [`Ranker`], or in the sections of a generation.
#[derive(Debug, Clone, Copy)]
pub struct RankerView<'a> {
    /// Widths and names.
    pub shape: &'a RankerShape,
    /// The dense weights, in the order of the layout.
    pub dense: &'a [f32],
    /// As [`Ranker::items`].
    pub items: &'a [f32],
    /// As [`Ranker::entities`].
    pub entities: &'a [f32],
    /// As [`Ranker::calibration`].
    pub calibration: &'a [[f32; 2]],
}

impl<'a> RankerView<'a> {
    /// A copy of the weights.
    pub fn to_ranker(self) -> Ranker {
        Ranker {
            shape: self.shape.clone(),
            dense: self.dense.to_vec(),
            items: self.items.to_vec(),
            entities: self.entities.to_vec(),
            calibration: self.calibration.to_vec(),
        }
    }

    /// Prepares adaptations: one [`Adapter`] per thread.
    ///
    /// # Errors
    /// `StateMismatch` if the weights are not those of the shape.
    pub fn adapter(self) -> Result<Adapter<'a>> {
        self.adapter_with(AdapterBuffers::default())
    }

    /// The same with the buffers of another adapter ([`Adapter::into_buffers`]).
    pub(crate) fn adapter_with(self, buffers: AdapterBuffers) -> Result<Adapter<'a>> {
        let (own, e) = (self.shape.options.item_width as usize, self.shape.options.embedding as usize);
        if self.dense.len() != self.shape.layout.size()
            || !self.items.len().is_multiple_of(own)
            || !self.entities.len().is_multiple_of(e)
            || self.calibration.len() != self.shape.heads
        {
            return Err(err!(
                StateMismatch,
                "the ranker's shape needs {} dense weights and calibrations of {} heads, it holds {} and {}; load the weights \
                 that belong to it",
                self.shape.layout.size(),
                self.shape.heads,
                self.dense.len(),
                self.calibration.len()
            ));
        }
        let AdapterBuffers { mut heads, mut zero, rows, passed, trace, work, step, origin, chosen } = buffers;
        heads.resize(self.shape.heads, 1.0);
        zero.resize(e, 0.0);
        let layers = self.shape.layers(self.dense);
        Ok(Adapter { ranker: self, layers, heads, zero, rows, passed, trace, work, step, origin, chosen })
    }

    /// An item's own vector; `None` for an item that the ranker was not trained with.
    pub fn item(self, row: u32) -> Option<&'a [f32]> {
        let w = self.shape.options.item_width as usize;
        self.items.get(row as usize * w..(row as usize + 1) * w)
    }

    /// An entity's own vector, where it has one.
    pub fn entity(self, row: u32) -> Option<&'a [f32]> {
        let w = self.shape.options.embedding as usize;
        self.entities.get(row as usize * w..(row as usize + 1) * w)
    }

    /// The calibrated probability of a logit of `head`.
    pub fn probability(self, head: usize, logit: f32) -> f32 {
        let [slope, intercept] = self.calibration.get(head).copied().unwrap_or([1.0, 0.0]);
        sigmoid(slope * logit + intercept)
    }
}

/// The outcome of an adaptation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapted<'a> {
    /// The meta embedding to be stored: the adapted one, or the one before any step if the guard refused it.
    pub embedding: &'a [f32],
    /// Mean loss on the outcomes before any step; 0 without outcomes.
    pub before: f32,
    /// Mean loss on them after the steps.
    pub after: f32,
    /// Whether the adapted embedding is given: it is finite and does not fit the outcomes worse than before.
    pub accepted: bool,
}

/// Adapts and scores on one thread, without allocation once its buffers have grown.
#[derive(Debug, Clone)]
pub struct Adapter<'a> {
    ranker: RankerView<'a>,
    layers: Vec<Layer<'a, f32>>,
    heads: Vec<f32>,
    zero: Vec<f32>,
    rows: Vec<f32>,
    passed: Passed<f32>,
    trace: Trace<f32>,
    work: Work<f32>,
    step: Step<f32>,
    origin: Vec<f32>,
    chosen: Vec<f32>,
}

/// What an [`Adapter`] works in, for the next one; its contents do not matter.
#[derive(Debug, Default)]
pub(crate) struct AdapterBuffers {
    /// Ones.
    heads: Vec<f32>,
    /// Zeros.
    zero: Vec<f32>,
    rows: Vec<f32>,
    passed: Passed<f32>,
    trace: Trace<f32>,
    work: Work<f32>,
    step: Step<f32>,
    origin: Vec<f32>,
    chosen: Vec<f32>,
}

impl<'a> Adapter<'a> {
    /// The buffers, for [`RankerView::adapter_with`].
    pub(crate) fn into_buffers(self) -> AdapterBuffers {
        let Self { heads, zero, rows, passed, trace, work, step, origin, chosen, .. } = self;
        AdapterBuffers { heads, zero, rows, passed, trace, work, step, origin, chosen }
    }

    /// The ranker that is adapted.
    pub fn ranker(&self) -> RankerView<'a> {
        self.ranker
    }

    /// How many outcomes these are.
    fn outcomes(&self, input: &[f32], vectors: [&[f32]; 2], candidates: &[f32], labels: &[f32]) -> Result<usize> {
        let (shape, e) = (self.ranker.shape, self.zero.len());
        let n = labels.len() / shape.heads;
        let fits = input.len() == shape.inputs
            && vectors.iter().all(|v| v.len() == e)
            && labels.len() == n * shape.heads
            && candidates.len() == n * shape.candidate();
        let [own, embedding] = vectors.map(<[f32]>::len);
        match fits {
            true => Ok(n),
            false => Err(err!(
                InvalidArgument,
                "an adaptation reads {} inputs, embeddings of {e} numbers, and {} numbers and {} labels an outcome, got {}, {own} and \
                 {embedding}, and {} and {} in all; pass those of this ranker",
                shape.inputs,
                shape.candidate(),
                shape.heads,
                input.len(),
                candidates.len(),
                labels.len()
            )),
        }
    }

    /// Adapts from the meta-learned start, never from an earlier adaptation: `input` is the meta block's (made by
    /// [`Inputs::write`](super::Inputs::write)), `own` the entity's own vector where it has one, `candidates` (`[n, candidate]`)
    /// and `labels` (`[n, heads]`, NaN is none) its outcomes. `steps` may differ from the number that was trained.
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    pub fn adapt(
        &mut self,
        input: &[f32],
        own: Option<&[f32]>,
        candidates: &[f32],
        labels: &[f32],
        steps: usize,
    ) -> Result<Adapted<'_>> {
        let shape = self.ranker.shape;
        let own = own.unwrap_or(&self.zero);
        let n = self.outcomes(input, [own, own], candidates, labels)?;
        let dense = self.ranker.dense;
        trunk::forward(shape, dense, candidates, &mut self.rows, &mut self.passed);
        let adaptation = Adaptation {
            layers: &self.layers,
            heads: shape.heads_of(dense, &self.heads),
            steps: if n == 0 { 0 } else { steps },
            prior_count: shape.options.prior_count,
            rate_decay: shape.options.rate_decay,
        };
        let support = Rows { rows: &self.rows, labels };
        adapt(&adaptation, input, own, support, &mut self.trace);
        let (mut before, mut after, mut accepted) = (0.0, 0.0, true);
        let mut kept = adaptation.steps;
        if kept > 0 {
            // The inner loss divides by the number plus the shrinkage; reports want the mean.
            let mean = (n as f32 + adaptation.prior_count) / n as f32;
            before = self.trace.losses[0] * mean;
            after = loss(&adaptation.heads, support, self.trace.embedding(kept), 1.0 / n as f32, &mut self.work);
            accepted = after <= before && self.trace.embedding(kept).iter().all(|x| x.is_finite());
            kept = if accepted { kept } else { 0 };
        }
        self.chosen.clear();
        self.chosen.extend_from_slice(match shape.options.person {
            true => self.trace.embedding(kept),
            // Persons have no part in the embedding.
            false => &self.zero,
        });
        if shape.options.person {
            bound(&mut self.chosen, self.trace.embedding(0), shape.options.bound);
        }
        Ok(Adapted { embedding: &self.chosen, before, after, accepted })
    }

    /// The first-order update: moves `embedding` by new outcomes alone, as a small step of the meta block's weights at its start would have
    /// moved it (`kernels/first_order`). It reads no older outcome, so it costs a fraction of [`Adapter::adapt`]; it comes close to what
    /// `adapt` would give for the old and the new outcomes together while `known`, how many the embedding was adapted to, is
    /// what it says. A smaller `known` forgets faster. `own`, `candidates` and `labels` are as for `adapt`. Gives `embedding` itself
    /// where the step is not finite.
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    pub fn first_order(
        &mut self,
        input: &[f32],
        own: Option<&[f32]>,
        embedding: &[f32],
        candidates: &[f32],
        labels: &[f32],
        known: usize,
    ) -> Result<&[f32]> {
        let shape = &self.ranker.shape;
        let own = own.unwrap_or(&self.zero);
        let n = self.outcomes(input, [own, embedding], candidates, labels)?;
        if !shape.options.person {
            // Persons have no part in the embedding.
            self.chosen.clear();
            self.chosen.extend_from_slice(&self.zero);
            return Ok(&self.chosen);
        }
        let dense = &self.ranker.dense;
        trunk::forward(shape, dense, candidates, &mut self.rows, &mut self.passed);
        let options = &shape.options;
        let adaptation = Adaptation {
            layers: &self.layers,
            heads: shape.heads_of(dense, &self.heads),
            steps: 1,
            prior_count: options.prior_count,
            rate_decay: options.rate_decay,
        };
        self.chosen.clear();
        self.chosen.extend_from_slice(embedding);
        // An outcome's share of the inner loss, in all of the steps that an adaptation takes.
        let all = (known + n).min(options.support as usize) as f32 + options.prior_count;
        let rates: f32 = (0..options.steps).map(|k| options.rate_decay.powi(k as i32)).sum();
        let rows = Rows { rows: &self.rows, labels };
        first_order(&adaptation, input, &mut self.chosen, rows, rates / all, &mut self.step);
        self.origin.clear();
        self.origin.extend(self.step.unadapted().iter().zip(own).map(|(a, b)| a + b));
        bound(&mut self.chosen, &self.origin, options.bound);
        if self.chosen.iter().any(|x| !x.is_finite()) {
            self.chosen.copy_from_slice(embedding);
        }
        Ok(&self.chosen)
    }

    /// The embedding after `step` of the last adaptation's steps, guard or no guard; empty if it did not take as many.
    pub fn embedding_after(&self, step: usize) -> &[f32] {
        match step < self.trace.losses.len() + 1 {
            true if !self.ranker.shape.options.person => &self.zero,
            true => self.trace.embedding(step),
            false => &[],
        }
    }

    /// Writes the logits (`[n, heads]`) of `candidates` (`[n, candidate]`) under an embedding.
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    pub fn score(&mut self, embedding: &[f32], candidates: &[f32], out: &mut [f32]) -> Result<()> {
        self.read(candidates, out.len())?;
        self.score_read(embedding, out)
    }

    /// Passes candidates through the trunk, for any number of [`Adapter::score_read`] under different embeddings.
    pub(crate) fn read(&mut self, candidates: &[f32], outputs: usize) -> Result<()> {
        let shape = self.ranker.shape;
        if candidates.len() * shape.heads != outputs * shape.candidate() {
            return Err(err!(
                InvalidArgument,
                "{} numbers are not {outputs} logits of {} heads and {} numbers each; pass matching slices",
                candidates.len(),
                shape.heads,
                shape.candidate()
            ));
        }
        trunk::forward(shape, self.ranker.dense, candidates, &mut self.rows, &mut self.passed);
        Ok(())
    }

    pub(crate) fn score_read(&mut self, embedding: &[f32], out: &mut [f32]) -> Result<()> {
        let shape = self.ranker.shape;
        if embedding.len() != self.zero.len() {
            return Err(err!(
                InvalidArgument,
                "the embedding has {} numbers, those of this ranker {}; adapt the entity anew",
                embedding.len(),
                self.zero.len()
            ));
        }
        let heads: Heads<'_, f32> = shape.heads_of(self.ranker.dense, &self.heads);
        logits(&heads, &self.rows, embedding, &mut self.work, out);
        Ok(())
    }
}

/// Keeps `e` within `most` lengths of `origin` from it, on the line between the two; 0 sets no bound.
fn bound(e: &mut [f32], origin: &[f32], most: f32) {
    let apart = e.iter().zip(origin).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    let limit = most * dot(origin, origin).sqrt();
    if most > 0.0 && apart > limit {
        e.iter_mut().zip(origin).for_each(|(e, o)| *e = o + (*e - o) * (limit / apart));
    }
}
