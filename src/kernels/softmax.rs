//! Softmax rows, and the cross-entropy over a catalogue without more logits in memory than one block of rows.

use super::dispatch;
use super::math::{exp, max_inline};
use super::matmul::{View, matmul};

/// Most logits held at once (f32), 2 MiB: what a core's cache can keep.
const BLOCK: usize = 1 << 19;

#[inline(always)]
pub(crate) fn softmax_inline(row: &mut [f32]) -> (f32, f32) {
    let max = max_inline(row);
    let mut lanes = [0.0f32; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for c in &mut chunks {
        for i in 0..16 {
            c[i] = exp(c[i] - max);
            lanes[i] += c[i];
        }
    }
    let mut sum = 0.0;
    for v in chunks.into_remainder() {
        *v = exp(*v - max);
        sum += *v;
    }
    sum += lanes.iter().sum::<f32>();
    let inverse = 1.0 / sum;
    for v in row.iter_mut() {
        *v *= inverse;
    }
    (max, sum)
}

dispatch! {
    /// Turns `row` into its softmax times `weight`; returns the maximum and the sum of exponentials before.
    fn softmax_scaled(row: &mut [f32], weight: f32) -> (f32, f32) {
        let (max, sum) = softmax_inline(row);
        for v in row.iter_mut() {
            *v *= weight;
        }
        (max, sum)
    }
}

/// Weighted cross-entropy of the softmax over all rows of `items` (`[v, d]`) for users `h` (`[n, d]`):
/// `sum_i weight_i * (logsumexp(h_i . items) - h_i . items[target_i])`. Adds the gradients to `dh` and `ditems`.
pub(crate) fn cross_entropy(
    h: &[f32],
    items: &[f32],
    targets: &[u32],
    weights: &[f32],
    d: usize,
    dh: &mut [f32],
    ditems: &mut [f32],
) -> f64 {
    let v = items.len() / d;
    let rows = (BLOCK / v.max(1)).clamp(8, 256);
    let mut logits = vec![0.0f32; rows * v];
    let mut loss = 0.0f64;
    let blocks = h.chunks(rows * d).zip(targets.chunks(rows)).zip(weights.chunks(rows)).zip(dh.chunks_mut(rows * d));
    for (((h, targets), weights), dh) in blocks {
        let n = targets.len();
        let logits = &mut logits[..n * v];
        matmul(View::dense(h, n, d), View::dense(items, v, d).t(), logits, v, false);
        for ((row, &t), &w) in logits.chunks_exact_mut(v).zip(targets).zip(weights) {
            let target = row[t as usize];
            let (max, sum) = softmax_scaled(row, w);
            loss += f64::from(w) * (f64::from(max) + f64::from(sum).ln() - f64::from(target));
            row[t as usize] -= w;
        }
        matmul(View::dense(logits, n, v), View::dense(items, v, d), dh, d, true);
        matmul(View::dense(logits, n, v).t(), View::dense(h, n, d), ditems, d, true);
    }
    loss
}

/// As [`cross_entropy`], over each row's own positive vector (`positives`, `[n, d]`) and shared negatives (`[k, d]`).
/// `same(i, j)` says that negative `j` is row `i`'s target: such a pair takes no part in the softmax.
#[allow(clippy::too_many_arguments)]
pub(crate) fn sampled_cross_entropy(
    h: &[f32],
    positives: &[f32],
    negatives: &[f32],
    same: &dyn Fn(usize, usize) -> bool,
    weights: &[f32],
    d: usize,
    dh: &mut [f32],
    dpositives: &mut [f32],
    dnegatives: &mut [f32],
) -> f64 {
    let k = negatives.len() / d;
    let stride = k + 1;
    let rows = (BLOCK / stride).clamp(8, 1024);
    let mut logits = vec![0.0f32; rows * stride];
    let mut loss = 0.0f64;
    let mut first = 0;
    let blocks = h.chunks(rows * d).zip(positives.chunks(rows * d)).zip(weights.chunks(rows));
    for (((h, positives), weights), (dh, dp)) in
        blocks.zip(dh.chunks_mut(rows * d).zip(dpositives.chunks_mut(rows * d)))
    {
        let n = weights.len();
        let logits = &mut logits[..n * stride];
        matmul(View::dense(h, n, d), View::dense(negatives, k, d).t(), logits, stride, false);
        for (i, (row, &w)) in logits.chunks_exact_mut(stride).zip(weights).enumerate() {
            let (h, p) = (&h[i * d..(i + 1) * d], &positives[i * d..(i + 1) * d]);
            for (j, x) in row[..k].iter_mut().enumerate() {
                if same(first + i, j) {
                    *x = f32::MIN;
                }
            }
            let target = super::math::dot(h, p);
            row[k] = target;
            let (max, sum) = softmax_scaled(row, w);
            loss += f64::from(w) * (f64::from(max) + f64::from(sum).ln() - f64::from(target));
            let g = row[k] - w;
            for c in 0..d {
                dh[i * d + c] += g * p[c];
                dp[i * d + c] += g * h[c];
            }
        }
        let negative = View::rows(logits, n, k, stride);
        matmul(negative, View::dense(negatives, k, d), dh, d, true);
        matmul(negative.t(), View::dense(h, n, d), dnegatives, d, true);
        first += n;
    }
    loss
}
