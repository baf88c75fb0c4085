//! What is a published model?
//!
//! A [`Generation`] is one publication, opened and checked: its sections in place, the columns of its fields, ids and codes, and the
//! items that were added to it and removed from it while it was served. It answers no request: that is `serve`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod coded;
mod codes;
mod columns;
mod histories;
mod ids;
mod overlay;
mod parts;
mod popularity;
mod published;
mod ranker;
mod support;

pub(crate) use coded::Coded;
pub(crate) use columns::{Column, kind_name};
pub(crate) use histories::StoredEvents;
pub(crate) use overlay::{AddedItem, FieldCode, Overlay};
pub use published::Generation;
pub(crate) use ranker::PublishedRanker;
pub(crate) use support::Support;
