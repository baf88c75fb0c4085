//! The network: transformer blocks of one form between embedded tokens and user vectors.

use super::features::Features;
use super::graph::{Graph, Packed};
use super::layout::{Layout, attention_shape};
use crate::kernels::gate::Dropout;
use crate::options::{Block, ModelOptions};
use crate::random::hash64;
use std::sync::Arc;

/// One model shape over tensors.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// The shape.
    pub options: ModelOptions,
    /// The features of a token.
    pub features: Features,
    /// The dense weights.
    pub layout: Arc<Layout>,
}

/// Dropout of one pass: which stream, how much, and the place of the first token in the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropouts {
    /// Names the batch.
    pub key: u64,
    /// Share that is dropped.
    pub rate: f32,
    /// Place of the first token in the batch: masks do not depend on how a batch is cut.
    pub first: usize,
}

impl Dropouts {
    fn at(self, place: u64, width: usize) -> Option<Dropout> {
        let base = (self.first * width) as u64;
        (self.rate > 0.0).then(|| Dropout { key: hash64(self.key, place), base, rate: self.rate })
    }
}

/// What a forward pass gives, token by token.
#[derive(Debug, Clone)]
pub(crate) struct Outputs<V> {
    /// User vectors, `[n, d]`: their products with item vectors are the items' scores.
    pub user: V,
    /// What the other heads read, `[n, d]`.
    pub state: V,
    /// The logits of the auxiliary heads, `[n, classes]` each.
    pub heads: Vec<V>,
}

impl Network {
    /// Prepares a shape.
    pub(crate) fn new(options: &ModelOptions, features: Features) -> Self {
        let layout = Arc::new(Layout::new(options, &features));
        Self { options: options.clone(), features, layout }
    }

    /// What packed tokens predict. `x` (`[n, d]`) holds each token's item and position, `fields`
    /// (`[n, features * field_width]`) its embedded features.
    pub(crate) fn forward<G: Graph>(
        &self,
        g: &mut G,
        x: G::Value,
        fields: Option<&G::Value>,
        packed: &Arc<Packed>,
        drop: Option<Dropouts>,
    ) -> Result<Outputs<G::Value>, G::Error> {
        let d = self.options.width as usize;
        let drop = |place: u64| drop.and_then(|p| p.at(place, d));
        let mut x = match fields {
            Some(fields) => {
                let projected = g.affine(fields, "features", false)?;
                g.sum(&x, &projected)?
            }
            None => x,
        };
        x = g.dropped(&x, drop(0))?;
        for b in 0..self.options.blocks {
            let drops = [drop(2 * u64::from(b) + 1), drop(2 * u64::from(b) + 2)];
            x = match self.options.block {
                Block::Gated => self.gated_block(g, x, b, packed, drops)?,
                Block::Hstu => self.hstu_block(g, x, b, packed, drops[0])?,
            };
        }
        let state = g.norm(&x, "norm")?;
        let mut heads = Vec::new();
        let mut sum = None;
        for (i, head) in self.features.heads.iter().enumerate() {
            let logits = g.affine(&state, &format!("head.{i}"), true)?;
            if head.hierarchical {
                let probabilities = g.softmax(&logits)?;
                let pooled = g.affine(&probabilities, &format!("head.{i}.pool"), false)?;
                sum = Some(g.sum(sum.as_ref().unwrap_or(&state), &pooled)?);
            }
            heads.push(logits);
        }
        let (unit, factor) = (self.options.normalized, 1.0 / self.options.temperature);
        let user = g.scaled(sum.as_ref().unwrap_or(&state), unit, factor)?;
        Ok(Outputs { user, state, heads })
    }

    /// `x += sigmoid(W1 x) * Attn(LN x)`, `x += sigmoid(W2 x) * SwiGLU(LN x)` (docs/model.md): x `[n, d]`.
    fn gated_block<G: Graph>(
        &self,
        g: &mut G,
        x: G::Value,
        block: u32,
        packed: &Arc<Packed>,
        drops: [Option<Dropout>; 2],
    ) -> Result<G::Value, G::Error> {
        let p = |part: &str| format!("block.{block}.{part}");
        let normed = g.norm(&x, &p("attention.norm"))?;
        let qkv = g.affine(&normed, &p("attention.qkv"), true)?;
        let mixed = g.attend(&qkv, &p("attention.bias"), attention_shape(&self.options), packed)?;
        let y = g.affine(&mixed, &p("attention.out"), false)?;
        let gate = g.affine(&x, &p("attention.gate"), true)?;
        let x = g.gated(&x, &gate, &y, drops[0])?;
        let normed = g.norm(&x, &p("feed.norm"))?;
        let both = g.affine(&normed, &p("feed.in"), false)?;
        let hidden = g.glu(&both)?;
        let y = g.affine(&hidden, &p("feed.out"), false)?;
        let gate = g.affine(&x, &p("feed.gate"), true)?;
        g.gated(&x, &gate, &y, drops[1])
    }

    /// `U, V, Q, K = split(SiLU(W1 LN(x) + b1))`, `A = SiLU(Q K^T / sqrt(d / heads) + biases) / keys seen`, causal and per
    /// head, `x += W2 (U * LN(A V)) + b2` (HSTU, Zhai et al. 2024, section 3, equations 1 to 3, which do not scale scores):
    /// x, U, V, Q, K `[n, d]`, the LN of `A V` over all heads together.
    ///
    /// The `[4 d, d]` matrix W1 is kept as `attention.qkv` (`[3 d, d]`) and `attention.gate` (`[d, d]`), so that neither U nor
    /// its gradient is cut out of wider rows, and serving makes U only for the tokens that are asked for.
    fn hstu_block<G: Graph>(
        &self,
        g: &mut G,
        x: G::Value,
        block: u32,
        packed: &Arc<Packed>,
        drop: Option<Dropout>,
    ) -> Result<G::Value, G::Error> {
        let p = |part: &str| format!("block.{block}.{part}");
        let normed = g.norm(&x, &p("attention.norm"))?;
        let qkv = g.affine(&normed, &p("attention.qkv"), true)?;
        let qkv = g.silu(&qkv)?;
        let mixed = g.attend(&qkv, &p("attention.bias"), attention_shape(&self.options), packed)?;
        let mixed = g.norm(&mixed, &p("attention.mixed.norm"))?;
        let gate = g.affine(&normed, &p("attention.gate"), true)?;
        let y = g.silu_gated(&gate, &mixed)?;
        let y = g.affine(&y, &p("attention.out"), true)?;
        let y = g.dropped(&y, drop)?;
        g.sum(&x, &y)
    }
}
