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
    /// Where [`Backend::clip`] left by what more than the rule's `gradient_scale` the gradient
    /// is to be multiplied, if it is clipped.
    pub clip: Option<&'a M>,
}

/// A whole gradient, in the parts in which it is kept.
pub struct Gradient<'a, M, S> {
    /// The flat gradients.
    pub flat: &'a M,
    /// Which of them are in use.
    pub stored: Vec<Stretch>,
    /// Those that are left as factors.
    pub products: Vec<Product<'a, M>>,
    /// Those of sparse tables.
    pub sparse: Vec<&'a S>,
}

/// What clipping comes to, and how [`Backend::clip`] leaves it in a device's memory: the norm
/// at [`Clip::NORM`] as f64, the factor at [`Clip::FACTOR`] as f32.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    /// The gradient's global norm.
    pub norm: f64,
    /// By what the gradient is multiplied, at most 1; NaN where the norm is not finite.
    pub factor: f32,
}

impl Clip {
    /// How much memory it takes.
    pub const BYTES: usize = 16;
    /// The first byte of the norm.
    pub const NORM: usize = 0;
    /// The first byte of the factor.
    pub const FACTOR: usize = 8;

    /// From Σ x² over all terms of a gradient that is to be multiplied with `mean`.
    pub fn new(squares: f64, mean: f32, limit: f32) -> Clip {
        let norm = squares.sqrt() * f64::from(mean);
        let factor = if !norm.is_finite() {
            f32::NAN
        } else if norm > f64::from(limit) {
            (f64::from(limit) / norm) as f32
        } else {
            1.0
        };
        Clip { norm, factor }
    }
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

    /// Whether work is only asked for and the host goes on, so that a read waits for it.
    fn is_asynchronous(&self) -> bool {
        false
    }
    /// Leaves the [`Clip`] of `mean` times the gradient in `into`, sums in f64 and in a fixed
    /// order. Where its norm is not finite, an update that is given `into` changes nothing.
    fn clip(
        &self,
        precision: Precision,
        gradient: &Gradient<'_, Self::Memory, Self::SparseGradient>,
        mean: f32,
        limit: f32,
        into: &mut Self::Memory,
    ) -> Result<()>;
    /// An AdamW update.
    fn adamw(
        &self,
        rule: AdamW,
        update: Update<'_, Self::Memory>,
        first: &mut Self::Memory,
        second: &mut Self::Memory,
    ) -> Result<()>;
    /// Whether AdamW and [`Backend::clip`] may be given a gradient as factors.
    fn takes_factors(&self) -> bool {
        false
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
    /// A row-wise Adagrad update of the touched rows; empties the gradient. `clip` as in
    /// [`Update`].
    fn rowwise_adagrad(
        &self,
        rule: RowwiseAdagrad,
        sparse: &mut Self::SparseGradient,
        width: usize,
        table: &mut Self::Memory,
        state: &mut Self::Memory,
        clip: Option<&Self::Memory>,
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
