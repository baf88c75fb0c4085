//! The one random generator of the crate: seeded and portable.
//!
//! Two forms share one mixing function. [`Rng`] is a stream (SplitMix64, Steele, Lea & Flood 2014); `hash64` is
//! counter-based, so that any element of a mask can be drawn in any order by any thread.

/// Mixes a 64-bit word; the finaliser of SplitMix64.
#[inline(always)]
pub(crate) fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Draws element `counter` of the stream named `key`: a pure function of its arguments.
#[inline(always)]
pub(crate) fn hash64(key: u64, counter: u64) -> u64 {
    mix64(key ^ counter.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A seeded stream of random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: mix64(seed ^ 0x6A09_E667_F3BC_C909) }
    }

    /// An independent stream for part `stream` of the work under `seed`.
    pub fn for_stream(seed: u64, stream: u64) -> Self {
        Self { state: hash64(mix64(seed ^ 0x6A09_E667_F3BC_C909), stream.wrapping_add(1)) }
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix64(self.state)
    }

    /// A uniform number in `0..n`; 0 if `n` is 0. The bias is below 2^-32 for any `n` under 2^32.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// A uniform number in [0, 1).
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal number (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut r = Rng::new(1);
        let n = 200_000;
        let mean = (0..n).map(|_| r.uniform()).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let var = (0..n).map(|_| r.normal().powi(2)).sum::<f64>() / n as f64;
        assert!((var - 1.0).abs() < 0.02, "{var}");
    }

    #[test]
    fn streams_differ() {
        assert_ne!(Rng::for_stream(1, 0).next_u64(), Rng::for_stream(1, 1).next_u64());
        assert_ne!(Rng::for_stream(1, 0).next_u64(), Rng::for_stream(2, 0).next_u64());
    }
}
