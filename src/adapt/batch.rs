//! Every entity's meta embedding, and the generation that has them.

use super::adaptation::{Adaptation, Kind};
use super::partial::Partial;
use crate::data::Dataset;
use crate::error::{Result, err};
use crate::generation::{Coded, Support};
use crate::model::{Request, Scratch, sections};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::serve::{EntityAdapter, Generation, Place};
use crate::store::{GenerationId, ManifestContent, Publisher, RunRecord};
use crate::threads;
use crate::train::ranker::Impressions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entities between two looks at the progress; what an interruption may cost.
const CHUNK: usize = 1024;
/// Entities that a thread takes at once.
const JOB: usize = 32;

/// Adapts every entity of a generation to its outcomes in a dataset.
#[derive(Debug)]
pub struct BatchAdapter<'a> {
    coded: Coded,
    data: &'a Dataset,
    impressions: &'a Impressions,
    /// The dataset's row of each entity of the generation.
    entities: Vec<Option<u32>>,
    /// The generation's code of each outcome's surface; empty where the ranker tells none apart.
    surfaces: Vec<u32>,
    threads: usize,
    partial: Option<PathBuf>,
}

/// The outcome of a batch adaptation.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchAdapted {
    /// Meta embeddings, `[entities, width]`, in the rows of the generation. Entities without outcomes have that of the meta block as
    /// it was learned.
    pub embeddings: Vec<f32>,
    /// What is added to an entity's on each surface of its outcomes, by code, ascending; empty lists where the ranker tells none apart.
    pub surfaces: Vec<Vec<(u32, Vec<f32>)>>,
    /// Entities that were adapted to at least one outcome.
    pub adapted: u64,
    /// Entities whose adaptation did not fit their outcomes better, or was not finite: they keep the learned embedding.
    pub refused: u64,
    /// Entities without an outcome.
    pub unlabelled: u64,
    /// Entities that an interrupted run had done already.
    pub resumed: u64,
}

impl<'a> BatchAdapter<'a> {
    /// Matches a generation with a dataset and its outcomes. Entities that the generation does not know have no place in its table and
    /// are left out; they are adapted while serving.
    ///
    /// # Errors
    /// `InvalidConfig` where the generation has no ranker, or outcomes lack the surfaces that it tells apart; `StateMismatch` where the dataset or the heads are not those that it
    /// was trained with; `InvalidData` where outcomes and dataset do not fit.
    pub fn new(generation: Arc<Generation>, data: &'a Dataset, impressions: &'a Impressions) -> Result<Self> {
        impressions.check(data)?;
        generation.meta_version()?;
        if let Some(record) = generation.ranker() {
            let names = |fields: &[crate::schema::ImpressionField]| -> Vec<String> {
                fields.iter().map(|f| f.name.clone()).collect()
            };
            let (own, theirs) = (names(&record.impression), names(&impressions.impression_fields));
            if record.heads != impressions.heads || own != theirs {
                return Err(err!(
                    StateMismatch,
                    "the ranker was trained on heads {:?} with impression features {own:?}, the outcomes have {:?} with {theirs:?}; bring the \
                     log that it was trained on, or a later one",
                    record.heads,
                    impressions.heads
                ));
            }
        }
        let mut surfaces = Vec::new();
        if let Some(record) = generation.ranker().filter(|r| r.shape.has_surface()) {
            let surface = impressions.surface(&record.shape.surface)?;
            let codes = surface.recode(&record.surfaces);
            surfaces.extend(surface.codes.iter().map(|c| codes.get(*c as usize).copied().unwrap_or(0)));
        }
        let mut entities = Vec::with_capacity(generation.entities());
        for row in 0..generation.entities() as u32 {
            entities.push(data.entities.row(generation.entity_id(row)?));
        }
        let coded = Coded::new(generation, data)?;
        Ok(Self { coded, data, impressions, entities, surfaces, threads: 1, partial: None })
    }

    /// The threads to use, of which the caller's is one; they do not change the result.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Keeps what is done in this file, so that a run that was interrupted is taken up again by one with the same generation, dataset
    /// and outcomes. It is removed by [`BatchAdapter::publish`].
    pub fn partial(self, file: impl AsRef<Path>) -> Self {
        Self { partial: Some(file.as_ref().to_path_buf()), ..self }
    }

    fn generation(&self) -> &Generation {
        self.coded.generation()
    }

    /// The outcomes of an entity of the generation, but for those held out, that name an item which it knows, oldest first, with their rows.
    fn outcomes(&self, entity: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
        let own = self.entities.get(entity).copied().flatten();
        let range = own.map_or(0..0, |row| self.impressions.kept(row));
        range.filter_map(|i| Some((i, self.coded.row(*self.impressions.item.get(i)?)?)))
    }

