//! The one place where control crosses between the host and the engine: panics stop here.

use docent_api::{Error, ErrorKind, Result};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of this thread are inside the boundary.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic of this thread happened, as "file:line".
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Shorthand for a failure that the boundary itself finds: `fail!(InvalidArgument, "k is {k}; ask for 1")`.
macro_rules! fail {
    ($kind:ident, $($arg:tt)*) => {
        docent_api::Error::new(docent_api::ErrorKind::$kind, format!($($arg)*))
    };
}
pub(crate) use fail;

/// Runs the body of the exported function `name`: a panic becomes a failure. Nothing unwinds out of it and nothing is printed.
pub(crate) fn guard(name: &'static str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    keep_panics_quiet();
    let entered = Entered::new();
    let answer = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        crate::tests::injection::at_entry(name);
        body()
    }));
    drop(entered);
    answer.unwrap_or_else(|payload| Err(panicked(name, payload)))
}

fn panicked(name: &str, payload: Box<dyn std::any::Any + Send>) -> Error {
    let what = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    };
    // A payload of an unknown type might panic when it is dropped.
    std::mem::forget(payload);
    let place = PLACE.try_with(|place| place.take()).unwrap_or_default();
    fail!(Panic, "{name} panicked at {place}: {what}; free the objects that this call was to change, and report it")
}

/// One call inside the boundary.
struct Entered;

impl Entered {
    fn new() -> Self {
        // At the end of a thread its variables may be gone; its panics are printed then.
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Panics inside a call are told to its caller as an error and not printed. Other panics of this copy of the Rust
/// runtime, which a C host does not share, are left to the hook that was there.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return others(panic);
            }
            let place = panic.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
            let _ = PLACE.try_with(|slot| slot.replace(place));
        }));
    });
}

/// The kind of failure that a status stands for, where the boundary has to make one.
pub(crate) fn busy(what: &str) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("this {what} is used by another call; use one per thread, or wait for that call"),
    )
}
