//! Outcomes that arrive while an engine serves: kept per entity, adapted to, and read by every request that follows.

use super::super::rank::{MetaEmbedding, Place, read_impression};
use super::super::request::check_event;
use super::adapt::Adapting;
use super::options::{AdaptMethod, AdaptPolicy, PersonalOptions};
use crate::error::{Result, err};
use crate::event::{Cell, Event};
use crate::generation::Generation;
use crate::store::{EntityState, EntityStore, OUTCOME_IDS, StateView, StoredEmbedding, StoredOutcome};
use std::time::SystemTime;

/// One thing that an entity did, or did not do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome<'a> {
    /// What tells it from others of the entity, 1 to 1024 bytes: another of the same id, while the first is kept, changes nothing. So what may
    /// have been observed can be observed again.
    pub id: Option<&'a str>,
    /// The item, the time, and what else is known of it; among its fields the ranker's surface, where the item was shown.
    pub event: Event<'a>,
    /// The label of each head of the ranker that is known, 0 to 1, by the head's name.
    pub labels: &'a [(&'a str, f32)],
    /// Numbers that were known when the item was shown, by name: the impression features that the ranker reads.
    pub impression: &'a [(&'a str, f32)],
    /// Whether the event joins the history that the foundation model reads: an impression that was not clicked does not.
    pub in_history: bool,
}

impl<'a> Outcome<'a> {
    /// Something that happened, without a label.
    pub fn event(event: Event<'a>) -> Self {
        Self { event, in_history: true, ..Self::default() }
    }

    /// Something that was shown, with the label of each head. It joins the history where the label of the first is 1.
    pub fn labelled(event: Event<'a>, labels: &'a [(&'a str, f32)]) -> Self {
        let happened = labels.first().is_some_and(|(_, label)| *label >= 1.0);
        Self { event, labels, in_history: happened, ..Self::default() }
    }
}

/// What an observation did.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Whether it was new: `false` where an outcome of the same id is kept, and then nothing is changed.
    pub is_new: bool,
    /// Labelled outcomes of the entity that were ever observed, this one included.
    pub seen: u64,
    /// The adaptation that followed; `None` where the policy asked for none, or the generation has no ranker.
    pub adapted: Option<MetaEmbedding>,
}

/// The states of an engine's entities, and how they are adapted.
#[derive(Debug)]
pub(in crate::serve) struct Personal {
    store: EntityStore,
    options: PersonalOptions,
}

impl Personal {
    pub(in crate::serve) fn new(store: EntityStore, options: &PersonalOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { store, options: options.clone() })
    }

    /// The states.
    pub(in crate::serve) fn store(&self) -> &EntityStore {
        &self.store
    }

    pub(super) fn options(&self) -> &PersonalOptions {
        &self.options
    }

    /// Keeps an outcome of an entity, and adapts it as the policy says.
    pub(in crate::serve) fn observe(
        &self,
        generation: &Generation,
        entity: &str,
        outcome: &Outcome<'_>,
    ) -> Result<Observed> {
        let place = generation.find_ranker()?.map(|ranker| Place { generation, ranker });
        let stored = to_store(generation, place.as_ref(), outcome)?;
        let options = &self.options;
        self.store.update(entity, |state| {
            state.leave_out_impossible_times();
            if stored.id.as_ref().is_some_and(|id| state.has_outcome(id)) {
                return Ok(Observed { is_new: false, seen: state.seen, adapted: None });
            }
            let (labelled, happened) = (!stored.labels.is_empty(), stored.in_history);
            // A time in the future would outlive every purge.
            state.touched = state.touched.max(stored.time.map(|time| time.min(now())));
            let is_newest = state.insert(stored.clone());
            let most = if happened { options.keep } else { options.keep_impressions };
            state.leave_out_oldest(happened, most);
            state.forget_items(options.keep_items);
            state.seen = state.seen.saturating_add(u64::from(labelled));
            let due = match options.policy {
                AdaptPolicy::EveryOutcome => true,
                AdaptPolicy::Every(n) => state.seen.is_multiple_of(u64::from(n.max(1))),
                AdaptPolicy::OnDemand => false,
            };
            let moved = labelled || (happened && options.policy == AdaptPolicy::EveryOutcome);
            let adapted = match place.filter(|_| moved && due) {
                Some(place) => {
                    let adapting = Adapting::new(place, entity, StateView::from(&*state), None)?;
                    let adapted = match labelled && is_newest && options.method == AdaptMethod::FirstOrder {
                        true => adapting.first_order(options)?,
                        false => adapting.adapt_named(options)?,
                    };
                    keep(&place, &adapted, state);
                    Some(adapted)
                }
                None => None,
            };
            EntityStore::shorten(entity, state)?;
            Ok(Observed { is_new: true, seen: state.seen, adapted })
        })
    }

