//! How does the ranker that is adapted to each entity come to be?
//!
//! [`Impressions`] are labelled outcomes, [`Plan`] cuts every entity's by time into tasks and takes the foundation model's vectors
//! of them, [`RankerTrainer`] trains on the tasks, with the foundation model as it is or along with it, [`Predictor`] answers them. What it must beat is trained on the same plan:
//! [`Biases`], [`FactorizationMachine`], [`Closeness`], and the ranker itself without inner steps, with or without vectors of entities.

mod bias;
mod closeness;
mod factorization;
mod foundation;
mod groups;
mod impressions;
mod pairs;
mod people;
mod plan;
mod predict;
mod search;
mod second;
mod settle;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kinds;
#[cfg(test)]
mod tests_surface;
mod trainer;
pub use bias::Biases;
pub use closeness::Closeness;
pub use factorization::{FactorizationMachine, FactorizationOptions};
pub use impressions::{Impressions, Surface};
pub use plan::{FoundationModel, Plan, Task, TaskSet};
pub use predict::Predictor;
pub use search::{RateSearch, search_inner_rate, search_inner_start};
pub(crate) use settle::adapt_items;
pub use trainer::{RankerTrainer, TrainedRanker};
