//! Host buffers, aligned to cache lines, read as slices of any plain type.

use bytemuck::{Pod, Zeroable};

use crate::backend::{Operand, OperandMut, Stretch};
use crate::error::{Error, Result};

/// One cache line: the unit of allocation, which gives the alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A buffer of whole cache lines; the length asked for is kept.
pub struct HostMemory {
    lines: Vec<Line>,
    bytes: usize,
}

impl HostMemory {
    /// `bytes` zeros; an error in words where the machine has no room.
    pub fn zeros(bytes: usize) -> Result<Self> {
        let count = bytes.div_ceil(64);
        let mut probe: Vec<Line> = Vec::new();
        probe.try_reserve_exact(count).map_err(|_| {
            Error::malformed(format!("it needs a buffer of {bytes} bytes, more than there is"))
        })?;
        drop(probe);
        // Zeroed pages come from the system untouched.
        let lines = bytemuck::allocation::zeroed_vec(count);
        Ok(HostMemory { lines, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes]
    }

    pub(super) fn slice<T: Pod>(&self, at: Stretch) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[at.start..at.start + at.count]
    }

    pub(super) fn slice_mut<T: Pod>(&mut self, at: Stretch) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[at.start..at.start + at.count]
    }

    pub(super) fn all_mut<T: Pod>(&mut self) -> &mut [T] {
        let count = self.bytes / size_of::<T>();
        self.slice_mut(Stretch { start: 0, count })
    }
}

impl<'a> Operand<'a, HostMemory> {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn slice<T: Pod>(&self) -> &'a [T] {
        self.memory.slice(Stretch { start: self.offset, count: self.elements() })
    }
}

impl OperandMut<'_, HostMemory> {
    pub(super) fn slice_mut<T: Pod>(&mut self) -> &mut [T] {
        let count = self.shape.iter().product();
        self.memory.slice_mut(Stretch { start: self.offset, count })
    }
}
