//! Outcomes that arrive while an engine serves: kept per entity, adapted to, and read by every request that follows (model.md,
//! section 2, serving).
//!
//! An entity's state is what it did since the publication and the meta embedding that was adapted to it. Requests for the entity read
//! both: the history of the publication goes on with the events of the state, and the ranker answers under its embedding. An
//! adaptation always starts from the meta block as it was learned, with the outcomes that the generation holds and those of the state,
//! the latest of both; so it can be made again at any time, and is where another model was published.

use super::engine::Engine;
use super::generation::Generation;
use super::query::{EventInput, FieldValue, Query, Who};
use super::ranker::{MetaEmbedding, Support};
use super::session::Work;
use super::surface::Given;
use crate::error::{Result, err};
use crate::ranker::DriftDetection;
use crate::store::{EntityState, EntityStore, EntityStoreOptions, StoredEmbedding, StoredOutcome};

/// Milliseconds of a day.
const DAY: f64 = 86_400_000.0;

/// When an entity is adapted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdaptPolicy {
    /// With every outcome that is labelled or joins the history, before it is acknowledged.
    #[default]
    EveryOutcome,
    /// With every n-th labelled outcome of the entity.
    Every(u32),
    /// By [`Engine::adapt`] alone.
    OnDemand,
}

/// How an entity is adapted to an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdaptMethod {
    /// From the meta block as it was learned, to the latest outcomes, the new one among them. Nothing drifts.
    #[default]
    Restart,
    /// The first-order update: the embedding moves by the new outcome alone, by the meta block's tangent kernel. Cheaper, and close to the
    /// other while outcomes agree; [`Engine::adapt`] starts anew. An entity without an embedding of the current model is adapted from
    /// the start.
    FirstOrder,
}

/// How an engine keeps what entities do while it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonalOptions {
    /// Durability and memory of the states. Naming [`crate::store::Durability::Within`] grants one thread.
    pub store: EntityStoreOptions,
    /// When entities are adapted.
    pub policy: AdaptPolicy,
    /// How they are adapted.
    pub method: AdaptMethod,
    /// Most events and outcomes that are kept of an entity, the latest ones; at least 1.
    pub keep: usize,
    /// How far an adaptation may move an embedding from where the meta block was learned, in lengths of the latter; what goes further is
    /// shortened to this.
    pub max_step: f32,
    /// Looks for changes of taste when an entity is adapted, and adapts it to the outcomes since the latest one alone; `None` adapts to
    /// all that are kept. Follows a turn within some outcomes, and costs a little where taste stays (docs/mechanisms.md).
    pub drift: Option<DriftDetection>,
    /// Days after which an adaptation counts half, by the time of the request; `None`: it does not age.
    pub half_life_days: Option<f32>,
}

impl Default for PersonalOptions {
    fn default() -> Self {
        Self {
            store: EntityStoreOptions::default(),
            policy: AdaptPolicy::default(),
            method: AdaptMethod::default(),
            keep: 256,
            max_step: 8.0,
            drift: None,
            half_life_days: None,
        }
    }
}

impl PersonalOptions {
    fn check(&self) -> Result<()> {
        if self.keep == 0 || matches!(self.policy, AdaptPolicy::Every(0)) {
            return Err(err!(
                InvalidConfig,
                "an engine that keeps, or adapts to, 0 outcomes learns nothing; choose at least 1"
            ));
        }
        if self.method == AdaptMethod::FirstOrder && self.policy != AdaptPolicy::EveryOutcome {
            return Err(err!(
                InvalidConfig,
                "the direct step moves by each outcome once; choose AdaptPolicy::EveryOutcome, or AdaptMethod::Restart"
            ));
        }
        let positive = |x: f32| x > 0.0 && !x.is_nan();
        if self.drift.is_some_and(|w| w.latest == 0 || !positive(w.evidence)) {
            return Err(err!(
                InvalidConfig,
                "drift detection needs outcomes to look at and evidence above 0; correct the options"
            ));
        }
        if !positive(self.max_step) || self.half_life_days.is_some_and(|d| !positive(d)) {
            return Err(err!(InvalidConfig, "max_step and half_life_days must be above 0; correct the options"));
        }
        Ok(())
    }
}

/// One thing that an entity did, or did not do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome<'a> {
    /// The item, the time, and what else is known of it; among its fields the ranker's surface, where the item was shown.
    pub event: EventInput<'a>,
    /// The label of each head of the ranker that is known, 0 to 1, by the head's name.
    pub labels: &'a [(&'a str, f32)],
    /// Numbers that were known when the item was shown, by name: the impression features that the ranker reads.
    pub impression: &'a [(&'a str, f32)],
    /// Whether the event joins the history that the foundation model reads: an impression that was not clicked does not.
    pub in_history: bool,
}

