//! The item tower: one vector for an item out of its ID embedding and of what is known about it, mixed by a learned gate
//! on the item's age and on how much was seen of it (model.md, section 1).
//!
//! `v = w_id id + w_meta P m`, with `m` the concatenation over metadata fields of the mean embedding of a field's values
//! (dense vectors enter as they are), and `log(w_meta / w_id) = prior + MLP([phi(age), phi(evidence), bare])`, with a
//! prior that falls with age and evidence and an MLP that starts at 0. Where scores
//! are cosines, both parts have length 1 before they are mixed, so that the weights say what each part contributes. An item that
//! nobody has touched has the learned vector of unknown items in place of its ID embedding.
//!
//! The same pass makes the item vectors of a training step, the table that is published, and the vector of an item that
//! is added while serving.

mod metadata;
#[cfg(test)]
mod tests;

use super::features::Features;
use super::infer::Weights;
use super::layout::{Layout, Start};
use crate::error::{Result, err};
use crate::kernels::math::{Real, add, dot, sigmoid, silu_slope};
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{scale_rows, scale_rows_backward};
use crate::options::ModelOptions;
use crate::schema::{FieldKind, Schema};
pub(crate) use metadata::column_value;
pub use metadata::{Metadata, Value};
use std::ops::Range;

/// Hidden units of the gate.
const HIDDEN: usize = 16;
/// Ages in days and numbers of events at which the gate's piecewise-linear functions have their knots.
const AGES: [f32; 9] = [0.0, 1.0, 7.0, 28.0, 90.0, 365.0, 1095.0, 3650.0, 36500.0];
const EVIDENCE: [f32; 9] = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0];
/// Inputs of the gate: both functions, whether the age is unknown, whether there is no metadata.
const INPUTS: usize = AGES.len() + EVIDENCE.len() + 2;
/// Where the gate starts: log(w_meta / w_id) of a new item of which nothing was seen, and how much it falls with the
/// logarithms of events seen and of days of age. Training starts from trust in what is known and learns the difference.
const PRIOR: f32 = 2.0;
const EVIDENCE_SLOPE: f32 = 0.5;
const AGE_SLOPE: f32 = 0.15;

/// What is known of an item's past at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Days since it was released, or first seen; `None` is unknown.
    pub age: Option<f32>,
    /// Events on it so far.
    pub evidence: u32,
    /// Whether its ID embedding stands for something; the vector of unknown items takes its place where not.
    pub known: bool,
}

impl Standing {
    /// An item that nobody has touched.
    pub fn unseen(age: Option<f32>) -> Self {
        Self { age, evidence: 0, known: false }
    }
}

/// What goes into `m` for a field.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// Codes of a table whose first row is this one among all feature tables.
    Table { first: usize, kind: FieldKind },
    /// A dense vector of this length.
    Dense(usize),
}

/// The tower of a model shape.
#[derive(Debug, Clone)]
pub struct Tower {
    width: usize,
    field_width: usize,
    parts: Vec<Part>,
    /// First row and number of buckets of the title's words.
    title: Option<(usize, usize)>,
    /// Length of `m`.
    inputs: usize,
    /// Numbers of dense vectors per item.
    dense: usize,
    unit: bool,
    project: Range<usize>,
    unknown: Range<usize>,
    gate: [Range<usize>; 4],
}

/// How much a tower reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TowerSize {
    /// Rows of the feature tables: those of the schema's item fields in their order, titles last.
    pub(super) rows: usize,
    /// Length of `m`.
    pub(super) inputs: usize,
}

impl TowerSize {
    /// The size that `options` ask for; `None` without a tower or without anything for it to read.
    pub(super) fn of(schema: &Schema, options: &ModelOptions) -> Option<Self> {
        let (tower, width) = (options.tower?, options.field_width as usize);
        let of = |kind: &FieldKind| if let FieldKind::Vector(dim) = kind { *dim as usize } else { width };
        let title = if tower.title_buckets > 0 { width } else { 0 };
        let inputs = schema.item_fields.iter().map(|f| of(&f.kind)).sum::<usize>() + title;
        let rows = schema.item_fields.iter().map(|f| f.kind.codes()).sum::<usize>() + tower.title_buckets as usize;
        (inputs > 0).then_some(Self { rows, inputs })
    }

