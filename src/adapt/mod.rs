//! Who gets which meta embedding?
//!
//! Batch adaptation: every entity of a generation with labelled outcomes, in parallel, into a table of the next generation
//! (docs/ranker.md). The other sections are shared with the generation before. What happens after that is adapted while serving
//! ([`crate::serve::Engine::observe`]).
//!
//! A ranker with a meta block of items also has their embeddings. They are adapted anew too, where the dataset has the items and
//! fields of the generation, and carried over where it has not; persons are adapted beside those of the generation before, as
//! in a step of training.
//!
//! A ranker that tells surfaces apart has a part of the entity for each surface of its outcomes, adapted beside the entity's own.
//!
//! ```no_run
//! use docent::adapt::BatchAdapter;
//! use docent::data::Dataset;
//! use docent::progress::{Cancel, Silent};
//! use docent::serve::Engine;
//! use docent::store::RunRecord;
//! use docent::train::ranker::Impressions;
//! fn refresh(engine: &Engine, data: &Dataset) -> docent::Result<()> {
//!     let outcomes = Impressions::from_labels(data)?;
//!     let adapter = BatchAdapter::new(engine.current(), data, &outcomes)?.threads(2);
//!     if let Some(adapted) = adapter.run(&mut Silent, &Cancel::new())? {
//!         adapter.publish(&mut engine.store().publisher()?, &adapted, &RunRecord::default())?;
//!         engine.reload()?;
//!     }
//!     Ok(())
//! }
//! ```

mod adaptation;
mod batch;
mod items;
mod partial;
pub use batch::{BatchAdapted, BatchAdapter};