impl<'a> Outcome<'a> {
    /// Something that happened, without a label.
    pub fn event(event: EventInput<'a>) -> Self {
        Self { event, in_history: true, ..Self::default() }
    }

    /// Something that was shown, with the label of each head. It joins the history where the label of the first is 1.
    pub fn labelled(event: EventInput<'a>, labels: &'a [(&'a str, f32)]) -> Self {
        let happened = labels.first().is_some_and(|(_, label)| *label >= 1.0);
        Self { event, labels, in_history: happened, ..Self::default() }
    }
}

/// What an observation did.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Labelled outcomes of the entity that were ever observed, this one included.
    pub seen: u64,
    /// The adaptation that followed; `None` where the policy asked for none, or the generation has no ranker.
    pub adapted: Option<MetaEmbedding>,
}

/// What an engine needs to keep states.
#[derive(Debug)]
pub(super) struct Personal {
    store: EntityStore,
    options: PersonalOptions,
}

impl Personal {
    pub(super) fn new(store: EntityStore, options: &PersonalOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { store, options: options.clone() })
    }
}

impl Engine {
    pub(super) fn personal(&self) -> Result<&Personal> {
        self.personal_store().ok_or_else(|| {
            err!(
                InvalidConfig,
                "this engine keeps nothing of entities; open it with EngineOptions::personal to observe outcomes"
            )
        })
    }

    /// The states of entities: to read, export, import, forget and purge them, and to compact their file.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`super::EngineOptions::personal`].
    pub fn entities(&self) -> Result<&EntityStore> {
        Ok(&self.personal()?.store)
    }

    /// Takes in something that an entity did, or did not do. When this returns it is kept as the engine's durability says (by default:
    /// on disk), every request for the entity that begins after that reads it, and the entity is adapted as the engine's policy says. No
    /// other entity's answers change by a bit. Observations of one entity come one after another, of different ones at
    /// once.
    ///
    /// Items that the generation does not know are kept for one that does.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`super::EngineOptions::personal`]; `InvalidArgument` for an empty id, a
    /// head or impression feature that the ranker does not have, a label outside of 0 to 1, and for what [`Engine::recommend`] refuses in an
    /// event; `NoSpace`, `Io`, `Corrupt`, `Poisoned` where the file cannot be written: the outcome is not acknowledged then.
    pub fn observe(&self, entity: &str, outcome: &Outcome<'_>) -> Result<Observed> {
        let personal = self.personal()?;
        let generation = self.current();
        let stored = generation.to_keep(outcome)?;
        let options = &personal.options;
        personal.store.update(entity, |state| {
            let (labelled, happened) = (!stored.labels.is_empty(), stored.in_history);
            state.touched = state.touched.max(stored.time.unwrap_or(i64::MIN));
            state.outcomes.push(stored);
            let over = state.outcomes.len().saturating_sub(options.keep);
            state.outcomes.drain(..over);
            state.seen = state.seen.saturating_add(u64::from(labelled));
            let due = match options.policy {
                AdaptPolicy::EveryOutcome => true,
                AdaptPolicy::Every(n) => state.seen.is_multiple_of(u64::from(n.max(1))),
                AdaptPolicy::OnDemand => false,
            };
            let moved = labelled || (happened && options.policy == AdaptPolicy::EveryOutcome);
            let adapted = match moved && due && generation.ranker().is_some() {
                true if labelled && options.method == AdaptMethod::FirstOrder => {
                    Some(generation.first_order_state(entity, state, options)?)
                }
                true => Some(generation.adapt_state(entity, state, options)?),
                false => None,
            };
            if let Some(adapted) = &adapted {
                state.adapted = Some(generation.keep_embedding(adapted, state)?);
            }
            Ok(Observed { seen: state.seen, adapted })
        })
    }

    /// Adapts an entity now, from the meta block as it was learned, to the outcomes that the generation holds and those that were
    /// observed, and keeps the embedding.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine keeps no states or the generation has no ranker; otherwise as [`Engine::observe`].
    pub fn adapt(&self, entity: &str) -> Result<MetaEmbedding> {
        let personal = self.personal()?;
        let generation = self.current();
        generation.meta_version()?;
        personal.store.update(entity, |state| {
            let adapted = generation.adapt_state(entity, state, &personal.options)?;
            state.adapted = Some(generation.keep_embedding(&adapted, state)?);
            Ok(adapted)
        })
    }