    /// Adds the tower's dense weights to a layout of width `d`.
    pub(super) fn add_weights(self, layout: &mut Layout, d: usize) {
        layout.matrix("tower.project", d, self.inputs, 1.0);
        layout.push("tower.unknown", &[d], Start::Normal(0.02), false);
        layout.matrix("tower.gate.in", HIDDEN, INPUTS, 1.0);
        layout.push("tower.gate.in.bias", &[HIDDEN], Start::Zeros, false);
        layout.push("tower.gate.out", &[2, HIDDEN], Start::Zeros, true);
        layout.push("tower.gate.out.bias", &[2], Start::Zeros, false);
    }
}

impl Tower {
    /// The tower of a model shape; `None` where the options ask for none, or where no metadata is declared.
    ///
    /// # Errors
    /// `NotFound` if the layout belongs to another shape.
    pub(crate) fn new(
        schema: &Schema,
        options: &ModelOptions,
        features: &Features,
        layout: &Layout,
    ) -> Result<Option<Self>> {
        let (Some(tower), Some(size)) = (options.tower, features.tower) else { return Ok(None) };
        let field_width = options.field_width as usize;
        let mut first = features.event_rows();
        let mut dense = 0;
        let mut parts = Vec::new();
        for field in &schema.item_fields {
            parts.push(match &field.kind {
                FieldKind::Vector(dim) => {
                    dense += *dim as usize;
                    Part::Dense(*dim as usize)
                }
                kind => Part::Table { first, kind: kind.clone() },
            });
            first += field.kind.codes();
        }
        let buckets = tower.title_buckets as usize;
        Ok(Some(Self {
            width: options.width as usize,
            field_width,
            parts,
            title: (buckets > 0).then_some((first, buckets)),
            inputs: size.inputs,
            dense,
            unit: options.normalized,
            project: layout.range("tower.project")?,
            unknown: layout.range("tower.unknown")?,
            gate: [
                layout.range("tower.gate.in")?,
                layout.range("tower.gate.in.bias")?,
                layout.range("tower.gate.out")?,
                layout.range("tower.gate.out.bias")?,
            ],
        }))
    }

    fn slots(&self) -> usize {
        self.parts.len() + usize::from(self.title.is_some())
    }

    /// The vector of an item that nobody has touched, or of which only so much is known.
    ///
    /// # Errors
    /// `InvalidArgument` where `out` does not hold one vector; `Corrupt` where the weights have the wrong length.
    pub fn vector(
        &self,
        weights: Weights<'_>,
        metadata: &Metadata,
        id: Option<&[f32]>,
        standing: Standing,
        out: &mut [f32],
    ) -> Result<()> {
        let parts = self.parts_of(weights, metadata, id, standing)?;
        if out.len() != self.width {
            let (have, want) = (out.len(), self.width);
            return Err(err!(InvalidArgument, "the output holds {have} numbers, an item vector {want}; pass {want}"));
        }
        for ((o, a), b) in out.iter_mut().zip(&parts.id).zip(&parts.metadata) {
            *o = a + b;
        }
        Ok(())
    }

    /// The two parts that add up to an item's vector, and the gate's weight of the metadata.
    ///
    /// # Errors
    /// `Corrupt` where the weights have the wrong length.
    pub fn parts_of(
        &self,
        weights: Weights<'_>,
        metadata: &Metadata,
        id: Option<&[f32]>,
        standing: Standing,
    ) -> Result<Parts> {
        let rows = self.title.map_or(0, |(first, buckets)| first + buckets);
        let last =
            self.parts.iter().map(|p| if let Part::Table { first, kind } = p { first + kind.codes() } else { 0 });
        let rows = last.fold(rows, usize::max);
        let dense = self.gate[3].end.max(self.project.end);
        let missing = id.is_some_and(|id| id.len() != self.width);
        if weights.features.len() < rows * self.field_width || weights.dense.len() < dense || missing {
            return Err(err!(Corrupt, "the tower's weights are incomplete; verify the store and roll back"));
        }
        let zeros = vec![0.0; self.width];
        let standing = Standing { known: standing.known && id.is_some(), ..standing };
        let tables = Tables { dense: weights.dense, features: weights.features };
        let pass = self.forward(id.unwrap_or(&zeros), Batch { standings: &[standing], metadata, items: &[0] }, tables);
        let mut parts = [pass.id, pass.projected];
        let mut factor = 1.0;
        for (part, weight) in parts.iter_mut().zip([pass.weights[0], pass.weights[1]]) {
            part.iter_mut().for_each(|v| *v *= weight);
        }
        if self.unit {
            let sum: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
            factor = 1.0 / dot(&sum, &sum).sqrt().max(crate::kernels::norm::SHORTEST);
        }
        parts.iter_mut().flatten().for_each(|v| *v *= factor);
        let [id, metadata] = parts;
        Ok(Parts { id, metadata, metadata_weight: pass.weights[1] })
    }

