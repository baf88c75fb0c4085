//! Which instruction set a kernel runs on.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Set {
    /// What every processor of the target has.
    Baseline = 1,
    /// AVX2.
    Avx2 = 2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
    /// The baseline by order of [`force_scalar`], which holds for matrix products too.
    Scalar = 4,
}

const UNKNOWN: u8 = 0;
static SET: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The set that kernels run on: the best of this processor, unless [`force_scalar`] says otherwise.
#[inline]
pub(crate) fn set() -> Set {
    match SET.load(Ordering::Relaxed) {
        UNKNOWN => choose(detected()),
        1 => Set::Baseline,
        2 => Set::Avx2,
        3 => Set::Avx512,
        _ => Set::Scalar,
    }
}

fn choose(set: Set) -> Set {
    SET.store(set as u8, Ordering::Relaxed);
    set
}

#[cold]
fn detected() -> Set {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Set::Avx512;
        }
        if has!("avx2") {
            return Set::Avx2;
        }
    }
    Set::Baseline
}

/// Makes all kernels of this process run on the baseline set, matrix products as plain loops in a fixed order, so that the same
/// request has the same bits on every processor: for tests against stored answers, at several times the cost. `false` takes it
/// back. Calls that run meanwhile may see either.
#[doc(hidden)]
pub fn force_scalar(on: bool) {
    choose(if on { Set::Scalar } else { detected() });
}

/// Compiles a function for AVX-512, for AVX2 and for the baseline, and picks one when it is called.
///
/// A kernel of training is generic over `<T>`, f32 or f64, so that its gradients can be tested to more digits than f32 has.
/// The body must be safe code; helpers that it calls must be `#[inline(always)]` to be compiled with it.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident $(<$real:ident>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name $(<$real: crate::kernels::real::Real>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$real: crate::kernels::real::Real>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use crate::kernels::dispatch::{Set, set};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$real: crate::kernels::real::Real>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$real: crate::kernels::real::Real>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match set() {
                    // SAFETY: this set is only ever chosen where the features that the callee is compiled for were detected.
                    Set::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Set::Avx2 => return unsafe { avx2($($arg),*) },
                    Set::Baseline | Set::Scalar => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use dispatch;