    /// Adapts anew every entity whose embedding belongs to another model, as after the publication of one. Requests and observations go
    /// on meanwhile. Gives how many there were.
    ///
    /// # Errors
    /// As [`Engine::adapt`].
    pub fn adapt_stale(&self) -> Result<u64> {
        let version = self.current().meta_version()?;
        let mut stale = Vec::new();
        self.personal()?.store.each(|id, state| {
            if state.adapted.as_ref().is_some_and(|a| a.model != version) {
                stale.push(id.to_owned());
            }
            Ok(())
        })?;
        for id in &stale {
            self.adapt(id)?;
        }
        Ok(stale.len() as u64)
    }

    /// The meta embedding that was adapted for an entity while serving; `None` where there is none. Requests do not stop at another
    /// model: they adapt anew, from what is kept.
    ///
    /// # Errors
    /// `StateMismatch` where it was adapted under another model: [`Engine::adapt`] and [`Engine::adapt_stale`] make it anew;
    /// `InvalidConfig` as there.
    pub fn meta_embedding(&self, entity: &str) -> Result<Option<StoredEmbedding>> {
        let state = self.personal()?.store.get(entity)?;
        let version = self.current().meta_version()?;
        match state {
            Some(state) => Ok(state.embedding(entity, &version)?.cloned()),
            None => Ok(None),
        }
    }

    /// Runs `answer` with the query as the entity's state makes it, and the embedding to rank under.
    pub(super) fn with_state<T>(
        &self,
        generation: &Generation,
        query: &Query<'_>,
        answer: impl FnOnce(&Query<'_>, Option<&Given>) -> Result<T>,
    ) -> Result<T> {
        let (Some(personal), Who::Entity(id)) = (self.personal_store(), query.who) else { return answer(query, None) };
        let Some(state) = personal.store.get(id)? else { return answer(query, None) };
        let embedding = match generation.ranker() {
            Some(_) => generation.embedding_of(id, &state, query, &personal.options)?,
            None => None,
        };
        let kept = Kept::new(generation, &state)?;
        let mut events = kept.events();
        events.extend_from_slice(query.then);
        answer(&query.and_then(&events), embedding.as_ref())
    }
}

/// The events of a state that a generation can read, borrowed as a query brings them.
struct Kept<'a> {
    events: Vec<(EventInput<'a>, Vec<FieldValue<'a>>)>,
}

impl<'a> Kept<'a> {
    /// What the generation does not know (items, actions, fields of an earlier or later one) is left out.
    fn new(generation: &Generation, state: &'a EntityState) -> Result<Self> {
        let schema = generation.schema();
        let mut events = Vec::new();
        for outcome in state.outcomes.iter().filter(|o| o.in_history) {
            if generation.find_item(&outcome.item)?.is_none() {
                continue;
            }
            let known = |name: &str| schema.event_fields.iter().any(|f| f.field.name == name);
            let fields = outcome.fields.iter().filter(|(name, _)| known(name));
            let event = EventInput {
                item: &outcome.item,
                time: outcome.time,
                action: outcome.action.as_deref().filter(|a| schema.actions.iter().any(|known| known == a)),
                value: outcome.value.filter(|_| schema.value.is_some()),
                fields: &[],
            };
            events.push((event, fields.map(|(name, text)| (name.as_str(), text.as_str())).collect()));
        }
        Ok(Self { events })
    }

    fn events(&self) -> Vec<EventInput<'_>> {
        self.events.iter().map(|(event, fields)| EventInput { fields, ..*event }).collect()
    }
}

impl Generation {
    /// Checks an outcome and gives what is kept of it.
    fn to_keep(&self, outcome: &Outcome<'_>) -> Result<StoredOutcome> {
        let event = &outcome.event;
        if event.item.is_empty() {
            return Err(err!(InvalidArgument, "the outcome's item id is empty; name it"));
        }
        super::resolve::check_event(self, 1, event)?;
        for (name, text) in event.fields {
            match self.codes().event_field(name, text) {
                Err(_) if self.is_surface(name) => {}
                found => _ = found?,
            }
        }
        let heads = self.ranker().map_or(&[][..], |r| &r.heads);
        for (name, label) in outcome.labels {
            if !heads.iter().any(|head| head == name) {
                return Err(err!(InvalidArgument, "the ranker has no head {name:?}; it has {heads:?}"));
            }
            if !(0.0..=1.0).contains(label) {
                return Err(err!(InvalidArgument, "the label of head {name:?} is {label}; labels are 0 to 1"));
            }
        }
        self.read_impression(outcome.impression)?;
        if let Some((name, x)) = outcome.impression.iter().find(|(_, x)| !x.is_finite()) {
            return Err(err!(
                InvalidArgument,
                "impression feature {name:?} is {x}; pass a finite number, or leave it out"
            ));
        }
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        let named = |(name, x): &(&str, f32)| ((*name).to_owned(), *x);
        Ok(StoredOutcome {
            item: event.item.to_owned(),
            time: event.time,
            action: event.action.map(str::to_owned),
            value: event.value,
            fields: event.fields.iter().map(owned).collect(),
            labels: outcome.labels.iter().map(named).collect(),
            impression: outcome.impression.iter().map(named).collect(),
            in_history: outcome.in_history,
        })
    }

