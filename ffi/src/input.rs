//! What callers pass in: texts, numbers and choices, checked before they are used.

use crate::boundary::fail;
use docent_api::Result;
use std::ffi::c_char;

/// The most elements of an array that is passed.
pub const DOCENT_MAX_COUNT: usize = 16_777_216;
/// The most bytes of a text that is passed.
pub const DOCENT_MAX_TEXT: usize = 1_048_576;

pub(crate) use DOCENT_MAX_COUNT as MOST;

/// The bytes of a text called `name`.
///
/// # Safety
/// `start` is NULL or valid for reads of `length` bytes for as long as `'a`.
pub(crate) unsafe fn bytes<'a>(start: *const c_char, length: usize, name: &str) -> Result<&'a [u8]> {
    if start.is_null() {
        return Err(fail!(InvalidArgument, "{name} is NULL; pass a text and its length in bytes"));
    }
    if length > DOCENT_MAX_TEXT {
        return Err(fail!(InvalidArgument, "{name} has {length} bytes; the most are {DOCENT_MAX_TEXT}"));
    }
    // SAFETY: not NULL, short, and valid according to the caller; bytes have no alignment.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// The text called `name`.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(start: *const c_char, length: usize, name: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { bytes(start, length, name)? };
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        fail!(InvalidArgument, "{name} is not UTF-8 at byte {at}; convert it, and pass its length in bytes")
    })
}

/// The texts called `name`: `count` pointers and `count` lengths.
///
/// # Safety
/// Both arrays are NULL, misaligned, or valid for reads of `count` elements, and each text as in [`bytes`].
pub(crate) unsafe fn texts<'a>(
    starts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    name: &str,
    mut each: impl FnMut(&'a str) -> Result<()>,
) -> Result<()> {
    check_count(count, name)?;
    if count == 0 {
        return Ok(());
    }
    if starts.is_null() || lengths.is_null() {
        return Err(fail!(InvalidArgument, "{name} or their lengths are NULL; pass {count} of each"));
    }
    if !starts.is_aligned() || !lengths.is_aligned() {
        return Err(fail!(InvalidArgument, "{name} or their lengths are misaligned; pass arrays of their types"));
    }
    for at in 0..count {
        // SAFETY: not NULL, aligned, and `count` elements long according to the caller.
        let (start, length) = unsafe { (*starts.add(at), *lengths.add(at)) };
        // SAFETY: as the caller promises for each text.
        each(unsafe { text(start, length, name) }?)?;
    }
    Ok(())
}

/// Refuses more elements than any call needs.
pub(crate) fn check_count(count: usize, name: &str) -> Result<()> {
    match count <= MOST {
        true => Ok(()),
        false => Err(fail!(InvalidArgument, "{name} is {count} long; the most is {MOST}")),
    }
}

/// A choice called `name` out of `values`, which are numbered from 0.
pub(crate) fn choice<T: Copy, const N: usize>(value: u32, values: [T; N], name: &str) -> Result<T> {
    values
        .get(value as usize)
        .copied()
        .ok_or_else(|| fail!(InvalidArgument, "{name} is {value}; choose 0 to {}", N.saturating_sub(1)))
}

/// A yes or no called `name`.
pub(crate) fn flag(value: u32, name: &str) -> Result<bool> {
    choice(value, [false, true], name)
}
