//! Scalar functions and reductions in the forms that vectorise: no branches, fixed lanes.

use super::dispatch::dispatch;
pub(crate) use super::real::Real;

/// Lanes of every reduction; one AVX-512 register of f32.
pub(crate) const LANES: usize = 16;

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// The derivative of `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu_slope<T: Real>(x: T) -> T {
    let s = sigmoid(x);
    s * (T::ONE + x * (T::ONE - s))
}

/// The dot product in fixed lanes.
#[inline(always)]
pub(crate) fn dot_inline<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (ac, bc) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ar, br) = (ac.remainder(), bc.remainder());
    for (x, y) in ac.zip(bc) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let tail: T = ar.iter().zip(br).map(|(x, y)| *x * *y).sum();
    sum_lanes(&lanes) + tail
}

/// The sum in fixed lanes.
#[inline(always)]
pub(crate) fn sum_inline<T: Real>(a: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    sum_lanes(&lanes) + rest.iter().copied().sum::<T>()
}

/// The largest value, the lowest there is if there is none.
#[inline(always)]
pub(crate) fn max_inline<T: Real>(a: &[T]) -> T {
    let mut lanes = [T::LOWEST; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(T::LOWEST, |m, &x| if x > m { x } else { m })
}

#[inline(always)]
fn sum_lanes<T: Real>(lanes: &[T; LANES]) -> T {
    let mut width = LANES;
    let mut v = *lanes;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            let other = v[i + width];
            v[i] += other;
        }
    }
    v[0]
}

dispatch! {
    /// The dot product of two slices of equal length (the shorter one counts).
    fn dot<T>(a: &[T], b: &[T]) -> T { dot_inline(a, b) }
}

dispatch! {
    /// `to += from`.
    fn add<T>(to: &mut [T], from: &[T]) {
        for (t, f) in to.iter_mut().zip(from) {
            *t += *f;
        }
    }
}

dispatch! {
    /// `to *= by`, element by element.
    fn multiply<T>(to: &mut [T], by: &[T]) {
        for (t, b) in to.iter_mut().zip(by) {
            *t *= *b;
        }
    }
}

dispatch! {
    /// `to += share * (from - to)`.
    fn towards(to: &mut [f32], from: &[f32], share: f32) {
        for (t, f) in to.iter_mut().zip(from) {
            *t += share * (f - *t);
        }
    }
}

dispatch! {
    /// `to *= factor`.
    fn scale<T>(to: &mut [T], factor: T) {
        for t in to {
            *t *= factor;
        }
    }
}

dispatch! {
    /// The sum of squares, accumulated in f64 per chunk so that large gradients keep their norm.
    fn square_sum(a: &[f32]) -> f64 {
        a.chunks(4096).map(|c| f64::from(dot_inline(c, c))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_match_their_definitions_at_every_length() {
        assert_eq!(sigmoid(0.0f32), 0.5);
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..n).map(|i| ((i * 17) % 7) as f32 - 3.0).collect();
            assert_eq!(dot(&a, &b), a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>());
            assert_eq!(sum_inline(&a), a.iter().sum::<f32>());
            assert_eq!(max_inline(&a), a.iter().copied().fold(f32::MIN, f32::max));
            assert_eq!(square_sum(&a), f64::from(a.iter().map(|x| x * x).sum::<f32>()));
        }
    }
}
