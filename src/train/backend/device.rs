//! The choice between the ways to run a chunk.

use crate::error::{Result, err};
use crate::model::tape::Memory;
use crate::options::Device;
use crate::train::foundation::step::{Chunk, Gradients, Input, Shared};

/// Tokens of one chunk on the CPU, at most where windows allow: its activations stay near a core.
const CHUNK: usize = 1536;

/// What runs the chunks of a step.
#[derive(Debug)]
pub(crate) enum Backend {
    /// Fused kernels, on the CPU.
    Fused,
    /// candle's operations.
    #[cfg(feature = "candle")]
    Composed(candle_core::Device),
}

impl Backend {
    /// What runs on a device.
    ///
    /// # Errors
    /// `DeviceUnavailable` where this build or this host has no such device.
    pub(crate) fn open(device: Device) -> Result<Self> {
        let Device::Cuda(ordinal) = device else { return Ok(Self::Fused) };
        #[cfg(feature = "candle")]
        if candle_core::utils::cuda_is_available() {
            return super::candle::cuda(ordinal).map(Self::Composed);
        }
        Err(err!(
            DeviceUnavailable,
            "device cuda:{ordinal}: this build has no CUDA support; build with the feature `cuda`, or use cpu"
        ))
    }

    /// Tokens of one chunk, at most where windows allow.
    pub(crate) fn chunk_tokens(&self) -> usize {
        match self {
            Self::Fused => CHUNK,
            #[cfg(feature = "candle")]
            Self::Composed(device) => {
                if device.is_cpu() {
                    CHUNK
                } else {
                    usize::MAX
                }
            }
        }
    }

    /// One chunk, forward and backward: its losses and gradients are added to `part`.
    ///
    /// # Errors
    /// `Internal` if an operation fails.
    pub(crate) fn pass(
        &self,
        shared: &Shared<'_>,
        chunk: &Chunk,
        input: Input,
        part: &mut Gradients,
        memory: &mut Memory,
    ) -> Result<()> {
        match self {
            Self::Fused => super::cpu::pass(shared, chunk, input, part, memory),
            #[cfg(feature = "candle")]
            Self::Composed(device) => super::candle::pass(device, shared, chunk, &input, part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_the_device_gets_a_typed_error() {
        assert!(matches!(Backend::open(Device::Cpu), Ok(Backend::Fused)));
        let e = Backend::open(Device::Cuda(4096)).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::DeviceUnavailable, "{e}");
    }
}
