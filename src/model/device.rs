//! Which machine part tensors live on.

use crate::error::{Result, err};
use crate::options::Device;

/// Opens a device.
///
/// # Errors
/// `DeviceUnavailable` where this build or this host has no such device.
pub(crate) fn open(device: Device) -> Result<candle_core::Device> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(ordinal) => {
            if !candle_core::utils::cuda_is_available() {
                return Err(err!(
                    DeviceUnavailable,
                    "device cuda:{ordinal}: this build has no CUDA support; build with the feature `cuda`, or use cpu"
                ));
            }
            // One real stream instead of the per-thread default one: tensors cross threads here.
            candle_core::Device::new_cuda_with_stream(ordinal).map_err(|e| {
                let text = e.to_string();
                // candle appends a backtrace where the environment asks for one.
                let what = text.lines().next().unwrap_or("no reason given");
                err!(DeviceUnavailable, "device cuda:{ordinal} cannot be opened: {what}; check the driver, or use cpu")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_the_device_gets_a_typed_error() {
        assert!(open(Device::Cpu).is_ok());
        let e = open(Device::Cuda(4096)).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::DeviceUnavailable, "{e}");
    }
}
