//! Vectors of users and items, written to the caller's arrays.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::handle::{exclude, share};
use crate::input::text;
use crate::output::{Output, array};
use crate::query::docent_query;
use crate::session::{Thread, docent_session};
use crate::status::docent_status;
use docent_api::Result;
use std::ffi::c_char;
use std::sync::Arc;

/// Writes the user vector for a query to the array `vector` of `capacity` numbers: its dot product with an item's vector is
/// the item's score. `written` becomes the width of the generation (docent_generation_counts). `generation` may be NULL.
///
/// DOCENT_ERR_INVALID_ARGUMENT where `capacity` is less than the width, otherwise as docent_recommend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_user_embedding(
    session: *mut docent_session,
    query: *const docent_query,
    capacity: usize,
    vector: *mut f32,
    written: *mut usize,
    generation: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_user_embedding", error, || {
        let (written, generation) = (Output::begin(written, 0), Output::begin(generation, 0));
        let written = written.needed("written")?;
        // SAFETY: the caller passes an array of `capacity` elements.
        let vector = unsafe { array(vector, capacity, "vector")? };
        let (mut thread, query) = (exclude(session)?, share(query)?);
        let Thread { engine, session, lists, answered } = &mut *thread;
        let width = lists.with(Some(&query), None, |query, _| engine.user_embedding_into(session, query, vector))?;
        let current = session.generation().cloned();
        written.put(width);
        generation.put(current.as_ref().map_or(0, |g| g.id().0));
        *answered = current;
        Ok(())
    })
}

/// Writes the vector of an item to the array `vector` of `capacity` numbers, as docent_user_embedding does. To read vectors
/// in place, see docent_generation_item_vector.
///
/// DOCENT_ERR_UNKNOWN_ITEM where the generation does not know the item; DOCENT_ERR_INVALID_ARGUMENT where `capacity` is
/// less than the width.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_item_embedding(
    session: *mut docent_session,
    item: *const c_char,
    item_length: usize,
    capacity: usize,
    vector: *mut f32,
    written: *mut usize,
    generation: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_item_embedding", error, || {
        let (written, generation) = (Output::begin(written, 0), Output::begin(generation, 0));
        let written = written.needed("written")?;
        // SAFETY: the caller passes an array of `capacity` elements.
        let vector = unsafe { array(vector, capacity, "vector")? };
        // SAFETY: the caller passes a text and its length.
        let item = unsafe { text(item, item_length, "the item id")? };
        let mut thread = exclude(session)?;
        let current = thread.engine.current();
        let found = current.item_vector(current.item_row(item)?)?;
        room(vector, found.len())?.copy_from_slice(found);
        written.put(found.len());
        generation.put(current.id().0);
        thread.answered = Some(Arc::clone(&current));
        Ok(())
    })
}

/// The first `width` places of the caller's array.
fn room(vector: &mut [f32], width: usize) -> Result<&mut [f32]> {
    let capacity = vector.len();
    vector.get_mut(..width).ok_or_else(|| {
        fail!(InvalidArgument, "there is room for {capacity} numbers, vectors have {width}; pass a larger array")
    })
}
