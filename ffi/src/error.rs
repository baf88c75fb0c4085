//! What failed, on what, and the remedy, for those who want to know more than the status.

use crate::boundary::guard;
use crate::handle::{Object, give, release, share};
use crate::output::Output;
use crate::status::{DOCENT_OK, docent_status};
use docent_api::{Error, ErrorKind, Result};
use std::ffi::{CString, c_char};

/// What failed, on what, and the remedy. Set by a call that fails where the caller asks for it; freed by the caller.
pub struct docent_error {
    _opaque: [u8; 0],
}

impl Object for docent_error {
    type Value = Failure;
    const TAG: u32 = 0xd0ce_0001;
    const NAME: &'static str = "error";
}

/// What an error object holds.
pub(crate) struct Failure {
    kind: ErrorKind,
    message: CString,
}

impl docent_error {
    /// A new error object for the caller.
    pub(crate) fn new(error: Error) -> *mut Self {
        let message: Vec<u8> = error.message().bytes().filter(|byte| *byte != 0).collect();
        let failure = Failure { kind: error.kind(), message: CString::new(message).unwrap_or_default() };
        let mut object = std::ptr::null_mut();
        give(failure, &Output::begin(&mut object, std::ptr::null_mut()));
        object
    }
}

/// Runs the body of the exported function `name`: hands a failure, a panic too, to `error` where the caller wants it, and returns the
/// status.
///
/// `error` is NULL or valid for a write.
pub(crate) fn run(
    name: &'static str,
    error: *mut *mut docent_error,
    body: impl FnOnce() -> Result<()>,
) -> docent_status {
    let error = Output::begin(error, std::ptr::null_mut());
    let Err(failure) = guard(name, body) else { return DOCENT_OK };
    let status = failure.kind().code();
    if error.is_wanted() {
        error.put(docent_error::new(failure));
    }
    status
}

/// The status of an error, the same that the failed call returned; DOCENT_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_error_status(error: *const docent_error) -> docent_status {
    let mut found = DOCENT_OK;
    let status = run("docent_error_status", std::ptr::null_mut(), || {
        if !error.is_null() {
            found = share(error)?.kind.code();
        }
        Ok(())
    });
    if status == DOCENT_OK { found } else { status }
}

/// The message of an error: what failed, on what, and the remedy, in UTF-8. *text lives as long as the error; it is also
/// NUL-terminated. `length` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_error_message(
    error: *const docent_error,
    text: *mut *const c_char,
    length: *mut usize,
) -> docent_status {
    run("docent_error_message", std::ptr::null_mut(), || {
        let (text, length) = (Output::begin(text, std::ptr::null()), Output::begin(length, 0));
        let text = text.needed("text")?;
        let failure = share(error)?;
        text.put(failure.message.as_ptr());
        length.put(failure.message.as_bytes().len());
        Ok(())
    })
}

/// Frees an error. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_error_free(error: *mut docent_error) -> docent_status {
    run("docent_error_free", std::ptr::null_mut(), || release(error))
}
