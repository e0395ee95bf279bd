//! Scratch in pieces, for ops with many temporary buffers.

use modgrad_graph::Result;

use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument};

/// What pieces begin at multiples of.
const ALIGNMENT: usize = 256;

impl Device {
    /// Pieces of one temporary buffer, of so many elements of 4 bytes each.
    pub(crate) fn pieces<const N: usize>(
        &self,
        which: Scratch,
        counts: [usize; N],
    ) -> Result<[Address; N]> {
        let mut ends = 0;
        let starts = counts.map(|count| {
            let start = ends;
            ends += (count * 4).next_multiple_of(ALIGNMENT);
            start
        });
        let buffer = self.scratch(which, ends)?;
        Ok(starts.map(|start| buffer + start as u64))
    }
}

/// An address as an argument.
pub(crate) fn pointer(address: Address) -> Argument {
    Argument::Pointer(address)
}
