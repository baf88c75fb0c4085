//! The network's operations composed of candle's own differentiable operations: training on CUDA, and the oracle of the kernels in
//! f32 and f64.
//!
//! candle's `layer_norm`, `softmax_last_dim` and `rope` drop gradients without a word; none of them is used here.

use super::graph::{Graph, Packed};
use super::layout::{Layout, Weight};
use crate::kernels::attention::{Activation, AttentionShape, DISTANCE_BUCKETS, distance_bucket, time_bucket};
use crate::kernels::gate::{Dropout, dropout_factors};
use crate::kernels::norm::{EPSILON, SHORTEST};
use crate::kernels::softmax::{Candidates, Objective, Targets};
use candle_core::{D, Device, Result, Tensor, Var, bail};
use std::sync::Arc;

/// The dense weights as tensors whose gradients are wanted, in the order of the layout.
#[derive(Debug, Clone)]
pub(crate) struct Composed {
    layout: Arc<Layout>,
    vars: Vec<Var>,
}

impl Composed {
    /// Copies the flat array onto a device.
    pub(crate) fn new(layout: &Arc<Layout>, flat: &[f32], device: &Device) -> Result<Self> {
        let var =
            |w: &Weight| Var::from_tensor(&Tensor::from_slice(&flat[w.range.clone()], w.shape.as_slice(), device)?);
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
            None => bail!("no weight {name}"),
        }
    }
}

impl Graph for Composed {
    type Value = Tensor;
    type Error = candle_core::Error;

    fn affine(&mut self, x: &Tensor, weight: &str, bias: bool) -> Result<Tensor> {
        let y = x.matmul(&self.get(weight)?.t()?)?;
        if bias { y.broadcast_add(self.get(&format!("{weight}.bias"))?) } else { Ok(y) }
    }

    fn norm(&mut self, x: &Tensor, name: &str) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let hat = centred.broadcast_div(&(variance + f64::from(EPSILON))?.sqrt()?)?;
        hat.broadcast_mul(self.get(&format!("{name}.gain"))?)?.broadcast_add(self.get(&format!("{name}.bias"))?)
    }

    fn attend(&mut self, qkv: &Tensor, bias: &str, shape: AttentionShape, packed: &Arc<Packed>) -> Result<Tensor> {
        attend(&shape, packed, qkv, self.get(bias)?)
    }

    fn gated(&mut self, x: &Tensor, gate: &Tensor, y: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
        let y = self.dropped(y, drop)?;
        x + (candle_nn::ops::sigmoid(gate)? * y)?
    }

    fn glu(&mut self, x: &Tensor) -> Result<Tensor> {
        let hidden = x.dim(1)? / 2;
        x.narrow(1, 0, hidden)?.silu()? * x.narrow(1, hidden, hidden)?
    }

    fn silu(&mut self, x: &Tensor) -> Result<Tensor> {
        x.silu()
    }

    fn silu_gated(&mut self, gate: &Tensor, y: &Tensor) -> Result<Tensor> {
        gate.silu()? * y
    }

    fn dropped(&mut self, x: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
        let Some(drop) = drop else { return Ok(x.clone()) };
        let mut factors = vec![0.0f32; x.elem_count()];
        dropout_factors(drop, &mut factors);
        x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
    }

    fn sum(&mut self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        x + y
    }

    fn softmax(&mut self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::softmax(x, D::Minus1)
    }

    fn scaled(&mut self, x: &Tensor, unit: bool, factor: f32) -> Result<Tensor> {
        let x = match unit {
            true => x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(SHORTEST))?)?,
            false => x.clone(),
        };
        x * f64::from(factor)
    }
}

fn attend(shape: &AttentionShape, packed: &Packed, qkv: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (device, dtype) = (qkv.device(), qkv.dtype());
    let (heads, head) = (shape.heads, shape.head);
    let d = heads * head;
    let batch = packed.offsets.len().saturating_sub(1);
    let length = packed.ranges().map(|r| r.len()).max().unwrap_or(0);
    // Padded place of each token, and the token of each padded place (row 0 where there is none).
    let mut place = Vec::new();
    let mut token = vec![0u32; batch * length];
    for (s, r) in packed.ranges().enumerate() {
        for (i, t) in r.enumerate() {
            place.push((s * length + i) as u32);
            token[s * length + i] = t as u32;
        }
    }
    let token = Tensor::from_vec(token, batch * length, device)?;
    let padded = qkv.index_select(&token, 0)?.reshape((batch, length, 3, heads, head))?;
    let part = |i: usize| padded.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (mut q, mut k, v) = (part(0)?, part(1)?, part(2)?);
    if shape.rotary {
        (q, k) = (rotate_composed(&q, length, head)?, rotate_composed(&k, length, head)?);
    }
    let mut scores = (q.matmul(&k.t()?.contiguous()?)? / (head as f64).sqrt())?;
    let mut columns = 0;
    if shape.distance {
        let mut index = vec![0u32; length * length];
        for i in 0..length {
            for j in 0..=i {
                index[i * length + j] = distance_bucket(i - j) as u32;
            }
        }
        let index = Tensor::from_vec(index, length * length, device)?;
        scores = scores.broadcast_add(&bias.index_select(&index, 1)?.reshape((1, heads, length, length))?)?;
        columns = DISTANCE_BUCKETS;
    }
    if shape.time {
        let mut index = vec![0u32; batch * length * length];
        for (s, r) in packed.ranges().enumerate() {
            for (i, a) in r.clone().enumerate() {
                for (j, b) in r.clone().enumerate().take(i + 1) {
                    let bucket = columns + time_bucket(packed.query[a], packed.key[b]);
                    index[(s * length + i) * length + j] = bucket as u32;
                }
            }
        }
        let index = Tensor::from_vec(index, batch * length * length, device)?;
        let bias = bias.index_select(&index, 1)?.reshape((heads, batch, length, length))?.transpose(0, 1)?;
        scores = (scores + bias.contiguous()?)?;
    }
    let causal = |value: fn(usize) -> f64, hidden: f64| {
        let cell = |x: usize| if x % length <= x / length { value(x / length) } else { hidden };
        let cells: Vec<f64> = (0..length * length).map(cell).collect();
        Tensor::from_vec(cells, (1, 1, length, length), device)?.to_dtype(dtype)
    };
    let weights = match shape.activation {
        // Every row keeps its own place, so no row is masked whole, padding included.
        Activation::Softmax => candle_nn::ops::softmax(&scores.broadcast_add(&causal(|_| 0.0, -1e30)?)?, D::Minus1)?,
        Activation::Silu => scores.silu()?.broadcast_mul(&causal(|i| 1.0 / (i + 1) as f64, 0.0)?)?,
    };
    let flat = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch * length, d))?;
    let count = place.len();
    flat.index_select(&Tensor::from_vec(place, count, device)?, 0)
}

