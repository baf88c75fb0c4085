//! What must run at the speed of memory? Numeric kernels on plain slices, shared by training and serving.
//!
//! Every kernel is written once as portable code that the compiler vectorises, and compiled for several instruction
//! sets by [`dispatch!`]. Reductions run in a fixed number of lanes and nothing is contracted, so that every set gives the
//! same bits; only matrix products ([`matmul`]) may differ between processors.
#![expect(unsafe_code, reason = "runtime selection of instruction sets, and matrix products through raw pointers")]

pub(crate) mod adam;
pub(crate) mod attention;
pub(crate) mod first_order;
pub(crate) mod gate;
pub(crate) mod heads;
pub(crate) mod inner;
pub(crate) mod math;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rank;
pub(crate) mod retrieve;
pub(crate) mod softmax;

use std::sync::atomic::{AtomicBool, Ordering};

static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Whether all kernels of this process run the portable code, matrix products included, which gives the same bits on every processor.
/// For tests that compare bits; slow.
#[doc(hidden)]
pub fn portable_kernels(on: bool) {
    PORTABLE.store(on, Ordering::Relaxed);
}

fn is_portable() -> bool {
    PORTABLE.load(Ordering::Relaxed)
}

/// Compiles a function for AVX-512, for AVX2 and for the baseline, and picks one when it is called.
///
/// A kernel of training is generic over `<T>`, f32 or f64, so that its gradients can be tested to more digits than f32 has.
/// The body must be safe code; helpers that it calls must be `#[inline(always)]` to be compiled with it.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident $(<$real:ident>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name $(<$real: crate::kernels::math::Real>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$real: crate::kernels::math::Real>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$real: crate::kernels::math::Real>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$real: crate::kernels::math::Real>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if crate::kernels::is_portable() {
                    return body($($arg),*);
                }
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the four features that the callee is compiled for were detected just above.
                    return unsafe { avx512($($arg),*) };
                }
                if std::is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature that the callee is compiled for was detected just above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use dispatch;
