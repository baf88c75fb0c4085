//! Version 2 of what has one: states of entities. Frozen, as version 1 is.

mod live;
#[cfg(test)]
mod tests;

pub(crate) use live::{ArchivedOutcome, ArchivedState, State};

/// The version that states of entities carry.
pub(crate) const VERSION: u32 = 2;
