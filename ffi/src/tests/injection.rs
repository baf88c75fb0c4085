//! A panic at a chosen place of the next call.

use std::cell::Cell;

/// Where the next call of this thread panics.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// Before it looks at its arguments.
    Entry,
    /// While it has an object to itself.
    Held,
}

thread_local! {
    static NEXT: Cell<Option<(Place, &'static str)>> = const { Cell::new(None) };
    static NAME: Cell<&'static str> = const { Cell::new("") };
}

/// Makes the next call of `name` panic at `place`.
pub(crate) fn arm(name: &'static str, place: Place) {
    NEXT.set(Some((place, name)));
}

/// Whether the armed panic has not happened; disarms it.
pub(crate) fn disarm() -> bool {
    NEXT.take().is_some()
}

pub(crate) fn at_entry(name: &'static str) {
    NAME.set(name);
    fire(Place::Entry);
}

pub(crate) fn while_held() {
    fire(Place::Held);
}

fn fire(place: Place) {
    if NEXT.get().is_some_and(|armed| armed == (place, NAME.get())) {
        NEXT.set(None);
        panic!("injected into {}", NAME.get());
    }
}
