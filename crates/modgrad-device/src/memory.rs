//! A buffer in the device's memory, and what the host still knows of it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use modgrad_graph::{Error, Result};

use crate::driver::{Address, Driver};

/// Bytes of all buffers of this process, now and at most.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

/// The most bytes that buffers on devices took at once in this process. What the vendor's
/// libraries take for themselves is not in it.
pub fn peak_bytes() -> usize {
    MOST_HELD.load(Ordering::Relaxed)
}

/// A buffer in the device's memory.
pub struct Memory {
    driver: Arc<dyn Driver>,
    address: Address,
    bytes: usize,
    host: Mutex<Host>,
}

/// Of a stretch that an op reads on the host, its bytes, while they are those on the device.
#[derive(Default)]
struct Host {
    stretch: Range<usize>,
    copy: Option<Arc<[u8]>>,
}

impl Memory {
    /// With any contents.
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Memory> {
        let address = driver.allocate(bytes.max(1))?;
        let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
        MOST_HELD.fetch_max(held, Ordering::Relaxed);
        Ok(Memory { driver: driver.clone(), address, bytes, host: Mutex::default() })
    }

    /// Where it begins.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies from the host.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_range(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let host = self.host.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Range { start, end } = host.stretch;
        if offset <= start && end <= offset + bytes.len() {
            host.copy = (start < end).then(|| bytes[start - offset..end - offset].into());
        } else if offset < end && start < offset + bytes.len() {
            host.copy = None;
        }
        self.driver.copy_in(self.address + offset as u64, bytes)
    }

    /// Bytes `start` to `start + count` on the host: copied from the device the first time,
    /// and known without it from then on as long as only the host writes them.
    pub(crate) fn on_host(&self, start: usize, count: usize) -> Result<Arc<[u8]>> {
        self.check_range(start, count)?;
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let stretch = start..start + count;
        match &host.copy {
            Some(copy) if host.stretch == stretch => return Ok(copy.clone()),
            _ => {}
        }
        let mut bytes = vec![0; count];
        if count > 0 {
            self.driver.copy_out(self.address + start as u64, &mut bytes)?;
        }
        let copy: Arc<[u8]> = bytes.into();
        *host = Host { stretch, copy: Some(copy.clone()) };
        Ok(copy)
    }

    /// Keeps on the host what the host wrote last from `start` on.
    pub(crate) fn keep_on_host(&mut self, start: usize, bytes: &[u8]) {
        let host = self.host.get_mut().unwrap_or_else(PoisonError::into_inner);
        *host = Host { stretch: start..start + bytes.len(), copy: Some(bytes.into()) };
    }

    /// The device writes: what the host knows is out of date.
    pub(crate) fn changes(&mut self) {
        self.host.get_mut().unwrap_or_else(PoisonError::into_inner).copy = None;
    }

    /// Fills `bytes` if the host knows them.
    pub(crate) fn read_on_host(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(copy) = &host.copy else { return false };
        let end = offset + bytes.len();
        if offset < host.stretch.start || end > host.stretch.end {
            return false;
        }
        bytes.copy_from_slice(&copy[offset - host.stretch.start..end - host.stretch.start]);
        true
    }

    /// Refuses what is not within the buffer.
    pub(crate) fn check_range(&self, offset: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            let reason = format!("{bytes} bytes at {offset} of a buffer of {}", self.bytes);
            return Err(Error::Malformed { reason });
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes, Ordering::Relaxed);
        self.driver.free(self.address);
    }
}
