//! The network's operations with gradients of their own, over candle tensors.
//!
//! On the CPU each operation is one fused kernel forward and one backward. Elsewhere, and as the oracle of the kernels, it is
//! composed of candle's differentiable operations (never the fast ones that drop gradients: candle's `layer_norm`,
//! `softmax_last_dim` and `rope`).

use crate::kernels::attention::{
    DISTANCE_BUCKETS, Shape, Times, Workspace, attention, attention_backward, distance_bucket, time_bucket,
};
use crate::kernels::gate::{
    Dropout, dropout_factors, gated_add, gated_add_backward, gated_add_plain, swiglu, swiglu_backward,
};
use crate::kernels::math::scale;
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{EPSILON, layer_norm, layer_norm_backward};
use crate::kernels::softmax::{cross_entropy, sampled_cross_entropy};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape as Dims, Storage, Tensor, bail,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// How an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// One kernel forward, one backward; CPU and f32 only.
    Fused,
    /// candle's own differentiable operations; any device, f32 and f64.
    Composed,
}

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

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((a, b)) => Ok(&storage.as_slice::<f32>()?[a..b]),
        None => bail!("a fused operation needs contiguous tensors"),
    }
}

/// Calls `f` with the numbers of some tensors.
fn read<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let whole: Vec<Tensor> = tensors.iter().map(|t| t.contiguous()).collect::<Result<_>>()?;
    let guards: Vec<_> = whole.iter().map(|t| t.storage_and_layout()).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (to, (storage, layout)) in slices.iter_mut().zip(&guards) {
        match &**storage {
            Storage::Cpu(cpu) => *to = slice(cpu, layout)?,
            _ => bail!("a fused operation runs on the CPU only"),
        }
    }
    f(slices)
}

fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

fn out(values: Vec<f32>, shape: impl Into<Dims>) -> Result<(CpuStorage, Dims)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

// ---- layer norm

struct LayerNorm;

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gain: &CpuStorage,
        lg: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let x = slice(x, lx)?;
        let mut y = vec![0.0; x.len()];
        layer_norm(x, slice(gain, lg)?, slice(bias, lb)?, &mut y);
        out(y, lx.shape())
    }
    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dg, db) = read([x, gain, grad], |[xs, g, dy]| {
            let (mut dx, mut dg, mut db) = (vec![0.0; xs.len()], vec![0.0; g.len()], vec![0.0; g.len()]);
            layer_norm_backward(xs, g, dy, &mut dx, &mut dg, &mut db);
            Ok((dx, dg, db))
        })?;
        Ok((Some(tensor(dx, x)?), Some(tensor(dg, gain)?), Some(tensor(db, bias)?)))
    }
}

/// Layer normalisation of the rows of `x` (`[n, d]`).
pub(crate) fn norm(path: Path, x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if path == Path::Fused {
        return x.apply_op3(gain, bias, LayerNorm);
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let hat = centred.broadcast_div(&(variance + f64::from(EPSILON))?.sqrt()?)?;
    hat.broadcast_mul(gain)?.broadcast_add(bias)
}

// ---- linear

struct Linear;

fn linear_forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, lw: &Layout) -> Result<(CpuStorage, Dims)> {
    let (outputs, inputs) = lw.shape().dims2()?;
    let n = x.len() / inputs;
    let mut y = vec![0.0; n * outputs];
    linear(x, w, bias, inputs, outputs, &mut y);
    out(y, (n, outputs))
}

fn linear_backward(x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor, Vec<f32>)> {
    let (n, inputs) = x.dims2()?;
    let outputs = w.dim(0)?;
    let (dx, dw, db) = read([x, w, grad], |[xs, ws, dy]| {
        let (mut dx, mut dw) = (vec![0.0; n * inputs], vec![0.0; outputs * inputs]);
        matmul(View::dense(dy, n, outputs), View::dense(ws, outputs, inputs), &mut dx, inputs, false);
        matmul(View::dense(dy, n, outputs).t(), View::dense(xs, n, inputs), &mut dw, inputs, false);
        let mut db = vec![0.0; outputs];
        dy.chunks_exact(outputs).for_each(|row| crate::kernels::math::add(&mut db, row));
        Ok((dx, dw, db))
    })?;
    Ok((tensor(dx, x)?, tensor(dw, w)?, db))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Dims)> {
        linear_forward(slice(x, lx)?, slice(w, lw)?, None, lw)
    }
    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = linear_backward(x, w, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear-bias"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        linear_forward(slice(x, lx)?, slice(w, lw)?, Some(slice(bias, lb)?), lw)
    }
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, db) = linear_backward(x, w, grad)?;
        Ok((Some(dx), Some(dw), Some(tensor(db, bias)?)))
    }
}

/// `x w^T (+ bias)`: x `[n, inputs]`, w `[outputs, inputs]`.
pub(crate) fn affine(path: Path, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match (path, bias) {
        (Path::Fused, None) => x.apply_op2(w, Linear),
        (Path::Fused, Some(b)) => x.apply_op3(w, b, Linear),
        (Path::Composed, None) => x.matmul(&w.t()?),
        (Path::Composed, Some(b)) => x.matmul(&w.t()?)?.broadcast_add(b),
    }
}

