//! Scalar functions and reductions in the forms that vectorise: no branches, fixed lanes.

use super::dispatch::dispatch;

/// Lanes of every reduction; one AVX-512 register of f32.
pub(crate) const LANES: usize = 16;

/// e^x, relative error below 2e-7 on [-87, 88]; saturates outside (Cephes `expf`, Moshier 1992).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    let t = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = t - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    let scale = f32::from_bits((t.to_bits().wrapping_sub(0x4B40_0000).wrapping_add(127)) << 23);
    p * scale
}

/// A number that kernels compute with: f32, and f64 in their tests.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + Default
    + std::fmt::Debug
    + Send
    + Sync
    + std::iter::Sum
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The lowest finite number.
    const LOWEST: Self;
    /// The nearest number of this type.
    fn of(x: f64) -> Self;
    /// The same number in f64.
    fn wide(self) -> f64;
    /// e^x.
    fn exp(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;

    /// The larger of two numbers.
    #[inline(always)]
    fn most(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

macro_rules! real {
    ($t:ty, $exp:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = <$t>::MIN;
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
        }
    };
}

real!(f32, exp);
real!(f64, |x: f64| x.exp());

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
    fn exp_is_accurate_and_saturates() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!((got - want).abs() <= 3e-7 * want, "exp({x}) = {got}, not {want}");
        }
        assert!(exp(-1e9) >= 0.0 && exp(-1e9) < 1e-37);
        assert!(exp(1e9).is_finite());
        assert_eq!(sigmoid(0.0), 0.5);
    }

    #[test]
    fn reductions_match_their_definitions_at_every_length() {
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
