//! How an engine opens a store.

use crate::error::{docent_error, run};
use crate::handle::{Object, exclude, give, release};
use crate::input::{choice, flag};
use crate::output::Output;
use crate::status::docent_status;
use docent_api::serve::EngineOptions;
use docent_api::store::{GenerationId, LoadMode, Verify};

/// How an engine opens a store. New options are the defaults.
pub struct docent_options {
    _opaque: [u8; 0],
}

impl Object for docent_options {
    type Value = EngineOptions;
    const TAG: u32 = 0xd0ce_0002;
    const NAME: &'static str = "options object";
}

/// How much is checked when a generation is opened: DOCENT_VERIFY_HEADER or DOCENT_VERIFY_FULL.
pub type docent_verify = u32;
/// The manifest, and of every segment the length and the header; no table is read. The default.
pub const DOCENT_VERIFY_HEADER: docent_verify = 0;
/// Every byte.
pub const DOCENT_VERIFY_FULL: docent_verify = 1;

/// How tables get into memory: DOCENT_LOAD_MAP or DOCENT_LOAD_COPY.
pub type docent_load_mode = u32;
/// Mapped: shared between processes, read from disk where they are touched. The default.
pub const DOCENT_LOAD_MAP: docent_load_mode = 0;
/// Read into private memory: for network file systems, and where files may change under the map.
pub const DOCENT_LOAD_COPY: docent_load_mode = 1;

/// New options: the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_new(
    options: *mut *mut docent_options,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_options_new", error, || {
        let options = Output::begin(options, std::ptr::null_mut()).needed("options")?;
        give(EngineOptions::default(), &options);
        Ok(())
    })
}

/// Sets how much is checked when a generation is opened, now and at every reload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_set_verify(
    options: *mut docent_options,
    verify: docent_verify,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_options_set_verify", error, || {
        let mut options = exclude(options)?;
        options.verify = choice(verify, [Verify::Header, Verify::Full], "verify")?;
        Ok(())
    })
}

/// Sets how tables get into memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_set_load_mode(
    options: *mut docent_options,
    mode: docent_load_mode,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_options_set_load_mode", error, || {
        let mut options = exclude(options)?;
        options.load = choice(mode, [LoadMode::Map, LoadMode::Copy], "the load mode")?;
        Ok(())
    })
}

/// Sets the generation that is opened first. 0 is the store's current one, the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_set_generation(
    options: *mut docent_options,
    generation: u64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_options_set_generation", error, || {
        let mut options = exclude(options)?;
        options.generation = (generation != 0).then_some(GenerationId(generation));
        Ok(())
    })
}

/// Sets whether every table is read in when a generation is opened (1), so that no request waits for the disk, or not
/// (0, the default).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_set_prefault(
    options: *mut docent_options,
    prefault: u32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_options_set_prefault", error, || {
        let mut options = exclude(options)?;
        options.prefault = flag(prefault, "prefault")?;
        Ok(())
    })
}

/// Frees options. Engines opened with them are not affected. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_options_free(options: *mut docent_options) -> docent_status {
    run("docent_options_free", std::ptr::null_mut(), || release(options))
}
