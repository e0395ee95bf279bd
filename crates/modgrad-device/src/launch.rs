//! Shapes of launches and the arguments of kernels.

use bytemuck::{Pod, Zeroable};
use modgrad_graph::backend::{Operand, OperandMut};
use modgrad_graph::storage::Storage;
use modgrad_graph::{Error, Result};

use crate::driver::{Address, Argument, Shape};
use crate::memory::Memory;

/// Threads of a block; `BLOCK` in `kernels/device.h`.
pub const BLOCK: usize = 256;

/// One thread an element.
pub fn over(elements: usize) -> Shape {
    grid(elements.div_ceil(BLOCK), 1)
}

/// One block a row.
pub fn rows(rows: usize) -> Shape {
    grid(rows, 1)
}

/// `x` × `y` blocks of [`BLOCK`] threads; with none, nothing is launched.
pub fn grid(x: usize, y: usize) -> Shape {
    Shape { grid: [x as u32, y as u32, 1], block: [BLOCK as u32, 1, 1], shared: 0 }
}

/// How an element is called in the names of kernels.
pub fn suffix(storage: Storage) -> &'static str {
    match storage {
        Storage::F32 => "f32",
        Storage::Bf16 => "bf16",
        Storage::I32 => "i32",
        Storage::U8 => "u8",
    }
}

/// What [`crate::Device::launch`] needs to know of an operand.
pub trait Place {
    /// Its first byte.
    fn address(&self) -> Address;
    /// How many elements it has.
    fn elements(&self) -> usize;
    /// As an argument.
    fn pointer(&self) -> Argument {
        Argument::Pointer(self.address())
    }
}

impl Place for Operand<'_, Memory> {
    fn address(&self) -> Address {
        self.memory.address() + (self.offset * self.storage.size()) as u64
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Place for OperandMut<'_, Memory> {
    fn address(&self) -> Address {
        self.memory.address() + (self.offset * self.storage.size()) as u64
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// `Index` from a size.
pub fn index(size: usize) -> Argument {
    Argument::Index(size as i64)
}

/// A struct of the same layout as the kernel's.
pub fn plain<T: Pod>(value: &T) -> Argument {
    Argument::Struct(bytemuck::bytes_of(value).to_vec())
}

/// `Axes` of `kernels/device.h`: sizes and two operands' strides, outermost first.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Axes {
    rank: i64,
    size: [i64; 8],
    first: [i64; 8],
    second: [i64; 8],
}

impl Axes {
    /// Of at most 8 axes.
    pub fn new(
        op: &'static str,
        size: &[usize],
        first: &[usize],
        second: &[usize],
    ) -> Result<Axes> {
        if size.len() > 8 {
            return Err(Error::Shape {
                op,
                expected: "at most 8 axes on a GPU".to_owned(),
                found: format!("{} axes", size.len()),
            });
        }
        let mut axes = Axes::zeroed();
        axes.rank = size.len() as i64;
        for (all, given) in
            [(&mut axes.size, size), (&mut axes.first, first), (&mut axes.second, second)]
        {
            for (to, from) in all.iter_mut().zip(given) {
                *to = *from as i64;
            }
        }
        Ok(axes)
    }

    /// As an argument.
    pub fn argument(&self) -> Argument {
        plain(self)
    }
}
