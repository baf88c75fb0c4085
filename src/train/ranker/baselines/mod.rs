//! What the ranker must beat, trained on the same plan.

mod bias;
mod closeness;
mod factorization;
pub use bias::Biases;
pub use closeness::Closeness;
pub use factorization::{FactorizationMachine, FactorizationOptions};
