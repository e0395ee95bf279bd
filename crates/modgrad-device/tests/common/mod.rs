//! The device that tests run on.

use std::env;

use modgrad_device::Device;

/// The emulated one, or the one that `MODGRAD_TEST_DEVICE` names.
pub fn device() -> Device {
    let name = env::var("MODGRAD_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    Device::open(&name, &[]).unwrap()
}
