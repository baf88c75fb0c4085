//! The meta block, adapted to what is known of an entity.

use super::candidates::candidate;
use crate::error::{Result, err};
use crate::generation::{Generation, PublishedRanker, Support};
use crate::kernels::math::add;
use crate::kernels::retrieve::finite;
use crate::model::Value;
use crate::ranker::{DriftDetection, Evidence, OnSurfaces};

/// A meta embedding and how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaEmbedding {
    /// The vector, as wide as [`Generation::meta_width`].
    pub vector: Vec<f32>,
    /// Outcomes that it was adapted to; 0 is the meta block as it was learned.
    pub outcomes: usize,
    /// Mean loss on them before and after the adaptation; 0 where it was read from a table.
    pub losses: [f32; 2],
    /// Whether the adaptation was kept: it is finite and fits the outcomes no worse than before.
    pub accepted: bool,
    /// What is added to it on each surface that those outcomes name, by the surface; empty where the ranker tells none apart.
    pub surfaces: Vec<(String, Vec<f32>)>,
}

/// A generation and its ranker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The generation.
    pub generation: &'a Generation,
    /// Its ranker.
    pub ranker: PublishedRanker<'a>,
}

impl<'a> Place<'a> {
    /// A generation that has a ranker.
    ///
    /// # Errors
    /// `InvalidConfig` where it has none.
    pub(crate) fn new(generation: &'a Generation) -> Result<Self> {
        Ok(Self { generation, ranker: generation.published_ranker()? })
    }

    /// Writes what the meta block reads of an entity, known to the generation or not.
    pub(super) fn write_input(
        &self,
        entity: Option<u32>,
        state: &[f32],
        evidence: &[Evidence],
        input: &mut [f32],
    ) -> Result<()> {
        let fields = entity.map_or(0, |_| self.generation.schema().entity_fields.len());
        let value = |field| self.generation.entity_column(field)?.value(entity.unwrap_or_default());
        let profile = (0..fields).map(value).collect::<Result<Vec<Value<'_>>>>()?;
        self.ranker.inputs.write(state, evidence, &profile, input)
    }

    /// Refuses an embedding that is no number.
    pub(super) fn check_embedding(&self, vector: &[f32]) -> Result<()> {
        match finite(vector) {
            true => Ok(()),
            false => Err(err!(
                Corrupt,
                "generation {} gives a meta embedding that is not finite; verify the store and roll back",
                self.generation.id()
            )),
        }
    }

    /// An entity's part on a surface before any state of it: published, or what is known of anybody before any outcome there;
    /// `None` for a surface that the ranker does not know.
    pub(in crate::serve) fn part_before(&self, code: u32, entity: Option<u32>) -> Result<Option<&'a [f32]>> {
        if code == 0 {
            return Ok(None);
        }
        let own = match entity {
            Some(row) => self.ranker.surface_parts(row)?.find(|(on, _)| *on == code),
            None => None,
        };
        match own {
            Some((_, part)) => Ok(Some(part)),
            None => self.ranker.surface_start(code),
        }
    }
}

/// One entity that the meta block is adapted to, always from where the block was learned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntityAdapter<'a> {
    /// The generation and its ranker.
    pub place: Place<'a>,
    /// The entity's row, where the generation knows it.
    pub entity: Option<u32>,
    /// Its user vector under no request.
    pub state: &'a [f32],
}

