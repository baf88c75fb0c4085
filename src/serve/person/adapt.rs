//! An entity, adapted to its state: to the outcomes that the generation holds and those that were observed, the latest of both.

use super::super::rank::{EntityAdapter, MetaEmbedding, Place, scaled};
use super::super::request::{AsOf, Query, Resolved, UnknownItems};
use super::super::retrieve::user_vector;
use super::options::PersonalOptions;
use crate::error::Result;
use crate::event::{Cell, Event, TIMES};
use crate::generation::{Generation, Support};
use crate::model::{Request, Scratch};
use crate::store::{EmbeddingView, OutcomeView, StateView};

/// What is added to an embedding on surfaces, by code.
type Parts = Vec<(u32, Vec<f32>)>;

/// Whether an outcome has a time that the engine takes, or none: earlier builds imported others.
pub(super) fn in_time(outcome: &OutcomeView<'_>) -> bool {
    outcome.time().is_none_or(|time| TIMES.contains(&time))
}

/// Adds the events of a state to a query. What the generation does not know (items, actions, fields of an earlier or later one) is
/// left out, as is what it cannot read (fields that were of another kind, impossible times): nobody is locked out by what was kept
/// of them.
pub(super) fn add_events(generation: &Generation, state: StateView<'_>, asked: &mut Resolved) -> Result<()> {
    let schema = generation.schema();
    for outcome in state.outcomes().filter(|o| o.in_history() && in_time(o)) {
        let Some(row) = generation.find_item(outcome.item())? else { continue };
        if !asked.admits(generation, row, outcome.time())? {
            continue;
        }
        let readable = |(name, cell): &(&str, Cell<'_>)| generation.codes().event_field(name, cell).is_ok();
        let fields = outcome.fields().map(|(name, text)| (name, Cell::Text(text))).filter(readable);
        let event = Event {
            item: outcome.item(),
            time: outcome.time(),
            action: outcome.action().filter(|a| schema.actions.iter().any(|known| known == a)),
            value: outcome.value().filter(|_| schema.value.is_some()),
            fields: &[],
        };
        asked.add_event(generation, Some(row), &event, fields, UnknownItems::Refuse)?;
    }
    Ok(())
}

/// Adds the items of events that are not kept any more, which a list leaves out as those of the others; to be called after [`add_events`].
pub(super) fn add_past_items(generation: &Generation, state: StateView<'_>, asked: &mut Resolved) -> Result<()> {
    // Their events lie before those that are kept.
    let oldest = state.outcomes().filter(|o| o.in_history()).filter_map(|o| o.time()).min();
    if asked.knows(oldest) {
        for item in state.past_items() {
            asked.past.extend(generation.find_item(item)?);
        }
    }
    Ok(())
}

/// An entity with its state, resolved once.
pub(super) struct Adapting<'a> {
    place: Place<'a>,
    state: StateView<'a>,
    /// The entity at the moment that is asked about.
    asked: Resolved,
    /// Its user vector after the events of the state, under no request.
    vector: Vec<f32>,
}

impl<'a> Adapting<'a> {
    /// As it stands, or stood at a moment.
    pub(super) fn new(place: Place<'a>, id: &str, state: StateView<'a>, as_of: Option<AsOf>) -> Result<Self> {
        let (generation, query) = (place.generation, Query { as_of, ..Query::entity(id) });
        let (mut asked, mut vector) = (Resolved::default(), Vec::new());
        asked.begin(generation, None, &query)?;
        add_events(generation, state, &mut asked)?;
        asked.finish(generation, &query)?;
        let nothing = Request::default();
        user_vector(generation, asked.read_by_model(), &nothing, &mut Scratch::default(), &mut vector)?;
        Ok(Self { place, state, asked, vector })
    }