    /// What is known of an entity.
    fn known(&self, entity: usize) -> Support {
        let (heads, most) =
            (self.impressions.heads.len(), self.generation().ranker().map_or(0, |r| r.shape.support as usize));
        let mut known = Support::none(heads);
        let fields = &self.impressions.impression_fields;
        let record = self.generation().ranker().map_or(&[][..], |r| &r.impression);
        for (i, row) in self.outcomes(entity) {
            let impression = self.impressions.impression.get(i * fields.len()..(i + 1) * fields.len()).unwrap_or(&[]);
            // The log may be a later one, with another mean and deviation.
            let scales = fields.iter().zip(record).zip(impression);
            let impression: Vec<f32> = scales.map(|((was, is), x)| is.scaled(x * was.deviation + was.mean)).collect();
            let (surface, time) = (self.surfaces.get(i).copied().unwrap_or(0), self.impressions.time.get(i).copied());
            known.insert(row, self.impressions.label(i), &impression, surface, time, most);
        }
        known
    }

    fn one(&self, entity: usize, scratch: &mut Scratch) -> Result<Adaptation> {
        let generation = self.generation();
        let known = self.known(entity);
        let range = self.entities.get(entity).copied().flatten().map_or(0..0, |row| self.data.range(row));
        let history = self.coded.history(self.data, range);
        let mut state = vec![0.0; generation.width()];
        generation.inference().user_vector(
            generation.weights()?,
            &history,
            &Request::default(),
            scratch,
            &mut state,
        )?;
        let (place, entity) = (Place::new(generation)?, u32::try_from(entity).ok());
        let adapter = EntityAdapter { place, entity, state: &state };
        let found = adapter.adapt(&known, None, None)?;
        let kind = match (known.rows.is_empty(), found.outcomes) {
            (true, _) => Kind::Unlabelled,
            (false, 0) => Kind::Refused,
            _ => Kind::Adapted,
        };
        let surfaces = adapter.adapt_surfaces(&known, &found, None)?;
        Ok(Adaptation { vector: found.vector, surfaces, kind })
    }

