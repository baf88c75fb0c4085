//! Where do the chunks of a training step run? As fused kernels on the CPU, or as candle's operations on a device (feature
//! `candle`).

#[cfg(feature = "candle")]
mod candle;
mod cpu;
mod device;

pub(crate) use device::Backend;