// ---- attention

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
    // Every row keeps its own place, so no row is masked whole, padding included.
    let mask: Vec<f32> = (0..length * length).map(|x| if x % length <= x / length { 0.0 } else { -1e30 }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, length, length), device)?.to_dtype(dtype)?;
    let mixed = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?.matmul(&v)?;
    let flat = mixed.transpose(1, 2)?.contiguous()?.reshape((batch * length, d))?;
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

// ---- gates and dropout

struct GatedAdd(Option<Dropout>);

impl GatedAdd {
    fn factors(&self, n: usize) -> Option<Vec<f32>> {
        self.0.map(|dropout| {
            let mut factors = vec![0.0; n];
            dropout_factors(dropout, &mut factors);
            factors
        })
    }
}

impl CustomOp3 for GatedAdd {
    fn name(&self) -> &'static str {
        "gated-add"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gate: &CpuStorage,
        lg: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let mut sum = slice(x, lx)?.to_vec();
        match self.factors(sum.len()) {
            Some(f) => gated_add(&mut sum, slice(gate, lg)?, slice(y, ly)?, &f),
            None => gated_add_plain(&mut sum, slice(gate, lg)?, slice(y, ly)?),
        }
        out(sum, lx.shape())
    }
    fn bwd(
        &self,
        _: &Tensor,
        gate: &Tensor,
        y: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dgate, dy) = read([gate, y, grad], |[g, ys, d]| {
            let (mut dg, mut dy) = (vec![0.0; g.len()], vec![0.0; g.len()]);
            let factors = self.factors(g.len()).unwrap_or_else(|| vec![1.0; g.len()]);
            gated_add_backward(g, ys, &factors, d, &mut dg, &mut dy);
            Ok((dg, dy))
        })?;
        Ok((Some(grad.clone()), Some(tensor(dgate, gate)?), Some(tensor(dy, y)?)))
    }
}

/// `x + sigmoid(gate) * dropout(y)`, all `[n, d]`.
pub(crate) fn gated(path: Path, x: &Tensor, gate: &Tensor, y: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
    match path {
        Path::Fused => x.apply_op3(gate, y, GatedAdd(drop)),
        Path::Composed => x + (candle_nn::ops::sigmoid(gate)? * dropped(path, y, drop)?)?,
    }
}

struct Dropped(Dropout);

impl CustomOp1 for Dropped {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Dims)> {
        let mut y = slice(x, lx)?.to_vec();
        self.multiply(&mut y);
        out(y, lx.shape())
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = read([grad], |[g]| Ok(g.to_vec()))?;
        self.multiply(&mut dx);
        Ok(Some(tensor(dx, x)?))
    }
}

impl Dropped {
    fn multiply(&self, values: &mut [f32]) {
        let mut factors = vec![0.0; values.len()];
        dropout_factors(self.0, &mut factors);
        values.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f);
    }
}

/// Dropout with factors drawn from a counter: the same on every path, device and split of the batch.
pub(crate) fn dropped(path: Path, x: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
    match (path, drop) {
        (_, None) => Ok(x.clone()),
        (Path::Fused, Some(d)) => x.apply_op1(Dropped(d)),
        (Path::Composed, Some(d)) => {
            let mut factors = vec![0.0; x.elem_count()];
            dropout_factors(d, &mut factors);
            x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
        }
    }
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Dims)> {
        let (n, both) = lx.shape().dims2()?;
        let mut y = vec![0.0; n * both / 2];
        swiglu(slice(x, lx)?, both / 2, &mut y);
        out(y, (n, both / 2))
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let hidden = x.dim(1)? / 2;
        let dx = read([x, grad], |[xs, dy]| {
            let mut dx = vec![0.0; xs.len()];
            swiglu_backward(xs, hidden, dy, &mut dx);
            Ok(dx)
        })?;
        Ok(Some(tensor(dx, x)?))
    }
}

/// `silu(a) * b` of `[n, 2 hidden]` rows `[a, b]`; gives `[n, hidden]`.
pub(crate) fn glu(path: Path, x: &Tensor) -> Result<Tensor> {
    if path == Path::Fused {
        return x.apply_op1(SwiGlu);
    }
    let hidden = x.dim(1)? / 2;
    x.narrow(1, 0, hidden)?.silu()? * x.narrow(1, hidden, hidden)?
}

// ---- losses

/// Gradients that the forward pass of a loss has made already.
type Made = Mutex<Option<[Vec<f32>; 3]>>;

fn finish(made: &Made, grad: &Tensor) -> Result<[Vec<f32>; 3]> {
    let factor = grad.to_dtype(DType::F32)?.flatten_all()?.get(0)?.to_scalar::<f32>()?;
    let Some(mut grads) = made.lock().take() else { bail!("the gradients of a loss can be taken once only") };
    if factor != 1.0 {
        grads.iter_mut().for_each(|g| scale(g, factor));
    }
    Ok(grads)
}

