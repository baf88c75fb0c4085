//! Softmax rows, and the cross-entropy over a catalogue without more logits in memory than one block of rows.

use super::dispatch::dispatch;
use super::math::{Real, dot, dot_inline, max_inline};
use super::matmul::{View, matmul};

/// Most logits held at once (f32), 2 MiB: what a core's cache can keep.
const BLOCK: usize = 1 << 19;

#[inline(always)]
pub(crate) fn softmax_inline<T: Real>(row: &mut [T]) -> (T, T) {
    softmax_times(row, T::ONE)
}

#[inline(always)]
fn softmax_times<T: Real>(row: &mut [T], weight: T) -> (T, T) {
    let max = max_inline(row);
    let mut lanes = [T::ZERO; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for c in &mut chunks {
        for i in 0..16 {
            c[i] = (c[i] - max).exp();
            lanes[i] += c[i];
        }
    }
    let mut sum = T::ZERO;
    for v in chunks.into_remainder() {
        *v = (*v - max).exp();
        sum += *v;
    }
    sum += lanes.iter().copied().sum::<T>();
    let inverse = weight / sum;
    for v in row.iter_mut() {
        *v *= inverse;
    }
    (max, sum)
}

dispatch! {
    /// Turns `row` into its softmax times `weight`; returns the maximum and the sum of exponentials before.
    fn softmax_scaled<T>(row: &mut [T], weight: T) -> (T, T) {
        softmax_times(row, weight)
    }
}

/// The targets of each row of scores and what each weighs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    /// Row `i` has the targets `rows[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<usize>,
    /// Columns of the scores.
    pub rows: Vec<u32>,
    /// Weights, one per target.
    pub weights: Vec<f32>,
}

impl Targets {
    /// Ends a row.
    pub(crate) fn close(&mut self) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.offsets.push(self.rows.len());
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Targets and weights of a row.
    pub(crate) fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.rows[range.clone()], &self.weights[range])
    }

    /// For each target, the row that it belongs to.
    pub(crate) fn owners(&self) -> Vec<u32> {
        (0..self.len()).flat_map(|i| std::iter::repeat_n(i as u32, self.offsets[i + 1] - self.offsets[i])).collect()
    }
}

/// Turns a row of scores into the gradient of `sum_j w_j (logsumexp(row) - row_j)` over its targets, and gives that loss.
fn set_row<T: Real>(row: &mut [T], targets: &[u32], weights: &[f32]) -> f64 {
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let scores: f64 = targets.iter().zip(weights).map(|(t, w)| f64::from(*w) * row[*t as usize].wide()).sum();
    let (max, sum) = softmax_scaled(row, T::of(total));
    for (t, w) in targets.iter().zip(weights) {
        row[*t as usize] -= T::of(f64::from(*w));
    }
    total * (max.wide() + sum.wide().ln()) - scores
}

/// Turns logits (`[n, classes]`) into the gradients of the weighted cross-entropy of each row's softmax, and gives the loss.
pub(crate) fn set_cross_entropy<T: Real>(logits: &mut [T], classes: usize, targets: &Targets) -> f64 {
    let rows = logits.chunks_exact_mut(classes).enumerate();
    rows.map(|(i, row)| {
        let (targets, weights) = targets.row(i);
        set_row(row, targets, weights)
    })
    .sum()
}

dispatch! {
    /// The softmax of each row of `x`, in place.
    fn softmax_rows<T>(x: &mut [T], width: usize) {
        for row in x.chunks_exact_mut(width) {
            softmax_times(row, T::ONE);
        }
    }
}

dispatch! {
    /// The gradient of [`softmax_rows`], whose result was `y`, in place of `grad`.
    fn softmax_backward<T>(y: &[T], width: usize, grad: &mut [T]) {
        for (y, g) in y.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let mean = dot_inline(y, g);
            for (g, y) in g.iter_mut().zip(y) {
                *g = *y * (*g - mean);
            }
        }
    }
}

