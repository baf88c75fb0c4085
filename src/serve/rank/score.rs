//! What the ranker predicts for items.

use super::super::list::check_score;
use super::super::request::Resolved;
use super::super::retrieve::user_vector;
use super::adapt::Place;
use super::candidates::{candidate, read_impression};
use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::model::{Request, Scratch};
use crate::ranker::{Adapter, AdapterBuffers, Evidence};

/// The embeddings under which a request is ranked, in place of the generation's own.
#[derive(Debug, Clone, Default)]
pub(in crate::serve) struct Given {
    /// That of the entity.
    pub person: Vec<f32>,
    /// Its part on the surface of the request; empty where it has no outcomes there.
    pub surface: Vec<f32>,
}

/// Buffers of one ranking.
#[derive(Debug, Default)]
pub(in crate::serve) struct RankWork {
    /// The items.
    pub rows: Vec<u32>,
    /// Their scores as they were retrieved, where these count.
    pub scores: Vec<f32>,
    candidates: Vec<f32>,
    logits: Vec<f32>,
    state: Vec<f32>,
    numbers: Vec<f32>,
    input: Vec<f32>,
    evidence: Vec<Evidence>,
    learned: Vec<f32>,
    adapter: AdapterBuffers,
}

/// Writes what candidates are worth under an embedding: where a device takes the place of the adapter.
pub(super) trait Logits {
    /// Writes one logit a head for each candidate.
    fn logits(&mut self, embedding: &[f32], candidates: &[f32], out: &mut [f32]) -> Result<()>;
}

impl Logits for Adapter<'_> {
    fn logits(&mut self, embedding: &[f32], candidates: &[f32], out: &mut [f32]) -> Result<()> {
        self.score(embedding, candidates, out)
    }
}

/// One request, to be ranked.
pub(in crate::serve) struct Predict<'a> {
    /// The generation and its ranker.
    pub place: Place<'a>,
    /// What is asked.
    pub asked: &'a Resolved,
    /// Impression features of the query.
    pub impression: &'a [(&'a str, f32)],
    /// The embeddings to rank under, where they are not the generation's own.
    pub given: Option<&'a Given>,
    /// The user vector under the request, where it was made.
    pub user: Option<&'a [f32]>,
}

impl Predict<'_> {
    /// The place of the head that a query ranks by.
    pub(in crate::serve) fn head(heads: &[String], name: &str) -> Result<usize> {
        let found = heads.iter().position(|head| head == name);
        found.ok_or_else(|| err!(InvalidArgument, "the ranker has no head {name:?}; it has {heads:?}"))
    }

    /// Calls `each` with the probabilities, by head, of the rows in `work`, one after another, until it breaks.
    pub(in crate::serve) fn run(
        &self,
        scratch: &mut Scratch,
        work: &mut RankWork,
        mut each: impl FnMut(u32, &mut dyn Iterator<Item = Result<f32>>) -> Result<()>,
    ) -> Result<()> {
        self.write(scratch, work)?;
        let view = self.place.ranker.view;
        for (row, logits) in work.rows.iter().zip(work.logits.chunks_exact(view.shape.heads.max(1))) {
            let probability = |(head, logit): (usize, &f32)| check_score(view.probability(head, *logit), *row);
            each(*row, &mut logits.iter().enumerate().map(probability))?;
        }
        Ok(())
    }

    /// Writes the logits of the rows in `work`.
    fn write(&self, scratch: &mut Scratch, work: &mut RankWork) -> Result<()> {
        let Place { generation, ranker } = self.place;
        let shape = ranker.view.shape;
        match self.user.filter(|_| self.asked.is_plain()) {
            Some(user) => user.clone_into(&mut work.state),
            None => {
                let nothing = Request::default();
                user_vector(generation, self.asked.read_by_model(), &nothing, scratch, &mut work.state)?;
            }
        }
        let entity = self.asked.entity;
        let mut adapter = ranker.view.adapter_with(std::mem::take(&mut work.adapter))?;
        // Batch adaptation may have read outcomes that happened later than the moment that is asked about.
        let adapted = match self.asked.is_cut() && !self.asked.knows(ranker.until(entity)?) {
            true => None,
            false => entity,
        };
        let published = adapted.map(|row| ranker.embedding(row)).transpose()?.flatten();
        let embedding = match self.given.map(|given| given.person.as_slice()).or(published) {
            Some(embedding) => embedding,
            None => {
                work.evidence.clear();
                work.evidence.resize(shape.heads, Evidence::default());
                work.input.resize(shape.inputs, 0.0);
                self.place.write_input(entity, &work.state, &work.evidence, &mut work.input)?;
                let own = entity.and_then(|row| ranker.view.entity(row));
                work.learned.clear();
                work.learned.extend_from_slice(adapter.adapt(&work.input, own, &[], &[], 0)?.embedding);
                self.place.check_embedding(&work.learned)?;
                &work.learned
            }
        };
        work.numbers.clear();
        work.numbers.push(0.0);
        read_impression(&ranker.record.impression, self.impression, &mut work.numbers)?;
        work.candidates.clear();
        for row in &work.rows {
            candidate(generation, &ranker, *row, &work.state, &mut work.numbers, &mut work.candidates)?;
        }
        let code = self.asked.surface;
        let own = self.given.map(|given| given.surface.as_slice()).filter(|part| !part.is_empty());
        let part = match own {
            Some(part) => Some(part),
            None => self.place.part_before(code, adapted.filter(|_| self.given.is_none()))?,
        };
        if let Some(part) = part.filter(|_| code > 0) {
            for row in work.candidates.chunks_exact_mut(shape.candidate()) {
                if let Some(tail) = row.get_mut(shape.read()..) {
                    add(tail, part);
                }
            }
        }
        work.logits.clear();
        work.logits.resize(work.rows.len().saturating_mul(shape.heads), 0.0);
        adapter.logits(embedding, &work.candidates, &mut work.logits)?;
        work.adapter = adapter.into_buffers();
        Ok(())
    }
}
