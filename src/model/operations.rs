//! The network's operations with gradients of their own, over candle tensors.
//!
//! On the CPU each operation is one fused kernel forward and one backward. Elsewhere, and as the oracle of the kernels, it is
//! composed of candle's differentiable operations (never the fast ones that drop gradients: candle's `layer_norm`,
//! `softmax_last_dim` and `rope`).

mod attention;
mod gates;

use crate::kernels::math::scale;
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{EPSILON, layer_norm, layer_norm_backward};
use crate::kernels::softmax::{cross_entropy, sampled_cross_entropy};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape as Dims, Storage, Tensor, bail};
use parking_lot::Mutex;
use std::sync::Arc;

pub(crate) use attention::{Packed, attend};
pub(crate) use gates::{activated, dropped, gated, glu, silu_gated};

/// How an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// One kernel forward, one backward; CPU and f32 only.
    Fused,
    /// candle's own differentiable operations; any device, f32 and f64.
    Composed,
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
