//! One generation, open for requests: a checked view of a snapshot.
//!
//! Opening compares the lengths of all sections with the counts in the manifest and reads none of the tables. What a
//! section holds is not known to be sound under [`crate::store::Verify::Header`], so every number that is read from one
//! and then used as a place is checked when it is used.

use super::codes::FieldCodes;
use super::columns::{Column, Columns, expect_length};
use super::histories::{Histories, StoredEvents};
use super::ids::{Ids, Texts};
use super::overlay::Overlay;
use super::popularity::{ProfileShares, Profiles};
use super::ranker::{OpenedRanker, PublishedRanker};
use crate::error::{Error, ErrorKind, Result, err};
use crate::model::{Inference, Weights, sections};
use crate::options::{ModelOptions, ServeOptions};
use crate::schema::Schema;
use crate::store::{GenerationId, RankerRecord, Snapshot};
use crate::tokenizer::Tokenizer;
use std::ops::Range;
use std::sync::Arc;

const ITEM_IDS: [&str; 3] = ["item.ids.offsets", "item.ids.bytes", "item.ids.sorted"];
const ENTITY_IDS: [&str; 3] = ["entity.ids.offsets", "entity.ids.bytes", "entity.ids.sorted"];
const ITEM_TITLES: [&str; 2] = ["item.titles.offsets", "item.titles.bytes"];

/// One generation of a model, open for requests, with the items that were added to it and removed from it while it was
/// served: one view, which answers alike for as long as it lives, whatever is published, reloaded, added or removed
/// meanwhile. Views of one generation share its mapping; dropping the last of them unmaps it.
#[derive(Debug)]
pub struct Generation {
    base: Arc<Base>,
    overlay: Arc<Overlay>,
}

/// What a generation is as it was published.
#[derive(Debug)]
struct Base {
    snapshot: Snapshot,
    tokenizer: Option<Tokenizer>,
    inference: Inference,
    codes: FieldCodes,
    ranker: Option<OpenedRanker>,
    items: usize,
    entities: usize,
    width: usize,
    titles: bool,
    released: bool,
    item_fields: Columns,
    entity_fields: Columns,
    profiles: Profiles,
    histories: Histories,
}

impl Base {
    fn open(
        snapshot: Snapshot,
        tokenizer: Option<Tokenizer>,
        inference: Inference,
        [items, entities, events]: [usize; 3],
    ) -> Result<Self> {
        let schema = &snapshot.manifest().schema;
        let base = Self {
            codes: FieldCodes::new(schema),
            ranker: OpenedRanker::open(&snapshot)?,
            items,
            entities,
            width: snapshot.manifest().model.width as usize,
            titles: snapshot.has(ITEM_TITLES[0]),
            released: snapshot.has(sections::ITEM_RELEASED),
            item_fields: Columns::open(&snapshot, sections::ITEM_FIELD, &schema.item_fields, items)?,
            entity_fields: Columns::open(&snapshot, sections::ENTITY_FIELD, &schema.entity_fields, entities)?,
            profiles: Profiles::open(&snapshot, schema, items)?,
            histories: Histories::open(&snapshot, schema, entities, events)?,
            tokenizer,
            inference,
            snapshot,
        };
        base.check()?;
        Ok(base)
    }

    fn check(&self) -> Result<()> {
        self.item_ids()?;
        if self.entities > 0 {
            self.entity_ids()?;
        }
        if self.titles {
            self.item_titles()?;
        }
        if self.released {
            expect_length(sections::ITEM_RELEASED, self.snapshot.i64s(sections::ITEM_RELEASED)?.len(), self.items)?;
        }
        let shape = self.snapshot.shape(sections::ITEM_VECTORS)?;
        if shape != [self.items as u64, self.width as u64] {
            let (n, d) = (self.items, self.width);
            return Err(err!(Corrupt, "section item.vectors has shape {shape:?}, not [{n}, {d}]; publish again"));
        }
        self.item_vectors()?;
        expect_length(sections::ITEM_POPULARITY, self.popularity()?.len(), self.items)?;
        expect_length(sections::ITEM_POPULAR, self.popular()?.len(), self.items)?;
        if self.inference.tower().is_some() {
            let ids = self.snapshot.f32s(sections::ITEM_EMBEDDINGS)?.len();
            expect_length(sections::ITEM_EMBEDDINGS, ids, self.items.saturating_mul(self.width))?;
            let evidence = self.snapshot.u32s(sections::ITEM_EVIDENCE)?.len();
            expect_length(sections::ITEM_EVIDENCE, evidence, self.items)?;
            expect_length(sections::ITEM_AGE, self.snapshot.f32s(sections::ITEM_AGE)?.len(), self.items)?;
        }
        let (dense, features) = self.inference.sizes();
        let weights = self.weights()?;
        expect_length(sections::WEIGHTS, weights.dense.len(), dense)?;
        expect_length(sections::FEATURES, weights.features.len(), features)
    }

