//! The gated parts of a block: gated residual (LiGR), SwiGLU (Shazeer 2020), and SiLU alone or as a gate (HSTU), forward
//! and backward.

use super::dispatch::dispatch;
use super::math::{sigmoid, silu_slope};
use crate::random::hash64;

/// Dropout drawn from a counter: element `i` of the stream `key` is kept if its hash is below a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    /// Which stream.
    pub key: u64,
    /// Counter of the first element.
    pub base: u64,
    /// Share of elements that are dropped, in [0, 1).
    pub rate: f32,
}

dispatch! {
    /// The factors of `out.len()` elements: all 1 at rate 0.
    fn dropout_factors<T>(dropout: Dropout, out: &mut [T]) {
        if dropout.rate <= 0.0 {
            out.fill(T::ONE);
            return;
        }
        let keep = ((1.0 - f64::from(dropout.rate)) * 4_294_967_296.0) as u64;
        let kept = T::of(f64::from(1.0 / (1.0 - dropout.rate)));
        for (i, o) in out.iter_mut().enumerate() {
            let bits = hash64(dropout.key, dropout.base + i as u64) >> 32;
            *o = if bits < keep { kept } else { T::ZERO };
        }
    }
}

dispatch! {
    /// `x += sigmoid(gate) * y * factor`.
    fn gated_add<T>(x: &mut [T], gate: &[T], y: &[T], factor: &[T]) {
        for (((x, g), y), f) in x.iter_mut().zip(gate).zip(y).zip(factor) {
            *x += sigmoid(*g) * *y * *f;
        }
    }
}

dispatch! {
    /// `x += sigmoid(gate) * y`.
    fn gated_add_plain<T>(x: &mut [T], gate: &[T], y: &[T]) {
        for ((x, g), y) in x.iter_mut().zip(gate).zip(y) {
            *x += sigmoid(*g) * *y;
        }
    }
}

dispatch! {
    /// Gradients of [`gated_add`] with respect to `gate` and `y`; the one with respect to `x` is `dout` itself.
    fn gated_add_backward<T>(gate: &[T], y: &[T], factor: &[T], dout: &[T], dgate: &mut [T], dy: &mut [T]) {
        for (((((g, y), f), d), dg), dy) in gate.iter().zip(y).zip(factor).zip(dout).zip(dgate).zip(dy) {
            let s = sigmoid(*g);
            *dy = *d * s * *f;
            *dg = *d * *y * *f * s * (T::ONE - s);
        }
    }
}

dispatch! {
    /// SwiGLU: `out = silu(a) * b` where each row of `ab` is `[a, b]`, each `hidden` wide.
    fn swiglu<T>(ab: &[T], hidden: usize, out: &mut [T]) {
        for (ab, out) in ab.chunks_exact(2 * hidden).zip(out.chunks_exact_mut(hidden)) {
            let (a, b) = ab.split_at(hidden);
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                *o = *a * sigmoid(*a) * *b;
            }
        }
    }
}

dispatch! {
    /// Gradient of [`swiglu`].
    fn swiglu_backward<T>(ab: &[T], hidden: usize, dout: &[T], dab: &mut [T]) {
        let rows = ab.chunks_exact(2 * hidden).zip(dout.chunks_exact(hidden)).zip(dab.chunks_exact_mut(2 * hidden));
        for ((ab, dout), dab) in rows {
            let (a, b) = ab.split_at(hidden);
            let (da, db) = dab.split_at_mut(hidden);
            for ((((a, b), d), da), db) in a.iter().zip(b).zip(dout).zip(da).zip(db) {
                let s = sigmoid(*a);
                *da = *d * *b * s * (T::ONE + *a * (T::ONE - s));
                *db = *d * *a * s;
            }
        }
    }
}

dispatch! {
    /// SiLU in place: `x *= sigmoid(x)`.
    fn silu<T>(x: &mut [T]) {
        for x in x {
            *x *= sigmoid(*x);
        }
    }
}

dispatch! {
    /// Gradient of [`silu`] at `x`, its argument: `d` comes as the gradient of the result.
    fn silu_backward<T>(x: &[T], d: &mut [T]) {
        for (x, d) in x.iter().zip(d) {
            *d *= silu_slope(*x);
        }
    }
}

dispatch! {
    /// `y *= silu(gate)`.
    fn silu_gate<T>(gate: &[T], y: &mut [T]) {
        for (g, y) in gate.iter().zip(y) {
            *y *= *g * sigmoid(*g);
        }
    }
}

dispatch! {
    /// Gradients of [`silu_gate`] with respect to `gate` and to `y`, its arguments.
    fn silu_gate_backward<T>(gate: &[T], y: &[T], dout: &[T], dgate: &mut [T], dy: &mut [T]) {
        for ((((g, y), d), dg), dy) in gate.iter().zip(y).zip(dout).zip(dgate).zip(dy) {
            *dg = *d * *y * silu_slope(*g);
            *dy = *d * *g * sigmoid(*g);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_its_share_and_does_not_depend_on_the_split() {
        let all = Dropout { key: 9, base: 0, rate: 0.25 };
        let mut a = vec![0.0f32; 10_000];
        dropout_factors(all, &mut a);
        let kept = a.iter().filter(|f| **f > 0.0).count() as f64 / 1e4;
        assert!((kept - 0.75).abs() < 0.02, "{kept}");
        let mut b = vec![0.0; 5_000];
        dropout_factors(Dropout { base: 5_000, ..all }, &mut b);
        assert_eq!(a[5_000..], b[..]);
    }
}
