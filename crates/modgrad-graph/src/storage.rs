//! How values are stored: f32, or bf16 where that loses nothing that matters.
//!
//! In bf16 precision matrix products take bf16 operands, so what flows between
//! them is stored as bf16 too. A value is narrowed only if the op that makes it
//! and every op that reads it allow it in that slot ([`narrow_input`],
//! [`narrow_output`]); sums that run through the whole depth (residual streams
//! and their gradients), logits, losses and statistics stay f32.

use serde::{Deserialize, Serialize};

use crate::op::Op;
use crate::program::{Program, ValueId};
use crate::tensor::DType;

/// How matrix products are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// bf16 operands, f32 accumulation, f32 master weights.
    Bf16,
}

/// The type in which a backend holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// Indices.
    I32,
    /// Bytes.
    U8,
}

impl Storage {
    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            Storage::F32 | Storage::I32 => 4,
            Storage::Bf16 => 2,
            Storage::U8 => 1,
        }
    }
}

impl From<DType> for Storage {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Storage::F32,
            DType::I32 => Storage::I32,
            DType::U8 => Storage::U8,
        }
    }
}

/// Whether `op` can read its operand `index` as bf16.
fn narrow_input(op: &Op, index: usize) -> bool {
    match op {
        Op::Linear => index == 0,
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => index == 0,
        Op::RmsNormGradient => index == 0 || index == 3,
        Op::LayerNormGradient => index == 0 || index == 4,
        Op::EmbeddingGradient { .. } => index == 1,
        Op::GatedRecurrence | Op::GatedRecurrenceGradient => index != 1,
        Op::MatMul { .. }
        | Op::Unary { .. }
        | Op::UnaryGradient { .. }
        | Op::Binary { .. }
        | Op::Affine { .. }
        | Op::Dropout { .. }
        | Op::Reduce { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::GatedLinearUnit { .. }
        | Op::GatedLinearUnitGradient { .. } => true,
        _ => false,
    }
}

/// Whether `op` can write its output `index` as bf16.
fn narrow_output(op: &Op, index: usize) -> bool {
    match op {
        Op::RmsNorm { .. }
        | Op::RmsNormGradient
        | Op::LayerNorm { .. }
        | Op::LayerNormGradient
        | Op::GatedRecurrence
        | Op::GatedRecurrenceGradient => index == 0,
        Op::Linear
        | Op::MatMul { .. }
        | Op::Unary { .. }
        | Op::UnaryGradient { .. }
        | Op::Dropout { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::GatedLinearUnit { .. }
        | Op::GatedLinearUnitGradient { .. }
        | Op::CrossEntropyGradient
        | Op::Embedding
        | Op::EmbeddingBag => true,
        _ => false,
    }
}

/// The value whose memory each value shares: reshapes are views.
pub(crate) fn roots(program: &Program) -> Vec<ValueId> {
    let mut roots: Vec<ValueId> = (0..program.values()).collect();
    for node in program.nodes() {
        if let Op::Reshape { .. } = node.op {
            roots[node.outputs[0]] = roots[node.inputs[0]];
        }
    }
    roots
}

/// The storage of every value; values in `kept_wide` are read from outside.
pub(crate) fn assign(
    program: &Program,
    precision: Precision,
    needed: &[bool],
    kept_wide: &[ValueId],
) -> Vec<Storage> {
    let roots = roots(program);
    let mut narrow: Vec<bool> = (0..program.values())
        .map(|value| precision == Precision::Bf16 && program.spec(value).dtype == DType::F32)
        .collect();
    kept_wide.iter().for_each(|&value| narrow[roots[value]] = false);
    for (node, _) in program.nodes().iter().zip(needed).filter(|(_, needed)| **needed) {
        let broadcast = matches!(node.op, Op::Binary { .. })
            && program.spec(node.inputs[0]).shape != program.spec(node.inputs[1]).shape;
        for (index, &value) in node.inputs.iter().enumerate() {
            narrow[roots[value]] &= narrow_input(&node.op, index) && !broadcast;
        }
        for (index, &value) in node.outputs.iter().enumerate() {
            narrow[roots[value]] &= narrow_output(&node.op, index);
        }
    }
    (0..program.values())
        .map(|value| match narrow[roots[value]] {
            true => Storage::Bf16,
            false => program.spec(value).dtype.into(),
        })
        .collect()
}
