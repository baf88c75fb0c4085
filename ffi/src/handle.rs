//! What an opaque handle points to: a tagged, counted cell that finds misuse out before it does harm.

use crate::boundary::{busy, fail};
use crate::output::Output;
use docent_api::Result;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A kind of object of the interface. The implementing type is the opaque C type.
pub(crate) trait Object: Sized {
    /// What the object holds.
    type Value: Send + Sync;
    /// Tells objects of different kinds apart; each kind has its own.
    const TAG: u32;
    /// What the object is called in messages.
    const NAME: &'static str;
}

/// The state of `users` while one call has the object to itself.
const EXCLUSIVE: u32 = u32::MAX;
/// The tag of an object that was freed.
const FREED: u32 = 0;

/// What every handle points to. The fields before the value are the same for all kinds.
#[repr(C)]
struct Handle<T> {
    tag: AtomicU32,
    process: u32,
    /// Calls that use the object now, or `EXCLUSIVE`.
    users: AtomicU32,
    poisoned: AtomicBool,
    value: UnsafeCell<T>,
}

/// An object lent to a call that shares it with others.
pub(crate) struct Shared<O: Object>(*const Handle<O::Value>);

/// An object lent to one call alone. A panic meanwhile poisons it.
pub(crate) struct Exclusive<O: Object>(*mut Handle<O::Value>);

/// Hands a new object to the caller.
pub(crate) fn give<O: Object>(value: O::Value, out: &Output<*mut O>) {
    let handle = Handle {
        tag: AtomicU32::new(O::TAG),
        process: std::process::id(),
        users: AtomicU32::new(0),
        poisoned: AtomicBool::new(false),
        value: UnsafeCell::new(value),
    };
    out.put(Box::into_raw(Box::new(handle)).cast());
}

/// Checks that `object` is a living object of the right kind, made in this process.
///
/// `object` is NULL or points to an object that this library handed out and that was not freed.
fn check<O: Object>(object: *const O) -> Result<*const Handle<O::Value>> {
    let handle = object.cast::<Handle<O::Value>>();
    if handle.is_null() {
        return Err(fail!(InvalidArgument, "the {} is NULL; pass one", O::NAME));
    }
    if !handle.is_aligned() {
        return Err(fail!(
            InvalidArgument,
            "the pointer to the {} is misaligned; pass one that was handed out",
            O::NAME
        ));
    }
    // SAFETY: the caller passes an object of this library; the fields read lie at the same places in every kind, and
    // are read through a raw pointer without a reference to the value.
    let (tag, process) = unsafe { ((*handle).tag.load(Ordering::Relaxed), (*handle).process) };
    if tag != O::TAG {
        return Err(fail!(InvalidArgument, "this is no {} (it is of another kind, or was freed); pass one", O::NAME));
    }
    if process != std::process::id() {
        return Err(fail!(Forked, "this {} was made in the parent of a fork; make one in this process", O::NAME));
    }
    Ok(handle)
}

fn poisoned<O: Object>() -> docent_api::Error {
    fail!(Panic, "this {} was in a call that panicked; free it and make another", O::NAME)
}

/// Borrows an object together with other calls.
pub(crate) fn share<O: Object>(object: *const O) -> Result<Shared<O>> {
    let handle = check(object)?;
    // SAFETY: as checked.
    let (users, is_poisoned) = unsafe { (&(*handle).users, &(*handle).poisoned) };
    let enter = |n: u32| (n < EXCLUSIVE - 1).then(|| n + 1);
    users.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).map_err(|_| busy(O::NAME))?;
    let shared = Shared(handle);
    match is_poisoned.load(Ordering::Relaxed) {
        true => Err(poisoned::<O>()),
        false => Ok(shared),
    }
}

/// Borrows an object that may be left out.
pub(crate) fn share_optional<O: Object>(object: *const O) -> Result<Option<Shared<O>>> {
    match object.is_null() {
        true => Ok(None),
        false => share(object).map(Some),
    }
}

/// Borrows an object alone.
pub(crate) fn exclude<O: Object>(object: *mut O) -> Result<Exclusive<O>> {
    let exclusive = seize(object)?;
    // SAFETY: as checked in `seize`.
    if unsafe { (*exclusive.0).poisoned.load(Ordering::Relaxed) } {
        return Err(poisoned::<O>());
    }
    #[cfg(test)]
    crate::tests::injection::while_held();
    Ok(exclusive)
}

fn seize<O: Object>(object: *mut O) -> Result<Exclusive<O>> {
    let handle = check(object)?.cast_mut();
    // SAFETY: as checked.
    let users = unsafe { &(*handle).users };
    match users.compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Ok(Exclusive(handle)),
        Err(_) => Err(busy(O::NAME)),
    }
}

/// Frees an object; NULL is nothing to free. A poisoned object is freed like any other.
pub(crate) fn release<O: Object>(object: *mut O) -> Result<()> {
    if object.is_null() {
        return Ok(());
    }
    let exclusive = seize(object)?;
    let handle = exclusive.0;
    std::mem::forget(exclusive);
    // SAFETY: the handle came out of a box in `give`; nobody else uses it, since `users` was 0, and the caller gives it
    // up with this call.
    let owned = unsafe {
        (*handle).tag.store(FREED, Ordering::Relaxed);
        Box::from_raw(handle)
    };
    drop(owned);
    Ok(())
}

impl<O: Object> std::ops::Deref for Shared<O> {
    type Target = O::Value;
    fn deref(&self) -> &O::Value {
        // SAFETY: `users` counts this borrow, so there is no exclusive one and the object is not freed.
        unsafe { &*(*self.0).value.get() }
    }
}

impl<O: Object> Drop for Shared<O> {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { (*self.0).users.fetch_sub(1, Ordering::Release) };
    }
}

impl<O: Object> std::ops::Deref for Exclusive<O> {
    type Target = O::Value;
    fn deref(&self) -> &O::Value {
        // SAFETY: `users` is EXCLUSIVE: this is the only borrow.
        unsafe { &*(*self.0).value.get() }
    }
}

impl<O: Object> std::ops::DerefMut for Exclusive<O> {
    fn deref_mut(&mut self) -> &mut O::Value {
        // SAFETY: as above.
        unsafe { &mut *(*self.0).value.get() }
    }
}

impl<O: Object> Drop for Exclusive<O> {
    fn drop(&mut self) {
        // SAFETY: as above; the object lives until `users` is 0 again.
        unsafe {
            if std::thread::panicking() {
                (*self.0).poisoned.store(true, Ordering::Relaxed);
            }
            (*self.0).users.store(0, Ordering::Release);
        }
    }
}
