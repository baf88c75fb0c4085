//! Attention over packed sequences.

use super::{Path, out, read, slice, tensor};
use crate::kernels::attention::{
    Activation, DISTANCE_BUCKETS, Shape, Times, Workspace, attention, attention_backward, distance_bucket, time_bucket,
};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape as Dims, Tensor};
use std::sync::Arc;

/// Where each packed sequence lies and what its attention needs besides the tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    /// Sequence `s` is tokens `offsets[s]..offsets[s + 1]`.
    pub offsets: Vec<usize>,
    /// Seconds at which each token asks; empty without time bias.
    pub query: Vec<i64>,
    /// Seconds at which what each token holds happened; empty without time bias.
    pub key: Vec<i64>,
}

impl Packed {
    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0]..w[1])
    }

    fn times(&self, range: &std::ops::Range<usize>) -> Times<'_> {
        if self.query.is_empty() {
            return Times::default();
        }
        Times { query: &self.query[range.clone()], key: &self.key[range.clone()] }
    }
}

struct Attention {
    shape: Shape,
    packed: Arc<Packed>,
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn cpu_fwd(&self, qkv: &CpuStorage, lq: &Layout, bias: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Dims)> {
        let (qkv, bias, d) = (slice(qkv, lq)?, slice(bias, lb)?, self.shape.heads * self.shape.head);
        let n = qkv.len() / (3 * d);
        let mut y = vec![0.0; n * d];
        let mut ws = Workspace::default();
        for r in self.packed.ranges() {
            let (from, to) = (&qkv[r.start * 3 * d..r.end * 3 * d], &mut y[r.start * d..r.end * d]);
            attention(&self.shape, from, bias, self.packed.times(&r), 0, to, &mut ws);
        }
        out(y, (n, d))
    }
    fn bwd(&self, qkv: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d = self.shape.heads * self.shape.head;
        let (dqkv, dbias) = read([qkv, bias, grad], |[q, b, dy]| {
            let (mut dq, mut db) = (vec![0.0; q.len()], vec![0.0; b.len()]);
            let mut ws = Workspace::default();
            for r in self.packed.ranges() {
                let (a, z) = (r.start, r.end);
                let (from, to) = (&q[a * 3 * d..z * 3 * d], &mut dq[a * 3 * d..z * 3 * d]);
                let times = self.packed.times(&r);
                attention_backward(&self.shape, from, b, times, &dy[a * d..z * d], to, &mut db, &mut ws);
            }
            Ok((dq, db))
        })?;
        Ok((Some(tensor(dqkv, qkv)?), Some(tensor(dbias, bias)?)))
    }
}

/// Causal attention of packed sequences: qkv `[n, 3 d]`, bias `[heads, shape.biases()]`; gives `[n, d]`.
pub(crate) fn attend(path: Path, shape: Shape, packed: &Arc<Packed>, qkv: &Tensor, bias: &Tensor) -> Result<Tensor> {
    match path {
        Path::Fused => qkv.apply_op2(bias, Attention { shape, packed: packed.clone() }),
        Path::Composed => attend_composed(&shape, packed, qkv, bias),
    }
}

fn attend_composed(shape: &Shape, packed: &Packed, qkv: &Tensor, bias: &Tensor) -> Result<Tensor> {
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
    let causal = |value: fn(usize) -> f32, hidden: f32| {
        let cell = |x: usize| if x % length <= x / length { value(x / length) } else { hidden };
        let cells: Vec<f32> = (0..length * length).map(cell).collect();
        Tensor::from_vec(cells, (1, 1, length, length), device)?.to_dtype(dtype)
    };
    let weights = match shape.activation {
        // Every row keeps its own place, so no row is masked whole, padding included.
        Activation::Softmax => candle_nn::ops::softmax(&scores.broadcast_add(&causal(|_| 0.0, -1e30)?)?, D::Minus1)?,
        Activation::Silu => scores.silu()?.broadcast_mul(&causal(|i| 1.0 / (i + 1) as f32, 0.0)?)?,
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
