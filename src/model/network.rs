//! The network over candle tensors: gated transformer blocks (LiGR form) between embedded tokens and user vectors.
//!
//! `x += sigmoid(W1 x) * Attn(LN x)`, `x += sigmoid(W2 x) * SwiGLU(LN x)` (model.md, section 1).

use super::features::Features;
use super::layout::{Layout, attention_shape};
use super::operations::{Packed, Path, affine, attend, dropped, gated, glu, norm};
use crate::kernels::gate::Dropout;
use crate::options::ModelOptions;
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
        let shape = attention_shape(&self.options);
        for b in 0..self.options.blocks {
            let p = |part: &str| parameters.get(&format!("block.{b}.{part}"));
            let normed = norm(path, &x, p("attention.norm.gain")?, p("attention.norm.bias")?)?;
            let qkv = affine(path, &normed, p("attention.qkv")?, Some(p("attention.qkv.bias")?))?;
            let mixed = attend(path, shape, packed, &qkv, p("attention.bias")?)?;
            let y = affine(path, &mixed, p("attention.out")?, None)?;
            let gate = affine(path, &x, p("attention.gate")?, Some(p("attention.gate.bias")?))?;
            x = gated(path, &x, &gate, &y, drop(2 * u64::from(b) + 1))?;
            let normed = norm(path, &x, p("feed.norm.gain")?, p("feed.norm.bias")?)?;
            let hidden = glu(path, &affine(path, &normed, p("feed.in")?, None)?)?;
            let y = affine(path, &hidden, p("feed.out")?, None)?;
            let gate = affine(path, &x, p("feed.gate")?, Some(p("feed.gate.bias")?))?;
            x = gated(path, &x, &gate, &y, drop(2 * u64::from(b) + 2))?;
        }
        norm(path, &x, parameters.get("norm.gain")?, parameters.get("norm.bias")?)
    }
}
