//! What each op means, in plain f64: slow, short and straight from the
//! definitions in `op`.
//!
//! The fast kernels are tested against [`evaluate`], the gradient rules against
//! [`check_gradients`]. Nothing here calls a kernel, with two exceptions where
//! the function itself is the definition: the hashes of `modgrad-ffn` and the
//! mask of dropout. One file a section of the op set; gradient ops have their
//! own closed forms, not those of their forward ops.

mod array;
mod attention;
mod check;
mod contexts;
mod elementwise;
mod embeddings;
mod gates;
mod linear;
mod memory;
mod movement;
mod normalisation;
mod reductions;
mod run;
mod sequences;
mod spatial;
mod synapse;
mod synchronisation;
mod thought;

pub use array::Array;
pub use check::{GradientCheck, check_gradients};
pub use run::run;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape;
use crate::tensor::{DType, TensorSpec};

/// What a run's randomness depends on, besides each op's own stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunKey {
    /// Chosen once for a training run.
    pub seed: u64,
    /// The step of the training run.
    pub step: u64,
}

/// The key of a dropout mask: seed, step and stream, each mixed in turn.
///
/// One round is the finaliser of SplitMix64 (Stafford's mix 13) after adding
/// 2^64 over the golden ratio. It is a bijection, so two keys that differ in one
/// of the three never meet. Every backend takes its masks from this key.
pub fn dropout_key(seed: u64, step: u64, stream: u64) -> u64 {
    [seed, step, stream].into_iter().fold(0, |state, word| {
        let mixed = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Every output of `op` on `inputs`.
///
/// The operands pass the shape rule first, each taken for the type that the op
/// wants there. `Input` and `Parameter` have no value of their own: see [`run`].
pub fn evaluate(op: &Op, inputs: &[&Array], key: RunKey) -> Result<Vec<Array>> {
    check_operands(op, inputs)?;
    match op {
        Op::Input { name, .. } => {
            Err(Error::named("input", name, "its value is given to a run, not computed"))
        }
        Op::Parameter { name, .. } => {
            Err(Error::named("parameter", name, "its value is given to a run, not computed"))
        }
        Op::Constant { shape, value } => one(Array::filled(shape, f64::from(*value))),

        Op::Unary { function } => one(elementwise::unary(*function, inputs[0])),
        Op::UnaryGradient { function } => {
            one(elementwise::unary_gradient(*function, inputs[0], inputs[1]))
        }
        Op::Binary { function } => one(elementwise::binary(*function, inputs[0], inputs[1])),
        Op::Affine { scale, offset } => {
            one(inputs[0].map(|x| f64::from(*scale) * x + f64::from(*offset)))
        }
        Op::ToFloat => one(inputs[0].clone()),
        Op::Dropout { probability, stream } => {
            let key = dropout_key(key.seed, key.step, *stream);
            one(elementwise::dropout(*probability, key, inputs[0]))
        }

        Op::Reduce { kind, axis } => one(reductions::reduce(*kind, *axis, inputs[0])),
        Op::MaximumGradient { axis } => {
            one(reductions::maximum_gradient(*axis, inputs[0], inputs[1], inputs[2]))
        }
        Op::OneHotMax { axis } => one(reductions::one_hot_max(*axis, inputs[0])),

        Op::Reshape { shape } => one(Array::new(shape, inputs[0].data.clone())),
        Op::Transpose { permutation } => one(movement::transpose(permutation, inputs[0])),
        Op::BroadcastTo { shape } => one(movement::broadcast_to(shape, inputs[0])),
        Op::Slice { axis, start, end, step } => {
            one(movement::slice(*axis, *start, *end, *step, inputs[0]))
        }
        Op::SliceGradient { axis, start, step, size } => {
            one(movement::slice_gradient(*axis, *start, *step, *size, inputs[0]))
        }
        Op::Concat { axis } => one(movement::concat(*axis, inputs)),
        Op::Gather { axis } => one(movement::gather(*axis, inputs[0], inputs[1])?),
        Op::GatherGradient { axis, size } => {
            one(movement::gather_gradient(*axis, *size, inputs[0], inputs[1])?)
        }
        Op::Shift { amount } => one(movement::shift(*amount, inputs[0])),

        Op::MatMul { transpose_a, transpose_b } => {
            one(linear::mat_mul(*transpose_a, *transpose_b, inputs[0], inputs[1]))
        }
        Op::Linear => one(linear::linear(inputs[0], inputs[1], inputs.get(2).copied())),

        Op::RmsNorm { epsilon } => Ok(normalisation::rms_norm(*epsilon, inputs[0], inputs[1])),
        Op::RmsNormGradient => {
            Ok(normalisation::rms_norm_gradient(inputs[0], inputs[1], inputs[2], inputs[3]))
        }
        Op::LayerNorm { epsilon } => {
            Ok(normalisation::layer_norm(*epsilon, inputs[0], inputs[1], inputs[2]))
        }
        Op::LayerNormGradient => Ok(normalisation::layer_norm_gradient(
            inputs[0], inputs[1], inputs[2], inputs[3], inputs[4],
        )),

        Op::GatedLinearUnit { activation } => one(gates::gated_linear_unit(*activation, inputs[0])),
        Op::GatedLinearUnitGradient { activation } => {
            one(gates::gated_linear_unit_gradient(*activation, inputs[0], inputs[1]))
        }
        Op::Softmax => one(gates::softmax(inputs[0])),
        Op::SoftmaxGradient => one(gates::softmax_gradient(inputs[0], inputs[1])),
        Op::CrossEntropy => gates::cross_entropy(inputs[0], inputs[1]),
        Op::CrossEntropyGradient => {
            one(gates::cross_entropy_gradient(inputs[0], inputs[1], inputs[2], inputs[3])?)
        }

        Op::Embedding => one(embeddings::embedding(inputs[0], inputs[1])?),
        Op::EmbeddingBag => one(embeddings::embedding_bag(inputs[0], inputs[1])?),
        Op::EmbeddingGradient { rows, bag } => {
            one(embeddings::embedding_gradient(*rows, *bag, inputs[0], inputs[1])?)
        }

        Op::ByteContext { length } => one(contexts::byte_context(*length, inputs[0])?),
        Op::CountedRows { memory, earlier, margin } => {
            memory::counted_rows(memory, *earlier, *margin, inputs)
        }
        Op::MixRows => one(memory::mix_rows(inputs)),
        Op::MixRowsGradient => one(memory::mix_rows_gradient(inputs)),
        Op::NgramHash { hash } => one(contexts::ngram_hash(hash, inputs[0])?),
        Op::WordHash { hash } => one(contexts::word_hash(hash, inputs[0])?),

        Op::CausalAttention { window } => {
            Ok(attention::causal_attention(*window, inputs[0], inputs[1], inputs[2]))
        }
        Op::CausalAttentionGradient { window } => {
            Ok(attention::causal_attention_gradient(*window, inputs))
        }
        Op::Rope { base, rotated, inverse } => {
            one(sequences::rope(*base, *rotated, *inverse, inputs[0]))
        }
        Op::CausalConvolution => one(sequences::causal_convolution(inputs[0], inputs[1])),
        Op::CausalConvolutionGradient => {
            Ok(sequences::causal_convolution_gradient(inputs[0], inputs[1], inputs[2]))
        }
        Op::LinearScan => one(sequences::linear_scan(inputs[0], inputs[1])),
        Op::GatedRecurrence => one(sequences::gated_recurrence(inputs[0], inputs[1])),
        Op::GatedRecurrenceGradient => {
            Ok(sequences::gated_recurrence_gradient(inputs[0], inputs[1], inputs[2]))
        }
        Op::LinearScanGradient => {
            Ok(sequences::linear_scan_gradient(inputs[0], inputs[1], inputs[2]))
        }

        Op::Synchronisation => one(synchronisation::forward(inputs)?),
        Op::SynchronisationGradient => synchronisation::gradient(inputs),
        Op::Think { ticks, heads, hidden, depth, projected } => {
            let kind = thought::Kind {
                heads: *heads,
                hidden: *hidden,
                depth: *depth,
                projected: *projected,
            };
            Ok(thought::Thought::new(inputs, *ticks, kind)?.results())
        }
        Op::ThinkGradient { ticks, heads, hidden, depth, projected } => {
            let [.., dstates, dtrace] = inputs else { unreachable!("operands were checked") };
            let kind = thought::Kind {
                heads: *heads,
                hidden: *hidden,
                depth: *depth,
                projected: *projected,
            };
            let thought = thought::Thought::new(inputs, *ticks, kind)?;
            Ok(thought.gradients(dstates, dtrace))
        }
        Op::SpatialThink { ticks, kept } => {
            Ok(spatial::Thought::new(inputs, *ticks, *kept, "spatial_think")?.results())
        }
        Op::SpatialThinkGradient { ticks, kept } => {
            let thought = spatial::Thought::new(inputs, *ticks, *kept, "spatial_think_gradient")?;
            Ok(thought.gradients(inputs[11]))
        }
        Op::Walk { steps } => one(spatial::walk(*steps, inputs[0], inputs[1])),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn one(array: Array) -> Result<Vec<Array>> {
    Ok(vec![array])
}

/// Refuses operands that the shape rule refuses, or whose data does not fill
/// their shape. Types are those that the op wants, since an [`Array`] has none.
fn check_operands(op: &Op, inputs: &[&Array]) -> Result<()> {
    let mut specs = Vec::with_capacity(inputs.len());
    for (operand, array) in inputs.iter().enumerate() {
        let dtype = match (op, operand) {
            (Op::ByteContext { .. } | Op::NgramHash { .. } | Op::WordHash { .. }, _) => DType::U8,
            (
                Op::Gather { .. }
                | Op::CrossEntropy
                | Op::CrossEntropyGradient
                | Op::Embedding
                | Op::EmbeddingBag,
                1,
            )
            | (Op::ToFloat | Op::GatherGradient { .. } | Op::EmbeddingGradient { .. }, 0) => {
                DType::I32
            }
            (Op::CountedRows { .. }, 0 | 1) => DType::U8,
            (Op::MixRows, 3) | (Op::MixRowsGradient, 1) => DType::I32,
            (Op::Synchronisation | Op::SynchronisationGradient, 2 | 3)
            | (Op::Think { .. } | Op::ThinkGradient { .. }, 4 | 5)
            | (Op::SpatialThink { .. } | Op::SpatialThinkGradient { .. }, 6) => DType::I32,
            _ => DType::F32,
        };
        array.check(op.name())?;
        specs.push(TensorSpec::new(array.shape.clone(), dtype));
    }
    shape::infer(op, &specs.iter().collect::<Vec<_>>()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint's training run goes on with the same masks.
    #[test]
    fn dropout_keys_never_change() {
        assert_eq!(dropout_key(0, 0, 0), 0x2382_75bc_38fc_be91);
        assert_eq!(dropout_key(1, 2, 3), 0xd073_4750_fde3_62b3);
    }
}
