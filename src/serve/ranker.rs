//! The ranker of a generation: meta embeddings of entities, and outcomes predicted under them (model.md, sections 2 and 3).
//!
//! A list is retrieved by the foundation model and then put in the order of the predicted outcome. The meta embedding is, in this
//! order: the one that was adapted while serving, the generation's own (batch adaptation), or that of the meta block as it was
//! learned, which knows the entity's history and profile but no outcome of it. A ranker with a second meta block adds the item's
//! (`model/meta/tower`), from a table of the generation; one that tells surfaces apart that of the entity on the request's
//! (`surface`).

use super::filter::Filter;
use super::generation::Generation;
use super::query::{Query, Ranking, Who};
use super::retrieve::{Source, check_score};
use super::session::Work;
use super::surface::{Given, Surfaces};
use crate::error::{Result, err};
use crate::kernels::retrieve::finite;
use crate::model::{Request, Value, sections};
use crate::ranker::{DriftDetection, Evidence, Inputs, RankerShape, RankerView, unseen};
use crate::store::{RankerRecord, Snapshot};
use std::ops::Range;

/// Items that are retrieved for ranking, where fewer are asked for.
pub(super) const RETRIEVED: usize = 200;

/// What a generation has of a ranker, besides what lies in its sections.
#[derive(Debug)]
pub(super) struct Served {
    shape: RankerShape,
    inputs: Inputs,
    version: [u8; 32],
    /// The popularity of an item that nobody has met.
    unseen: f32,
    /// Whether batch adaptation has made a table.
    pub(super) table: bool,
    /// The vector of an item that the ranker was not trained with.
    zero: Vec<f32>,
    /// The surfaces that it tells apart.
    pub(super) surfaces: Option<Surfaces>,
}

/// What is known of an entity's outcomes, in the rows of a generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Support {
    /// By head, over all outcomes.
    pub evidence: Vec<Evidence>,
    /// Item rows of the latest outcomes, oldest first.
    pub rows: Vec<u32>,
    /// Their labels, `[n, heads]`.
    pub labels: Vec<f32>,
    /// Their impression, `[n, numbers]`, scaled.
    pub impression: Vec<f32>,
    /// The codes of their surfaces, 0 is unknown.
    pub surfaces: Vec<u32>,
    /// When the newest happened, Unix milliseconds.
    pub until: Option<i64>,
}

impl Support {
    /// Adds an outcome, newer than all before it, and keeps the latest `most`.
    pub(crate) fn push(
        &mut self,
        row: u32,
        labels: &[f32],
        impression: &[f32],
        surface: u32,
        time: Option<i64>,
        most: usize,
    ) {
        self.evidence.iter_mut().zip(labels).for_each(|(e, l)| e.push(*l));
        self.rows.push(row);
        self.labels.extend_from_slice(labels);
        self.impression.extend_from_slice(impression);
        self.surfaces.push(surface);
        self.until = self.until.max(time);
        let over = self.rows.len().saturating_sub(most);
        self.rows.drain(..over);
        self.surfaces.drain(..over);
        self.labels.drain(..over.saturating_mul(labels.len()).min(self.labels.len()));
        self.impression.drain(..over.saturating_mul(impression.len()).min(self.impression.len()));
    }
}

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

/// Buffers of one ranking.
#[derive(Debug, Default)]
pub(super) struct RankWork {
    rows: Vec<u32>,
    candidates: Vec<f32>,
    logits: Vec<f32>,
    state: Vec<f32>,
    numbers: Vec<f32>,
}

