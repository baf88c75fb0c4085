//! What is kept of an entity while an engine serves: what it did, and the meta embedding that was adapted to it.
//!
//! Requests read both: the history of the publication goes on with the events of the state, and the ranker answers under its embedding
//! ([`read_state`]). An adaptation always starts from the meta block as it was learned, with the outcomes that the generation holds
//! and those of the state, the latest of both; so it can be made again at any time, and is where another model was published.

mod adapt;
mod observe;
mod options;
mod state;

pub(super) use observe::Personal;
pub use observe::{Observed, Outcome};
pub use options::{AdaptMethod, AdaptPolicy, PersonalOptions};
pub(super) use state::read_state;
