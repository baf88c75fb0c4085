//! How is a request answered?
//!
//! An [`Engine`] serves the current generation of a store: lists for an entity or a history, scores, likeness,
//! embeddings. A [`Query`] says who asks, a [`Filter`] what may be in the list; a [`Generation`] is one publication, held
//! for as long as somebody answers from it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod batch;
mod coded;
mod codes;
mod decode;
mod engine;
mod exhaustive;
mod explain;
mod filter;
mod generation;
mod ids;
mod live;
mod observe;
mod overlay;
mod parts;
mod profile;
mod query;
mod ranker;
mod resolve;
mod retrieve;
mod session;
mod surface;

pub(crate) use coded::Coded;
pub use decode::{MAX_STEPS, Sampler, Sampling};
pub use engine::{Engine, EngineOptions};
pub use explain::{Because, Explanation, ItemParts};
pub use filter::{Condition, Filter};
pub use generation::Generation;
pub use live::{LiveItem, NewItem};
pub use observe::{AdaptMethod, AdaptPolicy, Observed, Outcome, PersonalOptions};
pub use query::{EventInput, FieldValue, MAX_EVENTS, Query, Ranking, UnknownItems, Who};
pub use ranker::MetaEmbedding;
pub(crate) use ranker::Support;
pub use retrieve::{Recommendations, Recommended, Source, Written};
pub use session::Session;
