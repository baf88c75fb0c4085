//! The outer loss as tensor operations over whole adapted matrices, padded and batched: the oracle of `kernels/inner` and
//! `kernels/heads`. The inner gradient is written out, so candle's own backward pass goes through it: exactly, or, with the inner
//! gradients detached, to first order.

use super::batch::{Batch, Outer, Side};
use super::shape::RankerShape;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::sigmoid;

/// One side, padded to its longest entity.
struct Padded {
    /// `[entities, n, row]`.
    rows: Tensor,
    /// `[entities, n, heads]`; 0 where there is none.
    labels: Tensor,
    /// Weight of each label's loss, `[entities, n, heads]`.
    weights: Tensor,
}

struct Model<'a> {
    shape: &'a RankerShape,
    dense: &'a Tensor,
}

impl Model<'_> {
    fn weight(&self, name: &str) -> Result<Tensor> {
        let w = &self.shape.layout.weights[self.shape.layout.index(name).unwrap()];
        self.dense.narrow(0, w.range.start, w.range.len())?.reshape(w.shape.as_slice())
    }

    fn pad(
        &self,
        side: &Side<f64>,
        candidates: &Tensor,
        heads: &[f64],
        scale: impl Fn(usize) -> f64,
    ) -> Result<Padded> {
        let h = self.shape.heads;
        let entities = side.offsets.len() - 1;
        let longest = side.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0).max(1);
        let mut index = vec![0u32; entities * longest];
        let (mut labels, mut weights) = (vec![0.0; entities * longest * h], vec![0.0; entities * longest * h]);
        for (s, w) in side.offsets.windows(2).enumerate() {
            for (i, n) in (w[0]..w[1]).enumerate() {
                let at = s * longest + i;
                index[at] = n as u32;
                for t in 0..h {
                    let label = side.labels[n * h + t];
                    if !label.is_nan() {
                        labels[at * h + t] = label;
                        weights[at * h + t] = heads[t] * scale(w[1] - w[0]);
                    }
                }
            }
        }
        let count = index.len();
        let all = candidates.index_select(&Tensor::from_vec(index, count, &Device::Cpu)?, 0)?;
        let x = all.narrow(1, 0, self.shape.read())?;
        let hidden = x.matmul(&self.weight("trunk.in")?.t()?)?.broadcast_add(&self.weight("trunk.in.bias")?)?.silu()?;
        let rows = (hidden.matmul(&self.weight("trunk.out")?.t()?)? + x.matmul(&self.weight("trunk.wide")?.t()?)?)?;
        let mut rows = rows.broadcast_add(&self.weight("trunk.bias")?)?;
        if self.shape.shift() > 0 {
            let (w, s) = (self.shape.widths(), all.narrow(1, self.shape.read(), self.shape.shift())?);
            let directions = rows.narrow(1, 2 * w.gate, w.heads * w.embedding)?;
            let along = directions.reshape((count, w.heads, w.embedding))?.broadcast_mul(&s.unsqueeze(1)?)?.sum(2)?;
            let base = s.matmul(&self.weight("heads.mix")?.t()?)?;
            rows = (rows + Tensor::cat(&[base, directions.zeros_like()?, along], 1)?)?;
        }
        let rows = rows.reshape((entities, longest, ()))?;
        let of = |v: Vec<f64>| Tensor::from_vec(v, (entities, longest, h), &Device::Cpu);
        Ok(Padded { rows, labels: of(labels)?, weights: of(weights)? })
    }

    /// Logits `[entities, n, heads]` under embeddings `[entities, E]`, and the halves of the gated layer's input.
    fn logits(&self, side: &Padded, e: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let w = self.shape.widths();
        let (entities, n, _) = side.rows.dims3()?;
        let r = e.matmul(&self.weight("heads.mix")?.t()?)?;
        let z = side.rows.narrow(2, 0, 2 * w.gate)?.broadcast_add(&r.unsqueeze(1)?)?;
        let (a, b) = (z.narrow(2, 0, w.gate)?, z.narrow(2, w.gate, w.gate)?);
        let m = (a.silu()? * &b)?;
        let linear = m.broadcast_matmul(&self.weight("heads.out")?.t()?)?;
        let direction = self.direction(side)?;
        let along = direction.broadcast_mul(&e.reshape((entities, 1, 1, w.embedding))?)?.sum(3)?;
        let offset = side.rows.narrow(2, 2 * w.gate + w.heads * w.embedding, w.heads)?;
        assert_eq!(along.dims(), [entities, n, w.heads]);
        Ok((((linear + along)? + offset)?, a, b))
    }

    fn direction(&self, side: &Padded) -> Result<Tensor> {
        let w = self.shape.widths();
        let (entities, n, _) = side.rows.dims3()?;
        side.rows.narrow(2, 2 * w.gate, w.heads * w.embedding)?.reshape((entities, n, w.heads, w.embedding))
    }

    fn loss(&self, side: &Padded, e: &Tensor) -> Result<Tensor> {
        let (x, ..) = self.logits(side, e)?;
        let softplus = (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        ((softplus - (&x * &side.labels)?)? * &side.weights)?.sum_all()
    }

    /// The gradient of the loss with respect to the embeddings, written out.
    fn embedding_gradient(&self, side: &Padded, e: &Tensor) -> Result<Tensor> {
        let (x, a, b) = self.logits(side, e)?;
        let d = ((sigmoid(&x)? - &side.labels)? * &side.weights)?;
        let dm = d.broadcast_matmul(&self.weight("heads.out")?)?;
        let s = sigmoid(&a)?;
        let slope = (&s * ((&a * (1.0 - &s)?)? + 1.0)?)?;
        let dz = Tensor::cat(&[((&dm * &b)? * slope)?, (dm * a.silu()?)?], 2)?.sum(1)?;
        let through = dz.matmul(&self.weight("heads.mix")?)?;
        let direct = self.direction(side)?.broadcast_mul(&d.unsqueeze(3)?)?.sum(2)?.sum(1)?;
        through + direct
    }
}

