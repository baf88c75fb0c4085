//! From a dataset to a published, adapted and measured model: each in one call.
//!
//! [`train`] publishes a new generation of a store, [`adapt`] one with everybody's meta embeddings, [`evaluate`] measures
//! what is published, [`tune`] searches for options. Each takes its data from memory or from files ([`Source`]), tells what it
//! does to a [`ProgressSink`](crate::progress::ProgressSink), stops where a [`Cancel`](crate::progress::Cancel) asks, and uses
//! the threads that it was granted and no others.
//!
//! ```no_run
//! use docent::pipeline::{self, EvaluateJob, TrainJob};
//! use docent::progress::{Cancel, Silent};
//!
//! # fn f(data: &docent::data::Dataset) -> docent::Result<()> {
//! let trained = pipeline::train(data, "shop.store", &TrainJob::default(), &mut Silent, &Cancel::new())?;
//! println!("generation {:?}: {:?}", trained.generation, trained.validation);
//! let judged = pipeline::evaluate(data, &["shop.store"], &EvaluateJob::default(), &mut Silent, &Cancel::new())?;
//! println!("{:?}", judged.lists().map(|evaluation| evaluation.table()));
//! # Ok(()) }
//! ```

mod adapt;
#[cfg(feature = "files")]
mod asked;
mod evaluate;
mod ranker;
#[cfg(feature = "files")]
mod report;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod train;
mod tune;
mod workplace;

pub use adapt::{AdaptJob, AdaptReport, adapt};
pub use evaluate::{EvaluateJob, EvaluateReport, Judgement, Measure, Run, evaluate};
pub use ranker::RankerReport;
pub use settings::Settings;
#[cfg(feature = "files")]
pub use source::Files;
pub use source::{Declared, HELD_OUT, Source};
pub use train::{TrainJob, TrainReport, train};
pub use tune::{TuneJob, TuneReport, tune};
