//! Where an item is shown, as far as the ranker tells it apart: the parts of people on surfaces, published and made anew
//! (`model/meta/surface`).
//!
//! A request names its surface as one of its fields, an outcome as one of its event's. One that the ranker does not know, or none,
//! adds nothing. A person of whom no outcome on a surface is known has what the block says before any outcome.

use super::generation::Generation;
use super::ranker::{MetaEmbedding, Support};
use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::kernels::retrieve::finite;
use crate::model::sections;
use crate::ranker::{OnSurfaces, RankerShape, RankerView, SurfaceBlock};
use crate::store::{RankerRecord, Snapshot};
use std::collections::HashMap;

/// The surfaces of a ranker.
#[derive(Debug)]
pub(super) struct Surfaces {
    /// The ranker seen from the block of people on surfaces.
    shape: RankerShape,
    codes: HashMap<String, u32>,
}

/// The embeddings under which a request is ranked, in place of the generation's own.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// That of the entity.
    pub(super) person: Vec<f32>,
    /// Its part on the surface of the request, if it has outcomes there.
    pub(super) surface: Option<Vec<f32>>,
}

impl Surfaces {
    /// Those of a snapshot's ranker, the sections checked against the manifest; `None` where it tells none apart.
    pub(super) fn open(
        snapshot: &Snapshot,
        record: &RankerRecord,
        shape: &RankerShape,
        table: bool,
        entities: u64,
    ) -> Result<Option<Self>> {
        let Some(shape) = shape.of_surface() else { return Ok(None) };
        if table {
            let outcomes = snapshot.u32s(sections::META_ITEMS)?.len();
            let pairs = snapshot.u32s(sections::META_SURFACE_CODES)?.len();
            let fits = snapshot.u32s(sections::META_SURFACES)?.len() == outcomes
                && snapshot.u64s(sections::META_SURFACE_OFFSETS)?.len() as u64 == entities.saturating_add(1)
                && snapshot.f32s(sections::META_SURFACE_EMBEDDINGS)?.len()
                    == pairs.saturating_mul(shape.options.embedding as usize);
            if !fits {
                return Err(err!(Corrupt, "the sections meta.surface.* do not fit the manifest; publish again"));
            }
        }
        let codes = record.surfaces.iter().cloned().zip(1..).collect();
        Ok(Some(Self { shape, codes }))
    }
}

impl Generation {
    fn surfaces(&self) -> Option<&Surfaces> {
        self.served_ranker().and_then(|served| served.surfaces.as_ref())
    }

    /// Whether a field of this name says where an item is shown.
    pub(super) fn is_surface(&self, name: &str) -> bool {
        self.surfaces().is_some_and(|s| s.shape.options.surface == name)
    }

    /// The code of a surface; 0 where it is not known.
    pub(crate) fn surface_code(&self, value: &str) -> u32 {
        self.surfaces().and_then(|s| s.codes.get(value)).copied().unwrap_or(0)
    }

    /// The name of a surface.
    pub(super) fn surface_name(&self, code: u32) -> &str {
        let known = self.ranker().map_or(&[][..], |r| &r.surfaces);
        known.get((code as usize).wrapping_sub(1)).map_or("", String::as_str)
    }

