//! The part of the global block that has not seen the embedding: candidates in, rows for `kernels/heads` out.
//!
//! `rows = out silu(in x + b) + wide x + c`: x `[n, candidate]`, rows `[n, row]`.
//!
//! With several kinds of entities the embeddings add up, `e = e_1 + e_2`, and a candidate brings `s`, the sum of those of other kinds,
//! behind x. As `e` meets a row in sums alone (`kernels/heads`), the row is shifted once, and what comes after knows one kind:
//!
//! ```text
//! base += mix s        offset_t += s . direction_t
//! ```

use super::shape::RankerShape;
use crate::kernels::gate::{silu, silu_backward};
use crate::kernels::heads::axpy;
use crate::kernels::math::{Real, add, dot_inline};
use crate::kernels::matmul::{View, matmul};

/// What the pass back needs of the pass forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passed<T> {
    /// Hidden layer before its activation, `[n, trunk]`.
    pub before: Vec<T>,
    /// And after.
    pub hidden: Vec<T>,
}

/// Writes the rows of candidates `x`.
pub(crate) fn forward<T: Real>(shape: &RankerShape, dense: &[T], x: &[T], rows: &mut Vec<T>, passed: &mut Passed<T>) {
    let (width, inputs, hidden, row) =
        (shape.candidate(), shape.read(), shape.options.trunk as usize, shape.widths().row());
    let n = x.len() / width;
    let [w_in, b_in, w_out, wide, bias] = shape.trunk.clone().map(|r| &dense[r]);
    let read = View::rows(x, n, inputs, width);
    let affine = |w: &[T], bias: &[T], y: &mut [T]| {
        y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        matmul(read, View::dense(w, bias.len(), inputs).t(), y, bias.len(), true);
    };
    passed.before.resize(n * hidden, T::ZERO);
    affine(w_in, b_in, &mut passed.before);
    passed.hidden.clear();
    passed.hidden.extend_from_slice(&passed.before);
    silu(&mut passed.hidden);
    rows.resize(n * row, T::ZERO);
    affine(wide, bias, rows);
    matmul(View::dense(&passed.hidden, n, hidden), View::dense(w_out, row, hidden).t(), rows, row, true);
    if shape.shift() > 0 {
        shift(shape, dense, x, rows);
    }
}

/// Shifts rows by the embedding behind each candidate.
fn shift<T: Real>(shape: &RankerShape, dense: &[T], x: &[T], rows: &mut [T]) {
    let (width, w) = (shape.candidate(), shape.widths());
    let (n, gated, e) = (x.len() / width, 2 * w.gate, w.embedding);
    let [mix, _] = shape.head_ranges();
    let shifts = View::rows(x.get(shape.read()..).unwrap_or(&[]), n, e, width);
    matmul(shifts, View::dense(&dense[mix], gated, e).t(), rows, w.row(), true);
    for (row, x) in rows.chunks_exact_mut(w.row()).zip(x.chunks_exact(width)) {
        let (directions, offsets) = row[gated..].split_at_mut(w.heads * e);
        for (offset, direction) in offsets.iter_mut().zip(directions.chunks_exact(e)) {
            *offset += dot_inline(&x[shape.read()..], direction);
        }
    }
}

/// Turns gradients at shifted rows into those at the rows before; that of `heads.mix` is added to `dense_into`. The embeddings
/// behind the candidates are held.
fn shift_backward<T: Real>(shape: &RankerShape, x: &[T], rows: &mut [T], dense_into: &mut [T]) {
    let (width, w) = (shape.candidate(), shape.widths());
    let (n, gated, e) = (x.len() / width, 2 * w.gate, w.embedding);
    let [mix, _] = shape.head_ranges();
    let shifts = View::rows(x.get(shape.read()..).unwrap_or(&[]), n, e, width);
    matmul(View::rows(rows, n, gated, w.row()).t(), shifts, &mut dense_into[mix], e, true);
    for (row, x) in rows.chunks_exact_mut(w.row()).zip(x.chunks_exact(width)) {
        let (directions, offsets) = row[gated..].split_at_mut(w.heads * e);
        for (offset, direction) in offsets.iter().zip(directions.chunks_exact_mut(e)) {
            axpy(*offset, &x[shape.read()..], direction);
        }
    }
}

/// Where the gradients of a pass go.
pub(crate) struct Columns<'a, T> {
    /// Those of the dense weights are added.
    pub dense: &'a mut [T],
    /// Those of the first `item_width` columns of the candidates, `[n, item_width]`, are written.
    pub items: &'a mut Vec<T>,
    /// Those of the columns behind them, which the foundation model's vectors make, `[n, 3 state]`; where they are asked for.
    pub vectors: Option<&'a mut Vec<T>>,
}

/// Carries the gradients at the rows of candidates `x` back; `rows` are used up.
pub(crate) fn backward<T: Real>(
    shape: &RankerShape,
    dense: &[T],
    x: &[T],
    passed: &Passed<T>,
    rows: &mut [T],
    to: &mut Columns<'_, T>,
) {
    let (width, inputs, hidden, row) =
        (shape.candidate(), shape.read(), shape.options.trunk as usize, shape.widths().row());
    let (own, of_vectors) = (shape.options.item_width as usize, 3 * shape.state);
    let n = x.len() / width;
    let (dense_into, items) = (&mut *to.dense, &mut *to.items);
    items.resize(n * own, T::ZERO);
    if n == 0 {
        return;
    }
    if shape.shift() > 0 {
        shift_backward(shape, x, rows, dense_into);
    }
    let rows = &*rows;
    let [w_in, b_in, w_out, wide, bias] = shape.trunk.clone();
    let (d, x) = (View::dense(rows, n, row), View::rows(x, n, inputs, width));
    matmul(d.t(), View::dense(&passed.hidden, n, hidden), &mut dense_into[w_out.clone()], hidden, true);
    matmul(d.t(), x, &mut dense_into[wide.clone()], inputs, true);
    rows.chunks_exact(row).for_each(|r| add(&mut dense_into[bias.clone()], r));
    let mut dhidden = vec![T::ZERO; n * hidden];
    matmul(d, View::dense(&dense[w_out], row, hidden), &mut dhidden, hidden, false);
    silu_backward(&passed.before, &mut dhidden);
    let dh = View::dense(&dhidden, n, hidden);
    matmul(dh.t(), x, &mut dense_into[w_in.clone()], inputs, true);
    dhidden.chunks_exact(hidden).for_each(|r| add(&mut dense_into[b_in.clone()], r));
    let (wide, w_in) = (&dense[wide], &dense[w_in]);
    matmul(d, View::rows(wide, row, own, inputs), items, own, false);
    matmul(dh, View::rows(w_in, hidden, own, inputs), items, own, true);
    if let Some(vectors) = &mut to.vectors {
        vectors.resize(n * of_vectors, T::ZERO);
        matmul(d, View::rows(&wide[own..], row, of_vectors, inputs), vectors, of_vectors, false);
        matmul(dh, View::rows(&w_in[own..], hidden, of_vectors, inputs), vectors, of_vectors, true);
    }
}
