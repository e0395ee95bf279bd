//! What a vendor's libraries must do, and no more: memory, code, launches, matrix products.
//!
//! Everything happens in the order of the calls, as on one stream; only `copy_out` and
//! `synchronise` wait.

use modgrad_graph::Result;

use crate::source::Source;

/// An address in the device's memory.
pub type Address = u64;

/// A function of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub u64);

/// A loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module(pub u64);

/// One argument of a kernel, of exactly its parameter's size.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A pointer into device memory.
    Pointer(Address),
    /// `int`.
    Int(i32),
    /// `Index`.
    Index(i64),
    /// `float`.
    Float(f32),
    /// `unsigned long long`.
    Word(u64),
    /// A plain struct, by its bytes.
    Struct(Vec<u8>),
}

/// Arguments laid out as launches want them: each at an address of its own.
pub struct Packed {
    words: Vec<u64>,
    /// Where each begins, and how many bytes it has.
    places: Vec<(usize, usize)>,
}

impl Packed {
    /// Copies the arguments' bytes.
    pub fn new(arguments: &[Argument]) -> Packed {
        let mut packed = Packed { words: Vec::new(), places: Vec::with_capacity(arguments.len()) };
        for argument in arguments {
            match argument {
                Argument::Pointer(address) => packed.push(&address.to_ne_bytes()),
                Argument::Int(value) => packed.push(&value.to_ne_bytes()),
                Argument::Index(value) => packed.push(&value.to_ne_bytes()),
                Argument::Float(value) => packed.push(&value.to_ne_bytes()),
                Argument::Word(value) => packed.push(&value.to_ne_bytes()),
                Argument::Struct(bytes) => packed.push(bytes),
            }
        }
        packed
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = self.words.len();
        self.words.resize(start + bytes.len().div_ceil(8), 0);
        let room: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words[start..]);
        room[..bytes.len()].copy_from_slice(bytes);
        self.places.push((start, bytes.len()));
    }

    /// Where each argument is.
    pub fn pointers(&self) -> Vec<*const u8> {
        self.places.iter().map(|(start, _)| self.words[*start..].as_ptr().cast()).collect()
    }

    /// How many bytes each has.
    pub fn sizes(&self) -> Vec<u32> {
        self.places.iter().map(|(_, bytes)| *bytes as u32).collect()
    }
}

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub shared: u32,
}

/// Elements that matrix products take and give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
}

/// `batch` products C = A·B, row-major, sums in f32; with `add`, C += A·B.
/// No size is 0. Strides are from one matrix to the next, in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // Fields are explained above.
pub struct Product {
    /// Rows of C, columns of C, and what is summed over.
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    /// A is m × k, or stored k × m where `transpose_a`; B is k × n, or stored n × k.
    pub a: Address,
    pub b: Address,
    pub c: Address,
    pub stride_a: usize,
    pub stride_b: usize,
    pub stride_c: usize,
    pub transpose_a: bool,
    pub transpose_b: bool,
    /// Of A and B; an f32 product is one of f32 factors, not of shortened ones.
    pub factors: Float,
    /// Of C.
    pub result: Float,
    pub add: bool,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The card's name.
    pub name: String,
    /// What kernels are compiled for, as `sm_90` or `gfx1102`.
    pub architecture: String,
    /// Versions of driver, run-time compiler and library of matrix products.
    pub versions: Vec<(String, String)>,
    /// Bytes of memory, and how many were free when asked.
    pub memory: (u64, u64),
}

/// A device through its vendor's libraries.
pub trait Driver: Send + Sync {
    /// What the device is.
    fn describe(&self) -> Result<Description>;

    /// `bytes` of memory, more than none, with any contents.
    fn allocate(&self, bytes: usize) -> Result<Address>;
    /// Gives memory back.
    fn free(&self, address: Address);
    /// Copies from the host.
    fn copy_in(&self, to: Address, bytes: &[u8]) -> Result<()>;
    /// Copies to the host, after all that was asked for before.
    fn copy_out(&self, from: Address, bytes: &mut [u8]) -> Result<()>;
    /// Copies within the device; the stretches don't overlap.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;
    /// Sets every byte.
    fn set(&self, address: Address, byte: u8, bytes: usize) -> Result<()>;
    /// Whether outputs should be poisoned before each op, as a check.
    fn poisons(&self) -> bool {
        false
    }

    /// Compiles a source, or takes it from the cache, and loads it.
    fn load(&self, source: &Source) -> Result<Module>;
    /// A kernel by its name.
    fn function(&self, module: Module, name: &str) -> Result<Function>;
    /// Runs a kernel.
    fn launch(&self, function: Function, shape: Shape, arguments: &[Argument]) -> Result<()>;
    /// Runs matrix products.
    fn product(&self, product: &Product) -> Result<()>;
    /// Waits for all that was asked for.
    fn synchronise(&self) -> Result<()>;
}
