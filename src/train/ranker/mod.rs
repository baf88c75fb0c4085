//! How does the ranker that is adapted to each entity come to be?
//!
//! [`Impressions`] are labelled outcomes, [`Plan`] cuts every entity's by time into tasks and takes the foundation model's vectors
//! of them, [`RankerTrainer`] trains on the tasks, with the foundation model as it is or along with it (`joint`), [`Predictor`] answers
//! them. A kind of entity is a file in `kinds`. What the ranker must beat is trained on the same plan: [`Biases`],
//! [`FactorizationMachine`], [`Closeness`], and the ranker itself without inner steps, with or without vectors of entities.

mod baselines;
mod calibration;
mod embeddings;
mod impressions;
mod joint;
mod kinds;
mod order;
mod plan;
mod predict;
mod search;
mod step;
mod tasks;
#[cfg(test)]
mod tests;
mod trainer;
mod worth;
pub use baselines::{Biases, Closeness, FactorizationMachine, FactorizationOptions};
pub(crate) use embeddings::adapt_items;
pub use impressions::{Impressions, Surface};
pub use order::{LEAST_QUESTIONS, WEIGHTS, choose_order};
pub use plan::{FoundationModel, Plan, Task, TaskSet};
pub use predict::Predictor;
pub use search::{RateSearch, search_inner_rate, search_inner_start};
pub use trainer::{RankerTrainer, TrainedRanker};
pub(crate) use worth::untold;
pub use worth::{LEAST_ENTITIES, LEAST_IN_TRAINING, LEAST_IN_VALIDATION, Worth, judge};