    /// The vectors of the items of a batch: `ids` (`[n, d]`) are their ID embeddings. Not yet of length 1.
    pub(crate) fn forward<T: Real>(&self, ids: &[T], batch: Batch<'_>, tables: Tables<'_, T>) -> Pass<T> {
        let Batch { standings, metadata, items } = batch;
        let (n, d, e) = (items.len(), self.width, self.inputs);
        let mut id = ids.to_vec();
        for (row, standing) in id.chunks_exact_mut(d).zip(standings) {
            if !standing.known {
                row.copy_from_slice(&tables.dense[self.unknown.clone()]);
            }
        }
        let raw_id = if self.unit { id.clone() } else { Vec::new() };
        let mut m = vec![T::ZERO; n * e];
        for (&item, m) in items.iter().zip(m.chunks_exact_mut(e)) {
            self.pool(metadata, item as usize, tables.features, m);
        }
        let mut projected = vec![T::ZERO; n * d];
        linear(&m, &tables.dense[self.project.clone()], None, e, d, &mut projected);
        let raw_projected = if self.unit { projected.clone() } else { Vec::new() };
        if self.unit {
            scale_rows(&mut id, d, true, 1.0);
            scale_rows(&mut projected, d, true, 1.0);
        }
        let mut inputs = vec![T::ZERO; n * INPUTS];
        for (i, x) in inputs.chunks_exact_mut(INPUTS).enumerate() {
            gate_inputs(standings[i], self.is_bare(metadata, items[i] as usize), x);
        }
        let mut hidden = vec![T::ZERO; n * HIDDEN];
        let w = |i: usize| &tables.dense[self.gate[i].clone()];
        linear(&inputs, w(0), Some(w(1)), INPUTS, HIDDEN, &mut hidden);
        let active: Vec<T> = hidden.iter().map(|x| *x * sigmoid(*x)).collect();
        let mut weights = vec![T::ZERO; n * 2];
        linear(&active, w(2), Some(w(3)), HIDDEN, 2, &mut weights);
        for (pair, standing) in weights.chunks_exact_mut(2).zip(standings) {
            let share = sigmoid(pair[1] - pair[0] + T::of(f64::from(prior(*standing))));
            (pair[0], pair[1]) = (T::ONE - share, share);
        }
        let mut vectors = vec![T::ZERO; n * d];
        let rows = vectors.chunks_exact_mut(d).zip(id.chunks_exact(d)).zip(projected.chunks_exact(d));
        for (((v, a), b), w) in rows.zip(weights.chunks_exact(2)) {
            for ((v, a), b) in v.iter_mut().zip(a).zip(b) {
                *v = w[0] * *a + w[1] * *b;
            }
        }
        Pass { vectors, id, projected, raw_id, raw_projected, m, inputs, hidden, active, weights }
    }

