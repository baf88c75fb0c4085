//! The item tower: one vector for an item out of its ID embedding and of what is known about it, mixed by a learned gate
//! on the item's age and on how much was seen of it (docs/model.md).
//!
//! `v = w_id id + w_meta P m`, with `m` the concatenation over metadata fields of the mean embedding of a field's values
//! (dense vectors enter as they are), and `log(w_meta / w_id) = prior + MLP([phi(age), phi(evidence), bare])`, with a
//! prior that falls with age and evidence. The MLP starts at 0; only a learned gate moves it, a fixed one adds a constant. Where scores
//! are cosines, both parts have length 1 before they are mixed, so that the weights say what each part contributes. An item that
//! nobody has touched has the learned vector of unknown items in place of its ID embedding.
//!
//! The same pass makes the item vectors of a training step, the table that is published, and the vector of an item that
//! is added while serving.

mod gate;
mod metadata;
mod pass;
mod size;
#[cfg(test)]
mod tests;
mod vector;

pub use gate::Standing;
pub(crate) use gate::fix as fix_gate;
pub(super) use gate::{HIDDEN as GATE_HIDDEN, INPUTS as GATE_INPUTS};
pub(crate) use metadata::column_value;
pub use metadata::{Metadata, Value};
pub use pass::Tower;
pub(crate) use pass::{Batch, Pass, Tables, TowerGradients};
pub(super) use size::TowerSize;
pub use vector::Parts;