struct FullLoss {
    targets: Arc<Vec<u32>>,
    weights: Arc<Vec<f32>>,
    made: Made,
}

impl CustomOp2 for FullLoss {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }
    fn cpu_fwd(&self, h: &CpuStorage, lh: &Layout, items: &CpuStorage, li: &Layout) -> Result<(CpuStorage, Dims)> {
        let (h, items, d) = (slice(h, lh)?, slice(items, li)?, lh.shape().dims2()?.1);
        let (mut dh, mut di) = (vec![0.0; h.len()], vec![0.0; items.len()]);
        let loss = cross_entropy(h, items, &self.targets, &self.weights, d, &mut dh, &mut di);
        *self.made.lock() = Some([dh, di, Vec::new()]);
        out(vec![loss as f32], ())
    }
    fn bwd(&self, h: &Tensor, items: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dh, di, _] = finish(&self.made, grad)?;
        Ok((Some(tensor(dh, h)?), Some(tensor(di, items)?)))
    }
}

/// `sum_i weight_i * (-log softmax(h_i . items)[target_i])`: h `[n, d]`, items `[v, d]`; a scalar.
pub(crate) fn full_loss(
    path: Path,
    h: &Tensor,
    items: &Tensor,
    targets: &Arc<Vec<u32>>,
    weights: &Arc<Vec<f32>>,
) -> Result<Tensor> {
    if path == Path::Fused {
        let op = FullLoss { targets: targets.clone(), weights: weights.clone(), made: Mutex::new(None) };
        return h.apply_op2(items, op);
    }
    let index = Tensor::from_slice(targets, (targets.len(), 1), h.device())?;
    weighted_nll(&h.matmul(&items.t()?)?, &index, weights)
}

fn weighted_nll(logits: &Tensor, target: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let centred = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let total = centred.exp()?.sum_keepdim(1)?.log()?;
    let nll = (total - centred.gather(target, 1)?)?.squeeze(1)?;
    (nll * Tensor::from_slice(weights, weights.len(), logits.device())?.to_dtype(logits.dtype())?)?.sum_all()
}

struct SampledLoss {
    targets: Arc<Vec<u32>>,
    negatives: Arc<Vec<u32>>,
    weights: Arc<Vec<f32>>,
    made: Made,
}

impl CustomOp3 for SampledLoss {
    fn name(&self) -> &'static str {
        "sampled-cross-entropy"
    }
    fn cpu_fwd(
        &self,
        h: &CpuStorage,
        lh: &Layout,
        positives: &CpuStorage,
        lp: &Layout,
        negatives: &CpuStorage,
        ln: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let (h, p, n) = (slice(h, lh)?, slice(positives, lp)?, slice(negatives, ln)?);
        let d = lh.shape().dims2()?.1;
        let mut grads = [vec![0.0; h.len()], vec![0.0; p.len()], vec![0.0; n.len()]];
        let [dh, dp, dn] = &mut grads;
        let same = |i: usize, j: usize| self.targets[i] == self.negatives[j];
        let loss = sampled_cross_entropy(h, p, n, &same, &self.weights, d, dh, dp, dn);
        *self.made.lock() = Some(grads);
        out(vec![loss as f32], ())
    }
    fn bwd(
        &self,
        h: &Tensor,
        positives: &Tensor,
        negatives: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dh, dp, dn] = finish(&self.made, grad)?;
        Ok((Some(tensor(dh, h)?), Some(tensor(dp, positives)?), Some(tensor(dn, negatives)?)))
    }
}

/// As [`full_loss`], over each row's own positive vector (`[n, d]`) and shared negatives (`[k, d]`), whose item rows are
/// `negative_rows`; a negative that is a row's target takes no part in that row.
#[allow(clippy::too_many_arguments)]
pub(crate) fn sampled_loss(
    path: Path,
    h: &Tensor,
    positives: &Tensor,
    negatives: &Tensor,
    targets: &Arc<Vec<u32>>,
    negative_rows: &Arc<Vec<u32>>,
    weights: &Arc<Vec<f32>>,
) -> Result<Tensor> {
    if path == Path::Fused {
        let (targets, negative_rows, weights) = (targets.clone(), negative_rows.clone(), weights.clone());
        let op = SampledLoss { targets, negatives: negative_rows, weights, made: Mutex::new(None) };
        return h.apply_op3(positives, negatives, op);
    }
    let (n, k) = (targets.len(), negative_rows.len());
    let mask: Vec<f32> =
        targets.iter().flat_map(|t| negative_rows.iter().map(move |r| if r == t { -1e30 } else { 0.0 })).collect();
    let mask = Tensor::from_vec(mask, (n, k), h.device())?.to_dtype(h.dtype())?;
    let negative = (h.matmul(&negatives.t()?)? + mask)?;
    let positive = (h * positives)?.sum_keepdim(1)?;
    let index = Tensor::from_vec(vec![k as u32; n], (n, 1), h.device())?;
    weighted_nll(&Tensor::cat(&[negative, positive], 1)?.contiguous()?, &index, weights)
}
