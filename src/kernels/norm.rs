//! Layer normalisation (Ba et al. 2016) and rows of length one, forward and backward.

use super::dispatch::dispatch;
use super::math::{Real, dot_inline, sum_inline};

/// Added to the variance.
pub(crate) const EPSILON: f32 = 1e-5;

#[inline(always)]
fn moments<T: Real>(x: &[T]) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = sum_inline(x) / n;
    // The second pass centres first: the variance of rows far from zero stays exact.
    let mut lanes = [T::ZERO; 16];
    let chunks = x.chunks_exact(16);
    let rest: T = chunks.remainder().iter().map(|v| (*v - mean) * (*v - mean)).sum();
    for c in chunks {
        for i in 0..16 {
            lanes[i] += (c[i] - mean) * (c[i] - mean);
        }
    }
    let variance = (sum_inline(&lanes) + rest) / n;
    (mean, T::ONE / (variance + T::of(f64::from(EPSILON))).sqrt())
}

dispatch! {
    /// `y = (x - mean) / sqrt(var + eps) * gain + bias` for each row of `x`, whose width is `gain.len()`.
    fn layer_norm<T>(x: &[T], gain: &[T], bias: &[T], y: &mut [T]) {
        let d = gain.len();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let (mean, inverse) = moments(x);
            for (((y, x), g), b) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                *y = (*x - mean) * inverse * *g + *b;
            }
        }
    }
}

dispatch! {
    /// Gradients of [`layer_norm`], added to `dx`, `dgain` and `dbias`.
    fn layer_norm_backward<T>(x: &[T], gain: &[T], dy: &[T], dx: &mut [T], dgain: &mut [T], dbias: &mut [T]) {
        let d = gain.len();
        let mut hat = vec![T::ZERO; d];
        let mut g = vec![T::ZERO; d];
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let (mean, inverse) = moments(x);
            for i in 0..d {
                hat[i] = (x[i] - mean) * inverse;
                g[i] = dy[i] * gain[i];
                dgain[i] += dy[i] * hat[i];
                dbias[i] += dy[i];
            }
            let a = sum_inline(&g) / T::of(d as f64);
            let b = dot_inline(&g, &hat) / T::of(d as f64);
            for i in 0..d {
                dx[i] += (g[i] - a - hat[i] * b) * inverse;
            }
        }
    }
}

/// The shortest length that a row is divided by.
pub(crate) const SHORTEST: f32 = 1e-6;

dispatch! {
    /// Multiplies each row of `x` by `factor`, and first divides it by its length if `unit`.
    fn scale_rows<T>(x: &mut [T], width: usize, unit: bool, factor: f32) {
        let (factor, shortest) = (T::of(f64::from(factor)), T::of(f64::from(SHORTEST)));
        for row in x.chunks_exact_mut(width) {
            let by = if unit { factor / dot_inline(row, row).sqrt().most(shortest) } else { factor };
            for v in row {
                *v *= by;
            }
        }
    }
}

dispatch! {
    /// Gradient of [`scale_rows`] at its input `x`, added to `dx`.
    fn scale_rows_backward<T>(x: &[T], width: usize, unit: bool, factor: f32, dy: &[T], dx: &mut [T]) {
        let (factor, shortest) = (T::of(f64::from(factor)), T::of(f64::from(SHORTEST)));
        for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let (by, along) = match unit {
                false => (factor, T::ZERO),
                true => {
                    let squares = dot_inline(x, x).most(shortest * shortest);
                    (factor / squares.sqrt(), dot_inline(x, dy) / squares)
                }
            };
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx += (*dy - along * *x) * by;
            }
        }
    }
}