impl Served {
    /// The ranker of a snapshot, its sections checked against the manifest; `None` where there is none.
    pub(super) fn open(snapshot: &Snapshot) -> Result<Option<Self>> {
        let content = snapshot.manifest();
        let Some(record) = &content.ranker else { return Ok(None) };
        let heads = record.heads.len();
        if record.means.len() != heads || record.calibration.len() != heads {
            return Err(err!(
                Corrupt,
                "the ranker's {heads} heads have other numbers of means or calibrations; publish again"
            ));
        }
        let width = content.model.width as usize;
        let inputs = Inputs::new(&content.schema, width, &record.means);
        let numbers = 1 + record.impression.len();
        let shape = RankerShape::new(&record.shape, inputs.width(), width, numbers, heads, record.options.inner_rate)?;
        let expect = |name: &str, have: usize, want: u64| match have as u64 == want {
            true => Ok(()),
            false => {
                Err(err!(Corrupt, "section {name} has {have} elements, the manifest asks for {want}; publish again"))
            }
        };
        let product = |a: u64, b: usize| a.saturating_mul(b as u64);
        let floats = |name: &str, want: u64| expect(name, snapshot.f32s(name)?.len(), want);
        let (n, e) = (content.items, content.entities);
        let (own, embedding) = (record.shape.item_width as usize, record.shape.embedding as usize);
        floats(sections::RANKER_WEIGHTS, shape.layout.size() as u64)?;
        floats(sections::RANKER_ITEMS, product(n, own))?;
        floats(sections::RANKER_POPULARITY, n)?;
        if record.shape.identity {
            floats(sections::RANKER_ENTITIES, product(e, embedding))?;
        }
        if record.shape.items.is_on() {
            floats(sections::META_ITEM_EMBEDDINGS, product(n, embedding))?;
        }
        let table = snapshot.has(sections::META_EMBEDDINGS);
        if table {
            floats(sections::META_EMBEDDINGS, product(e, embedding))?;
            floats(sections::META_EVIDENCE, product(e, 4 * heads))?;
            expect(sections::META_OFFSETS, snapshot.u64s(sections::META_OFFSETS)?.len(), e.saturating_add(1))?;
            let outcomes = snapshot.u32s(sections::META_ITEMS)?.len() as u64;
            floats(sections::META_LABELS, product(outcomes, heads))?;
            if !record.impression.is_empty() {
                floats(sections::META_IMPRESSION, product(outcomes, record.impression.len()))?;
            }
            if content.schema.has_time {
                expect(sections::META_UNTIL, snapshot.i64s(sections::META_UNTIL)?.len(), e)?;
            }
        }
        let popularity = snapshot.f32s(sections::RANKER_POPULARITY)?;
        let unseen = unseen(popularity);
        let surfaces = Surfaces::open(snapshot, record, &shape, table, e)?;
        Ok(Some(Self { version: version(snapshot)?, unseen, table, zero: vec![0.0; own], shape, inputs, surfaces }))
    }

    /// The width of embeddings.
    pub(super) fn width(&self) -> usize {
        self.shape.options.embedding as usize
    }
}

/// What an adapted embedding belongs to: the hash of all weights that it depends on. Generations that differ in their meta
/// embeddings alone, those of items included, have the same: beside newer ones of items an entity's own is older, not meaningless.
fn version(snapshot: &Snapshot) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut names =
        vec![sections::ITEM_IDS.to_owned() + ".bytes", sections::ITEM_VECTORS.into(), sections::WEIGHTS.into()];
    names.extend([sections::FEATURES, sections::RANKER_WEIGHTS, sections::RANKER_ITEMS].map(str::to_owned));
    names.push(sections::RANKER_POPULARITY.into());
    if snapshot.has(sections::RANKER_ENTITIES) {
        names.push(sections::RANKER_ENTITIES.into());
    }
    for name in names {
        hasher.update(&snapshot.section(&name)?.hash);
    }
    Ok(*hasher.finalize().as_bytes())
}

impl Generation {
    /// What the generation says of its ranker; `None` where it has none.
    pub fn ranker(&self) -> Option<&RankerRecord> {
        self.snapshot().manifest().ranker.as_ref()
    }

    /// The width of meta embeddings; 0 without a ranker.
    pub fn meta_width(&self) -> usize {
        self.ranker().map_or(0, |r| r.shape.embedding as usize)
    }

    /// What meta embeddings belong to, a hash of all weights that they depend on: an embedding that was adapted under another one
    /// means nothing here.
    ///
    /// # Errors
    /// `InvalidConfig` where the generation has no ranker.
    pub fn meta_version(&self) -> Result<[u8; 32]> {
        Ok(self.rank_parts()?.version)
    }

    fn rank_parts(&self) -> Result<&Served> {
        self.served_ranker().ok_or_else(|| {
            err!(
                InvalidConfig,
                "generation {} has no ranker; train with labelled outcomes (docs/train.md, [ranker])",
                self.id()
            )
        })
    }