/// Weighted cross-entropy of the softmax over all rows of `items` (`[v, d]`) for users `h` (`[n, d]`):
/// `sum_i sum_j weight_ij * (logsumexp(h_i . items) - h_i . items[target_ij])`. Adds the gradients to `dh` and `ditems`;
/// `logits` is a buffer.
#[allow(clippy::too_many_arguments)]
pub(crate) fn cross_entropy<T: Real>(
    h: &[T],
    items: &[T],
    targets: &Targets,
    d: usize,
    dh: &mut [T],
    ditems: &mut [T],
    logits: &mut Vec<T>,
) -> f64 {
    let v = items.len() / d;
    let rows = (BLOCK / v.max(1)).clamp(8, 256);
    logits.resize(rows * v, T::ZERO);
    let mut loss = 0.0f64;
    let mut first = 0;
    for (h, dh) in h.chunks(rows * d).zip(dh.chunks_mut(rows * d)) {
        let n = h.len() / d;
        let logits = &mut logits[..n * v];
        matmul(View::dense(h, n, d), View::dense(items, v, d).t(), logits, v, false);
        for (i, row) in logits.chunks_exact_mut(v).enumerate() {
            let (targets, weights) = targets.row(first + i);
            loss += set_row(row, targets, weights);
        }
        first += n;
        matmul(View::dense(logits, n, v), View::dense(items, v, d), dh, d, true);
        matmul(View::dense(logits, n, v).t(), View::dense(h, n, d), ditems, d, true);
    }
    loss
}

/// What a sampled loss compares each user with: its own target and negatives that all share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates<'a> {
    /// The item row of each user's target, `[n]`.
    pub targets: &'a [u32],
    /// The item row of each negative, `[k]`. A negative that is a user's target takes no part in that user's loss.
    pub rows: &'a [u32],
    /// Added to each negative's score, `[k]`; empty without correction.
    pub negative_shift: &'a [f32],
}

/// What a sampled loss makes of the scores of a target and negatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Objective {
    /// `-log softmax(scores)[target]`.
    Softmax,
    /// `-beta log sigmoid(target) - sum log(1 - sigmoid(negative))` (gSASRec, Petrov & Macdonald 2023, eq. 8).
    Binary {
        /// The power of the positive probability.
        beta: f32,
    },
}

dispatch! {
    /// Adds the shifts and takes a row's own target out of its negatives.
    fn correct_row<T>(row: &mut [T], rows: &[u32], shift: &[f32], target: u32) {
        for (x, s) in row.iter_mut().zip(shift) {
            *x += T::of(f64::from(*s));
        }
        for (x, r) in row.iter_mut().zip(rows) {
            *x = if *r == target { T::LOWEST } else { *x };
        }
    }
}

dispatch! {
    /// Turns the scores of negatives into their gradients under the binary loss, times `weight`; gives the loss.
    fn binary_row<T>(row: &mut [T], weight: T) -> T {
        let mut loss = T::ZERO;
        // Products of up to 64 factors in (1, 2] a lane need one logarithm for all of them.
        for part in row.chunks_mut(64 * 16) {
            let mut product = [T::ONE; 16];
            let mut sum = [T::ZERO; 16];
            for c in part.chunks_mut(16) {
                for ((x, p), s) in c.iter_mut().zip(&mut product).zip(&mut sum) {
                    let e = (-x.abs()).exp();
                    *p *= T::ONE + e;
                    *s += x.most(T::ZERO);
                    let small = T::ONE / (T::ONE + e);
                    *x = weight * if *x > T::ZERO { small } else { e * small };
                }
            }
            for (p, s) in product.iter().zip(&sum) {
                loss += p.ln() + *s;
            }
        }
        weight * loss
    }
}

/// A weighted loss over each user's own positive vector (`positives`, `[n, d]`) and shared negatives (`[k, d]`); adds the
/// gradients to `dh`, `dpositives` and `dnegatives`; `logits` is a buffer.
#[allow(clippy::too_many_arguments)]
pub(crate) fn sampled_loss<T: Real>(
    h: &[T],
    positives: &[T],
    negatives: &[T],
    candidates: &Candidates<'_>,
    objective: Objective,
    weights: &[f32],
    d: usize,
    dh: &mut [T],
    dpositives: &mut [T],
    dnegatives: &mut [T],
    logits: &mut Vec<T>,
) -> f64 {
    let k = negatives.len() / d;
    let stride = k + 1;
    let rows = (BLOCK / stride).clamp(8, 1024);
    logits.resize(rows.min(weights.len()) * stride, T::ZERO);
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
            correct_row(&mut row[..k], candidates.rows, candidates.negative_shift, candidates.targets[first + i]);
            let (target, w) = (dot(h, p), f64::from(w));
            let g = match objective {
                Objective::Softmax => {
                    row[k] = target;
                    let (max, sum) = softmax_scaled(row, T::of(w));
                    loss += w * (max.wide() + sum.wide().ln() - target.wide());
                    row[k] - T::of(w)
                }
                Objective::Binary { beta } => {
                    loss += binary_row(&mut row[..k], T::of(w)).wide();
                    // The positive is a negative of the opposite sign.
                    let mut own = [-target];
                    loss += binary_row(&mut own, T::of(w * f64::from(beta))).wide();
                    -own[0]
                }
            };
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
