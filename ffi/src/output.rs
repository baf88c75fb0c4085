//! Where answers go: the caller's memory, checked and zeroed before anything else happens.

use crate::boundary::fail;
use crate::input::{MOST, check_count};
use docent_api::Result;

/// One value in the caller's memory, zero from the beginning of the call until it succeeds.
pub(crate) struct Output<T>(*mut T);

impl<T> Output<T> {
    /// Zeroes the output, unless it is NULL or misaligned.
    ///
    /// `place` is NULL, misaligned, or valid for a write.
    pub(crate) fn begin(place: *mut T, zero: T) -> Self {
        let output = Self(place);
        output.put(zero);
        output
    }

    /// Writes the output; where the caller does not want it, nothing happens.
    pub(crate) fn put(&self, value: T) {
        if self.is_wanted() {
            // SAFETY: the caller passes a place that is valid for a write; what was there needs no drop, since outputs
            // are numbers and pointers.
            unsafe { self.0.write(value) };
        }
    }

    /// Whether the caller says where to write it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_null() && self.0.is_aligned()
    }

    /// Refuses a call that does not say where this output goes.
    pub(crate) fn needed(self, name: &str) -> Result<Self> {
        match (self.0.is_null(), self.0.is_aligned()) {
            (true, _) => Err(fail!(InvalidArgument, "{name} is NULL; say where to write it")),
            (_, false) => Err(fail!(InvalidArgument, "{name} is misaligned; pass the address of a variable")),
            _ => Ok(self),
        }
    }
}

/// The caller's array `name` of `count` numbers, to be written.
///
/// # Safety
/// `place` is NULL, misaligned, or valid for reads and writes of `count` numbers for as long as `'a`, and nothing else
/// uses them meanwhile.
pub(crate) unsafe fn array<'a, T: Copy>(place: *mut T, count: usize, name: &str) -> Result<&'a mut [T]> {
    check_count(count, name)?;
    if place.is_null() {
        return Err(fail!(InvalidArgument, "{name} is NULL; pass an array of {count}"));
    }
    if !place.is_aligned() {
        return Err(fail!(InvalidArgument, "{name} is misaligned; pass an array of its type"));
    }
    // SAFETY: not NULL, aligned, below `MOST` elements, and valid according to the caller.
    Ok(unsafe { std::slice::from_raw_parts_mut(place, count) })
}

/// Refuses two arrays that share memory.
pub(crate) fn check_apart<A, B>(a: *const A, b: *const B, count: usize, names: &str) -> Result<()> {
    let (a_start, b_start) = (a.addr(), b.addr());
    let end = |start: usize, size: usize| start.saturating_add(size.saturating_mul(count.min(MOST)));
    match end(a_start, size_of::<A>()) <= b_start || end(b_start, size_of::<B>()) <= a_start {
        true => Ok(()),
        false => Err(fail!(InvalidArgument, "{names} overlap; pass two arrays")),
    }
}