    /// Adapts everybody; `None` where `cancel` stopped it, with what is done kept where [`BatchAdapter::partial`] says so. The same
    /// generation, dataset and outcomes give the same bytes, however many threads and interruptions there are.
    ///
    /// # Errors
    /// `Corrupt` where the generation turns out to be damaged; input and output errors of the partial file.
    pub fn run(&self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Option<BatchAdapted>> {
        let (entities, width) = (self.entities.len(), self.generation().meta_width());
        observer.on_event(&ProgressEvent::Stage { name: "adapting".into(), total: entities as u64, unit: "entities" });
        let mut done = Vec::new();
        let mut partial = match &self.partial {
            Some(file) => Some(Partial::open(file, &self.fingerprint()?, width, &mut done)?),
            None => None,
        };
        done.truncate(entities);
        let resumed = done.len() as u64;
        while done.len() < entities {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            let first = done.len();
            let last = (first + CHUNK).min(entities);
            let jobs = (last - first).div_ceil(JOB);
            let parts = threads::map(self.threads, jobs, Scratch::default, |job, scratch| -> Result<Vec<Adaptation>> {
                let from = first + job * JOB;
                (from..(from + JOB).min(last)).map(|entity| self.one(entity, scratch)).collect()
            });
            for part in parts {
                done.extend(part?);
            }
            if let Some(partial) = &mut partial {
                partial.append(done.get(first..).unwrap_or_default())?;
            }
            observer.on_event(&ProgressEvent::Advance { done: done.len() as u64 });
        }
        let count = |kind: Kind| done.iter().filter(|a| a.kind == kind).count() as u64;
        let [adapted, refused, unlabelled] = [Kind::Adapted, Kind::Refused, Kind::Unlabelled].map(count);
        let (vectors, surfaces): (Vec<Vec<f32>>, _) = done.into_iter().map(|a| (a.vector, a.surfaces)).unzip();
        Ok(Some(BatchAdapted { embeddings: vectors.concat(), surfaces, adapted, refused, unlabelled, resumed }))
    }

    /// What a partial file belongs to.
    fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.generation().meta_version()?).update(&self.data.hash);
        let numbers = self.impressions.item.iter().chain(&self.impressions.before);
        for number in numbers.copied().chain(self.impressions.labels.iter().map(|l| l.to_bits())) {
            hasher.update(&number.to_le_bytes());
        }
        for number in &self.impressions.impression {
            hasher.update(&number.to_bits().to_le_bytes());
        }
        for time in &self.impressions.time {
            hasher.update(&time.to_le_bytes());
        }
        for code in &self.surfaces {
            hasher.update(&code.to_le_bytes());
        }
        hasher.update(&self.impressions.held_out.to_bits().to_le_bytes());
        hasher.update(&(self.entities.len() as u64).to_le_bytes());
        Ok(*hasher.finalize().as_bytes())
    }

    /// Publishes the generation with these embeddings, and the outcomes that they were adapted to; every other section is shared
    /// with the generation that was adapted.
    ///
    /// # Errors
    /// Those of [`Publisher::publish`]; `InvalidArgument` for embeddings of another number of entities; `StateMismatch` where another
    /// generation became current meanwhile.
    pub fn publish(&self, publisher: &mut Publisher, adapted: &BatchAdapted, run: &RunRecord) -> Result<GenerationId> {
        let generation = self.generation();
        let (entities, width) = (self.entities.len(), generation.meta_width());
        let parts = adapted.surfaces.iter().flatten();
        if adapted.embeddings.len() != entities * width
            || adapted.surfaces.len() != entities
            || parts.clone().any(|(_, part)| part.len() != width)
        {
            return Err(err!(
                InvalidArgument,
                "{} numbers are not {entities} embeddings of {width}; publish what this adapter gave",
                adapted.embeddings.len()
            ));
        }
        if publisher.current()? != Some(generation.id()) {
            return Err(err!(
                StateMismatch,
                "generation {} was adapted, and is not the store's current one any more; adapt the current one, so that no newer \
                 model is replaced",
                generation.id()
            ));
        }
        let snapshot = generation.snapshot();
        for name in snapshot.section_names().filter(|name| !name.starts_with("meta.")) {
            publisher.carry(snapshot, name)?;
        }
        if generation.ranker().is_some_and(|r| r.shape.items.is_on()) {
            match super::items::adapt(&self.coded, self.data, self.impressions, self.threads)? {
                Some(table) => {
                    let shape = [generation.published_items() as u64, width as u64];
                    publisher.slice(sections::META_ITEM_EMBEDDINGS, &shape, &table)?;
                }
                None => publisher.carry(snapshot, sections::META_ITEM_EMBEDDINGS)?,
            }
        }
        let (heads, numbers) = (self.impressions.heads.len() as u64, self.impressions.impression_fields.len() as u64);
        let (mut evidence, mut offsets, mut items, mut labels) = (Vec::new(), vec![0u64], Vec::new(), Vec::new());
        let (mut impression, mut until, mut surfaces, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entity in 0..entities {
            let known = self.known(entity);
            evidence.extend(known.evidence.iter().flat_map(|e| [e.count, e.sum, e.recent_count, e.recent_sum]));
            items.extend_from_slice(&known.rows);
            labels.extend_from_slice(&known.labels);
            impression.extend_from_slice(&known.impression);
            surfaces.extend_from_slice(&known.surfaces);
            times.extend_from_slice(&known.times);
            until.push(known.until.unwrap_or(i64::MIN));
            offsets.push(items.len() as u64);
        }
        let (e, o) = (entities as u64, items.len() as u64);
        publisher.slice(sections::META_EMBEDDINGS, &[e, width as u64], &adapted.embeddings)?;
        publisher.slice(sections::META_EVIDENCE, &[e, heads, 4], &evidence)?;
        publisher.slice(sections::META_OFFSETS, &[e + 1], &offsets)?;
        publisher.slice(sections::META_ITEMS, &[o], &items)?;
        publisher.slice(sections::META_LABELS, &[o, heads], &labels)?;
        if numbers > 0 {
            publisher.slice(sections::META_IMPRESSION, &[o, numbers], &impression)?;
        }
        if generation.ranker().is_some_and(|r| r.shape.has_surface()) {
            let (mut offsets, mut end) = (vec![0u64], 0);
            for own in &adapted.surfaces {
                end += own.len() as u64;
                offsets.push(end);
            }
            let codes: Vec<u32> = parts.clone().map(|(code, _)| *code).collect();
            let vectors: Vec<f32> = parts.flat_map(|(_, part)| part).copied().collect();
            publisher.slice(sections::META_SURFACES, &[o], &surfaces)?;
            publisher.slice(sections::META_SURFACE_OFFSETS, &[e + 1], &offsets)?;
            publisher.slice(sections::META_SURFACE_CODES, &[end], &codes)?;
            publisher.slice(sections::META_SURFACE_EMBEDDINGS, &[end, width as u64], &vectors)?;
        }
        if generation.schema().has_time {
            publisher.slice(sections::META_UNTIL, &[e], &until)?;
            publisher.slice(sections::META_TIMES, &[o], &times)?;
        }
        let mut content: ManifestContent = snapshot.manifest().clone();
        if let Some(ranker) = &mut content.ranker {
            ranker.adapted = adapted.adapted;
            ranker.outcomes = self.impressions.len() as u64;
        }
        let id = publisher.publish(&content, run)?;
        if let Some(file) = &self.partial {
            // It belongs to a run that is over; the next one replaces it.
            let _ = std::fs::remove_file(file);
        }
        Ok(id)
    }
}
