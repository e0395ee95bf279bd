//! From ops to kernels: one file a group of the op set, one arm an op.

mod contexts;
mod elementwise;
mod embeddings;
mod gates;
mod indices;
mod linear;
mod memory;
mod movement;
mod normalisation;
mod reductions;
mod sequences;
mod spatial;
mod synchronisation;
mod thought;

use modgrad_graph::backend::{Operand, OperandMut};
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::{Precision, Storage};
use modgrad_graph::{Error, Op, Result};

use crate::device::Device;
use crate::memory::Memory;

pub(crate) type Input<'a> = Operand<'a, Memory>;
pub(crate) type Out<'a> = OperandMut<'a, Memory>;

/// An instruction as the files of this folder take it.
pub(crate) struct Call<'c, 'a> {
    pub device: &'c Device,
    pub op: &'c Op,
    pub key: RunKey,
    pub precision: Precision,
    pub x: &'c [Input<'c>],
    pub out: &'c mut [Out<'a>],
    /// Whether outputs are added to what is there; only some ops are asked to.
    pub add: bool,
}

impl Call<'_, '_> {
    /// What an op that is not written yet returns.
    pub fn missing(&self) -> Error {
        Error::NotOnDevice { op: self.op.name() }
    }
}

pub(crate) fn run(
    device: &Device,
    op: &Op,
    key: RunKey,
    precision: Precision,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
    add: bool,
) -> Result<()> {
    let call = Call { device, op, key, precision, x, out, add };
    match op {
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } | Op::Reshape { .. } => {
            Err(Error::Malformed { reason: format!("`{}` is not an instruction", op.name()) })
        }
        Op::Unary { .. }
        | Op::UnaryGradient { .. }
        | Op::Binary { .. }
        | Op::Affine { .. }
        | Op::ToFloat
        | Op::Dropout { .. } => elementwise::run(call),
        Op::Reduce { .. } | Op::MaximumGradient { .. } | Op::OneHotMax { .. } => {
            reductions::run(call)
        }
        Op::Transpose { .. }
        | Op::BroadcastTo { .. }
        | Op::Slice { .. }
        | Op::SliceGradient { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::GatherGradient { .. }
        | Op::Shift { .. } => movement::run(call),
        Op::MatMul { .. } | Op::Linear => linear::run(call),
        Op::RmsNorm { .. } | Op::RmsNormGradient | Op::LayerNorm { .. } | Op::LayerNormGradient => {
            normalisation::run(call)
        }
        Op::GatedLinearUnit { .. }
        | Op::GatedLinearUnitGradient { .. }
        | Op::Softmax
        | Op::SoftmaxGradient
        | Op::CrossEntropy
        | Op::CrossEntropyGradient => gates::run(call),
        Op::Embedding | Op::EmbeddingBag | Op::EmbeddingGradient { .. } => embeddings::run(call),
        Op::ByteContext { .. } | Op::NgramHash { .. } | Op::WordHash { .. } => contexts::run(call),
        Op::CountedRows { .. } | Op::MixRows | Op::MixRowsGradient => memory::run(call),
        Op::CausalAttention { .. }
        | Op::CausalAttentionGradient { .. }
        | Op::Rope { .. }
        | Op::CausalConvolution
        | Op::CausalConvolutionGradient
        | Op::LinearScan
        | Op::LinearScanGradient
        | Op::GatedRecurrence
        | Op::GatedRecurrenceGradient => sequences::run(call),
        Op::Synchronisation
        | Op::SynchronisationGradient
        | Op::Think { .. }
        | Op::ThinkGradient { .. } => thought::run(call),
        Op::SpatialThink { .. } | Op::SpatialThinkGradient { .. } | Op::Walk { .. } => {
            spatial::run(call)
        }
    }
}

/// Refuses operands that are not stored as floats.
pub(crate) fn floats(op: &Op, storages: &[Storage]) -> Result<()> {
    match storages.iter().find(|s| !matches!(s, Storage::F32 | Storage::Bf16)) {
        Some(other) => Err(Error::Malformed {
            reason: format!("`{}`: an operand is stored as {other:?}", op.name()),
        }),
        None => Ok(()),
    }
}

pub(crate) fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

/// How many rows a thread adds up, and in how many chunks that makes them.
pub(crate) fn row_chunks(rows: usize) -> (usize, usize) {
    let chunk = rows.div_ceil(256).max(16);
    (chunk, rows.div_ceil(chunk).max(1))
}