    /// Carries the gradient of the vectors of a pass back to ID embeddings (`[n, d]`, zero where the item was unknown),
    /// and adds those of the weights to `dense` and `features`.
    pub(crate) fn backward<T: Real>(
        &self,
        pass: &Pass<T>,
        batch: Batch<'_>,
        tables: Tables<'_, T>,
        gradient: &[T],
        to: &mut TowerGradients<'_, T>,
    ) -> Vec<T> {
        let Batch { standings, metadata, items } = batch;
        let (n, d, e) = (items.len(), self.width, self.inputs);
        let mut did = vec![T::ZERO; n * d];
        let mut dprojected = vec![T::ZERO; n * d];
        let mut dlogits = vec![T::ZERO; n * 2];
        for i in 0..n {
            let r = i * d..(i + 1) * d;
            let (g, w) = (&gradient[r.clone()], &pass.weights[i * 2..i * 2 + 2]);
            for ((g, a), b) in g.iter().zip(&mut did[r.clone()]).zip(&mut dprojected[r.clone()]) {
                (*a, *b) = (w[0] * *g, w[1] * *g);
            }
            let toward = dot(g, &pass.projected[r.clone()]) - dot(g, &pass.id[r]);
            let slope = w[0] * w[1] * toward;
            (dlogits[i * 2], dlogits[i * 2 + 1]) = (-slope, slope);
        }
        if self.unit {
            let through = |raw: &[T], dy: &mut Vec<T>| {
                let mut dx = vec![T::ZERO; dy.len()];
                scale_rows_backward(raw, d, true, 1.0, dy, &mut dx);
                *dy = dx;
            };
            through(&pass.raw_id, &mut did);
            through(&pass.raw_projected, &mut dprojected);
        }
        for (row, standing) in did.chunks_exact_mut(d).zip(standings) {
            if !standing.known {
                add(&mut to.dense[self.unknown.clone()], row);
                row.fill(T::ZERO);
            }
        }
        let dense = |i: usize| &tables.dense[self.gate[i].clone()];
        let mut dactive = vec![T::ZERO; n * HIDDEN];
        matmul(View::dense(&dlogits, n, 2), View::dense(dense(2), 2, HIDDEN), &mut dactive, HIDDEN, false);
        self.outer(&dlogits, 2, &pass.active, HIDDEN, n, 2, to);
        for (g, x) in dactive.iter_mut().zip(&pass.hidden) {
            *g *= silu_slope(*x);
        }
        self.outer(&dactive, HIDDEN, &pass.inputs, INPUTS, n, 0, to);
        let project = View::dense(&tables.dense[self.project.clone()], d, e);
        let mut dm = vec![T::ZERO; n * e];
        matmul(View::dense(&dprojected, n, d), project, &mut dm, e, false);
        let dproject = &mut to.dense[self.project.clone()];
        matmul(View::dense(&dprojected, n, d).t(), View::dense(&pass.m, n, e), dproject, e, true);
        for (&item, dm) in items.iter().zip(dm.chunks_exact(e)) {
            self.unpool(metadata, item as usize, dm, to.features);
        }
        did
    }

    /// Adds the gradients of matrix `i` of the gate and of its bias.
    #[allow(clippy::too_many_arguments)]
    fn outer<T: Real>(
        &self,
        dy: &[T],
        outputs: usize,
        x: &[T],
        inputs: usize,
        n: usize,
        i: usize,
        to: &mut TowerGradients<'_, T>,
    ) {
        let w = &mut to.dense[self.gate[i].clone()];
        matmul(View::dense(dy, n, outputs).t(), View::dense(x, n, inputs), w, inputs, true);
        let bias = &mut to.dense[self.gate[i + 1].clone()];
        dy.chunks_exact(outputs).for_each(|row| add(bias, row));
    }

    /// Calls `f` with the part of `m` and the table rows of each slot that has a table.
    fn each_slot<'m>(&self, metadata: &'m Metadata, item: usize, mut f: impl FnMut(usize, &'m [u32])) {
        let slots = self.slots();
        let rows = |s: usize| {
            let at = item * slots + s;
            &metadata.rows[metadata.starts[at] as usize..metadata.starts[at + 1] as usize]
        };
        let mut at = 0;
        for (s, part) in self.parts.iter().enumerate() {
            match part {
                Part::Dense(dim) => at += dim,
                Part::Table { .. } => {
                    f(at, rows(s));
                    at += self.field_width;
                }
            }
        }
        if self.title.is_some() {
            f(at, rows(slots - 1));
        }
    }

    fn pool<T: Real>(&self, metadata: &Metadata, item: usize, features: &[T], m: &mut [T]) {
        let w = self.field_width;
        self.each_slot(metadata, item, |at, rows| {
            let to = &mut m[at..at + w];
            rows.iter().for_each(|r| add(to, &features[*r as usize * w..(*r as usize + 1) * w]));
            let share = T::ONE / T::of(rows.len().max(1) as f64);
            to.iter_mut().for_each(|v| *v *= share);
        });
        let (mut at, mut from) = (0, item * self.dense);
        for part in &self.parts {
            if let Part::Dense(dim) = part {
                let values = &metadata.dense[from..from + dim];
                m[at..at + dim].iter_mut().zip(values).for_each(|(m, v)| *m = T::of(f64::from(*v)));
                from += dim;
                at += dim;
            } else {
                at += w;
            }
        }
    }

