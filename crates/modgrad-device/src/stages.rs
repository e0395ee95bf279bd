//! What ops of many stages share: scratch in pieces, and products of f32 matrices.

use modgrad_graph::Result;

use crate::device::{Device, Scratch};
use crate::driver::{Address, Argument, Float, Product};

/// What pieces begin at multiples of.
const ALIGNMENT: usize = 256;

impl Device {
    /// Pieces of one temporary buffer: `lay_out` takes each by its elements of 4 bytes. It
    /// is called twice, first to measure.
    pub(crate) fn room<T>(
        &self,
        which: Scratch,
        lay_out: impl Fn(&mut dyn FnMut(usize) -> Address) -> T,
    ) -> Result<T> {
        let mut next: Address = 0;
        let mut take = |count: usize| {
            let start = next;
            next += (count * 4).next_multiple_of(ALIGNMENT) as Address;
            start
        };
        lay_out(&mut take);
        let bytes = next as usize;
        next = self.scratch(which, bytes)?;
        let mut take = |count: usize| {
            let start = next;
            next += (count * 4).next_multiple_of(ALIGNMENT) as Address;
            start
        };
        Ok(lay_out(&mut take))
    }

    /// A few pieces.
    pub(crate) fn pieces<const N: usize>(
        &self,
        which: Scratch,
        counts: [usize; N],
    ) -> Result<[Address; N]> {
        self.room(which, |take| counts.map(take))
    }

    /// Zeros in so many elements of 4 bytes.
    pub(crate) fn clear(&self, at: Address, count: usize) -> Result<()> {
        if count > 0 {
            self.driver().set(at, 0, count * 4)?;
        }
        Ok(())
    }

    /// c [m, n] = a·b, or with `add` c += a·b, over k; a flag says that a factor is stored
    /// the other way round.
    pub(crate) fn multiply(
        &self,
        [m, n, k]: [usize; 3],
        (a, transpose_a): (Address, bool),
        (b, transpose_b): (Address, bool),
        c: Address,
        add: bool,
    ) -> Result<()> {
        self.product(&Product {
            m,
            n,
            k,
            batch: 1,
            a,
            b,
            c,
            stride_a: m * k,
            stride_b: k * n,
            stride_c: m * n,
            transpose_a,
            transpose_b,
            factors: Float::F32,
            result: Float::F32,
            add,
        })
    }
}

/// An address as an argument.
pub(crate) fn pointer(address: Address) -> Argument {
    Argument::Pointer(address)
}
