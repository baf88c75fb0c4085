//! What a store holds besides sections, in the words of its callers: plain data, which [`super::wire`] writes down.

use super::dtype::Dtype;
use crate::error::{Result, err};
use crate::event::TIMES;
use crate::options::{ListOrder, ModelOptions, RankerOptions, RankerTrainOptions, ServeOptions, TrainOptions};
use crate::schema::{ImpressionField, Schema, TokenVocabulary};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What is published besides the sections. The same content gives the same bytes, so nothing in here may depend on the
/// clock.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestContent {
    /// Declared fields and their vocabularies.
    pub schema: Schema,
    /// The shape of the model.
    pub model: ModelOptions,
    /// How requests are answered where they do not say.
    pub serve: ServeOptions,
    /// How events become tokens; `None`: each is one.
    pub tokenizer: Option<TokenVocabulary>,
    /// How the model was trained.
    pub training: TrainingRecord,
    /// Options of a later version that change nothing here, kept as they are when this is published again; see `docs/format.md`.
    pub kept: BTreeMap<String, String>,
    /// The ranker that is adapted to each entity; `None` where none was trained.
    pub ranker: Option<RankerRecord>,
    /// Items in the catalogue.
    pub items: u64,
    /// Entities known by id.
    pub entities: u64,
    /// Stored events.
    pub events: u64,
}

/// How a model was trained, as far as it follows from data and options.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRecord {
    /// The options, the seed among them. The threads are not stored: they change nothing in what is trained.
    pub options: TrainOptions,
    /// Hash of the data that it was trained on.
    pub data_hash: [u8; 32],
    /// The split that validated it.
    pub protocol: String,
    /// Hash of the validation's targets.
    pub target_hash: [u8; 32],
    /// Validation metrics by key (`ndcg@10`) of the weights that were kept.
    pub validation: Vec<(String, f64)>,
    /// Mean training loss of each objective, by name, in the steps before the validation that was kept.
    pub losses: Vec<(String, f64)>,
    /// Epochs run.
    pub epochs: u32,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Trained numbers, tables included.
    pub parameters: u64,
    /// Why training ended: `patience`, `epochs`, `time` or `interrupted`.
    pub stopped: String,
    /// The version of docent that trained it.
    pub version: String,
}

/// What a ranker is, besides its sections.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerRecord {
    /// Its shape.
    pub shape: RankerOptions,
    /// How it was trained; without the threads.
    pub options: RankerTrainOptions,
    /// Its task heads, by name.
    pub heads: Vec<String>,
    /// The order of lists.
    pub order: ListOrder,
    /// Mean label by head over what it was trained on.
    pub means: Vec<f32>,
    /// Numbers read beside each candidate, after its popularity.
    pub impression: Vec<ImpressionField>,
    /// The surfaces that it tells apart: the values of the field that its shape names, by code from 1; empty without one.
    pub surfaces: Vec<String>,
    /// Slope and intercept per head that make its logits calibrated.
    pub calibration: Vec<[f32; 2]>,
    /// Metrics of its best validation by key: `logloss`, `logloss@0` before any inner step, and what the pipeline adds
    /// ([`crate::train::ranker`]).
    pub validation: Vec<(String, f64)>,
    /// Epochs run.
    pub epochs: u32,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Labelled outcomes of all entities that the dataset holds.
    pub outcomes: u64,
    /// The share of each entity's outcomes, the latest, that training left for the test.
    pub held_out: f32,
    /// Entities with a meta embedding of their own in this generation; 0 before any batch adaptation.
    pub adapted: u64,
}

/// Facts of the run that published a generation: what a second, equal run would not repeat.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunRecord {
    /// When, in Unix milliseconds.
    pub created_ms: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Tokens per second of training.
    pub tokens_per_second: f64,
    /// Most resident memory, in bytes.
    pub peak_rss_bytes: u64,
    /// The command, or a word for the caller.
    pub command: String,
    /// The device.
    pub device: String,
}

/// What a section is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
    /// Bytes of its elements.
    pub bytes: u64,
    /// Root hash: BLAKE3 over the length and the hashes of its blocks. Names its segment file.
    pub hash: [u8; 32],
}