fn rotate_composed(x: &Tensor, length: usize, head: usize) -> Result<Tensor> {
    let half = head / 2;
    let angle = |f: fn(f64) -> f64| -> Result<Tensor> {
        let value = |x: usize| {
            let (place, i) = (x / half, x % half);
            f(place as f64 * 10_000f64.powf(-(i as f64) / half as f64)) as f32
        };
        let values: Vec<f32> = (0..length * half).map(value).collect();
        Tensor::from_vec(values, (1, 1, length, half), x.device())?.to_dtype(x.dtype())
    };
    let (cos, sin) = (angle(f64::cos)?, angle(f64::sin)?);
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// `sum_i sum_j weight_ij * (-log softmax(h_i . items)[target_ij])`: h `[n, d]`, items `[v, d]`; a scalar.
pub(crate) fn full_loss(h: &Tensor, items: &Tensor, targets: &Targets) -> Result<Tensor> {
    set_loss(&h.matmul(&items.t()?)?, targets)
}

/// `sum_i sum_j weight_ij * (-log softmax(logits_i)[target_ij])`: logits `[n, v]`; a scalar.
pub(crate) fn set_loss(logits: &Tensor, targets: &Targets) -> Result<Tensor> {
    let (device, v) = (logits.device(), logits.dim(1)?);
    let centred = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let total = centred.exp()?.sum(1)?.log()?;
    let owners = targets.owners();
    let place = owners.iter().zip(&targets.rows).map(|(i, t)| i * v as u32 + t).collect::<Vec<u32>>();
    let (pairs, n) = (owners.len(), targets.len());
    let mut mass = vec![0.0f64; n];
    owners.iter().zip(&targets.weights).for_each(|(i, w)| mass[*i as usize] += f64::from(*w));
    let mass = Tensor::from_vec(mass, n, device)?.to_dtype(logits.dtype())?;
    if pairs == 0 {
        return total.sum_all()? * 0.0;
    }
    let own = centred.flatten_all()?.index_select(&Tensor::from_vec(place, pairs, device)?, 0)?;
    (total * mass)?.sum_all()? - weighted_sum(&own, &targets.weights)?
}

fn weighted_nll(logits: &Tensor, target: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let centred = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let total = centred.exp()?.sum_keepdim(1)?.log()?;
    weighted_sum(&(total - centred.gather(target, 1)?)?.squeeze(1)?, weights)
}

fn weighted_sum(losses: &Tensor, weights: &[f32]) -> Result<Tensor> {
    (losses * Tensor::from_slice(weights, weights.len(), losses.device())?.to_dtype(losses.dtype())?)?.sum_all()
}

/// The sampled losses of [`crate::kernels::softmax::sampled_loss`] over each row's own positive vector (`[n, d]`) and shared
/// negatives (`[k, d]`); a scalar.
pub(crate) fn sampled_loss(
    h: &Tensor,
    positives: &Tensor,
    negatives: &Tensor,
    candidates: &Candidates<'_>,
    objective: Objective,
    weights: &[f32],
) -> Result<Tensor> {
    let (n, k) = (candidates.targets.len(), candidates.rows.len());
    let like = |values: Vec<f32>, rows: usize, columns: usize| {
        Tensor::from_vec(values, (rows, columns), h.device())?.to_dtype(h.dtype())
    };
    let rows = candidates.rows;
    let own = |t: &u32| rows.iter().map(|r| if r == t { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    let own = like(candidates.targets.iter().flat_map(own).collect(), n, k)?;
    let mut negative = h.matmul(&negatives.t()?)?;
    let positive = (h * positives)?.sum_keepdim(1)?;
    if !candidates.negative_shift.is_empty() {
        negative = negative.broadcast_add(&like(candidates.negative_shift.to_vec(), 1, k)?)?;
    }
    match objective {
        Objective::Softmax => {
            let index = Tensor::from_vec(vec![k as u32; n], (n, 1), h.device())?;
            let negative = (negative + (own * -1e30)?)?;
            weighted_nll(&Tensor::cat(&[negative, positive], 1)?.contiguous()?, &index, weights)
        }
        Objective::Binary { beta } => {
            let others = ((own * -1.0)? + 1.0)?;
            let negative = (softplus(&negative)? * others)?.sum(1)?;
            let positive = (softplus(&positive.neg()?)? * f64::from(beta))?.squeeze(1)?;
            weighted_sum(&(negative + positive)?, weights)
        }
    }
}

/// `log(1 + e^x)` without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}
