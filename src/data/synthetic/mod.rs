//! A synthetic world: seeded entities who meet works in a way that is known exactly, so that the best possible
//! recommender is known as well.
//!
//! Planted are drifting tastes, series whose next part is called for long after the part before, categories that
//! households prefer on each weekday, moods that carry over to the next work, launches and their freshness, short works
//! on the phone, a long tail of popularity, trailers that say nothing, and impressions with clicks that follow personal
//! quirks. Every event's item is drawn from the distribution of `choice.rs`, which [`World::probabilities`] recomputes
//! for any event: no method can rank better on average than by these numbers, since they are conditioned on the
//! entity's true taste at that moment, which a recommender must infer. They bound what can be reached from above.

mod catalogue;
mod choice;
mod entities;
mod names;
mod options;
mod world;
#[cfg(feature = "files")]
mod write;
pub use entities::Impression;
pub use options::{SyntheticOptions, Turn};
pub use world::World;
