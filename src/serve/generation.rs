//! One generation, open for requests: a checked view of a snapshot.
//!
//! Opening compares the lengths of all sections with the counts in the manifest and reads none of the tables. What a
//! section holds is not known to be sound under [`crate::store::Verify::Header`], so every number that is read from one
//! and then used as a place is checked when it is used.

use super::codes::FieldCodes;
use super::ids::{Ids, Texts};
use super::overlay::Overlay;
use super::ranker::Served;
use crate::error::{Error, ErrorKind, Result, err};
use crate::model::{Inference, Value, Weights, sections};
use crate::options::ModelOptions;
use crate::schema::{Field, FieldKind, Schema};
use crate::store::{GenerationId, Snapshot};
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
    ranker: Option<Served>,
    items: usize,
    entities: usize,
    width: usize,
    titles: bool,
    released: bool,
    /// Names of the sections of each item field: values, and offsets where multi-valued; empty where absent.
    item_sections: Vec<[String; 2]>,
    /// The same of each entity field.
    entity_sections: Vec<[String; 2]>,
    history: HistorySections,
}

/// Which history sections there are.
#[derive(Debug, Default)]
struct HistorySections {
    stored: bool,
    time: bool,
    action: bool,
    value: bool,
    fields: Vec<Option<String>>,
}

/// The values of an item's or entity's field, in place.
#[derive(Debug, Clone, Copy)]
pub(super) enum ItemColumn<'a> {
    Codes(&'a [u32]),
    Lists { offsets: &'a [u32], codes: &'a [u32] },
    Numbers(&'a [f32]),
    Vectors { dim: usize, values: &'a [f32] },
}

impl<'a> ItemColumn<'a> {
    /// The value of a row.
    pub(super) fn value(&self, row: u32) -> Result<Value<'a>> {
        let at = row as usize;
        let value = match *self {
            Self::Codes(codes) => codes.get(at).map(|code| Value::Codes(std::slice::from_ref(code))),
            Self::Lists { offsets, codes } => {
                let bounds = offsets.get(at).zip(offsets.get(at.saturating_add(1)));
                bounds.and_then(|(start, end)| codes.get(*start as usize..*end as usize)).map(Value::Codes)
            }
            Self::Numbers(numbers) => numbers.get(at).map(|number| Value::Number(*number)),
            Self::Vectors { dim, values } => {
                values.get(at.saturating_mul(dim)..at.saturating_add(1).saturating_mul(dim)).map(Value::Vector)
            }
        };
        value.ok_or_else(|| err!(Corrupt, "metadata of row {row} is damaged; verify the store and roll back"))
    }
}

/// An entity's stored events, in place. Optional columns are empty or as long as `items`.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredEvents<'a> {
    pub(super) items: &'a [u32],
    pub(super) time: &'a [i64],
    pub(super) action: &'a [u16],
    pub(super) value: &'a [f32],
}

impl Base {
    fn check_items(&self) -> Result<()> {
        self.item_ids()?;
        if self.titles {
            self.item_titles()?;
        }
        if self.released {
            self.expect_length(
                sections::ITEM_RELEASED,
                self.snapshot.i64s(sections::ITEM_RELEASED)?.len(),
                self.items,
            )?;
        }
        let shape = self.snapshot.shape(sections::ITEM_VECTORS)?;
        if shape != [self.items as u64, self.width as u64] {
            let (n, d) = (self.items, self.width);
            return Err(err!(Corrupt, "section item.vectors has shape {shape:?}, not [{n}, {d}]; publish again"));
        }
        self.item_vectors()?;
        self.expect_length(sections::ITEM_POPULARITY, self.popularity()?.len(), self.items)?;
        self.expect_length(sections::ITEM_POPULAR, self.popular()?.len(), self.items)?;
        if self.inference.tower().is_some() {
            let ids = self.snapshot.f32s(sections::ITEM_EMBEDDINGS)?.len();
            self.expect_length(sections::ITEM_EMBEDDINGS, ids, self.items.saturating_mul(self.width))?;
            let evidence = self.snapshot.u32s(sections::ITEM_EVIDENCE)?.len();
            self.expect_length(sections::ITEM_EVIDENCE, evidence, self.items)?;
            self.expect_length(sections::ITEM_AGE, self.snapshot.f32s(sections::ITEM_AGE)?.len(), self.items)?;
        }
        let (dense, features) = self.inference.sizes();
        let weights = self.weights()?;
        self.expect_length(sections::WEIGHTS, weights.dense.len(), dense)?;
        self.expect_length(sections::FEATURES, weights.features.len(), features)
    }