    /// The ranker's weights, in place.
    pub(crate) fn ranker_view(&self) -> Result<RankerView<'_>> {
        let served = self.rank_parts()?;
        let snapshot = self.snapshot();
        Ok(RankerView {
            shape: &served.shape,
            dense: snapshot.f32s(sections::RANKER_WEIGHTS)?,
            items: snapshot.f32s(sections::RANKER_ITEMS)?,
            entities: match served.shape.options.identity {
                true => snapshot.f32s(sections::RANKER_ENTITIES)?,
                false => &[],
            },
            calibration: self.ranker().map_or(&[], |r| &r.calibration),
        })
    }

    /// The most outcomes that an adaptation reads.
    pub(crate) fn support(&self) -> usize {
        self.ranker().map_or(0, |r| r.shape.support as usize)
    }

    /// When the newest outcome happened that the generation holds of an entity.
    pub(super) fn published_until(&self, entity: Option<u32>) -> Result<Option<i64>> {
        let Some(row) = entity.filter(|_| self.schema().has_time) else { return Ok(None) };
        match self.rank_parts()?.table {
            true => {
                Ok(self.snapshot().i64s(sections::META_UNTIL)?.get(row as usize).copied().filter(|t| *t != i64::MIN))
            }
            false => Ok(None),
        }
    }

    /// What the generation holds of an entity's outcomes; nothing of one that it does not know.
    pub(crate) fn published_outcomes(&self, entity: Option<u32>) -> Result<Support> {
        let served = self.rank_parts()?;
        let (heads, snapshot) = (served.shape.heads, self.snapshot());
        let wide = served.shape.numbers.saturating_sub(1);
        let mut known = Support { evidence: vec![Evidence::default(); heads], ..Support::default() };
        let Some(row) = entity.filter(|_| served.table).map(|row| row as usize) else { return Ok(known) };
        let damaged = || err!(Corrupt, "the outcomes of entity row {row} are damaged; verify the store and roll back");
        let of = |section: &'static str, width: usize, range: Range<usize>| -> Result<&[f32]> {
            snapshot.f32s(section)?.get(range.start * width..range.end * width).ok_or_else(damaged)
        };
        let evidence = of(sections::META_EVIDENCE, 4 * heads, row..row + 1)?;
        for (to, from) in known.evidence.iter_mut().zip(evidence.chunks_exact(4)) {
            if let [count, sum, recent_count, recent_sum] = *from {
                *to = Evidence { count, sum, recent_count, recent_sum };
            }
        }
        let offsets = snapshot.u64s(sections::META_OFFSETS)?;
        let (Some(start), Some(end)) = (offsets.get(row), offsets.get(row + 1)) else { return Err(damaged()) };
        let (Ok(start), Ok(end)) = (usize::try_from(*start), usize::try_from(*end)) else { return Err(damaged()) };
        known.rows = snapshot.u32s(sections::META_ITEMS)?.get(start..end).ok_or_else(damaged)?.to_vec();
        known.labels = of(sections::META_LABELS, heads, start..end)?.to_vec();
        if wide > 0 {
            known.impression = of(sections::META_IMPRESSION, wide, start..end)?.to_vec();
        }
        known.surfaces = match served.surfaces.is_some() {
            true => snapshot.u32s(sections::META_SURFACES)?.get(start..end).ok_or_else(damaged)?.to_vec(),
            false => vec![0; known.rows.len()],
        };
        known.until = self.published_until(entity)?;
        let sound = |e: &Evidence| e.count.is_finite() && e.sum.is_finite() && e.recent_count.is_finite();
        let labels = known.labels.iter().all(|l| l.is_nan() || (0.0..=1.0).contains(l));
        let rows = known.rows.iter().all(|row| (*row as usize) < self.published_items());
        let surfaces = self.ranker().map_or(0, |r| r.surfaces.len());
        let rows = rows && known.surfaces.iter().all(|code| *code as usize <= surfaces);
        match labels && rows && finite(&known.impression) && known.evidence.iter().all(sound) {
            true => Ok(known),
            false => Err(damaged()),
        }
    }

    /// The meta embedding that batch adaptation made for an entity; `None` where it made none.
    pub(crate) fn published_embedding(&self, entity: u32) -> Result<Option<&[f32]>> {
        let served = self.rank_parts()?;
        if !served.table {
            return Ok(None);
        }
        let (width, row) = (served.shape.options.embedding as usize, entity as usize);
        let found = self.snapshot().f32s(sections::META_EMBEDDINGS)?.get(row * width..(row + 1) * width);
        match found {
            Some(vector) if finite(vector) => Ok(Some(vector)),
            _ => {
                Err(err!(Corrupt, "the meta embedding of entity row {row} is damaged; verify the store and roll back"))
            }
        }
    }

    /// Adapts the meta block, from where it was learned, to what is known of an entity: `steps` inner steps ([`None`]: as many
    /// as were trained) on its latest outcomes, with `drift` those since the latest change of taste. `state` is its user vector
    /// under no request.
    pub(crate) fn adapt_to(
        &self,
        entity: Option<u32>,
        state: &[f32],
        known: &Support,
        steps: Option<usize>,
        drift: Option<&DriftDetection>,
    ) -> Result<MetaEmbedding> {
        let served = self.rank_parts()?;
        let view = self.ranker_view()?;
        let mut input = vec![0.0; served.shape.inputs];
        served.inputs.write(state, &known.evidence, &self.profile_of(entity)?, &mut input)?;
        let mut candidates = self.known_rows(known, state)?;
        self.shift_by_surface(&known.surfaces, &mut candidates)?;
        let own = entity.and_then(|row| view.entity(row));
        let steps = steps.unwrap_or(served.shape.options.steps as usize);
        let mut adapter = view.adapter()?;
        let from = match drift {
            Some(drift) => adapter.change(&input, own, &candidates, &known.labels, steps, drift)?,
            None => 0,
        };
        let candidates = candidates.get(from * served.shape.candidate()..).unwrap_or(&[]);
        let labels = known.labels.get(from * served.shape.heads..).unwrap_or(&[]);
        let adapted = adapter.adapt(&input, own, candidates, labels, steps)?;
        let found = MetaEmbedding {
            vector: adapted.embedding.to_vec(),
            outcomes: if adapted.accepted && steps > 0 { known.rows.len() - from } else { 0 },
            losses: [adapted.before, adapted.after],
            accepted: adapted.accepted,
            surfaces: Vec::new(),
        };
        match finite(&found.vector) {
            true => Ok(found),
            false => Err(err!(
                Corrupt,
                "generation {} gives a meta embedding that is not finite; verify the store and roll back",
                self.id()
            )),
        }
    }

    /// What the tower reads of the outcomes that are known, shifted by the embeddings of their items.
    pub(super) fn known_rows(&self, known: &Support, state: &[f32]) -> Result<Vec<f32>> {
        let (served, view) = (self.rank_parts()?, self.ranker_view()?);
        let wide = served.shape.numbers.saturating_sub(1);
        let (mut candidates, mut numbers) = (Vec::new(), Vec::new());
        for (at, row) in known.rows.iter().enumerate() {
            numbers.clear();
            numbers.push(0.0);
            numbers.extend_from_slice(known.impression.get(at * wide..(at + 1) * wide).unwrap_or(&[]));
            self.candidate(served, view, *row, state, &mut numbers, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// The direct step: moves `embedding`, which was adapted to all but the newest of the outcomes of `known`, by that one alone
    /// ([`crate::ranker::Adapter::first_order`]).
    pub(super) fn first_order_to(
        &self,
        entity: Option<u32>,
        state: &[f32],
        known: &Support,
        embedding: &[f32],
    ) -> Result<MetaEmbedding> {
        let served = self.rank_parts()?;
        let view = self.ranker_view()?;
        let Some((row, before)) = known.rows.split_last() else {
            return self.adapt_to(entity, state, known, None, None);
        };
        let mut input = vec![0.0; served.shape.inputs];
        served.inputs.write(state, &known.evidence, &self.profile_of(entity)?, &mut input)?;
        let (wide, heads) = (served.shape.numbers.saturating_sub(1), served.shape.heads);
        let mut numbers = vec![0.0];
        numbers.extend_from_slice(known.impression.get(before.len() * wide..).unwrap_or(&[]));
        let mut candidate = Vec::new();
        self.candidate(served, view, *row, state, &mut numbers, &mut candidate)?;
        self.shift_by_surface(known.surfaces.get(before.len()..).unwrap_or(&[]), &mut candidate)?;
        let labels = known.labels.get(before.len() * heads..).unwrap_or(&[]);
        let own = entity.and_then(|row| view.entity(row));
        let mut adapter = view.adapter()?;
        let vector = adapter.first_order(&input, own, embedding, &candidate, labels, before.len())?.to_vec();
        match finite(&vector) {
            true => Ok(MetaEmbedding {
                vector,
                outcomes: known.rows.len(),
                losses: [0.0; 2],
                accepted: true,
                surfaces: Vec::new(),
            }),
            false => Err(err!(
                Corrupt,
                "generation {} gives a meta embedding that is not finite; verify the store and roll back",
                self.id()
            )),
        }
    }

    /// The embedding of the meta block as it was learned, which knows no outcome of the entity.
    pub(super) fn learned_embedding(&self, entity: Option<u32>, state: &[f32]) -> Result<Vec<f32>> {
        let heads = self.rank_parts()?.shape.heads;
        let nothing = Support { evidence: vec![Evidence::default(); heads], ..Support::default() };
        Ok(self.adapt_to(entity, state, &nothing, Some(0), None)?.vector)
    }

    /// The profile of an entity, one value per declared field; empty for one that is not known.
    fn profile_of(&self, entity: Option<u32>) -> Result<Vec<Value<'_>>> {
        let Some(row) = entity else { return Ok(Vec::new()) };
        (0..self.schema().entity_fields.len()).map(|field| self.entity_column(field)?.value(row)).collect()
    }

    /// Appends what the tower reads of an item; `numbers` are room for its popularity, then the impression features.
    fn candidate(
        &self,
        served: &Served,
        view: RankerView<'_>,
        row: u32,
        state: &[f32],
        numbers: &mut [f32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let own = view.item(row).unwrap_or(&served.zero);
        let popularity = self.snapshot().f32s(sections::RANKER_POPULARITY)?;
        if let Some(first) = numbers.first_mut() {
            *first = popularity.get(row as usize).copied().unwrap_or(served.unseen);
        }
        served.inputs.candidate(own, self.item_vector(row)?, state, numbers, out);
        let at = out.len();
        out.resize(at + served.shape.shift(), 0.0);
        if served.shape.options.items.is_on() {
            // An item added since has none: no shift.
            let width = served.width();
            let table = self.snapshot().f32s(sections::META_ITEM_EMBEDDINGS)?;
            let found = table.get(row as usize * width..(row as usize + 1) * width);
            if let (Some(to), Some(from)) = (out.get_mut(at..), found) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Writes the user vector that the ranker reads to `state`: that of the history in `work`, under no request, as in
    /// training.
    pub(super) fn rank_state(&self, work: &mut Work, state: &mut Vec<f32>) -> Result<()> {
        state.clear();
        state.resize(self.width(), 0.0);
        let Work { resolved, scratch, .. } = work;
        self.inference().user_vector(self.weights()?, resolved.read_by_model(), &Request::default(), scratch, state)?;
        match finite(state) {
            true => Ok(()),
            false => Err(err!(
                Corrupt,
                "generation {} gives a user vector that is not finite; verify the store and roll back",
                self.id()
            )),
        }
    }

    /// The impression features that a query gives, scaled, in the order of the record.
    pub(super) fn read_impression(&self, given: &[(&str, f32)]) -> Result<Vec<f32>> {
        let fields = self.ranker().map_or(&[][..], |r| &r.impression);
        if let Some((name, _)) = given.iter().find(|(name, _)| !fields.iter().any(|f| f.name == *name)) {
            let known: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
            return Err(err!(InvalidArgument, "the ranker reads no impression feature {name:?}; it reads {known:?}"));
        }
        let number = |field: &crate::schema::ImpressionField| {
            let found = given.iter().find(|(name, _)| *name == field.name);
            found.map_or(0.0, |(_, x)| field.scaled(*x))
        };
        Ok(fields.iter().map(number).collect())
    }

    /// The head that a query ranks by; `None` where its list is to stay as it was retrieved.
    fn ranking_head(&self, ranking: Ranking<'_>) -> Result<Option<usize>> {
        match (ranking, self.ranker()) {
            (Ranking::Retrieval, _) | (Ranking::Auto, None) => Ok(None),
            (Ranking::Auto, Some(_)) => Ok(Some(0)),
            (Ranking::Head(name), _) => {
                self.rank_parts()?;
                let heads = self.ranker().map_or(&[][..], |r| &r.heads);
                let found = heads.iter().position(|head| head == name);
                found
                    .map(Some)
                    .ok_or_else(|| err!(InvalidArgument, "the ranker has no head {name:?}; it has {heads:?}"))
            }
        }
    }

    /// Leaves the best `k` in `work.top`: retrieved, and put in order by the ranker under `embedding`, or under that of the
    /// query's entity.
    pub(super) fn rank_personal(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        embedding: Option<&Given>,
    ) -> Result<Source> {
        let head = self.ranking_head(query.ranking)?;
        let Some(head) = head.filter(|_| !work.resolved.is_empty()) else { return self.rank(work, filter, k) };
        super::retrieve::check_k(k)?;
        let impression = self.read_impression(query.impression)?;
        self.rank(work, filter, k.max(RETRIEVED))?;
        let mut buffers = std::mem::take(&mut work.rank);
        buffers.rows.clear();
        buffers.rows.extend(work.top.finish().iter().map(|s| s.row));
        let scored = self.predict(work, query, &mut buffers, &impression, embedding, true);
        work.top.reset(k.min(self.items()));
        let outcome = scored.and_then(|()| {
            let view = self.ranker_view()?;
            let heads = view.shape.heads.max(1);
            for (row, logits) in buffers.rows.iter().zip(buffers.logits.chunks_exact(heads)) {
                let logit = logits.get(head).copied().unwrap_or(f32::NAN);
                work.top.offer(check_score(view.probability(head, logit), *row)?, *row);
            }
            Ok(Source::Ranker)
        });
        work.rank = buffers;
        outcome
    }

    /// Writes the logits of `buffers.rows` for the history in `work`, whose user vector under the request of the query is there already
    /// if it was `retrieved`.
    fn predict(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        buffers: &mut RankWork,
        impression: &[f32],
        given: Option<&Given>,
        retrieved: bool,
    ) -> Result<()> {
        let (served, view) = (self.rank_parts()?, self.ranker_view()?);
        let mut state = std::mem::take(&mut buffers.state);
        let entity = match query.who {
            Who::Entity(id) => self.find_entity(id)?,
            Who::Items(_) | Who::History(_) => None,
        };
        let request = &work.resolved.request;
        match retrieved && request.time.is_none() && request.fields.iter().all(|code| *code == 0) {
            true => state.clone_from(&work.user),
            false => self.rank_state(work, &mut state)?,
        }
        let learned;
        let embedding = match (given, entity.map(|row| self.published_embedding(row)).transpose()?.flatten()) {
            (Some(given), _) => &given.person,
            (None, Some(stored)) => stored,
            (None, None) => {
                learned = self.learned_embedding(entity, &state)?;
                &learned
            }
        };
        buffers.candidates.clear();
        buffers.numbers.clear();
        buffers.numbers.push(0.0);
        buffers.numbers.extend_from_slice(impression);
        for row in &buffers.rows {
            self.candidate(served, view, *row, &state, &mut buffers.numbers, &mut buffers.candidates)?;
        }
        let surface = self.surface_of(query.fields.iter().copied());
        self.shift_request(surface, entity, given, &mut buffers.candidates)?;
        buffers.logits.clear();
        buffers.logits.resize(buffers.rows.len() * served.shape.heads, 0.0);
        buffers.state = state;
        view.adapter()?.score(embedding, &buffers.candidates, &mut buffers.logits)
    }

    /// The calibrated probability of every head for each candidate, in their order.
    pub(super) fn probabilities_with(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        candidates: &[&str],
        embedding: Option<&Given>,
    ) -> Result<Vec<Vec<f32>>> {
        let heads = self.rank_parts()?.shape.heads;
        work.resolved.read(self, query)?;
        let impression = self.read_impression(query.impression)?;
        let mut buffers = std::mem::take(&mut work.rank);
        buffers.rows.clear();
        for id in candidates {
            let row = self.item_row(id)?;
            if self.is_removed(row) {
                return Err(err!(UnknownItem, "item {id:?} was removed; leave it out, or add it again"));
            }
            buffers.rows.push(row);
        }
        self.predict(work, query, &mut buffers, &impression, embedding, false)?;
        let view = self.ranker_view()?;
        let one = |(row, logits): (&u32, &[f32])| -> Result<Vec<f32>> {
            let each = logits.iter().enumerate();
            each.map(|(head, logit)| check_score(view.probability(head, *logit), *row)).collect()
        };
        let found = buffers.rows.iter().zip(buffers.logits.chunks_exact(heads.max(1))).map(one).collect();
        work.rank = buffers;
        found
    }

    /// As [`super::Engine::probabilities`], from this generation and its own meta embeddings.
    ///
    /// # Errors
    /// As [`super::Engine::probabilities`].
    pub fn probabilities(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.probabilities_with(&mut Work::default(), query, candidates, None)
    }
}
