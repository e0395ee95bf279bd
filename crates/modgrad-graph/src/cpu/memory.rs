//! Host buffers, aligned to cache lines, read as slices of any plain type.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::backend::{Operand, OperandMut, Stretch};
use crate::error::{Error, Result};

/// From here on a buffer is mapped by itself and asks for huge pages: lookups
/// in large tables and passes over activations are bound by the walks of page
/// tables otherwise, above all on virtual machines.
const MAPPED_BYTES: usize = 1 << 20;

/// One cache line: the unit of small allocations, which gives the alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A buffer of zeros to begin with.
pub struct HostMemory {
    pages: Pages,
    bytes: usize,
}

enum Pages {
    Lines(Vec<Line>),
    Mapped(MmapMut),
}

impl HostMemory {
    /// `bytes` zeros; an error in words where the machine has no room.
    pub fn zeros(bytes: usize) -> Result<Self> {
        let lines = bytes.div_ceil(64);
        let pages = if bytes < MAPPED_BYTES {
            Pages::Lines(vec![Line::zeroed(); lines])
        } else {
            let mapped = MmapMut::map_anon(lines * 64).map_err(|error| {
                Error::malformed(format!("no room for a buffer of {bytes} bytes ({error})"))
            })?;
            // A kernel without huge pages serves small ones: slower, no less right.
            #[cfg(target_os = "linux")]
            mapped.advise(memmap2::Advice::HugePage).ok();
            Pages::Mapped(mapped)
        };
        Ok(HostMemory { pages, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let all = match &self.pages {
            Pages::Lines(lines) => bytemuck::cast_slice(lines),
            Pages::Mapped(mapped) => &mapped[..],
        };
        &all[..self.bytes]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let all = match &mut self.pages {
            Pages::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Pages::Mapped(mapped) => &mut mapped[..],
        };
        &mut all[..self.bytes]
    }

    pub(super) fn slice<T: Pod>(&self, at: Stretch) -> &[T] {
        let size = size_of::<T>();
        bytemuck::cast_slice(&self.bytes()[at.start * size..(at.start + at.count) * size])
    }

    pub(super) fn slice_mut<T: Pod>(&mut self, at: Stretch) -> &mut [T] {
        let size = size_of::<T>();
        bytemuck::cast_slice_mut(
            &mut self.bytes_mut()[at.start * size..(at.start + at.count) * size],
        )
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