    fn unpool<T: Real>(&self, metadata: &Metadata, item: usize, dm: &[T], features: &mut [T]) {
        let w = self.field_width;
        self.each_slot(metadata, item, |at, rows| {
            let share = T::ONE / T::of(rows.len().max(1) as f64);
            for r in rows {
                let to = &mut features[*r as usize * w..(*r as usize + 1) * w];
                to.iter_mut().zip(&dm[at..at + w]).for_each(|(t, g)| *t += *g * share);
            }
        });
    }

    fn is_bare(&self, metadata: &Metadata, item: usize) -> bool {
        let slots = self.slots();
        let rows = metadata.starts[(item + 1) * slots] > metadata.starts[item * slots];
        let dense = &metadata.dense[item * self.dense..(item + 1) * self.dense];
        !rows && dense.iter().all(|v| *v == 0.0)
    }
}

/// The two parts of an item's vector, which add up to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// What the ID embedding, or the vector of unknown items, contributes: `[d]`.
    pub id: Vec<f32>,
    /// What the metadata contributes: `[d]`.
    pub metadata: Vec<f32>,
    /// The gate's weight of the metadata, 0 to 1.
    pub metadata_weight: f32,
}

/// The items that a pass is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// What is known of each.
    pub standings: &'a [Standing],
    /// The metadata of these and other items.
    pub metadata: &'a Metadata,
    /// Their places in it.
    pub items: &'a [u32],
}

/// The weights that a pass reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a, T = f32> {
    /// The flat dense array.
    pub dense: &'a [T],
    /// The feature tables.
    pub features: &'a [T],
}

/// Where the gradients of a pass go.
#[derive(Debug)]
pub(crate) struct TowerGradients<'a, T = f32> {
    /// Like the flat dense array.
    pub dense: &'a mut [T],
    /// Like the feature tables.
    pub features: &'a mut [T],
}

/// A forward pass that remembers what its backward pass needs.
#[derive(Debug)]
pub(crate) struct Pass<T = f32> {
    /// Item vectors, `[n, d]`.
    pub vectors: Vec<T>,
    /// The gate's weights of ID and metadata, `[n, 2]`.
    pub weights: Vec<T>,
    id: Vec<T>,
    projected: Vec<T>,
    raw_id: Vec<T>,
    raw_projected: Vec<T>,
    m: Vec<T>,
    inputs: Vec<T>,
    hidden: Vec<T>,
    active: Vec<T>,
}

/// Where the gate starts for a standing.
fn prior(standing: Standing) -> f32 {
    let age = standing.age.map_or(0.0, |days| AGE_SLOPE * days.max(0.0).ln_1p());
    PRIOR - EVIDENCE_SLOPE * (standing.evidence as f32).ln_1p() - age
}

/// Writes the piecewise-linear functions of a standing: each number lies between two knots on a logarithmic scale, whose
/// entries are its shares of them.
fn gate_inputs<T: Real>(standing: Standing, bare: bool, to: &mut [T]) {
    let mut spread = |value: f32, knots: &[f32; 9], at: usize| {
        let x = value.max(0.0).ln_1p();
        let next = knots.iter().position(|k| k.ln_1p() > x).unwrap_or(knots.len());
        let (low, high) = (next.saturating_sub(1), next.min(knots.len() - 1));
        let (a, b) = (knots[low].ln_1p(), knots[high].ln_1p());
        let share = if high > low { (x - a) / (b - a) } else { 0.0 };
        to[at + high] = T::of(f64::from(share));
        to[at + low] = T::of(f64::from(1.0 - share));
    };
    spread(standing.evidence as f32, &EVIDENCE, AGES.len());
    if let Some(age) = standing.age {
        spread(age, &AGES, 0);
    }
    to[INPUTS - 2] = if standing.age.is_none() { T::ONE } else { T::ZERO };
    to[INPUTS - 1] = if bare { T::ONE } else { T::ZERO };
}