    fn adapter(&self) -> EntityAdapter<'_> {
        EntityAdapter { place: self.place, entity: self.asked.entity, state: &self.vector }
    }

    /// What is known of the entity: the generation's outcomes, and those of the state that are not among them.
    fn known(&self) -> Result<Support> {
        let Place { generation, ranker } = self.place;
        let record = ranker.record;
        // The generation's outcomes count together or, where some happened later, not at all: it keeps no time of each.
        let counts = self.asked.knows(ranker.until(self.asked.entity)?);
        let mut known = ranker.outcomes(self.asked.entity.filter(|_| counts))?;
        let (mut labels, mut impression) = (Vec::new(), Vec::new());
        for outcome in
            self.state.outcomes().filter(|o| in_time(o) && o.labels().len() > 0 && self.asked.knows(o.time()))
        {
            let Some(row) = generation.find_item(outcome.item())? else { continue };
            if counts && ranker.is_published(self.asked.entity, row, outcome.time())? {
                continue;
            }
            let label = |head: &String| outcome.labels().find(|(name, _)| name == head).map_or(f32::NAN, |l| l.1);
            labels.clear();
            labels.extend(record.heads.iter().map(label));
            impression.clear();
            let number = |name: &str| outcome.impression().find(|(given, _)| *given == name).map(|(_, x)| x);
            impression.extend(scaled(&record.impression, number));
            let surface = ranker.surface_of(outcome.fields());
            known.insert(row, &labels, &impression, surface, outcome.time(), ranker.support());
        }
        Ok(known)
    }

    /// The meta embedding after the state; with its parts on surfaces, by code.
    pub(super) fn adapt(&self, options: &PersonalOptions) -> Result<(MetaEmbedding, Parts)> {
        let known = self.known()?;
        let adapted = self.adapter().adapt(&known, None, options.drift.as_ref())?;
        let surfaces = self.adapter().adapt_surfaces(&known, &adapted, None)?;
        Ok((adapted, surfaces))
    }

    /// The same, with the parts on surfaces by name.
    pub(super) fn adapt_named(&self, options: &PersonalOptions) -> Result<MetaEmbedding> {
        let (adapted, surfaces) = self.adapt(options)?;
        let name = |(code, part)| (self.place.ranker.surface_name(code).to_owned(), part);
        Ok(MetaEmbedding { surfaces: surfaces.into_iter().map(name).collect(), ..adapted })
    }

    /// The stored embedding, or the generation's, moved by the newest outcome of the state.
    pub(super) fn first_order(&self, options: &PersonalOptions) -> Result<MetaEmbedding> {
        let (ranker, entity) = (self.place.ranker, self.asked.entity);
        let until = ranker.until(entity)?;
        // Only an outcome that is the newest of all, and of an item that is known, can be stepped by.
        let steps = |o: OutcomeView<'_>| -> Result<bool> {
            let known = in_time(&o) && self.place.generation.find_item(o.item())?.is_some();
            Ok(known && o.labels().len() > 0 && o.time().zip(until).is_none_or(|(time, until)| time > until))
        };
        if !self.state.outcomes().next_back().map(steps).transpose()?.unwrap_or(false) {
            return self.adapt_named(options);
        }
        // What a later batch adaptation has read is in the published embedding.
        let newer = |a: &EmbeddingView<'_>| until.is_none_or(|until| a.made() > until);
        let own = self.state.adapted().filter(|a| fits(&self.place, a)).filter(newer);
        let published = entity.map(|row| ranker.embedding(row)).transpose()?.flatten();
        let Some(embedding) = own.map(|a| a.embedding().collect()).or(published.map(<[f32]>::to_vec)) else {
            return self.adapt_named(options);
        };
        let known = self.known()?;
        let moved = self.adapter().first_order(&known, &embedding)?;
        // The part on the surface of the new outcome is made anew, the others stay.
        let mut surfaces: Vec<(String, Vec<f32>)> = match (own, entity) {
            (Some(own), _) => own.surfaces().map(|(name, part)| (name.to_owned(), part.collect())).collect(),
            (None, Some(row)) => {
                let named = |(code, part): (u32, &[f32])| (ranker.surface_name(code).to_owned(), part.to_vec());
                ranker.surface_parts(row)?.map(named).collect()
            }
            (None, None) => Vec::new(),
        };
        let newest = known.surfaces.last().copied();
        for (code, part) in self.adapter().adapt_surfaces(&known, &moved, newest)? {
            let name = ranker.surface_name(code);
            surfaces.retain(|(other, _)| other != name);
            surfaces.push((name.to_owned(), part));
        }
        Ok(MetaEmbedding { surfaces, ..moved })
    }

    /// The embedding of the meta block as it was learned.
    pub(super) fn learned(&self) -> Result<Vec<f32>> {
        self.adapter().learned()
    }
}

/// Whether an embedding was made with this ranker.
pub(super) fn fits(place: &Place<'_>, adapted: &EmbeddingView<'_>) -> bool {
    adapted.model() == place.ranker.version() && adapted.embedding().len() == place.ranker.width()
}
