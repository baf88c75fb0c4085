//! The item tower over many items at once, forward and backward.

use super::gate::{HIDDEN, INPUTS, Standing, gate_inputs, prior};
use super::metadata::{Found, Metadata, Slots, Value};
use crate::data::Dataset;
use crate::error::Result;
use crate::kernels::math::{Real, add, dot, sigmoid, silu_slope};
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{scale_rows, scale_rows_backward};
use crate::model::features::Features;
use crate::model::layout::Layout;
use crate::options::{Gate, ModelOptions};
use crate::schema::Schema;
use std::ops::Range;

/// The tower of a model shape.
#[derive(Debug, Clone)]
pub struct Tower {
    pub(super) width: usize,
    field_width: usize,
    pub(super) slots: Slots,
    /// Length of `m`.
    inputs: usize,
    /// Whether both parts have length 1 before they are mixed.
    pub(super) unit: bool,
    project: Range<usize>,
    unknown: Range<usize>,
    gate: [Range<usize>; 4],
    /// Whether training moves the gate.
    learned: bool,
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
        Ok(Some(Self {
            width: options.width as usize,
            field_width: options.field_width as usize,
            slots: Slots::new(schema, features.event_rows(), tower.title_buckets as usize),
            inputs: size.inputs,
            unit: options.normalized,
            project: layout.range("tower.project")?,
            unknown: layout.range("tower.unknown")?,
            learned: tower.gate == Gate::Learned,
            gate: [
                layout.range("tower.gate.in")?,
                layout.range("tower.gate.in.bias")?,
                layout.range("tower.gate.out")?,
                layout.range("tower.gate.out.bias")?,
            ],
        }))
    }

    /// The metadata of every item of a dataset.
    pub(crate) fn metadata(&self, data: &Dataset) -> Metadata {
        self.slots.of_dataset(data)
    }

    /// The metadata of one item: one value for each of the schema's item fields, in their order.
    pub fn describe(&self, title: &str, values: &[Value<'_>]) -> Metadata {
        let mut metadata = Metadata::default();
        self.slots.push(&mut metadata, title, values);
        metadata
    }

    /// How many numbers of the feature tables and of the dense weights a pass may read.
    pub(super) fn reads(&self) -> (usize, usize) {
        (self.slots.last_row() * self.field_width, self.gate[3].end.max(self.project.end))
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
            gate_inputs(standings[i], self.slots.is_bare(metadata, items[i] as usize), x);
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
        if self.learned {
            self.backward_gate(pass, &dlogits, tables, to);
        }
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

    /// Adds the gradients of the gate's weights, from those of its two outputs (`[n, 2]`).
    fn backward_gate<T: Real>(
        &self,
        pass: &Pass<T>,
        dlogits: &[T],
        tables: Tables<'_, T>,
        to: &mut TowerGradients<'_, T>,
    ) {
        let n = dlogits.len() / 2;
        let out = &tables.dense[self.gate[2].clone()];
        let mut dactive = vec![T::ZERO; n * HIDDEN];
        matmul(View::dense(dlogits, n, 2), View::dense(out, 2, HIDDEN), &mut dactive, HIDDEN, false);
        self.outer(dlogits, 2, &pass.active, HIDDEN, n, 2, to);
        for (g, x) in dactive.iter_mut().zip(&pass.hidden) {
            *g *= silu_slope(*x);
        }
        self.outer(&dactive, HIDDEN, &pass.inputs, INPUTS, n, 0, to);
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

    fn pool<T: Real>(&self, metadata: &Metadata, item: usize, features: &[T], m: &mut [T]) {
        let w = self.field_width;
        self.slots.each(metadata, item, w, |at, found| match found {
            Found::Rows(rows) => {
                let to = &mut m[at..at + w];
                rows.iter().for_each(|r| add(to, &features[*r as usize * w..(*r as usize + 1) * w]));
                let share = T::ONE / T::of(rows.len().max(1) as f64);
                to.iter_mut().for_each(|v| *v *= share);
            }
            Found::Dense(values) => {
                m[at..].iter_mut().zip(values).for_each(|(m, v)| *m = T::of(f64::from(*v)));
            }
        });
    }

    fn unpool<T: Real>(&self, metadata: &Metadata, item: usize, dm: &[T], features: &mut [T]) {
        let w = self.field_width;
        self.slots.each(metadata, item, w, |at, found| {
            let Found::Rows(rows) = found else { return };
            let share = T::ONE / T::of(rows.len().max(1) as f64);
            for r in rows {
                let to = &mut features[*r as usize * w..(*r as usize + 1) * w];
                to.iter_mut().zip(&dm[at..at + w]).for_each(|(t, g)| *t += *g * share);
            }
        });
    }
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
    pub(super) id: Vec<T>,
    pub(super) projected: Vec<T>,
    raw_id: Vec<T>,
    raw_projected: Vec<T>,
    m: Vec<T>,
    inputs: Vec<T>,
    hidden: Vec<T>,
    active: Vec<T>,
}