    fn item_ids(&self) -> Result<Ids<'_>> {
        Ids::open(&self.snapshot, sections::ITEM_IDS, ITEM_IDS, self.items)
    }

    fn item_titles(&self) -> Result<Texts<'_>> {
        Texts::open(&self.snapshot, sections::ITEM_TITLES, ITEM_TITLES, self.items)
    }

    fn entity_ids(&self) -> Result<Ids<'_>> {
        Ids::open(&self.snapshot, sections::ENTITY_IDS, ENTITY_IDS, self.entities)
    }

    fn item_vectors(&self) -> Result<&[f32]> {
        self.snapshot.f32s(sections::ITEM_VECTORS)
    }

    fn weights(&self) -> Result<Weights<'_>> {
        Ok(Weights {
            items: self.item_vectors()?,
            dense: self.snapshot.f32s(sections::WEIGHTS)?,
            features: self.snapshot.f32s(sections::FEATURES)?,
            more: &(),
        })
    }

    fn popularity(&self) -> Result<&[f32]> {
        self.snapshot.f32s(sections::ITEM_POPULARITY)
    }

    fn popular(&self) -> Result<&[u32]> {
        self.snapshot.u32s(sections::ITEM_POPULAR)
    }
}

impl Generation {
    /// Opens `snapshot` for requests. The time depends on the manifest alone.
    ///
    /// # Errors
    /// `Corrupt` where a section is missing, has another type, or another length than the counts in the manifest ask
    /// for; `InvalidConfig` where the manifest's model options contradict each other.
    pub fn new(snapshot: Snapshot) -> Result<Self> {
        let content = snapshot.manifest();
        let count = |what: &str, n: u64, most: u64| match usize::try_from(n) {
            Ok(rows) if n <= most => Ok(rows),
            _ => Err(err!(Corrupt, "the manifest counts {n} {what}; at most {most} are possible; publish again")),
        };
        let items = count("items", content.items, u64::from(u32::MAX - 1))?;
        let entities = count("entities", content.entities, u64::from(u32::MAX - 1))?;
        let events = count("events", content.events, 1 << 48)?;
        if items == 0 {
            return Err(err!(Corrupt, "generation {} has no items; publish it again", snapshot.generation()));
        }
        let tokenizer = content.tokenizer.clone().map(|t| Tokenizer::new(&content.schema, t)).transpose();
        let tokenizer = tokenizer.map_err(|e| match e.kind() {
            ErrorKind::InvalidConfig => Error::new(ErrorKind::Corrupt, e.message()),
            _ => e,
        })?;
        let schema = tokenizer.as_ref().map_or(&content.schema, Tokenizer::schema);
        let inference = Inference::new(schema, &content.model)?;
        let base = Base::open(snapshot, tokenizer, inference, [items, entities, events]).map_err(incomplete)?;
        let overlay = Arc::new(Overlay::new(base.items, base.width));
        Ok(Self { base: Arc::new(base), overlay })
    }

    /// Which generation it is.
    pub fn id(&self) -> GenerationId {
        self.base.snapshot.generation()
    }

    /// The snapshot underneath: manifest, run record, sections.
    pub fn snapshot(&self) -> &Snapshot {
        &self.base.snapshot
    }

    /// Declared fields and their vocabularies.
    pub fn schema(&self) -> &Schema {
        &self.base.snapshot.manifest().schema
    }

