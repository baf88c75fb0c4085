//! A person on a surface, which is where an item was shown (device, page, row of the home screen).
//!
//! `e = e_person + e_{person, surface} (+ e_item)`. The person comes first: its part is adapted to all outcomes, each row shifted by
//! what the block says before any outcome on that surface (what is so there for everybody). The part of a surface is then adapted to the
//! outcomes there, their rows shifted by the person's adapted part: it learns what the person does otherwise there. Nothing goes
//! round in circles, so outcomes and weights alone give all parts, in training and while serving. Of a person's outcomes the latest ones
//! count, those that its own adaptation reads.

use super::adapter::{Adapted, Adapter, RankerView};
use super::inputs::{Evidence, Inputs};
use crate::error::Result;
use crate::kernels::math::add;
use crate::model::Value;

/// Outcomes of a person, oldest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnSurfaces<'a> {
    /// What the trunk reads, `[n, candidate]`, shifted by the items' embeddings alone.
    pub rows: &'a [f32],
    /// `[n, heads]`, NaN is none.
    pub labels: &'a [f32],
    /// Code of each one's surface; 0 is unknown.
    pub surfaces: &'a [u32],
}

impl OnSurfaces<'_> {
    const NONE: Self = Self { rows: &[], labels: &[], surfaces: &[] };
}

/// Adapts persons on surfaces, on one thread.
#[derive(Debug, Clone)]
pub(crate) struct SurfaceBlock<'a> {
    adapter: Adapter<'a>,
    inputs: Inputs,
    input: Vec<f32>,
    rows: Vec<f32>,
    labels: Vec<f32>,
}

impl<'a> SurfaceBlock<'a> {
    /// The block of `view`, whose shape is that of [`RankerShape::of_surface`](super::RankerShape::of_surface), over heads whose labels
    /// average `means`.
    ///
    /// # Errors
    /// As [`RankerView::adapter`].
    pub(crate) fn new(view: RankerView<'a>, means: &[f32]) -> Result<Self> {
        let inputs = Inputs::of_surface(means);
        let input = vec![0.0; view.shape.inputs];
        let view = RankerView { entities: &[], ..view };
        Ok(Self { adapter: view.adapter()?, inputs, input, rows: Vec::new(), labels: Vec::new() })
    }

    /// The embedding of anybody on a surface before any outcome there.
    ///
    /// # Errors
    /// None that a block can cause; those of adaptations are passed on.
    pub(crate) fn start(&mut self, surface: u32) -> Result<&[f32]> {
        Ok(self.adapt(surface, &[], OnSurfaces::NONE, 0)?.embedding)
    }

    /// Shifts rows (`[n, candidate]`) by the embeddings before any outcome on their `surfaces`.
    ///
    /// # Errors
    /// As [`SurfaceBlock::start`].
    pub(crate) fn shift(&mut self, surfaces: &[u32], rows: &mut [f32]) -> Result<()> {
        self.shift_adapted(&[], OnSurfaces::NONE, 0, surfaces, rows)
    }

    /// Shifts rows (`[n, candidate]`) by the embeddings of a person on their `surfaces`, adapted as by [`SurfaceBlock::adapt`].
    ///
    /// # Errors
    /// As [`SurfaceBlock::adapt`].
    pub(crate) fn shift_adapted(
        &mut self,
        person: &[f32],
        known: OnSurfaces<'_>,
        steps: usize,
        surfaces: &[u32],
        rows: &mut [f32],
    ) -> Result<()> {
        let shape = self.adapter.ranker().shape;
        let mut found: Vec<(u32, Vec<f32>)> = Vec::new();
        for (row, surface) in rows.chunks_exact_mut(shape.candidate()).zip(surfaces).filter(|(_, s)| **s > 0) {
            let at = match found.iter().position(|(s, _)| s == surface) {
                Some(at) => at,
                None => {
                    let embedding = self.adapt(*surface, person, known, steps)?.embedding;
                    found.push((*surface, embedding.to_vec()));
                    found.len() - 1
                }
            };
            add(&mut row[shape.read()..], &found[at].1);
        }
        Ok(())
    }

    /// The embedding of a person on a surface, adapted to those of its outcomes that happened there, beside the embedding `person`.
    /// The surface is known (its code is not 0).
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    pub(crate) fn adapt(
        &mut self,
        surface: u32,
        person: &[f32],
        known: OnSurfaces<'_>,
        steps: usize,
    ) -> Result<Adapted<'_>> {
        let shape = self.adapter.ranker().shape;
        let (width, heads) = (shape.candidate(), shape.heads);
        let mut evidence = vec![Evidence::default(); heads];
        self.rows.clear();
        self.labels.clear();
        let each = known.rows.chunks_exact(width).zip(known.labels.chunks_exact(heads)).zip(known.surfaces);
        for ((row, labels), _) in each.filter(|(_, s)| **s == surface) {
            evidence.iter_mut().zip(labels).for_each(|(e, l)| e.push(*l));
            let at = self.rows.len();
            self.rows.extend_from_slice(row);
            add(&mut self.rows[at + shape.read()..], person);
            self.labels.extend_from_slice(labels);
        }
        self.inputs.write(&[], &evidence, &[Value::Codes(&[surface])], &mut self.input)?;
        self.adapter.adapt(&self.input, None, &self.rows, &self.labels, steps)
    }
}
