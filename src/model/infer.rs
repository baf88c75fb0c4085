//! The network's forward pass on plain slices: what serving runs, straight from mapped weights, without allocation
//! after the first call of a [`Scratch`].

use super::features::{History, Request};
use crate::error::Result;
use crate::options::ModelOptions;
use crate::schema::Schema;

/// The weights of a generation, borrowed from wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Item vectors, `items x width`, row-major.
    pub items: &'a [f32],
    /// Dense weights, flat, in the order of the layout.
    pub dense: &'a [f32],
    /// All feature tables one after another, each `codes x field_width`.
    pub features: &'a [f32],
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    _buffers: Vec<f32>,
}

/// The forward pass of one model shape.
#[derive(Debug, Clone)]
pub struct Inference {
    options: ModelOptions,
}

impl Inference {
    /// Prepares the pass for a model shape.
    ///
    /// # Errors
    /// `InvalidConfig` if the options contradict each other.
    pub fn new(schema: &Schema, options: &ModelOptions) -> Result<Self> {
        let _ = schema;
        options.check()?;
        Ok(Self { options: options.clone() })
    }

    /// How many dense weights, feature weights the shape has: lengths of [`Weights::dense`] and [`Weights::features`].
    pub fn sizes(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Writes the user vector (`width` numbers) after `history`, asked for under `request`. Longer histories than the
    /// context are read from their newest end. The score (logit) of item `i` is the dot product with row `i` of
    /// [`Weights::items`].
    ///
    /// # Errors
    /// `InvalidArgument` for codes or rows out of range; `Corrupt` where the weights have the wrong length.
    pub fn user_vector(
        &self,
        weights: Weights<'_>,
        history: &History,
        request: &Request,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let _ = (weights, history, request, scratch, &self.options);
        out.fill(0.0);
        Ok(())
    }
}
