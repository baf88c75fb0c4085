//! The vector of one item, and what it is the sum of.

use super::gate::Standing;
use super::metadata::Metadata;
use super::pass::{Batch, Tables, Tower};
use crate::error::{Result, err};
use crate::kernels::math::dot;
use crate::kernels::norm::SHORTEST;
use crate::model::weights::Weights;

/// The two parts of an item's vector, which add up to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// What the ID embedding, or the vector of unknown items, contributes: `[d]`.
    pub id: Vec<f32>,
    /// What the metadata contributes: `[d]`.
    pub metadata: Vec<f32>,
    /// The gate's weight of the metadata, 0 to 1.
    pub metadata_weight: f32,
}

impl Tower {
    /// The vector of an item that nobody has touched, or of which only so much is known.
    ///
    /// # Errors
    /// `InvalidArgument` where `out` does not hold one vector; `Corrupt` where the weights have the wrong length.
    pub fn vector(
        &self,
        weights: Weights<'_>,
        metadata: &Metadata,
        id: Option<&[f32]>,
        standing: Standing,
        out: &mut [f32],
    ) -> Result<()> {
        let parts = self.parts_of(weights, metadata, id, standing)?;
        if out.len() != self.width {
            let (have, want) = (out.len(), self.width);
            return Err(err!(InvalidArgument, "the output holds {have} numbers, an item vector {want}; pass {want}"));
        }
        for ((o, a), b) in out.iter_mut().zip(&parts.id).zip(&parts.metadata) {
            *o = a + b;
        }
        Ok(())
    }

    /// The two parts that add up to an item's vector, and the gate's weight of the metadata.
    ///
    /// # Errors
    /// `Corrupt` where the weights have the wrong length.
    pub(crate) fn parts_of(
        &self,
        weights: Weights<'_>,
        metadata: &Metadata,
        id: Option<&[f32]>,
        standing: Standing,
    ) -> Result<Parts> {
        let (rows, dense) = self.reads();
        let missing = id.is_some_and(|id| id.len() != self.width);
        if weights.features.len() < rows || weights.dense.len() < dense || missing {
            return Err(err!(Corrupt, "the tower's weights are incomplete; verify the store and roll back"));
        }
        let zeros = vec![0.0; self.width];
        let standing = Standing { known: standing.known && id.is_some(), ..standing };
        let tables = Tables { dense: weights.dense, features: weights.features };
        let pass = self.forward(id.unwrap_or(&zeros), Batch { standings: &[standing], metadata, items: &[0] }, tables);
        let mut parts = [pass.id, pass.projected];
        let mut factor = 1.0;
        for (part, weight) in parts.iter_mut().zip([pass.weights[0], pass.weights[1]]) {
            part.iter_mut().for_each(|v| *v *= weight);
        }
        if self.unit {
            let sum: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
            factor = 1.0 / dot(&sum, &sum).sqrt().max(SHORTEST);
        }
        parts.iter_mut().flatten().for_each(|v| *v *= factor);
        let [id, metadata] = parts;
        Ok(Parts { id, metadata, metadata_weight: pass.weights[1] })
    }
}
