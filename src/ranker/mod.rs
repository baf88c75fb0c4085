//! The ranker that is adapted to each entity (LiMAML; docs/ranker.md).
//!
//! ```text
//! meta block    e = g(x_meta; theta_meta)                 a small multilayer perceptron over what is known of the entity
//! global block  t = trunk([q_i ; v_i ; h ; h * v_i ; numbers])     rows that have not seen e
//!               logit = gated(t, e)                        one per task head: `kernels/heads`
//! ```
//!
//! `h` is the foundation model's user vector, `v_i` its item vector (both held, unless that model learns along; in the meta block's
//! input `h` always is), `q_i` an item vector of the ranker's own. The trunk has a hidden layer and a wide path beside it (deep and
//! cross); its rows are made once, and every inner step reads them again (`kernels/inner`). [`RankerShape`] names weights and widths,
//! [`Inputs`] makes the vectors, [`Ranker`] answers, `batch` trains.

mod adapter;
pub(crate) mod batch;
#[cfg(all(test, feature = "candle"))]
mod composed;
mod drift;
mod inputs;
mod order;
mod shape;
mod surface;
#[cfg(test)]
mod tests;
mod trunk;
pub(crate) use adapter::AdapterBuffers;
pub use adapter::{Adapted, Adapter, Ranker, RankerView};
pub use drift::DriftDetection;
pub use inputs::{Evidence, Inputs};
pub(crate) use inputs::{unit_backward, unseen};
pub(crate) use order::{RETRIEVED, list_score};
pub use shape::RankerShape;
pub(crate) use surface::{OnSurfaces, SurfaceBlock};
