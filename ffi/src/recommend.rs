//! Lists and scores, written to the caller's arrays.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::filter::docent_filter;
use crate::handle::{exclude, share, share_optional};
use crate::input::{text, texts};
use crate::output::{Output, array, check_apart};
use crate::query::docent_query;
use crate::session::{Thread, docent_session};
use crate::status::docent_status;
use docent_api::serve::Source;
use std::ffi::c_char;

/// Where a list comes from: DOCENT_SOURCE_MODEL, DOCENT_SOURCE_POPULARITY or DOCENT_SOURCE_RANKER.
pub type docent_source = u32;
/// The model's scores for this history.
pub const DOCENT_SOURCE_MODEL: docent_source = 1;
/// Recency-weighted popularity, because nothing is known of the person. Scores are shares of the recent events.
pub const DOCENT_SOURCE_POPULARITY: docent_source = 2;
/// Retrieved by the model, put in order by the ranker: scores weigh the model's score and the outcome together, or are the calibrated
/// probabilities of the outcome where the ranker's goal is the outcome alone.
pub const DOCENT_SOURCE_RANKER: docent_source = 3;

/// Writes the best items for a query under a filter, best first: their rows and scores to the arrays `rows` and `scores`
/// of `capacity` elements each, and how many they are to `written` - fewer than `capacity` only where the filter or the
/// catalogue leaves fewer. `filter` may be NULL: what was had already is left out. `generation` and `source` may be
/// NULL. The same request to the same generation gives the same bytes.
///
/// Rows are those of the generation that docent_session_generation holds afterwards.
///
/// DOCENT_ERR_INVALID_ARGUMENT for `capacity` 0 and for times, numbers, actions or fields that cannot be;
/// DOCENT_ERR_UNKNOWN_ITEM for unknown items unless the query says to skip them; DOCENT_ERR_CORRUPT where the
/// generation turns out to be damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_recommend(
    session: *mut docent_session,
    query: *const docent_query,
    filter: *const docent_filter,
    capacity: usize,
    rows: *mut u32,
    scores: *mut f32,
    written: *mut usize,
    generation: *mut u64,
    source: *mut docent_source,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_recommend", error, || {
        let (written, generation) = (Output::begin(written, 0), Output::begin(generation, 0));
        let source = Output::begin(source, 0);
        let written = written.needed("written")?;
        check_apart(rows, scores, capacity, "rows and scores")?;
        // SAFETY: the caller passes arrays of `capacity` elements, which were found not to overlap.
        let (rows, scores) = unsafe { (array(rows, capacity, "rows")?, array(scores, capacity, "scores")?) };
        let (mut thread, query, filter) = (exclude(session)?, share(query)?, share_optional(filter)?);
        let Thread { engine, session, lists, answered } = &mut *thread;
        let found = lists.with(Some(&query), filter.as_deref(), |query, filter| {
            engine.recommend_into(session, query, filter, rows, scores)
        })?;
        *answered = session.generation().cloned();
        written.put(found.count);
        generation.put(found.generation.0);
        source.put(match found.source {
            Source::Model => DOCENT_SOURCE_MODEL,
            Source::Popularity => DOCENT_SOURCE_POPULARITY,
            Source::Ranker => DOCENT_SOURCE_RANKER,
            other => return Err(fail!(Internal, "lists from {other} have no number; please report it")),
        });
        Ok(())
    })
}

/// Writes the items most like an item, by the cosine of their vectors, itself left out, as docent_recommend writes its
/// list. `filter` may be NULL: everything passes; it is about no person, so nothing counts as seen. `generation` may be
/// NULL.
///
/// DOCENT_ERR_UNKNOWN_ITEM where the generation does not know the item; otherwise as docent_recommend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_similar(
    session: *mut docent_session,
    item: *const c_char,
    item_length: usize,
    filter: *const docent_filter,
    capacity: usize,
    rows: *mut u32,
    scores: *mut f32,
    written: *mut usize,
    generation: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_similar", error, || {
        let (written, generation) = (Output::begin(written, 0), Output::begin(generation, 0));
        let written = written.needed("written")?;
        check_apart(rows, scores, capacity, "rows and scores")?;
        // SAFETY: the caller passes arrays of `capacity` elements, which were found not to overlap.
        let (rows, scores) = unsafe { (array(rows, capacity, "rows")?, array(scores, capacity, "scores")?) };
        // SAFETY: the caller passes a text and its length.
        let item = unsafe { text(item, item_length, "the item id")? };
        let (mut thread, filter) = (exclude(session)?, share_optional(filter)?);
        let Thread { engine, session, lists, answered } = &mut *thread;
        let found = lists
            .with(None, filter.as_deref(), |_, filter| engine.similar_into(session, item, filter, rows, scores))?;
        *answered = session.generation().cloned();
        written.put(found.count);
        generation.put(found.generation.0);
        Ok(())
    })
}

/// Writes the scores of `count` items, given by id, for a query: scores[i] is that of candidate i, comparable with those of
/// docent_recommend where that answers by the model; for those of whom nothing is known, shares of popularity.
/// `generation` may be NULL.
///
/// DOCENT_ERR_UNKNOWN_ITEM naming a candidate that the generation does not know; otherwise as docent_recommend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_score(
    session: *mut docent_session,
    query: *const docent_query,
    candidates: *const *const c_char,
    candidate_lengths: *const usize,
    count: usize,
    scores: *mut f32,
    generation: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_score", error, || {
        let generation = Output::begin(generation, 0);
        // SAFETY: the caller passes an array of `count` elements.
        let scores = unsafe { array(scores, count, "scores")? };
        let mut ids = Vec::new();
        let add = |id| {
            ids.push(id);
            Ok(())
        };
        // SAFETY: the caller passes arrays of `count` texts and lengths.
        unsafe { texts(candidates, candidate_lengths, count, "the candidates", add)? };
        let (mut thread, query) = (exclude(session)?, share(query)?);
        let Thread { engine, session, lists, answered } = &mut *thread;
        lists.with(Some(&query), None, |query, _| engine.score_into(session, query, &ids, scores))?;
        let current = session.generation().cloned();
        generation.put(current.as_ref().map_or(0, |g| g.id().0));
        *answered = current;
        Ok(())
    })
}
