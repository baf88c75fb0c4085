//! What is stored of one entity.

use crate::error::{Result, err};
use rkyv::{Archive, Deserialize, Serialize};

/// Longest id of an entity, in bytes.
const ID_CAP: usize = 64 << 10;

/// One outcome (or plain event) of an entity, in the caller's words: vocabularies and rows belong to a generation, and another
/// will come.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[rkyv(derive(Debug))]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredOutcome {
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
    pub impression: Vec<(String, f32)>,
    /// Whether it joins the history that the foundation model reads: an impression that was not clicked does not.
    pub in_history: bool,
}

/// An embedding that was adapted to an entity, and what it was made from.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[rkyv(derive(Debug))]
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
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[rkyv(derive(Debug))]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct EntityState {
    /// Oldest first; how many is the caller's decision, as long as the whole stays below 1 MiB.
    pub outcomes: Vec<StoredOutcome>,
    /// Outcomes ever observed, those included that are not kept any more.
    pub seen: u64,
    /// The newest time, Unix milliseconds by the caller's clock, by which the idle are told ([`super::EntityStore::purge_idle`]); 0 where
    /// events have no times, and then nobody is idle.
    pub touched: i64,
    /// The adapted embedding, if there is one.
    pub adapted: Option<StoredEmbedding>,
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

    /// Checks what must hold of every state that is stored of the entity `id`.
    ///
    /// # Errors
    /// `InvalidArgument` where a number is not finite, or a label not between 0 and 1.
    pub(super) fn check(&self, id: &str) -> Result<()> {
        let finite = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite());
        let refuse = |what: &str, remedy: &str| Err(err!(InvalidArgument, "{what} of entity {id:?}; {remedy}"));
        for outcome in &self.outcomes {
            if outcome.item.is_empty() {
                return refuse("an outcome has no item", "name it");
            }
            if !outcome.labels.iter().all(|(_, label)| (0.0..=1.0).contains(label)) {
                return refuse("a label is not between 0 and 1", "give 1 for what happened and 0 for what did not");
            }
            if outcome.impression.iter().any(|(_, x)| !x.is_finite()) || outcome.value.is_some_and(|x| !x.is_finite()) {
                return refuse("a value or impression is not finite", "leave it out");
            }
        }
        let sound = |a: &StoredEmbedding| finite(&a.embedding) && a.surfaces.iter().all(|(_, part)| finite(part));
        match self.adapted.as_ref().is_none_or(sound) {
            true => Ok(()),
            false => refuse("the embedding is not finite", "keep the one before"),
        }
    }
}

/// Checks an id.
///
/// # Errors
/// `InvalidArgument` where it is empty or too long.
pub(super) fn check_id(id: &str) -> Result<()> {
    match id.len() {
        0 => Err(err!(InvalidArgument, "the entity's id is empty; name it")),
        1..=ID_CAP => Ok(()),
        n => Err(err!(InvalidArgument, "the entity's id has {n} bytes; {ID_CAP} are the most")),
    }
}