impl EntityAdapter<'_> {
    /// Adapts the meta block to what is known: `steps` inner steps ([`None`]: as many as were trained) on the latest outcomes, with
    /// `drift` those since the latest change of taste.
    pub(crate) fn adapt(
        &self,
        known: &Support,
        steps: Option<usize>,
        drift: Option<&DriftDetection>,
    ) -> Result<MetaEmbedding> {
        let view = self.place.ranker.view;
        let input = self.input(known)?;
        let mut candidates = self.rows(known, 0)?;
        self.shift_by_surface(&known.surfaces, &mut candidates)?;
        let own = self.entity.and_then(|row| view.entity(row));
        let steps = steps.unwrap_or(view.shape.options.steps as usize);
        let mut adapter = view.adapter()?;
        let from = match drift {
            Some(drift) => adapter.change(&input, own, &candidates, &known.labels, steps, drift)?,
            None => 0,
        };
        let candidates = candidates.get(from * view.shape.candidate()..).unwrap_or(&[]);
        let labels = known.labels.get(from * view.shape.heads..).unwrap_or(&[]);
        let adapted = adapter.adapt(&input, own, candidates, labels, steps)?;
        self.place.check_embedding(adapted.embedding)?;
        Ok(MetaEmbedding {
            vector: adapted.embedding.to_vec(),
            outcomes: if adapted.accepted && steps > 0 { known.rows.len() - from } else { 0 },
            losses: [adapted.before, adapted.after],
            accepted: adapted.accepted,
            surfaces: Vec::new(),
        })
    }

    /// The first-order update: moves `embedding`, which was adapted to all but the newest of the outcomes of `known`, by that one alone
    /// ([`crate::ranker::Adapter::first_order`]).
    pub(in crate::serve) fn first_order(&self, known: &Support, embedding: &[f32]) -> Result<MetaEmbedding> {
        let view = self.place.ranker.view;
        let Some((_, before)) = known.rows.split_last() else { return self.adapt(known, None, None) };
        let input = self.input(known)?;
        let mut candidate = self.rows(known, before.len())?;
        self.shift_by_surface(known.surfaces.get(before.len()..).unwrap_or(&[]), &mut candidate)?;
        let labels = known.labels.get(before.len() * view.shape.heads..).unwrap_or(&[]);
        let own = self.entity.and_then(|row| view.entity(row));
        let mut adapter = view.adapter()?;
        let vector = adapter.first_order(&input, own, embedding, &candidate, labels, before.len())?.to_vec();
        self.place.check_embedding(&vector)?;
        let outcomes = known.rows.len();
        Ok(MetaEmbedding { vector, outcomes, losses: [0.0; 2], accepted: true, surfaces: Vec::new() })
    }

    /// The embedding of the meta block as it was learned, which knows no outcome of the entity.
    pub(in crate::serve) fn learned(&self) -> Result<Vec<f32>> {
        let nothing = Support::none(self.place.ranker.view.shape.heads);
        Ok(self.adapt(&nothing, Some(0), None)?.vector)
    }

    /// Adapts the entity on each surface of its outcomes, or on surface `only`, beside its own embedding, to those outcomes that it
    /// was adapted to itself. By code, ascending.
    pub(crate) fn adapt_surfaces(
        &self,
        known: &Support,
        adapted: &MetaEmbedding,
        only: Option<u32>,
    ) -> Result<Vec<(u32, Vec<f32>)>> {
        let ranker = self.place.ranker;
        let Some((mut block, shape)) = ranker.surface_block()? else { return Ok(Vec::new()) };
        let (width, heads) = (shape.candidate(), shape.heads);
        let rows = self.rows(known, 0)?;
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
            let steps = shape.options.steps as usize;
            let part = block.adapt(code, &adapted.vector, known, steps)?.embedding.to_vec();
            if !finite(&part) {
                return Err(err!(
                    Corrupt,
                    "generation {} gives an embedding on surface {:?} that is not finite; verify the store and roll back",
                    self.place.generation.id(),
                    ranker.surface_name(code)
                ));
            }
            found.push((code, part));
        }
        Ok(found)
    }

    fn input(&self, known: &Support) -> Result<Vec<f32>> {
        let mut input = vec![0.0; self.place.ranker.view.shape.inputs];
        self.place.write_input(self.entity, self.state, &known.evidence, &mut input)?;
        Ok(input)
    }

    /// What the ranker reads of the outcomes from the `from`-th on, shifted by the embeddings of their items.
    fn rows(&self, known: &Support, from: usize) -> Result<Vec<f32>> {
        let Place { generation, ranker } = self.place;
        let wide = ranker.record.impression.len();
        let (mut candidates, mut numbers) = (Vec::new(), Vec::new());
        for (at, row) in known.rows.iter().enumerate().skip(from) {
            numbers.clear();
            numbers.push(0.0);
            numbers.extend_from_slice(known.impression.get(at * wide..(at + 1) * wide).unwrap_or(&[]));
            candidate(generation, &ranker, *row, self.state, &mut numbers, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// Shifts rows by what is known of their surfaces before any outcome; nothing where the ranker tells none apart.
    fn shift_by_surface(&self, codes: &[u32], rows: &mut [f32]) -> Result<()> {
        let shape = self.place.ranker.view.shape;
        for (code, row) in codes.iter().zip(rows.chunks_exact_mut(shape.candidate())) {
            if let (Some(start), Some(tail)) = (self.place.ranker.surface_start(*code)?, row.get_mut(shape.read()..)) {
                add(tail, start);
            }
        }
        Ok(())
    }
}
