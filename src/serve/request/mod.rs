//! What is asked: the query, its history in rows and codes, and the rows that its filter lets pass.

mod filter;
mod query;
mod resolve;

pub use filter::{Condition, Filter};
pub(super) use filter::{Conditions, Mask};
pub use query::{AsOf, MAX_EVENTS, Query, Ranking, UnknownItems, Who};
pub(super) use resolve::{Resolved, check_event};
