//! A store, open for requests.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::generation::docent_generation;
use crate::handle::{Object, give, release, share, share_optional};
use crate::input::bytes;
use crate::options::docent_options;
use crate::output::Output;
use crate::status::docent_status;
use docent_api::Result;
use docent_api::serve::{Engine, EngineOptions};
use docent_api::store::GenerationId;
use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::Arc;

/// A store, open for requests: it serves one generation and goes over to another one when asked to. Any number of
/// threads may use it at once. It starts no threads.
pub struct docent_engine {
    _opaque: [u8; 0],
}

impl Object for docent_engine {
    type Value = Arc<Engine>;
    const TAG: u32 = 0xd0ce_0003;
    const NAME: &'static str = "engine";
}

/// Opens the store in the directory `store`, a path of `store_length` bytes. `options` may be NULL: the defaults.
///
/// DOCENT_ERR_NOT_FOUND where there is no store, no generation as yet, or not the one asked for; DOCENT_ERR_NOT_DOCENT,
/// DOCENT_ERR_CORRUPT, DOCENT_ERR_UPGRADE_REQUIRED, DOCENT_ERR_IO where it cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_engine_open(
    store: *const c_char,
    store_length: usize,
    options: *const docent_options,
    engine: *mut *mut docent_engine,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_engine_open", error, || {
        let engine = Output::begin(engine, std::ptr::null_mut()).needed("engine")?;
        // SAFETY: the caller passes a path and its length.
        let store = path(unsafe { bytes(store, store_length, "the path of the store")? })?;
        let options = share_optional(options)?.map_or_else(EngineOptions::default, |options| options.clone());
        give(Arc::new(Engine::open(store, &options)?), &engine);
        Ok(())
    })
}

/// Goes over to the store's current generation: newer or, after a rollback, older. Requests that are running finish on
/// the generation that they began with. Nothing happens where it is served already. `generation` may be NULL; it
/// becomes the number of the generation that is served now.
///
/// Fails like docent_engine_open; the generation served so far stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_engine_reload(
    engine: *const docent_engine,
    generation: *mut u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_engine_reload", error, || {
        let generation = Output::begin(generation, 0);
        let served = share(engine)?.reload()?;
        generation.put(served.0);
        Ok(())
    })
}

/// Goes over to the generation `number` of the store, whichever is current.
///
/// Fails like docent_engine_open; the generation served so far stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_engine_switch_to(
    engine: *const docent_engine,
    number: u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_engine_switch_to", error, || {
        share(engine)?.switch_to(GenerationId(number))?;
        Ok(())
    })
}

/// Takes hold of the generation that is served now: to look at its items, and to name rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_engine_generation(
    engine: *const docent_engine,
    generation: *mut *mut docent_generation,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_engine_generation", error, || {
        let generation = Output::begin(generation, std::ptr::null_mut()).needed("generation")?;
        give(share(engine)?.current(), &generation);
        Ok(())
    })
}

/// Frees an engine. Sessions and generations that came from it go on working. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_engine_free(engine: *mut docent_engine) -> docent_status {
    run("docent_engine_free", std::ptr::null_mut(), || release(engine))
}

#[cfg(unix)]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    match bytes.is_empty() || bytes.contains(&0) {
        true => Err(fail!(InvalidArgument, "the path of the store is empty or has a NUL in it; pass the directory")),
        false => Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes))),
    }
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(PathBuf::from(text)),
        _ => {
            Err(fail!(InvalidArgument, "the path of the store is empty, has a NUL in it, or is not UTF-8; correct it"))
        }
    }
}