    /// What is known of an entity: the generation's outcomes, then those of the state that are newer.
    fn known_with(&self, entity: Option<u32>, state: &EntityState) -> Result<Support> {
        let mut known = self.published_outcomes(entity)?;
        let (published, support) = (known.until, self.support());
        let heads = self.ranker().map_or(&[][..], |r| &r.heads);
        for outcome in state.outcomes.iter().filter(|o| !o.labels.is_empty()) {
            if outcome.time.zip(published).is_some_and(|(time, until)| time <= until) {
                continue;
            }
            let Some(row) = self.find_item(&outcome.item)? else { continue };
            let label = |head: &String| outcome.labels.iter().find(|(name, _)| name == head).map_or(f32::NAN, |l| l.1);
            let labels: Vec<f32> = heads.iter().map(label).collect();
            let fields = self.ranker().map_or(&[][..], |r| &r.impression);
            let number = |field: &crate::schema::ImpressionField| {
                let found = outcome.impression.iter().find(|(name, _)| *name == field.name);
                found.map_or(0.0, |(_, x)| field.scaled(*x))
            };
            let impression: Vec<f32> = fields.iter().map(number).collect();
            let surface = self.surface_of(outcome.fields.iter().map(|(name, text)| (name.as_str(), text.as_str())));
            known.push(row, &labels, &impression, surface, outcome.time, support);
        }
        Ok(known)
    }

    /// The meta embedding of an entity after its state, within the bound.
    fn adapt_state(&self, id: &str, state: &EntityState, options: &PersonalOptions) -> Result<MetaEmbedding> {
        let entity = self.find_entity(id)?;
        let known = self.known_with(entity, state)?;
        let vector = self.state_vector(id, state)?;
        let adapted = self.adapt_to(entity, &vector, &known, None, options.drift.as_ref())?;
        let (adapted, most) = self.bounded(entity, &vector, &known, adapted, options.max_step)?;
        let surfaces = self.adapt_surfaces(&vector, &known, &adapted, None, Some(most))?;
        Ok(MetaEmbedding { surfaces, ..adapted })
    }

    /// The stored embedding of an entity, or the generation's, moved by the newest outcome of its state, within the bound.
    fn first_order_state(&self, id: &str, state: &EntityState, options: &PersonalOptions) -> Result<MetaEmbedding> {
        let entity = self.find_entity(id)?;
        let version = self.meta_version()?;
        let until = self.published_until(entity)?;
        // What a later batch adaptation has read is in the published embedding.
        let newer = |a: &&StoredEmbedding| until.is_none_or(|until| a.made > until);
        let fits = |a: &&StoredEmbedding| a.model == version && a.embedding.len() == self.meta_width();
        let own = state.adapted.as_ref().filter(fits).filter(newer);
        // Only an outcome that is the newest of all, and of an item that is known, can be stepped by.
        let steps = |o: &StoredOutcome| -> Result<bool> {
            let known = self.find_item(&o.item)?.is_some();
            Ok(known && !o.labels.is_empty() && o.time.zip(until).is_none_or(|(time, until)| time > until))
        };
        if !state.outcomes.last().map(steps).transpose()?.unwrap_or(false) {
            return self.adapt_state(id, state, options);
        }
        let published = entity.map(|row| self.published_embedding(row)).transpose()?.flatten();
        let Some(embedding) = own.map(|a| a.embedding.as_slice()).or(published) else {
            return self.adapt_state(id, state, options);
        };
        let known = self.known_with(entity, state)?;
        let vector = self.state_vector(id, state)?;
        let moved = self.first_order_to(entity, &vector, &known, embedding)?;
        let (moved, most) = self.bounded(entity, &vector, &known, moved, options.max_step)?;
        // The part on the surface of the new outcome is made anew, the others stay.
        let mut surfaces = match own {
            Some(own) => own.surfaces.clone(),
            None => {
                let published = entity.map(|row| self.published_surfaces(row)).transpose()?.unwrap_or_default();
                published.iter().map(|(code, part)| (self.surface_name(*code).to_owned(), part.to_vec())).collect()
            }
        };
        for (name, part) in self.adapt_surfaces(&vector, &known, &moved, known.surfaces.last().copied(), Some(most))? {
            surfaces.retain(|(other, _)| *other != name);
            surfaces.push((name, part));
        }
        Ok(MetaEmbedding { surfaces, ..moved })
    }