/// The outer loss of a batch, a scalar that can be differentiated. `candidates` are those of support and query, `shifts` the
/// entities' own vectors, apart from the batch so that their gradients can be asked for.
pub(super) fn outer_loss(
    shape: &RankerShape,
    dense: &Tensor,
    batch: &Batch<f64>,
    candidates: [&Tensor; 2],
    shifts: &Tensor,
    outer: &Outer<f64>,
) -> Result<Tensor> {
    let model = Model { shape, dense };
    let prior_count = f64::from(shape.options.prior_count);
    let support = model.pad(&batch.support, candidates[0], &outer.heads, |n| 1.0 / (n as f64 + prior_count))?;
    let query = model.pad(&batch.query, candidates[1], &outer.heads, |_| outer.scale)?;
    let entities = batch.inputs.len() / shape.inputs;
    let x = Tensor::from_slice(&batch.inputs, (entities, shape.inputs, 1), &Device::Cpu)?;
    let layers = shape.layer_ranges().len();
    let first = &shape.layer_ranges()[0][0];
    let block = shape.layout.weights.iter().find(|w| w.range == *first).unwrap().name.strip_suffix(".0").unwrap();
    let mut phi = Vec::new();
    for l in 0..layers {
        let (w, b) = (model.weight(&format!("{block}.{l}"))?, model.weight(&format!("{block}.{l}.bias"))?);
        let ((out, inputs), rates) = (w.dims2()?, model.weight(&format!("{block}.{l}.rates"))?.exp()?);
        let rate = (rates.narrow(0, 0, 1)?.reshape((1, 1, 1))? / inputs as f64)?;
        let bias_rate = rates.narrow(0, 1, 1)?.reshape((1, 1, 1))?;
        let each = |t: Tensor, columns: usize| t.reshape((1, out, columns))?.repeat((entities, 1, 1));
        phi.push((each(w, inputs)?, each(b, 1)?, rate, bias_rate));
    }
    let mut total = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for (k, weight) in outer.steps.iter().enumerate() {
        let (mut read, mut before) = (vec![x.clone()], Vec::new());
        for (l, (w, b, ..)) in phi.iter().enumerate() {
            let z = (w.matmul(&read[l])? + b)?;
            read.push(if l + 1 < layers { z.silu()? } else { z.clone() });
            before.push(z);
        }
        let e = (read[layers].squeeze(2)? + shifts)?;
        total = (total + (model.loss(&query, &e)? * *weight)?)?;
        if k + 1 == outer.steps.len() {
            break;
        }
        let rate_decay = f64::from(shape.options.rate_decay).powi(k as i32);
        let held = |t: Tensor| if outer.exact { t } else { t.detach() };
        let mut d = model.embedding_gradient(&support, &e)?.unsqueeze(2)?;
        for l in (0..layers).rev() {
            let (w, b, rate, bias_rate) = phi[l].clone();
            let below = match l {
                0 => None,
                _ => {
                    let g = w.transpose(1, 2)?.contiguous()?.matmul(&d)?;
                    let s = sigmoid(&before[l - 1])?;
                    Some((g * (&s * ((&before[l - 1] * (1.0 - &s)?)? + 1.0)?)?)?)
                }
            };
            let dw = held(d.matmul(&read[l].transpose(1, 2)?.contiguous()?)?);
            let db = held(d.clone());
            phi[l] = (
                (w - (dw.broadcast_mul(&rate)? * rate_decay)?)?,
                (b - (db.broadcast_mul(&bias_rate)? * rate_decay)?)?,
                rate,
                bias_rate,
            );
            if let Some(below) = below {
                d = below;
            }
        }
    }
    Ok(total)
}
