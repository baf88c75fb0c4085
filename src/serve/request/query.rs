//! What is asked: for whom, after which events, in which circumstances.
//!
//! Everything borrows from the caller, so that asking allocates nothing.

use crate::event::{Event, FieldValue};

/// The most events that a query may bring.
pub const MAX_EVENTS: usize = 1_000_000;

/// What to do about item ids that the generation does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownItems {
    /// Refuse with `UnknownItem`, naming the id.
    #[default]
    Refuse,
    /// Go on without them.
    Skip,
}

/// Whom a list is for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Who<'a> {
    /// An entity by id: its stored history is used. Being unknown is no error (see [`crate::serve::Source::Popularity`]).
    Entity(&'a str),
    /// Somebody of whom these item ids are known, oldest first.
    Items(&'a [&'a str]),
    /// Somebody of whom these events are known, oldest first.
    History(&'a [Event<'a>]),
}

/// A moment in the past of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// After everything that happened until this time (Unix milliseconds), itself included.
    Time(i64),
    /// After so many events, oldest first, and just before the next: those that the generation holds, then those observed since.
    Events(usize),
}

/// By what a list is put in order, once it is retrieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ranking<'a> {
    /// As the generation's ranker was trained to ([`crate::options::RankerGoal`]): by score and outcome together, or the outcome alone. As it was
    /// retrieved where there is no ranker, or the outcome has no weight.
    #[default]
    Auto,
    /// As it was retrieved: by the foundation model's scores.
    Retrieval,
    /// By the predicted outcome of this head of the ranker alone.
    Head(&'a str),
}

/// A request: who asks, what has happened since, and the circumstances.
///
/// ```
/// use docent::{Event, serve::Query};
/// let stored = Query::entity("u42");
/// let anonymous = Query::items(&["i3", "i9"]).at(1_700_000_000_000);
/// let just_now = [Event { action: Some("like"), ..Event::item("i7") }];
/// let fresh = Query::entity("u42").and_then(&just_now);
/// # let _ = (stored, anonymous, fresh);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Query<'a> {
    /// Whom the list is for.
    pub who: Who<'a>,
    /// Events after those that `who` stands for, oldest first. Events that carry times are put in their order; one that
    /// an entity's stored history holds already (same item, same time) is not counted twice.
    pub then: &'a [Event<'a>],
    /// Asks for the entity as it stood at this moment. Of what is stored or was observed of it only what happened until then counts: the
    /// history ends there, and the ranker's embedding is adapted anew, in memory, to what was observed until then. An embedding of
    /// batch adaptation that read later outcomes is not used; where nothing else is known, the meta block answers as it was learned.
    /// Model, catalogue and popularity are those of the generation. `None` is now.
    pub as_of: Option<AsOf>,
    /// The time of the request in Unix milliseconds; `None` where it does not matter, or is that of [`Query::as_of`].
    pub time: Option<i64>,
    /// Request-time fields by name; fields left out are missing, and so is a categorical value that the generation does not know. A
    /// number may be written as text. The ranker's surface, where the list will be shown, is one of them.
    pub fields: &'a [FieldValue<'a>],
    /// Profile fields of the person by name, read where no event is known: the popular list is then that of people like them.
    /// Where one is given, it stands in place of the stored one; a multi-valued field is given once for each value.
    pub profile: &'a [FieldValue<'a>],
    /// What to do about events whose item is not known.
    pub unknown: UnknownItems,
    /// By what the list is put in order. Drawn lists and steps ([`crate::serve::Engine::sample`], [`crate::serve::Engine::steps`]) stay as they
    /// were retrieved.
    pub ranking: Ranking<'a>,
    /// Numbers that the ranker reads beside each candidate, by name, such as the place on the page; those left out count as
    /// usual.
    pub impression: &'a [(&'a str, f32)],
}

impl<'a> Query<'a> {
    /// A list for `who`.
    pub fn new(who: Who<'a>) -> Self {
        Self {
            who,
            then: &[],
            as_of: None,
            time: None,
            fields: &[],
            profile: &[],
            unknown: UnknownItems::Refuse,
            ranking: Ranking::Auto,
            impression: &[],
        }
    }

    /// A list for an entity, by id.
    pub fn entity(id: &'a str) -> Self {
        Self::new(Who::Entity(id))
    }

    /// A list for somebody of whom these item ids are known, oldest first.
    pub fn items(ids: &'a [&'a str]) -> Self {
        Self::new(Who::Items(ids))
    }

    /// A list for somebody of whom these events are known, oldest first.
    pub fn history(events: &'a [Event<'a>]) -> Self {
        Self::new(Who::History(events))
    }

    /// The same, after these events.
    pub fn and_then(self, events: &'a [Event<'a>]) -> Self {
        Self { then: events, ..self }
    }

    /// The same, for the entity as it stood at this moment.
    pub fn as_of(self, moment: AsOf) -> Self {
        Self { as_of: Some(moment), ..self }
    }

    /// The same, asked at this time (Unix milliseconds).
    pub fn at(self, time: i64) -> Self {
        Self { time: Some(time), ..self }
    }

    /// The same, under these request-time fields.
    pub fn with(self, fields: &'a [FieldValue<'a>]) -> Self {
        Self { fields, ..self }
    }

    /// The same, for somebody with this profile.
    pub fn profile(self, profile: &'a [FieldValue<'a>]) -> Self {
        Self { profile, ..self }
    }

    /// The same, put in order by this.
    pub fn ranked_by(self, ranking: Ranking<'a>) -> Self {
        Self { ranking, ..self }
    }

    /// The same, with these numbers beside each candidate.
    pub fn impression(self, impression: &'a [(&'a str, f32)]) -> Self {
        Self { impression, ..self }
    }

    /// The same, without those events whose item is not known.
    pub fn skip_unknown(self) -> Self {
        Self { unknown: UnknownItems::Skip, ..self }
    }
}