    /// Checks the columns of fields with sections below `prefix`, `rows` rows each, and names their sections.
    fn check_fields(&self, prefix: &str, fields: &[Field], rows: usize) -> Result<Vec<[String; 2]>> {
        let mut names = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let name = |part: &str| format!("{prefix}.{i}.{part}");
            let section = match &field.kind {
                FieldKind::Categorical(_) => [name("codes"), String::new()],
                FieldKind::MultiValued(_) => [name("codes"), name("offsets")],
                FieldKind::Numeric(_) => [name("numbers"), String::new()],
                FieldKind::Vector(_) => [name("vectors"), String::new()],
            };
            let [values, offsets] = &section;
            match &field.kind {
                FieldKind::Categorical(_) => self.expect_length(values, self.snapshot.u32s(values)?.len(), rows)?,
                FieldKind::MultiValued(_) => {
                    self.snapshot.u32s(values)?;
                    self.expect_length(offsets, self.snapshot.u32s(offsets)?.len(), rows + 1)?;
                }
                FieldKind::Numeric(_) => self.expect_length(values, self.snapshot.f32s(values)?.len(), rows)?,
                FieldKind::Vector(dim) => {
                    let length = rows.saturating_mul(*dim as usize);
                    self.expect_length(values, self.snapshot.f32s(values)?.len(), length)?;
                }
            }
            names.push(section);
        }
        Ok(names)
    }

    /// Checks the popularity by profile; it names nothing that the schema does not.
    fn check_profiles(&self) -> Result<()> {
        for (i, field) in self.schema().entity_fields.iter().enumerate().filter(|(_, f)| f.kind.codes() > 0) {
            let name = |part: &str| format!("{}.{i}.{part}", sections::PROFILE_POPULARITY);
            let codes = field.kind.codes();
            self.expect_length(&name("weights"), self.snapshot.f32s(&name("weights"))?.len(), codes)?;
            self.expect_length(&name("offsets"), self.snapshot.u32s(&name("offsets"))?.len(), codes + 1)?;
            let rows = self.snapshot.u32s(&name("rows"))?.len();
            self.expect_length(&name("shares"), self.snapshot.f32s(&name("shares"))?.len(), rows)?;
        }
        Ok(())
    }

    fn check_entities(&self, events: usize) -> Result<HistorySections> {
        let mut found = HistorySections::default();
        if self.entities > 0 {
            self.entity_ids()?;
        }
        found.stored = self.snapshot.has(sections::HISTORY_OFFSETS);
        if !found.stored {
            return match events {
                0 => Ok(found),
                _ => Err(err!(Corrupt, "section history.offsets is missing for {events} events; publish again")),
            };
        }
        let offsets = self.snapshot.u64s(sections::HISTORY_OFFSETS)?.len();
        self.expect_length(sections::HISTORY_OFFSETS, offsets, self.entities + 1)?;
        self.expect_length(sections::HISTORY_ITEMS, self.snapshot.u32s(sections::HISTORY_ITEMS)?.len(), events)?;
        found.time = self.schema().has_time;
        if found.time {
            self.expect_length(sections::HISTORY_TIME, self.snapshot.i64s(sections::HISTORY_TIME)?.len(), events)?;
        }
        found.action = !self.schema().actions.is_empty();
        if found.action {
            self.expect_length(sections::HISTORY_ACTION, self.snapshot.u16s(sections::HISTORY_ACTION)?.len(), events)?;
        }
        found.value = self.schema().value.is_some();
        if found.value {
            self.expect_length(sections::HISTORY_VALUE, self.snapshot.f32s(sections::HISTORY_VALUE)?.len(), events)?;
        }
        for i in 0..self.schema().event_fields.len() {
            let name = format!("{}.{i}", sections::HISTORY_FIELD);
            found.fields.push(match self.snapshot.has(&name) {
                true => {
                    self.expect_length(&name, self.snapshot.u32s(&name)?.len(), events)?;
                    Some(name)
                }
                false => None,
            });
        }
        Ok(found)
    }

    fn expect_length(&self, name: &str, have: usize, want: usize) -> Result<()> {
        match have == want {
            true => Ok(()),
            false => {
                Err(err!(Corrupt, "section {name} has {have} elements, the manifest asks for {want}; publish again"))
            }
        }
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

    fn schema(&self) -> &Schema {
        &self.snapshot.manifest().schema
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
        let mut base = Base {
            tokenizer,
            inference,
            codes: FieldCodes::new(&content.schema),
            ranker: Served::open(&snapshot).map_err(incomplete)?,
            items,
            entities,
            width: content.model.width as usize,
            titles: snapshot.has(ITEM_TITLES[0]),
            released: snapshot.has(sections::ITEM_RELEASED),
            item_sections: Vec::new(),
            entity_sections: Vec::new(),
            history: HistorySections::default(),
            snapshot,
        };
        base.check_items().map_err(incomplete)?;
        let Schema { item_fields, entity_fields, .. } = base.schema();
        let columns = base.check_fields(sections::ITEM_FIELD, item_fields, items).map_err(incomplete)?;
        let profiles = base.check_fields(sections::ENTITY_FIELD, entity_fields, entities).map_err(incomplete)?;
        base.check_profiles().map_err(incomplete)?;
        (base.item_sections, base.entity_sections) = (columns, profiles);
        base.history = base.check_entities(events).map_err(incomplete)?;
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
    pub(super) fn find_published(&self, id: &str) -> Result<Option<u32>> {
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
    pub(super) fn with_overlay(&self, overlay: Overlay) -> Self {
        Self { base: Arc::clone(&self.base), overlay: Arc::new(overlay) }
    }

    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The vectors of published items, `[published_items, width]`.
    pub(super) fn item_vectors(&self) -> Result<&[f32]> {
        self.base.item_vectors()
    }

    pub(crate) fn weights(&self) -> Result<Weights<'_>> {
        Ok(Weights { more: &*self.overlay, ..self.base.weights()? })
    }

    /// Shares of published items.
    pub(super) fn popularity(&self) -> Result<&[f32]> {
        self.base.popularity()
    }

    /// Published rows, most popular first.
    pub(super) fn popular(&self) -> Result<&[u32]> {
        self.base.popular()
    }

    pub(crate) fn inference(&self) -> &Inference {
        &self.base.inference
    }

    pub(super) fn served_ranker(&self) -> Option<&Served> {
        self.base.ranker.as_ref()
    }

    pub(super) fn codes(&self) -> &FieldCodes {
        &self.base.codes
    }

    /// Release times by row; `None` where the dataset declares none.
    pub(super) fn released(&self) -> Result<Option<&[i64]>> {
        self.base.released.then(|| self.base.snapshot.i64s(sections::ITEM_RELEASED)).transpose()
    }

    /// The values of item field `index` of the schema.
    pub(super) fn item_column(&self, index: usize) -> Result<ItemColumn<'_>> {
        self.column(self.schema().item_fields.get(index), self.base.item_sections.get(index))
    }

    /// The values of entity field `index` of the schema.
    pub(super) fn entity_column(&self, index: usize) -> Result<ItemColumn<'_>> {
        self.column(self.schema().entity_fields.get(index), self.base.entity_sections.get(index))
    }

    fn column(&self, field: Option<&Field>, sections: Option<&[String; 2]>) -> Result<ItemColumn<'_>> {
        let (Some(field), Some([values, offsets])) = (field, sections) else {
            return Err(err!(Internal, "there is no such metadata field; report it"));
        };
        let snapshot = &self.base.snapshot;
        Ok(match &field.kind {
            FieldKind::Categorical(_) => ItemColumn::Codes(snapshot.u32s(values)?),
            FieldKind::MultiValued(_) => {
                ItemColumn::Lists { offsets: snapshot.u32s(offsets)?, codes: snapshot.u32s(values)? }
            }
            FieldKind::Numeric(_) => ItemColumn::Numbers(snapshot.f32s(values)?),
            FieldKind::Vector(dim) => ItemColumn::Vectors { dim: *dim as usize, values: snapshot.f32s(values)? },
        })
    }

    /// Where an entity's stored events lie.
    pub(super) fn stored_range(&self, entity: u32) -> Result<Range<usize>> {
        if !self.base.history.stored {
            return Ok(0..0);
        }
        let offsets = self.base.snapshot.u64s(sections::HISTORY_OFFSETS)?;
        let events = self.base.snapshot.u32s(sections::HISTORY_ITEMS)?.len();
        let at = |row: usize| offsets.get(row).and_then(|o| usize::try_from(*o).ok());
        match (at(entity as usize), at(entity as usize + 1)) {
            (Some(start), Some(end)) if start <= end && end <= events => Ok(start..end),
            _ => {
                Err(err!(Corrupt, "history.offsets is damaged at entity row {entity}; verify the store and roll back"))
            }
        }
    }

    /// The stored events of `range`, without their fields.
    pub(super) fn stored_events(&self, range: Range<usize>) -> Result<StoredEvents<'_>> {
        fn part<'a, T>(column: &'a [T], range: &Range<usize>) -> &'a [T] {
            column.get(range.clone()).unwrap_or_default()
        }
        if !self.base.history.stored {
            return Ok(StoredEvents { items: &[], time: &[], action: &[], value: &[] });
        }
        let has = &self.base.history;
        Ok(StoredEvents {
            items: part(self.base.snapshot.u32s(sections::HISTORY_ITEMS)?, &range),
            time: match has.time {
                true => part(self.base.snapshot.i64s(sections::HISTORY_TIME)?, &range),
                false => &[],
            },
            action: match has.action {
                true => part(self.base.snapshot.u16s(sections::HISTORY_ACTION)?, &range),
                false => &[],
            },
            value: match has.value {
                true => part(self.base.snapshot.f32s(sections::HISTORY_VALUE)?, &range),
                false => &[],
            },
        })
    }

    /// The codes of event field `index` in the stored events of `range`; empty where they are not stored.
    pub(super) fn stored_field(&self, index: usize, range: Range<usize>) -> Result<&[u32]> {
        match self.base.history.fields.get(index) {
            Some(Some(name)) => Ok(self.base.snapshot.u32s(name)?.get(range).unwrap_or_default()),
            _ => Ok(&[]),
        }
    }
}

/// A section that a generation needs and does not have is damage, not a wrong name of the caller's.
fn incomplete(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, error.message()),
        _ => error,
    }
}