    /// Adapts an entity anew and keeps the embedding.
    pub(in crate::serve) fn adapt(&self, generation: &Generation, entity: &str) -> Result<MetaEmbedding> {
        let place = Place::new(generation)?;
        self.store.update(entity, |state| {
            state.leave_out_impossible_times();
            let adapted = Adapting::new(place, entity, StateView::from(&*state), None)?.adapt_named(&self.options)?;
            keep(&place, &adapted, state);
            EntityStore::shorten(entity, state)?;
            Ok(adapted)
        })
    }

    /// The entities whose embedding belongs to another model than the generation's.
    pub(in crate::serve) fn stale(&self, generation: &Generation) -> Result<Vec<String>> {
        let version = generation.meta_version()?;
        let mut stale = Vec::new();
        self.store.each(|id, state| {
            if state.adapted.as_ref().is_some_and(|a| a.model != version) {
                stale.push(id.to_owned());
            }
            Ok(())
        })?;
        Ok(stale)
    }
}

/// Unix milliseconds by the clock of this machine; the end of all times where that makes no sense.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX)
}

/// Puts an embedding into a state.
fn keep(place: &Place<'_>, adapted: &MetaEmbedding, state: &mut EntityState) {
    state.adapted = Some(StoredEmbedding {
        model: place.ranker.version(),
        embedding: adapted.vector.clone(),
        surfaces: adapted.surfaces.clone(),
        outcomes: state.seen,
        made: state.outcomes.iter().filter_map(|o| o.time).max().unwrap_or(0),
    });
}

/// Checks an outcome and gives what is kept of it.
fn to_store(generation: &Generation, place: Option<&Place<'_>>, outcome: &Outcome<'_>) -> Result<StoredOutcome> {
    let event = &outcome.event;
    if event.item.is_empty() {
        return Err(err!(InvalidArgument, "the outcome's item id is empty; name it"));
    }
    if let Some(id) = outcome.id.filter(|id| !OUTCOME_IDS.contains(&id.len())) {
        return Err(err!(
            InvalidArgument,
            "the outcome's id has {} bytes; give it 1 to 1024, or leave it out",
            id.len()
        ));
    }
    check_event(generation, 1, event)?;
    let mut fields = Vec::with_capacity(event.fields.len());
    for (name, cell) in event.fields {
        match generation.codes().event_field(name, cell) {
            Err(_) if place.is_some_and(|p| p.ranker.is_surface(name)) => {}
            found => _ = found?,
        }
        let text = match *cell {
            Cell::Text(text) => text.to_owned(),
            Cell::Number(x) if !x.is_nan() => x.to_string(),
            _ => continue,
        };
        fields.push(((*name).to_owned(), text));
    }
    let record = place.map(|p| p.ranker.record);
    let heads = record.map_or(&[][..], |r| &r.heads);
    for (name, label) in outcome.labels {
        if !heads.iter().any(|head| head == name) {
            return Err(err!(InvalidArgument, "the ranker has no head {name:?}; it has {heads:?}"));
        }
        if !(0.0..=1.0).contains(label) {
            return Err(err!(InvalidArgument, "the label of head {name:?} is {label}; labels are 0 to 1"));
        }
    }
    read_impression(record.map_or(&[][..], |r| &r.impression), outcome.impression, &mut Vec::new())?;
    if let Some((name, x)) = outcome.impression.iter().find(|(_, x)| !x.is_finite()) {
        return Err(err!(InvalidArgument, "impression feature {name:?} is {x}; pass a finite number, or leave it out"));
    }
    let named = |(name, x): &(&str, f32)| ((*name).to_owned(), *x);
    Ok(StoredOutcome {
        id: outcome.id.map(str::to_owned),
        item: event.item.to_owned(),
        time: event.time,
        action: event.action.map(str::to_owned),
        value: event.value,
        fields,
        labels: outcome.labels.iter().map(named).collect(),
        impression: outcome.impression.iter().map(named).collect(),
        in_history: outcome.in_history,
    })
}
