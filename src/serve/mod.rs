//! How is a request answered?
//!
//! An [`Engine`] serves the current generation of a store: lists for an entity or a history, scores, likeness,
//! embeddings. A [`Query`] says who asks, a [`Filter`] what may be in the list; a [`Generation`] is one publication, held
//! for as long as somebody answers from it.
//!
//! A request passes the stages in the order of their folders (`answer`): `request` (who asks, in rows and codes), `person` (what was
//! observed of them), `retrieve` (which items come into question), `rank` (in which order).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod answer;
mod current;
mod engine;
mod exhaustive;
mod explain;
mod list;
mod live;
mod person;
mod rank;
mod request;
mod retrieve;
mod session;
mod steps;
mod without_states;

pub use crate::generation::Generation;
pub use engine::{Engine, EngineOptions};
pub use exhaustive::score_all;
pub use explain::{Because, Explanation, ItemParts};
pub use list::{Recommendations, Recommended, Source, Written};
pub use live::{LiveItem, NewItem};
pub use person::{AdaptMethod, AdaptPolicy, Observed, Outcome, PersonalOptions};
pub use rank::MetaEmbedding;
pub(crate) use rank::{EntityAdapter, Place};
pub use request::{AsOf, Condition, Filter, MAX_EVENTS, Query, Ranking, UnknownItems, Who};
pub use retrieve::{Sampler, Sampling};
pub use session::Session;
pub use steps::MAX_STEPS;
pub use without_states::WithoutStates;