/// Bytes that the id of an outcome may have.
pub(crate) const OUTCOME_IDS: RangeInclusive<usize> = 1..=1024;

/// One outcome (or plain event) of an entity, in the caller's words: vocabularies and rows belong to a generation, and another
/// will come.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredOutcome {
    /// What tells it from others of the entity, where its caller named it: another of the same id is the same.
    #[cfg_attr(feature = "files", serde(default, skip_serializing_if = "Option::is_none"))]
    pub id: Option<String>,
    /// The item's id.
    pub item: String,
    /// When, Unix milliseconds.
    pub time: Option<i64>,
    /// The action.
    pub action: Option<String>,
    /// The event's value; finite.
    pub value: Option<f32>,
    /// Event fields by name.
    pub fields: Vec<(String, String)>,
    /// What came of it, by the name of the head, 0 to 1; empty where it is an event without an outcome.
    pub labels: Vec<(String, f32)>,
    /// Numbers that the ranker reads beside the candidate, by name; finite.
    #[cfg_attr(feature = "files", serde(rename = "context", alias = "impression"))]
    pub impression: Vec<(String, f32)>,
    /// Whether it joins the history that the foundation model reads: an impression that was not clicked does not.
    pub in_history: bool,
}

/// An embedding that was adapted to an entity, and what it was made from.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredEmbedding {
    /// The model that it was made with; it means nothing to another.
    pub model: [u8; 32],
    /// The embedding; finite.
    pub embedding: Vec<f32>,
    /// What is added to it on each surface, by the surface's name; finite. Empty where the ranker tells none apart.
    #[cfg_attr(feature = "files", serde(default))]
    pub surfaces: Vec<(String, Vec<f32>)>,
    /// [`EntityState::seen`] when it was made.
    pub outcomes: u64,
    /// When it was made, Unix milliseconds.
    pub made: i64,
}

/// Everything that is stored of an entity. One that nothing is stored of has the default state.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct EntityState {
    /// Oldest first; how many is the caller's decision, as long as the whole stays below 1 MiB.
    pub outcomes: Vec<StoredOutcome>,
    /// Outcomes ever observed, those included that are not kept any more.
    pub seen: u64,
    /// The newest time, Unix milliseconds by the caller's clock, by which the idle are told ([`super::EntityStore::purge_idle`]); `None`
    /// where events have no times, and then nobody is idle.
    #[cfg_attr(feature = "files", serde(default, deserialize_with = "touched"))]
    pub touched: Option<i64>,
    /// Items of events that were in the history and are not kept any more, each once, the latest to go last.
    #[cfg_attr(feature = "files", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub past_items: Vec<String>,
    /// The adapted embedding, if there is one.
    pub adapted: Option<StoredEmbedding>,
}

/// In exports of earlier builds 0 stands for no time.
#[cfg(feature = "files")]
fn touched<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<i64>, D::Error> {
    let touched = <Option<i64> as serde::Deserialize>::deserialize(from)?;
    Ok(touched.filter(|time| *time != 0))
}

impl EntityState {
    /// The embedding that was adapted to the entity `id` with `model`; `None` where none was.
    ///
    /// # Errors
    /// `StateMismatch` where it was made with another model.
    pub fn embedding(&self, id: &str, model: &[u8; 32]) -> Result<Option<&StoredEmbedding>> {
        match &self.adapted {
            Some(adapted) if adapted.model != *model => Err(err!(
                StateMismatch,
                "entity {id:?} was adapted with another model; adapt it anew from its stored outcomes"
            )),
            adapted => Ok(adapted.as_ref()),
        }
    }

    /// Leaves out what [`EntityState::check`] refuses of times: earlier builds imported such, and nothing more could be kept of the entity.
    pub(crate) fn leave_out_impossible_times(&mut self) {
        self.outcomes.retain(|o| o.time.is_none_or(|time| TIMES.contains(&time)));
        if self.touched.is_some_and(|time| !TIMES.contains(&time)) {
            self.touched = self.outcomes.iter().filter_map(|o| o.time).max();
        }
    }

