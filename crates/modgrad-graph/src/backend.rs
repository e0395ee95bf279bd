//! What a device must be able to do to run plans.
//!
//! Memory is the device's own: an executor only moves bytes in and out through
//! [`Backend::write`] and [`Backend::read`], and no op may assume host memory.

use modgrad_compute::optimiser::{AdamW, RowwiseAdagrad, Sgd};

use crate::error::{Error, Result};
use crate::op::Op;
use crate::reference::RunKey;
use crate::storage::{Precision, Storage};

/// A tensor that an instruction reads.
pub struct Operand<'a, M> {
    /// The buffer that holds it.
    pub memory: &'a M,
    /// Its first element within the buffer.
    pub offset: usize,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements as stored.
    pub storage: Storage,
}

/// A tensor that an instruction writes.
pub struct OperandMut<'a, M> {
    /// The buffer that holds it.
    pub memory: &'a mut M,
    /// Its first element within the buffer.
    pub offset: usize,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements as stored.
    pub storage: Storage,
}

/// A matrix product that was not formed: left·right.
pub struct Product<'a, M> {
    /// A matrix.
    pub left: Operand<'a, M>,
    /// A matrix.
    pub right: Operand<'a, M>,
    /// Which of the two are to be transposed first.
    pub transposed: (bool, bool),
}

/// A stretch of a flat buffer: first element and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first element.
    pub start: usize,
    /// How many.
    pub count: usize,
}

/// One parameter stretch with what its update needs.
pub struct Update<'a, M> {
    /// Which elements of each buffer.
    pub stretch: Stretch,
    /// The flat parameters.
    pub parameter: &'a mut M,
    /// Their bf16 copy, kept up to date where there is one.
    pub shadow: Option<&'a mut M>,
    /// Their gradients.
    pub gradient: &'a M,
}

/// A device that runs instructions.
pub trait Backend {
    /// A buffer on the device.
    type Memory: Send;
    /// Gradients of the few rows of a table that a step touches.
    type SparseGradient: Send;

    /// A buffer of zeros.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory>;
    /// Copies host bytes into a buffer, from byte `offset` on.
    fn write(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()>;
    /// Copies a buffer's bytes, from byte `offset` on, to the host.
    fn read(&self, memory: &Self::Memory, offset: usize, bytes: &mut [u8]) -> Result<()>;
    /// Sets `stretch` of an f32 buffer to one value.
    fn fill(&self, memory: &mut Self::Memory, stretch: Stretch, value: f32) -> Result<()>;

    /// Runs one op; with `add`, its output is added to what is there.
    fn run(
        &self,
        op: &Op,
        key: RunKey,
        precision: Precision,
        inputs: &[Operand<'_, Self::Memory>],
        outputs: &mut [OperandMut<'_, Self::Memory>],
        add: bool,
    ) -> Result<()>;

    /// into = from, or with `add` into += from.
    fn accumulate(
        &self,
        from: Operand<'_, Self::Memory>,
        into: OperandMut<'_, Self::Memory>,
        add: bool,
    ) -> Result<()>;

    /// Rounds a stretch of f32 to bf16.
    fn narrow(&self, from: &Self::Memory, into: &mut Self::Memory, stretch: Stretch) -> Result<()>;
    /// Σ x² over a stretch of f32, in f64.
    fn sum_of_squares(&self, memory: &Self::Memory, stretch: Stretch) -> Result<f64>;

    /// An AdamW update.
    fn adamw(
        &self,
        rule: AdamW,
        update: Update<'_, Self::Memory>,
        first: &mut Self::Memory,
        second: &mut Self::Memory,
    ) -> Result<()>;
    /// Whether AdamW may be given a gradient as factors: [`Backend::adamw_of_product`]
    /// and [`Backend::sum_of_squares_of_products`].
    fn takes_factors(&self) -> bool {
        false
    }
    /// Σ x² over the elements of all products, in f64.
    fn sum_of_squares_of_products(
        &self,
        _precision: Precision,
        _products: &[Product<'_, Self::Memory>],
    ) -> Result<f64> {
        Err(Error::malformed("this backend takes no gradients as factors"))
    }
    /// An AdamW update by a gradient that is a product; `update.gradient` is not read.
    fn adamw_of_product(
        &self,
        _rule: AdamW,
        _precision: Precision,
        _product: Product<'_, Self::Memory>,
        _update: Update<'_, Self::Memory>,
        _first: &mut Self::Memory,
        _second: &mut Self::Memory,
    ) -> Result<()> {
        Err(Error::malformed("this backend takes no gradients as factors"))
    }
    /// A momentum SGD update.
    fn sgd(
        &self,
        rule: Sgd,
        update: Update<'_, Self::Memory>,
        velocity: &mut Self::Memory,
    ) -> Result<()>;
    /// A Muon update of one `rows` × `columns` matrix.
    fn muon(
        &self,
        rule: Muon,
        rows: usize,
        columns: usize,
        update: Update<'_, Self::Memory>,
        velocity: &mut Self::Memory,
    ) -> Result<()>;
    /// average = decay·average + (1 − decay)·from over a stretch.
    fn average(
        &self,
        decay: f32,
        from: &Self::Memory,
        average: &mut Self::Memory,
        stretch: Stretch,
    ) -> Result<()>;

    /// An empty sparse gradient of a rows × width table.
    fn sparse_gradient(&self, rows: usize, width: usize) -> Self::SparseGradient;
    /// Adds the rows that `indices` name, `bag` of them to one row of `gradient`.
    fn sparse_accumulate(
        &self,
        sparse: &mut Self::SparseGradient,
        bag: usize,
        indices: Operand<'_, Self::Memory>,
        gradient: Operand<'_, Self::Memory>,
    ) -> Result<()>;
    /// Σ x² over the touched rows.
    fn sparse_sum_of_squares(&self, sparse: &Self::SparseGradient) -> Result<f64>;
    /// A row-wise Adagrad update of the touched rows; empties the gradient.
    fn rowwise_adagrad(
        &self,
        rule: RowwiseAdagrad,
        sparse: &mut Self::SparseGradient,
        width: usize,
        table: &mut Self::Memory,
        state: &mut Self::Memory,
    ) -> Result<()>;
}

/// Muon (Jordan et al., 2024): momentum, orthogonalised by Newton–Schulz steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate of the orthogonalised update.
    pub learning_rate: f32,
    /// Momentum of the gradient.
    pub momentum: f32,
    /// Whether the update looks one step ahead.
    pub nesterov: bool,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Newton–Schulz steps.
    pub steps: u32,
    /// What the gradient is multiplied with before anything else.
    pub gradient_scale: f32,
}