    /// An embedding at most `max_step` lengths of the learned one away from it, and how much that is.
    fn bounded(
        &self,
        entity: Option<u32>,
        vector: &[f32],
        known: &Support,
        mut adapted: MetaEmbedding,
        max_step: f32,
    ) -> Result<(MetaEmbedding, f32)> {
        if self.ranker().is_some_and(|r| !r.shape.person) {
            // Where a person has no part of its own, parts on surfaces are bounded by nothing.
            return Ok((adapted, f32::INFINITY));
        }
        let learned = self.adapt_to(entity, vector, known, Some(0), None)?.vector;
        let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let moved: Vec<f32> = adapted.vector.iter().zip(&learned).map(|(a, b)| a - b).collect();
        let (far, most) = (length(&moved), f64::from(max_step) * length(&learned).max(1e-6));
        if far > most {
            let share = (most / far) as f32;
            adapted.vector = learned.iter().zip(&moved).map(|(e, d)| e + share * d).collect();
        }
        Ok((adapted, most as f32))
    }

    /// The user vector of an entity after the events of its state.
    fn state_vector(&self, id: &str, state: &EntityState) -> Result<Vec<f32>> {
        let kept = Kept::new(self, state)?;
        let events = kept.events();
        let (mut work, mut vector) = (Work::default(), Vec::new());
        work.resolved.read(self, &Query::entity(id).and_then(&events))?;
        self.rank_state(&mut work, &mut vector)?;
        Ok(vector)
    }

    fn keep_embedding(&self, adapted: &MetaEmbedding, state: &EntityState) -> Result<StoredEmbedding> {
        Ok(StoredEmbedding {
            model: self.meta_version()?,
            embedding: adapted.vector.clone(),
            surfaces: adapted.surfaces.clone(),
            outcomes: state.seen,
            made: state.touched,
        })
    }

    /// The embeddings under which an entity with a state is ranked for `query`; `None`: the generation's own.
    fn embedding_of(
        &self,
        id: &str,
        state: &EntityState,
        query: &Query<'_>,
        options: &PersonalOptions,
    ) -> Result<Option<Given>> {
        let Some(adapted) = &state.adapted else { return Ok(None) };
        let entity = self.find_entity(id)?;
        // A batch adaptation that came later has read the same outcomes, and perhaps more.
        let until = self.published_until(entity)?;
        let newest = state.outcomes.iter().filter_map(|o| o.time).max();
        if newest.zip(until).is_some_and(|(newest, until)| newest <= until) {
            return Ok(None);
        }
        let code = self.surface_of(query.fields.iter().copied());
        let on = |parts: &[(String, Vec<f32>)]| {
            let name = self.surface_name(code);
            parts.iter().find(|(other, part)| code > 0 && other == name && part.len() == self.meta_width()).cloned()
        };
        let (person, surface) =
            match adapted.model == self.meta_version()? && adapted.embedding.len() == self.meta_width() {
                true => (adapted.embedding.clone(), on(&adapted.surfaces)),
                false => {
                    let anew = self.adapt_state(id, state, options)?;
                    let surface = on(&anew.surfaces);
                    (anew.vector, surface)
                }
            };
        let mut given = Given { person, surface: surface.map(|(_, part)| part) };
        // Outcomes without times do not age.
        let aged = options.half_life_days.zip(query.time).filter(|_| adapted.made != 0);
        let Some((half_life, now)) = aged else { return Ok(Some(given)) };
        let age = now.saturating_sub(adapted.made).max(0) as f64 / DAY;
        let share = (-age / f64::from(half_life)).exp2() as f32;
        let aged = |before: &[f32], now: &[f32]| before.iter().zip(now).map(|(e, a)| e + share * (a - e)).collect();
        let learned = match entity.map(|row| self.published_embedding(row)).transpose()?.flatten() {
            Some(published) => published.to_vec(),
            None => self.learned_embedding(entity, &self.state_vector(id, state)?)?,
        };
        given.person = aged(&learned, &given.person);
        if let Some(part) = &given.surface {
            let before = self.part_before(code, entity)?;
            given.surface = Some(aged(&before, part));
        }
        Ok(Some(given))
    }
}
