//! The network over candle tensors: transformer blocks of one form between embedded tokens and user vectors.

use super::features::Features;
use super::layout::{Layout, attention_shape};
use super::operations::{Packed, Path, activated, affine, attend, dropped, gated, glu, norm, silu_gated};
use crate::kernels::gate::Dropout;
use crate::options::{Block, ModelOptions};
use crate::random::hash64;
use candle_core::{Device, Result, Tensor, Var};
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

/// The dense weights as tensors whose gradients are wanted, in the order of the layout.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    layout: Arc<Layout>,
    vars: Vec<Var>,
}

impl Parameters {
    /// Copies the flat array onto a device.
    pub(crate) fn new(layout: &Arc<Layout>, flat: &[f32], device: &Device) -> Result<Self> {
        let var = |w: &super::layout::Weight| {
            Var::from_tensor(&Tensor::from_slice(&flat[w.range.clone()], w.shape.as_slice(), device)?)
        };
        Ok(Self { layout: layout.clone(), vars: layout.weights.iter().map(var).collect::<Result<_>>()? })
    }

    /// The tensors, in the order of the layout.
    pub(crate) fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The same weights in f64, for oracles.
    #[cfg(test)]
    pub(crate) fn to_f64(&self) -> Self {
        let wide = |v: &Var| Var::from_tensor(&v.to_dtype(candle_core::DType::F64).unwrap()).unwrap();
        Self { layout: self.layout.clone(), vars: self.vars.iter().map(wide).collect() }
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        match self.layout.index(name).and_then(|i| self.vars.get(i)) {
            Some(var) => Ok(var.as_tensor()),
            None => candle_core::bail!("no weight {name}"),
        }
    }
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

impl Network {
    /// Prepares a shape.
    pub(crate) fn new(options: &ModelOptions, features: Features) -> Self {
        let layout = Arc::new(Layout::new(options, &features));
        Self { options: options.clone(), features, layout }
    }

    /// The way operations run on a device.
    pub(crate) fn path(device: &Device) -> Path {
        if device.is_cpu() { Path::Fused } else { Path::Composed }
    }

    /// User vectors (`[n, d]`) of packed tokens. `x` (`[n, d]`) holds each token's item and position, `fields`
    /// (`[n, features * field_width]`) its embedded features.
    pub(crate) fn forward(
        &self,
        path: Path,
        parameters: &Parameters,
        x: &Tensor,
        fields: Option<&Tensor>,
        packed: &Arc<Packed>,
        drop: Option<Dropouts>,
    ) -> Result<Tensor> {
        let d = self.options.width as usize;
        let drop = |place: u64| drop.and_then(|p| p.at(place, d));
        let mut x = match fields {
            Some(fields) => (x + affine(path, fields, parameters.get("features")?, None)?)?,
            None => x.clone(),
        };
        x = dropped(path, &x, drop(0))?;
        for b in 0..self.options.blocks {
            let weights = |part: &str| parameters.get(&format!("block.{b}.{part}"));
            let drops = [drop(2 * u64::from(b) + 1), drop(2 * u64::from(b) + 2)];
            x = match self.options.block {
                Block::Gated => self.gated_block(path, &weights, &x, packed, drops)?,
                Block::Hstu => self.hstu_block(path, &weights, &x, packed, drops[0])?,
            };
        }
        norm(path, &x, parameters.get("norm.gain")?, parameters.get("norm.bias")?)
    }

    /// `x += sigmoid(W1 x) * Attn(LN x)`, `x += sigmoid(W2 x) * SwiGLU(LN x)` (model.md, section 1): x `[n, d]`.
    fn gated_block<'a>(
        &self,
        path: Path,
        p: &impl Fn(&str) -> Result<&'a Tensor>,
        x: &Tensor,
        packed: &Arc<Packed>,
        drops: [Option<Dropout>; 2],
    ) -> Result<Tensor> {
        let normed = norm(path, x, p("attention.norm.gain")?, p("attention.norm.bias")?)?;
        let qkv = affine(path, &normed, p("attention.qkv")?, Some(p("attention.qkv.bias")?))?;
        let mixed = attend(path, attention_shape(&self.options), packed, &qkv, p("attention.bias")?)?;
        let y = affine(path, &mixed, p("attention.out")?, None)?;
        let gate = affine(path, x, p("attention.gate")?, Some(p("attention.gate.bias")?))?;
        let x = gated(path, x, &gate, &y, drops[0])?;
        let normed = norm(path, &x, p("feed.norm.gain")?, p("feed.norm.bias")?)?;
        let hidden = glu(path, &affine(path, &normed, p("feed.in")?, None)?)?;
        let y = affine(path, &hidden, p("feed.out")?, None)?;
        let gate = affine(path, &x, p("feed.gate")?, Some(p("feed.gate.bias")?))?;
        gated(path, &x, &gate, &y, drops[1])
    }

    /// `U, V, Q, K = split(SiLU(W1 LN(x) + b1))`, `A = SiLU(Q K^T / sqrt(d / heads) + biases) / keys seen`, causal and per
    /// head, `x += W2 (U * LN(A V)) + b2` (HSTU, Zhai et al. 2024, section 3, equations 1 to 3, which do not scale scores):
    /// x, U, V, Q, K `[n, d]`, the LN of `A V` over all heads together.
    ///
    /// The `[4 d, d]` matrix W1 is kept as `attention.qkv` (`[3 d, d]`) and `attention.gate` (`[d, d]`), so that neither U nor
    /// its gradient is cut out of wider rows, and serving makes U only for the tokens that are asked for.
    fn hstu_block<'a>(
        &self,
        path: Path,
        p: &impl Fn(&str) -> Result<&'a Tensor>,
        x: &Tensor,
        packed: &Arc<Packed>,
        drop: Option<Dropout>,
    ) -> Result<Tensor> {
        let normed = norm(path, x, p("attention.norm.gain")?, p("attention.norm.bias")?)?;
        let qkv = activated(path, &affine(path, &normed, p("attention.qkv")?, Some(p("attention.qkv.bias")?))?)?;
        let mixed = attend(path, attention_shape(&self.options), packed, &qkv, p("attention.bias")?)?;
        let mixed = norm(path, &mixed, p("attention.mixed.norm.gain")?, p("attention.mixed.norm.bias")?)?;
        let gate = affine(path, &normed, p("attention.gate")?, Some(p("attention.gate.bias")?))?;
        let y = silu_gated(path, &gate, &mixed)?;
        let y = affine(path, &y, p("attention.out")?, Some(p("attention.out.bias")?))?;
        x + dropped(path, &y, drop)?
    }
}
