//! What a request reads of an entity's state.

use super::super::rank::{Given, Place};
use super::super::request::{Query, Resolved, Who};
use super::adapt::{Adapting, add_events, add_past_items, fits, in_time};
use super::observe::Personal;
use super::options::PersonalOptions;
use crate::error::Result;
use crate::generation::Generation;
use crate::store::StateView;

/// Milliseconds of a day.
const DAY: f64 = 86_400_000.0;

/// Adds what is kept of the query's entity to what is asked. Where a `place` to be ranked in is named and the entity was adapted, gives
/// whether its embeddings are in `given`; else the generation's own count.
pub(in crate::serve) fn read_state(
    personal: &Personal,
    generation: &Generation,
    place: Option<Place<'_>>,
    query: &Query<'_>,
    asked: &mut Resolved,
    given: &mut Given,
) -> Result<bool> {
    let Who::Entity(id) = query.who else { return Ok(false) };
    let found = personal.store().read(id, |state| {
        add_events(generation, state, asked)?;
        add_past_items(generation, state, asked)?;
        match place {
            Some(place) => embeddings(place, id, state, query, asked, personal.options(), given),
            None => Ok(false),
        }
    })?;
    Ok(found.unwrap_or(false))
}

/// Whether an outcome of a state is none of those that the published embedding was adapted to.
fn is_late(place: Place<'_>, state: StateView<'_>, asked: &Resolved) -> Result<bool> {
    for outcome in state.outcomes().filter(|o| in_time(o) && o.labels().len() > 0 && asked.knows(o.time())) {
        if let Some(row) = place.generation.find_item(outcome.item())?
            && !place.ranker.is_published(asked.entity, row, outcome.time())?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the embeddings under which an entity with a state is ranked, unless they are the generation's own.
fn embeddings(
    place: Place<'_>,
    id: &str,
    state: StateView<'_>,
    query: &Query<'_>,
    asked: &Resolved,
    options: &PersonalOptions,
    given: &mut Given,
) -> Result<bool> {
    let Some(adapted) = state.adapted() else { return Ok(false) };
    let (ranker, code) = (place.ranker, asked.surface);
    let newest =
        state.outcomes().filter(in_time).filter_map(|o| o.time()).filter(|time| asked.knows(Some(*time))).max();
    let made = if asked.is_cut() { newest.unwrap_or(0) } else { adapted.made() };
    // A batch adaptation that came later has read the same outcomes, and perhaps more.
    let until = ranker.until(asked.entity)?;
    if asked.knows(until)
        && newest.zip(until).is_some_and(|(newest, until)| newest <= until)
        && !is_late(place, state, asked)?
    {
        return Ok(false);
    }
    given.person.clear();
    given.surface.clear();
    // What it was adapted to may have happened later than the moment that is asked about.
    match fits(&place, &adapted) && !asked.is_cut() {
        true => {
            given.person.extend(adapted.embedding());
            let name = ranker.surface_name(code);
            let own = adapted.surfaces().find(|(on, part)| code > 0 && *on == name && part.len() == ranker.width());
            given.surface.extend(own.into_iter().flat_map(|(_, part)| part));
        }
        false => {
            let (anew, surfaces) = Adapting::new(place, id, state, query.as_of)?.adapt(options)?;
            given.person.extend(anew.vector);
            given
                .surface
                .extend(surfaces.into_iter().find(|(on, _)| *on == code).into_iter().flat_map(|(_, part)| part));
        }
    }
    // Outcomes without times do not age.
    let aged = options.half_life_days.zip(query.time).filter(|_| made != 0);
    if let Some((half_life, now)) = aged {
        let age = now.saturating_sub(made).max(0) as f64 / DAY;
        let share = (-age / f64::from(half_life)).exp2() as f32;
        let fade = |before: &[f32], now: &mut [f32]| {
            now.iter_mut().zip(before).for_each(|(a, e)| *a = e + share * (*a - e));
        };
        let published = asked.entity.filter(|_| asked.knows(until));
        match published.map(|row| ranker.embedding(row)).transpose()?.flatten() {
            Some(published) => fade(published, &mut given.person),
            None => fade(&Adapting::new(place, id, state, query.as_of)?.learned()?, &mut given.person),
        }
        if let Some(before) = place.part_before(code, published)?.filter(|_| !given.surface.is_empty()) {
            fade(before, &mut given.surface);
        }
    }
    Ok(true)
}
