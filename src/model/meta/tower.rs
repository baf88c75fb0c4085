//! The part of the global block that has not seen the embedding: candidates in, rows for `kernels/heads` out.
//!
//! `rows = out silu(in x + b) + wide x + c`: x `[n, candidate]`, rows `[n, row]`.

use super::shape::Shape;
use crate::kernels::gate::{silu, silu_backward};
use crate::kernels::math::{Real, add};
use crate::kernels::matmul::{View, linear, matmul};

/// What the pass back needs of the pass forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passed<T> {
    /// Hidden layer before its activation, `[n, tower]`.
    pub before: Vec<T>,
    /// And after.
    pub hidden: Vec<T>,
}

/// Writes the rows of candidates `x`.
pub(crate) fn forward<T: Real>(shape: &Shape, dense: &[T], x: &[T], rows: &mut Vec<T>, passed: &mut Passed<T>) {
    let (inputs, hidden, row) = (shape.candidate(), shape.options.tower as usize, shape.widths().row());
    let n = x.len() / inputs;
    let [w_in, b_in, w_out, wide, bias] = shape.tower.clone().map(|r| &dense[r]);
    passed.before.resize(n * hidden, T::ZERO);
    linear(x, w_in, Some(b_in), inputs, hidden, &mut passed.before);
    passed.hidden.clear();
    passed.hidden.extend_from_slice(&passed.before);
    silu(&mut passed.hidden);
    rows.resize(n * row, T::ZERO);
    linear(x, wide, Some(bias), inputs, row, rows);
    matmul(View::dense(&passed.hidden, n, hidden), View::dense(w_out, row, hidden).t(), rows, row, true);
}

/// Adds the gradients of the weights to `dense_into` and writes those of the first `item_width` columns of `x` to `items`
/// (`[n, item_width]`); `rows` are the gradients at the rows.
pub(crate) fn backward<T: Real>(
    shape: &Shape,
    dense: &[T],
    x: &[T],
    passed: &Passed<T>,
    rows: &[T],
    dense_into: &mut [T],
    items: &mut Vec<T>,
) {
    let (inputs, hidden, row) = (shape.candidate(), shape.options.tower as usize, shape.widths().row());
    let own = shape.options.item_width as usize;
    let n = x.len() / inputs;
    items.resize(n * own, T::ZERO);
    if n == 0 {
        return;
    }
    let [w_in, b_in, w_out, wide, bias] = shape.tower.clone();
    let (d, x) = (View::dense(rows, n, row), View::dense(x, n, inputs));
    matmul(d.t(), View::dense(&passed.hidden, n, hidden), &mut dense_into[w_out.clone()], hidden, true);
    matmul(d.t(), x, &mut dense_into[wide.clone()], inputs, true);
    rows.chunks_exact(row).for_each(|r| add(&mut dense_into[bias.clone()], r));
    let mut dhidden = vec![T::ZERO; n * hidden];
    matmul(d, View::dense(&dense[w_out], row, hidden), &mut dhidden, hidden, false);
    silu_backward(&passed.before, &mut dhidden);
    let dh = View::dense(&dhidden, n, hidden);
    matmul(dh.t(), x, &mut dense_into[w_in.clone()], inputs, true);
    dhidden.chunks_exact(hidden).for_each(|r| add(&mut dense_into[b_in.clone()], r));
    matmul(d, View::rows(&dense[wide], row, own, inputs), items, own, false);
    matmul(dh, View::rows(&dense[w_in], hidden, own, inputs), items, own, true);
}
