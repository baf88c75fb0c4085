//! Matrix products on slices, single-threaded: the caller decides about threads.

use super::dispatch::{Set, set};
use super::real::Real;
use gemm::{Parallelism, gemm};

/// A read-only matrix view: element (r, c) is `data[offset + r * row + c * column]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a, T: Real> View<'a, T> {
    /// Row-major `rows x columns`, rows `stride` apart.
    pub(crate) fn rows(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, row: stride, column: 1 }
    }

    /// Row-major and dense.
    pub(crate) fn dense(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::rows(data, rows, columns, columns)
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || offset((self.rows, self.row), (self.columns, self.column)).is_some_and(|last| last < self.data.len())
    }
}

/// Where the last element of a matrix lies, by the number and the stride of its rows and of its columns; `None` beyond all memory.
fn offset((rows, row): (usize, usize), (columns, column): (usize, usize)) -> Option<usize> {
    rows.checked_sub(1)?.checked_mul(row)?.checked_add(columns.checked_sub(1)?.checked_mul(column)?)
}

/// `out = a * b`, or `out += a * b` if `add`; `out` is row-major with rows `stride` apart.
///
/// # Panics
/// If the shapes do not fit each other or their slices: a defect of the caller.
pub(crate) fn matmul<T: Real>(a: View<'_, T>, b: View<'_, T>, out: &mut [T], stride: usize, add: bool) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(k == b.rows && a.fits() && b.fits(), "matrix shapes do not fit");
    if m == 0 || n == 0 {
        return;
    }
    let fits = offset((m, stride), (n, 1)).is_some_and(|last| last < out.len());
    assert!(n <= stride && fits, "the product does not fit its slice");
    if k == 0 {
        if !add {
            (0..m).for_each(|r| out[r * stride..r * stride + n].fill(T::ZERO));
        }
        return;
    }
    if set() == Set::Scalar {
        return plain(a, b, out, stride, add);
    }
    // SAFETY: T is f32 or f64, the only types that are `Real`, and gemm multiplies both; the largest index that each operand is
    // read or written at was compared with its slice's length above, and `out` is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// [`matmul`] by its definition, each element's products added up in order, onto what is there: the same bits on every processor,
/// which `gemm` does not promise.
fn plain<T: Real>(a: View<'_, T>, b: View<'_, T>, out: &mut [T], stride: usize, add: bool) {
    for (r, out) in out.chunks_mut(stride).take(a.rows).enumerate() {
        for (c, to) in out[..b.columns].iter_mut().enumerate() {
            let start = if add { *to } else { T::ZERO };
            let product = |k: usize| a.data[r * a.row + k * a.column] * b.data[k * b.row + c * b.column];
            *to = (0..a.columns).fold(start, |sum, k| sum + product(k));
        }
    }
}

/// `y = x w^T (+ bias)`: x is `[n, inputs]`, w is `[outputs, inputs]`, y is `[n, outputs]`, all dense.
pub(crate) fn linear<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, inputs: usize, outputs: usize, y: &mut [T]) {
    let n = y.len() / outputs.max(1);
    if let Some(bias) = bias {
        y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
    }
    matmul(View::dense(x, n, inputs), View::dense(w, outputs, inputs).t(), y, outputs, bias.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_their_definition() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..12).map(|i| (i as f32) - 4.0).collect();
        let mut out = vec![1.0; 2 * 5];
        matmul(View::dense(&a, 2, 3), View::dense(&b, 3, 4), &mut out, 5, true);
        for r in 0..2 {
            for c in 0..4 {
                let want: f32 = 1.0 + (0..3).map(|k| a[r * 3 + k] * b[k * 4 + c]).sum::<f32>();
                assert_eq!(out[r * 5 + c], want);
            }
            assert_eq!(out[r * 5 + 4], 1.0);
        }
        let fast = std::mem::replace(&mut out, vec![1.0; 2 * 5]);
        plain(View::dense(&a, 2, 3), View::dense(&b, 3, 4), &mut out, 5, true);
        assert_eq!(out, fast);
        let mut y = vec![0.0; 2 * 4];
        linear(&a, &b, Some(&[1.0, 2.0, 3.0, 4.0]), 3, 4, &mut y);
        for r in 0..2 {
            for c in 0..4 {
                let want: f32 = (c + 1) as f32 + (0..3).map(|k| a[r * 3 + k] * b[c * 3 + k]).sum::<f32>();
                assert_eq!(y[r * 4 + c], want);
            }
        }
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn shapes_that_do_not_fit_are_refused() {
        matmul(View::dense(&[0.0; 5], 2, 3), View::dense(&[0.0; 3], 3, 1), &mut [0.0; 2], 1, false);
    }
}