    /// More bytes than its record takes.
    pub(super) fn roughly(&self) -> usize {
        // Texts and numbers have a place of fixed size each, below this one, beside their bytes.
        const PLACE: usize = 32;
        let named = |numbers: &[(String, f32)]| numbers.iter().map(|(name, _)| PLACE + name.len()).sum::<usize>();
        let outcome = |o: &StoredOutcome| {
            let fields: usize = o.fields.iter().map(|(name, text)| 2 * PLACE + name.len() + text.len()).sum();
            let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            let texts = o.item.len() + optional(&o.id) + optional(&o.action);
            8 * PLACE + texts + fields + named(&o.labels) + named(&o.impression)
        };
        let adapted = self.adapted.as_ref().map_or(0, |a| {
            let surfaces: usize = a.surfaces.iter().map(|(name, part)| 2 * PLACE + name.len() + 4 * part.len()).sum();
            8 * PLACE + 4 * a.embedding.len() + surfaces
        });
        let past: usize = self.past_items.iter().map(|item| PLACE + item.len()).sum();
        8 * PLACE + adapted + past + self.outcomes.iter().map(outcome).sum::<usize>()
    }

    /// Checks what must hold of every state that is stored of the entity `id`.
    ///
    /// # Errors
    /// `InvalidArgument` where a number is not finite, a label not between 0 and 1, a time outside the years 0 to 9999, or an outcome's id of a
    /// length that none may have.
    pub(super) fn check(&self, id: &str) -> Result<()> {
        let finite = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite());
        let refuse = |what: &str, remedy: &str| Err(err!(InvalidArgument, "{what} of entity {id:?}; {remedy}"));
        for outcome in &self.outcomes {
            if outcome.item.is_empty() {
                return refuse("an outcome has no item", "name it");
            }
            if outcome.id.as_ref().is_some_and(|id| !OUTCOME_IDS.contains(&id.len())) {
                return refuse("the id of an outcome has no byte or more than 1024", "shorten it, or leave it out");
            }
            if outcome.time.is_some_and(|time| !TIMES.contains(&time)) {
                return refuse("a time is outside the years 0 to 9999", "give Unix milliseconds");
            }
            if !outcome.labels.iter().all(|(_, label)| (0.0..=1.0).contains(label)) {
                return refuse("a label is not between 0 and 1", "give 1 for what happened and 0 for what did not");
            }
            if outcome.impression.iter().any(|(_, x)| !x.is_finite()) || outcome.value.is_some_and(|x| !x.is_finite()) {
                return refuse("a value or impression is not finite", "leave it out");
            }
        }
        if self.touched.is_some_and(|time| !TIMES.contains(&time)) {
            return refuse("the newest time is outside the years 0 to 9999", "give Unix milliseconds");
        }
        if self.past_items.iter().any(String::is_empty) {
            return refuse("an item of a past event has no id", "leave it out");
        }
        let sound = |a: &StoredEmbedding| finite(&a.embedding) && a.surfaces.iter().all(|(_, part)| finite(part));
        match self.adapted.as_ref().is_none_or(sound) {
            true => Ok(()),
            false => refuse("the embedding is not finite", "keep the one before"),
        }
    }
}

/// One value of a field, as the caller gave it: vocabularies belong to a generation, and another will come.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredValue {
    /// The value of a categorical field.
    Text(String),
    /// The values of a multi-valued field.
    Texts(Vec<String>),
    /// The value of a numeric field; finite.
    Number(f32),
    /// The value of a vector field; finite.
    Vector(Vec<f32>),
}

/// An item that was added while serving.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredItem {
    /// Numbers additions in their order, from 1; assigned when it is stored. An item that is replaced keeps its number.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its release, Unix milliseconds.
    pub released: Option<i64>,
    /// When it was added, Unix milliseconds, by the caller's clock.
    pub added: Option<i64>,
    /// Fields by name; those left out are missing.
    pub fields: Vec<(String, StoredValue)>,
}
