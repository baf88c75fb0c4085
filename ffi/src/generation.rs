//! One publication of a model: its items and entities, read in place.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::handle::{Object, release, share};
use crate::input::text;
use crate::output::Output;
use crate::status::docent_status;
use docent_api::serve::Generation;
use std::ffi::c_char;
use std::sync::Arc;

/// One publication of a model. What it tells stays the same, and what it lends out stays valid, for as long as the
/// object lives, whatever is published or reloaded meanwhile. Items are rows, numbered from 0.
pub struct docent_generation {
    _opaque: [u8; 0],
}

impl Object for docent_generation {
    type Value = Arc<Generation>;
    const TAG: u32 = 0xd0ce_0004;
    const NAME: &'static str = "generation";
}

/// The number of a generation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_number(
    generation: *const docent_generation,
    number: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_number", error, || {
        let number = Output::begin(number, 0).needed("number")?;
        number.put(share(generation)?.id().0);
        Ok(())
    })
}

/// How many items the catalogue has, how many entities are known by id, and how many numbers a vector has. Each output
/// may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_counts(
    generation: *const docent_generation,
    items: *mut usize,
    entities: *mut usize,
    width: *mut usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_counts", error, || {
        let [items, entities, width] = [items, entities, width].map(|count| Output::begin(count, 0));
        let generation = share(generation)?;
        items.put(generation.items());
        entities.put(generation.entities());
        width.put(generation.width());
        Ok(())
    })
}

/// The row of an item id. DOCENT_ERR_UNKNOWN_ITEM where the generation does not know it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_find_item(
    generation: *const docent_generation,
    id: *const c_char,
    id_length: usize,
    row: *mut u32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_find_item", error, || {
        let row = Output::begin(row, 0).needed("row")?;
        // SAFETY: the caller passes a text and its length.
        let id = unsafe { text(id, id_length, "the item id")? };
        row.put(share(generation)?.item_row(id)?);
        Ok(())
    })
}

/// The row of an entity id. DOCENT_ERR_UNKNOWN_ENTITY where the generation does not know it; lists for it are the
/// popular one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_find_entity(
    generation: *const docent_generation,
    id: *const c_char,
    id_length: usize,
    row: *mut u32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_find_entity", error, || {
        let row = Output::begin(row, 0).needed("row")?;
        // SAFETY: the caller passes a text and its length.
        let id = unsafe { text(id, id_length, "the entity id")? };
        let generation = share(generation)?;
        let found = generation.find_entity(id)?.ok_or_else(|| {
            let number = generation.id();
            fail!(UnknownEntity, "entity {id:?} is not in generation {number}; ask with its events instead")
        })?;
        row.put(found);
        Ok(())
    })
}

/// The id of an item row, in UTF-8 and not NUL-terminated. *id lives as long as the generation object.
/// DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_item_id(
    generation: *const docent_generation,
    row: u32,
    id: *mut *const c_char,
    id_length: *mut usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_item_id", error, || {
        let (id, length) = (Output::begin(id, std::ptr::null()), Output::begin(id_length, 0));
        let (id, length) = (id.needed("id")?, length.needed("id_length")?);
        let generation = share(generation)?;
        let found = generation.item_id(row)?;
        id.put(found.as_ptr().cast());
        length.put(found.len());
        Ok(())
    })
}

/// The title of an item row, in UTF-8 and not NUL-terminated; NULL and 0 where it is not known. *title lives as long as
/// the generation object. DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_item_title(
    generation: *const docent_generation,
    row: u32,
    title: *mut *const c_char,
    title_length: *mut usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_item_title", error, || {
        let (title, length) = (Output::begin(title, std::ptr::null()), Output::begin(title_length, 0));
        let (title, length) = (title.needed("title")?, length.needed("title_length")?);
        let generation = share(generation)?;
        if let Some(found) = generation.item_title(row)? {
            title.put(found.as_ptr().cast());
            length.put(found.len());
        }
        Ok(())
    })
}

/// The vector of an item row, in place: *length finite numbers that live as long as the generation object.
/// DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_item_vector(
    generation: *const docent_generation,
    row: u32,
    vector: *mut *const f32,
    length: *mut usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_generation_item_vector", error, || {
        let (vector, length) = (Output::begin(vector, std::ptr::null()), Output::begin(length, 0));
        let (vector, length) = (vector.needed("vector")?, length.needed("length")?);
        let generation = share(generation)?;
        let found = generation.item_vector(row)?;
        vector.put(found.as_ptr());
        length.put(found.len());
        Ok(())
    })
}

/// Frees a generation. Texts and vectors that it lent out end here. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_generation_free(generation: *mut docent_generation) -> docent_status {
    run("docent_generation_free", std::ptr::null_mut(), || release(generation))
}
