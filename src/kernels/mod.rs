//! What must run at the speed of memory? Numeric kernels on plain slices, shared by training and serving.
//!
//! Every kernel is written once as portable code that the compiler vectorises, and compiled for several instruction
//! sets by [`dispatch::dispatch!`]. Reductions run in a fixed number of lanes and nothing is contracted, so that every set gives
//! the same bits; only matrix products ([`matmul`]) may differ between processors, unless [`force_scalar`] makes them plain loops.
#![expect(unsafe_code, reason = "runtime selection of instruction sets, and matrix products through raw pointers")]

pub(crate) mod adam;
pub(crate) mod attention;
pub(crate) mod dispatch;
pub(crate) mod first_order;
pub(crate) mod gate;
pub(crate) mod heads;
pub(crate) mod inner;
pub(crate) mod math;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod positive;
pub(crate) mod rank;
pub(crate) mod real;
pub(crate) mod retrieve;
pub(crate) mod softmax;

pub use dispatch::force_scalar;