    /// How events become tokens; `None` where each is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.base.tokenizer.as_ref()
    }

    /// The shape of the model.
    pub fn model(&self) -> &ModelOptions {
        &self.base.snapshot.manifest().model
    }

    /// How requests are answered where they do not say.
    pub fn serve(&self) -> &ServeOptions {
        &self.base.snapshot.manifest().serve
    }

    /// How many item rows there are: `0..items()`. Those of the items that were added while serving come last; rows of
    /// removed items are counted and never listed.
    pub fn items(&self) -> usize {
        self.base.items.saturating_add(self.overlay.rows())
    }

    /// How many items were published with the generation: the row of the first that was added while serving.
    pub fn published_items(&self) -> usize {
        self.base.items
    }

    /// How many entities are known by id.
    pub fn entities(&self) -> usize {
        self.base.entities
    }

    /// The length of user and item vectors.
    pub fn width(&self) -> usize {
        self.base.width
    }

    /// The row of an item id; `None` if the generation does not know it and it was not added, or was removed after that. An
    /// item of the generation that was removed keeps its row: histories name it, lists do not.
    ///
    /// # Errors
    /// `Corrupt` where the id table is damaged.
    pub fn find_item(&self, id: &str) -> Result<Option<u32>> {
        match self.find_published(id)? {
            Some(row) => Ok(Some(row)),
            None => Ok(self.overlay.find(id).filter(|row| !self.overlay.is_removed(*row))),
        }
    }

    /// The row of an item id among those of the publication.
    pub(crate) fn find_published(&self, id: &str) -> Result<Option<u32>> {
        self.base.item_ids()?.find(id)
    }

    /// Whether the item of a row was removed while serving.
    pub fn is_removed(&self, row: u32) -> bool {
        self.overlay.is_removed(row)
    }

    /// The row of an item id.
    ///
    /// # Errors
    /// `UnknownItem` naming the id; `Corrupt` where the id table is damaged.
    pub fn item_row(&self, id: &str) -> Result<u32> {
        self.find_item(id)?.ok_or_else(|| {
            let generation = self.id();
            err!(
                UnknownItem,
                "item {id:?} is not in generation {generation}; check the id, or reload a newer generation"
            )
        })
    }

    /// The id of an item row.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where the id table is damaged.
    pub fn item_id(&self, row: u32) -> Result<&str> {
        self.check_row(row)?;
        match self.overlay.item(row) {
            Some(added) => Ok(&added.id),
            None => self.base.item_ids()?.get(row),
        }
    }

    /// The title of an item row; `None` where the dataset declares no titles or this one's is unknown.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where the title table is damaged.
    pub fn item_title(&self, row: u32) -> Result<Option<&str>> {
        self.check_row(row)?;
        if let Some(added) = self.overlay.item(row) {
            return Ok(added.title.as_deref());
        }
        if !self.base.titles {
            return Ok(None);
        }
        Ok(Some(self.base.item_titles()?.get(row)?).filter(|t| !t.is_empty()))
    }

    /// The vector of an item row, in place: `width()` numbers.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where a number of it is not finite.
    pub fn item_vector(&self, row: u32) -> Result<&[f32]> {
        self.check_row(row)?;
        let start = (row as usize).saturating_mul(self.width());
        let vector = match self.overlay.row_vector(row) {
            Some(added) => added,
            None => self.item_vectors()?.get(start..start.saturating_add(self.width())).unwrap_or_default(),
        };
        match vector.len() == self.width() && crate::kernels::retrieve::finite(vector) {
            true => Ok(vector),
            false => Err(err!(Corrupt, "the vector of item row {row} is damaged; verify the store and roll back")),
        }
    }

    /// The row of an entity id; `None` if the generation does not know it.
    ///
    /// # Errors
    /// `Corrupt` where the id table is damaged.
    pub fn find_entity(&self, id: &str) -> Result<Option<u32>> {
        match self.base.entities {
            0 => Ok(None),
            _ => self.base.entity_ids()?.find(id),
        }
    }

    /// The id of an entity row.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where the id table is damaged.
    pub fn entity_id(&self, row: u32) -> Result<&str> {
        match (row as usize) < self.base.entities {
            true => self.base.entity_ids()?.get(row),
            false => Err(err!(InvalidArgument, "there is no entity row {row}; rows are below {}", self.base.entities)),
        }
    }

    fn check_row(&self, row: u32) -> Result<()> {
        match (row as usize) < self.items() {
            true => Ok(()),
            false => Err(err!(InvalidArgument, "there is no item row {row}; rows are below {}", self.items())),
        }
    }

    /// The same generation with other items added and removed.
    pub(crate) fn with_overlay(&self, overlay: Overlay) -> Self {
        Self { base: Arc::clone(&self.base), overlay: Arc::new(overlay) }
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The vectors of published items, `[published_items, width]`.
    pub(crate) fn item_vectors(&self) -> Result<&[f32]> {
        self.base.item_vectors()
    }

    pub(crate) fn weights(&self) -> Result<Weights<'_>> {
        Ok(Weights { more: &*self.overlay, ..self.base.weights()? })
    }

    /// Shares of published items.
    pub(crate) fn popularity(&self) -> Result<&[f32]> {
        self.base.popularity()
    }

    /// Published rows, most popular first.
    pub(crate) fn popular(&self) -> Result<&[u32]> {
        self.base.popular()
    }

    pub(crate) fn inference(&self) -> &Inference {
        &self.base.inference
    }

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
        self.base.ranker.as_ref().map(OpenedRanker::version).ok_or_else(|| self.without_ranker())
    }

    fn without_ranker(&self) -> Error {
        let id = self.id();
        err!(InvalidConfig, "generation {id} has no ranker; train with labelled outcomes (docs/train.md, [ranker])")
    }

    /// The ranker, where there is one.
    pub(crate) fn find_ranker(&self) -> Result<Option<PublishedRanker<'_>>> {
        match self.base.ranker.as_ref().zip(self.ranker()) {
            Some((opened, record)) => opened.borrow(&self.base.snapshot, record).map(Some),
            None => Ok(None),
        }
    }

    /// The ranker.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none.
    pub(crate) fn published_ranker(&self) -> Result<PublishedRanker<'_>> {
        self.find_ranker()?.ok_or_else(|| self.without_ranker())
    }

    pub(crate) fn codes(&self) -> &FieldCodes {
        &self.base.codes
    }

    /// Release times by row; `None` where the dataset declares none.
    pub(crate) fn released(&self) -> Result<Option<&[i64]>> {
        self.base.released.then(|| self.base.snapshot.i64s(sections::ITEM_RELEASED)).transpose()
    }

    /// The values of item field `index` of the schema.
    pub(crate) fn item_column(&self, index: usize) -> Result<Column<'_>> {
        self.base.item_fields.get(&self.base.snapshot, &self.schema().item_fields, index)
    }

    /// The values of entity field `index` of the schema.
    pub(crate) fn entity_column(&self, index: usize) -> Result<Column<'_>> {
        self.base.entity_fields.get(&self.base.snapshot, &self.schema().entity_fields, index)
    }

    /// What the people with value `code` of profile field `field` did; `None` for fields that name nothing.
    pub(crate) fn profile_shares(&self, field: usize, code: u32) -> Result<Option<ProfileShares<'_>>> {
        self.base.profiles.shares(&self.base.snapshot, field, code)
    }

    /// Where an entity's stored events lie.
    pub(crate) fn stored_range(&self, entity: u32) -> Result<Range<usize>> {
        self.base.histories.range(&self.base.snapshot, entity)
    }

    /// The stored events of `range`, without their fields.
    pub(crate) fn stored_events(&self, range: Range<usize>) -> Result<StoredEvents<'_>> {
        self.base.histories.events(&self.base.snapshot, range)
    }

    /// The codes of event field `index` in the stored events of `range`; empty where they are not stored.
    pub(crate) fn stored_field(&self, index: usize, range: Range<usize>) -> Result<&[u32]> {
        self.base.histories.field(&self.base.snapshot, index, range)
    }
}

/// A section that a generation needs and does not have is damage, not a wrong name of the caller's.
fn incomplete(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, error.message()),
        _ => error,
    }
}