    /// The code of the surface that fields name, 0 where they name none that is known; of several the last one.
    pub(super) fn surface_of<'f>(&self, fields: impl DoubleEndedIterator<Item = (&'f str, &'f str)>) -> u32 {
        let named = fields.rev().find(|(name, _)| self.is_surface(name));
        named.map_or(0, |(_, value)| self.surface_code(value))
    }

    fn surface_block<'a>(&'a self, surfaces: &'a Surfaces) -> Result<SurfaceBlock<'a>> {
        let view = RankerView { shape: &surfaces.shape, entities: &[], ..self.ranker_view()? };
        SurfaceBlock::new(view, self.ranker().map_or(&[], |r| &r.means))
    }

    /// Shifts rows by what is known of their surfaces before any outcome; nothing where the ranker tells none apart.
    pub(super) fn shift_by_surface(&self, codes: &[u32], rows: &mut [f32]) -> Result<()> {
        match self.surfaces() {
            Some(surfaces) => self.surface_block(surfaces)?.shift(codes, rows),
            None => Ok(()),
        }
    }

    /// Adapts an entity on each surface of its outcomes, or on surface `only`, beside its own embedding, to those outcomes that it
    /// was adapted to itself; no part goes further than `most` from what is known before any outcome.
    pub(crate) fn adapt_surfaces(
        &self,
        state: &[f32],
        known: &Support,
        adapted: &MetaEmbedding,
        only: Option<u32>,
        most: Option<f32>,
    ) -> Result<Vec<(String, Vec<f32>)>> {
        let Some(surfaces) = self.surfaces() else { return Ok(Vec::new()) };
        let (width, heads) = (surfaces.shape.candidate(), surfaces.shape.heads);
        let mut block = self.surface_block(surfaces)?;
        let rows = self.known_rows(known, state)?;
        // What the entity's own adaptation left out.
        let from = match adapted.outcomes {
            0 => 0,
            read => known.rows.len().saturating_sub(read),
        };
        let known = OnSurfaces {
            rows: rows.get(from.saturating_mul(width)..).unwrap_or(&[]),
            labels: known.labels.get(from.saturating_mul(heads)..).unwrap_or(&[]),
            surfaces: known.surfaces.get(from..).unwrap_or(&[]),
        };
        let mut codes: Vec<u32> = known.surfaces.iter().copied().filter(|c| *c > 0).collect();
        codes.sort_unstable();
        codes.dedup();
        let mut found = Vec::new();
        for code in codes.into_iter().filter(|code| only.is_none_or(|only| only == *code)) {
            let steps = surfaces.shape.options.steps as usize;
            let mut part = block.adapt(code, &adapted.vector, known, steps)?.embedding.to_vec();
            if let Some(most) = most {
                shorten(&mut part, block.start(code)?, most);
            }
            if !finite(&part) {
                return Err(err!(
                    Corrupt,
                    "generation {} gives an embedding on surface {:?} that is not finite; verify the store and roll back",
                    self.id(),
                    self.surface_name(code)
                ));
            }
            found.push((self.surface_name(code).to_owned(), part));
        }
        Ok(found)
    }

    /// The parts of an entity on surfaces that batch adaptation made, by code; none where it made none.
    pub(super) fn published_surfaces(&self, entity: u32) -> Result<Vec<(u32, &[f32])>> {
        let Some(served) = self.served_ranker().filter(|s| s.surfaces.is_some() && s.table) else {
            return Ok(Vec::new());
        };
        let (snapshot, width, row) = (self.snapshot(), served.width(), entity as usize);
        let damaged = || {
            err!(Corrupt, "the embeddings of entity row {row} on surfaces are damaged; verify the store and roll back")
        };
        let offsets = snapshot.u64s(sections::META_SURFACE_OFFSETS)?;
        let (Some(start), Some(end)) = (offsets.get(row), offsets.get(row + 1)) else { return Err(damaged()) };
        let (Ok(start), Ok(end)) = (usize::try_from(*start), usize::try_from(*end)) else { return Err(damaged()) };
        let codes = snapshot.u32s(sections::META_SURFACE_CODES)?.get(start..end).ok_or_else(damaged)?;
        let parts = snapshot.f32s(sections::META_SURFACE_EMBEDDINGS)?;
        let parts = parts.get(start * width..end * width).ok_or_else(damaged)?;
        match finite(parts) {
            true => Ok(codes.iter().copied().zip(parts.chunks_exact(width)).collect()),
            false => Err(damaged()),
        }
    }

    /// What shifts the rows of a request on the surface `code` (not 0): the part that is `given`, or that the generation holds of
    /// the entity, or what is known before any outcome.
    fn part_on(&self, code: u32, entity: Option<u32>, given: Option<&Given>) -> Result<Vec<f32>> {
        let held = match (given, entity) {
            (Some(given), _) => given.surface.clone(),
            (None, Some(row)) => {
                self.published_surfaces(row)?.into_iter().find(|(on, _)| *on == code).map(|(_, part)| part.to_vec())
            }
            (None, None) => None,
        };
        match (held, self.surfaces()) {
            (Some(part), _) => Ok(part),
            (None, Some(surfaces)) => Ok(self.surface_block(surfaces)?.start(code)?.to_vec()),
            (None, None) => Ok(vec![0.0; self.meta_width()]),
        }
    }

    /// Shifts the rows of a request by the entity's part on its surface; nothing for one that the ranker does not know.
    pub(super) fn shift_request(
        &self,
        code: u32,
        entity: Option<u32>,
        given: Option<&Given>,
        rows: &mut [f32],
    ) -> Result<()> {
        let Some(surfaces) = self.surfaces().filter(|_| code > 0) else { return Ok(()) };
        let part = self.part_on(code, entity, given)?;
        for row in rows.chunks_exact_mut(surfaces.shape.candidate()) {
            if let Some(tail) = row.get_mut(surfaces.shape.read()..) {
                add(tail, &part);
            }
        }
        Ok(())
    }

    /// The part on a surface before the state of its entity: published, or what is known before any outcome.
    pub(super) fn part_before(&self, code: u32, entity: Option<u32>) -> Result<Vec<f32>> {
        self.part_on(code, entity, None)
    }
}

/// Keeps `part` within `most` of `start`, on the line between the two.
fn shorten(part: &mut [f32], start: &[f32], most: f32) {
    let far = part.iter().zip(start).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    if far > f64::from(most) {
        let share = (f64::from(most) / far) as f32;
        part.iter_mut().zip(start).for_each(|(a, b)| *a = b + share * (*a - b));
    }
}
