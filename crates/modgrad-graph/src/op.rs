//! The op set: every operation a program may hold.
//!
//! One row an op: its meaning stands here, its shape rule in `shape`, its
//! gradient rule in `gradient`, its f64 definition in `reference`, its CPU
//! kernel call in `cpu`. Ops whose name ends in `_gradient` are what gradient
//! rules expand to; they are not differentiated again.
//!
//! Axes in the comments: B batch, T time, H heads, D channels of a head,
//! C channels, N rows; `...` any leading axes. All tensors are row-major.

use modgrad_compute::function::{BinaryFunction, GateActivation, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_ffn::memory::MemoryConfig;
use modgrad_ffn::{NgramHash, WordHash};
use serde::{Deserialize, Serialize};

use crate::tensor::DType;

/// Rises when an op's meaning changes; a program records the one it was made with.
pub const OP_SET_VERSION: u32 = 1;

/// An operation with its attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // Attributes are explained with their op.
pub enum Op {
    // ---- leaves ---------------------------------------------------------
    /// A tensor given at each run.
    Input { name: String, shape: Vec<usize>, dtype: DType },
    /// A named tensor kept between runs: weights where `trainable`, else
    /// a buffer. A `sparse` one is a table whose gradient touches few rows.
    Parameter { name: String, shape: Vec<usize>, dtype: DType, trainable: bool, sparse: bool },
    /// Every element is `value`.
    Constant { shape: Vec<usize>, value: f32 },

    // ---- elementwise ----------------------------------------------------
    /// y = f(x).
    Unary { function: UnaryFunction },
    /// (x, dy) → dx.
    UnaryGradient { function: UnaryFunction },
    /// out = f(x, y) with numpy broadcasting.
    Binary { function: BinaryFunction },
    /// y = scale·x + offset.
    Affine { scale: f32, offset: f32 },
    /// i32 or u8 to f32.
    ToFloat,
    /// Keeps an element with `1 − probability`, scaled by `1 / (1 − probability)`.
    /// The mask depends on the run's seed, its step, `stream` and the index only.
    Dropout { probability: f32, stream: u64 },

    // ---- reductions -----------------------------------------------------
    /// Reduces one axis and removes it.
    Reduce { kind: Reduction, axis: usize },
    /// (x, y, dy) → dx of a maximum; ties share equally.
    MaximumGradient { axis: usize },
    /// 1 at the first largest element along an axis, 0 elsewhere. A choice, not a
    /// function: no gradient flows through it.
    OneHotMax { axis: usize },

    // ---- movement -------------------------------------------------------
    /// The same elements in another shape.
    Reshape { shape: Vec<usize> },
    /// Axis i of the result is axis `permutation[i]` of the operand.
    Transpose { permutation: Vec<usize> },
    /// Repeats axes of size 1 (and adds leading axes) to reach `shape`.
    BroadcastTo { shape: Vec<usize> },
    /// start, start+step, … below end of one axis.
    Slice { axis: usize, start: usize, end: usize, step: usize },
    /// dy → dx of a slice: zeros where nothing was taken.
    SliceGradient { axis: usize, start: usize, step: usize, size: usize },
    /// Joins operands along one axis.
    Concat { axis: usize },
    /// (x, indices i32[...]) → x with `axis` replaced by the indices' axes.
    /// An index outside the axis is an error of the run.
    Gather { axis: usize },
    /// (indices, dy) → dx, sums where an index repeats.
    GatherGradient { axis: usize, size: usize },
    /// y[:, t] = x[:, t − amount] over x [B,T,...], zeros outside.
    Shift { amount: isize },

    // ---- linear ---------------------------------------------------------
    /// a [..., m, k] · b [k, n], or both with the same leading axes. The flags
    /// say that an operand's last two axes are stored the other way round.
    MatMul { transpose_a: bool, transpose_b: bool },
    /// x [..., k] · weight[n, k]ᵀ (+ bias[n]).
    Linear,

    // ---- normalisation --------------------------------------------------
    /// (x [..., C], weight [C]) → (y, 1/rms [...]).
    RmsNorm { epsilon: f32 },
    /// (x, weight, 1/rms, dy) → (dx, dweight).
    RmsNormGradient,
    /// (x [..., C], weight, bias) → (y, mean [...], 1/deviation [...]).
    LayerNorm { epsilon: f32 },
    /// (x, weight, mean, 1/deviation, dy) → (dx, dweight, dbias).
    LayerNormGradient,

    // ---- gates and softmax ----------------------------------------------
    /// x [..., 2C] → first half × activation(second half).
    GatedLinearUnit { activation: GateActivation },
    /// (x, dy) → dx.
    GatedLinearUnitGradient { activation: GateActivation },
    /// Over the last axis.
    Softmax,
    /// (y, dy) → dx.
    SoftmaxGradient,
    /// (logits [..., C], targets [...] u8 or i32) → (loss in nats [...],
    /// logsumexp [...]).
    CrossEntropy,
    /// (logits, targets, logsumexp, dloss) → dlogits.
    CrossEntropyGradient,

    // ---- embeddings -----------------------------------------------------
    /// (table [N, C], indices [...]) → [..., C].
    Embedding,
    /// (table [N, C], indices [..., S]) → [..., C], the sum of S rows.
    EmbeddingBag,
    /// (indices, dy) → dtable; `bag` is S, or 1 for a plain embedding.
    EmbeddingGradient { rows: usize, bag: usize },

    // ---- contexts of bytes, each window by itself -----------------------
    /// tokens u8[B,T] → i32[B,T,length]: byte t−j, or 256 before the window.
    ByteContext { length: usize },
    /// tokens u8[B,T] → i32[B,T,orders]: slot k in k·rows … (k+1)·rows − 1.
    NgramHash { hash: NgramHash },
    /// tokens u8[B,T] → i32[B,T,kinds]: slot k in k·rows … (k+1)·rows − 1.
    WordHash { hash: WordHash },

    // ---- counted memory: K experts' rows of 256 -------------------------------
    /// (tokens u8[B,earlier+margin+T+margin], tables u8[n], back-off f32[X], mixer f32[Y]) →
    /// (base [B,T,256], entries i32[B,T,E], difference [B,T,K,E], multiple [B,T,K],
    /// statistics [B,T,K,3], lessons [B,L]): see `modgrad_ffn::memory`. Window and margins
    /// are taken out of the counts; where `earlier` and `margin` are 0 nothing is, and L
    /// is 0. No gradient flows back.
    CountedRows { memory: MemoryConfig, earlier: usize, margin: usize },
    /// (logits [..., 256], gates [..., K], base [..., 256], entries i32[..., E],
    /// difference [..., K, E], multiple [..., K]) → logits + Σ_k gate·row.
    MixRows,
    /// (base, entries, difference, multiple, dout) → dgates.
    MixRowsGradient,

    // ---- sequences ------------------------------------------------------
    /// (q, k, v [B,T,H,D]) → (out [B,T,H,D], logsumexp [B,T,H]): softmax of
    /// q·k/√D over the `window` latest positions, its own included.
    CausalAttention { window: Option<usize> },
    /// (q, k, v, out, logsumexp, dout) → (dq, dk, dv).
    CausalAttentionGradient { window: Option<usize> },
    /// Rotary position embedding on the first `rotated` channels of x [B,T,H,D].
    Rope { base: f32, rotated: usize, inverse: bool },
    /// (x [B,T,C], weight [K,C]) → y[t] = Σ_j weight[j]·x[t−j], per channel.
    CausalConvolution,
    /// (x, weight, dy) → (dx, dweight).
    CausalConvolutionGradient,
    /// (a, b [B,T,C]) → h[t] = a[t]·h[t−1] + b[t], h before the window 0.
    LinearScan,
    /// (a, h, dh) → (da, db).
    LinearScanGradient,
    /// (x [B,T,3C]: retain, value and gate side by side, retention [C]) → h·silu(gate),
    /// where h[t] = a·h[t−1] + (1 − a)·value, a = σ(retain + retention), h before the
    /// window 0.
    GatedRecurrence,
    /// (x, retention, dy) → (dx, dretention).
    GatedRecurrenceGradient,

    // ---- Continuous Thought Machines ------------------------------------
    // Axes: B samples, T ticks, N neurons, S pairs, L tokens, C channels of a
    // token, M trace, O = 2·hidden, or 2 where `hidden` is 0.
    /// (start [B,N], states [B,T,N], left, right i32[S], retention [S]) →
    /// [B,T+1,S]: α_k/√β_k of α_k = r·α_{k−1} + z_left·z_right, β_k = r·β_{k−1} + 1
    /// over the start and the states. An index outside the neurons is an error.
    Synchronisation,
    /// (start, states, left, right, retention, dout) → (dstart, dstates, dretention).
    SynchronisationGradient,
    /// (keys, values [B,L,C], state [B,N], trace [B,N,M], left, right i32[S],
    /// retention [S], query weight [C,S], query bias [C], the layers of the synapse,
    /// level-1 weight [M,O,N], level-1 bias [O,N] and, unless `hidden` is 0, level-2
    /// weight [hidden,2,N], level-2 bias [2,N]; if `projected`, also a projection of the
    /// query and one of what is read, weight [C,C] and bias [C] each, and temperatures
    /// that the levels' weights and biases are divided by, one for each level) → (states
    /// [B,T,N], last trace [B,N,M], attended, query [B,T,C], or [B,T,2C] with their
    /// projections behind them (over one token the query is its bias alone), attention
    /// [B,T,heads,L], products of the synapse's layers [B,T,all their columns]).
    /// Weights [C,·] have rows of outputs.
    ///
    /// Each tick: synchronisation of the states so far → query → attention → synapse of
    /// attended and state onto the trace → each neuron's own GLU layers over its last M.
    /// Traces have the newest last. A call may go on from another's last state and
    /// trace, but its synchronisation starts anew.
    ///
    /// The synapse of `depth` 1 is LayerNorm(GLU(x·weight + bias)): weight [C+N,2N], bias
    /// [2N], norm weight, norm bias [N]. Deeper it is a U of `depth` widths, the first N,
    /// with block(x) = SiLU(LayerNorm(x·weight + bias)): a first block and depth − 1
    /// downwards, each weight [inputs,width], bias, norm weight, norm bias [width]; then
    /// depth − 1 upwards, each with these four and weight and bias [width] of the
    /// LayerNorm of its output plus that of the block with its width downwards.
    Think { ticks: usize, heads: usize, hidden: usize, depth: usize, projected: bool },
    /// (the operands and results of `think`, dstates, dtrace) → the gradients of its float
    /// operands, in order.
    ThinkGradient { ticks: usize, heads: usize, hidden: usize, depth: usize, projected: bool },
    // Neurons on a lattice: Y, X cells, C channels, R readings.
    /// (drive [B,Y,X,2C], start trace [M,C], synapse weight [2C,2C], neuron weight
    /// [M,2,C] and bias [2,C], retention [2C], and reads i32[R] or nothing, for one
    /// reading after `ticks`, without a gradient) → (readings
    /// [B,R,Y,X,2C], activations [B,kept+M,Y,X,C], gates [B,kept,Y,X,2C], sums
    /// [B,Y,X,2C]; the last three are empty where `kept` is 0). Runs as many ticks as
    /// the largest of `reads`, at most `ticks`, and reads the synchronisation after
    /// those named; the equations stand in `modgrad_ctm::spatial`. What came before
    /// the last `kept` ticks is a constant to the gradient.
    SpatialThink { ticks: usize, kept: usize },
    /// (the operands and results of `spatial_think`, dreadings) → the gradients of its
    /// float operands, in order.
    SpatialThinkGradient { ticks: usize, kept: usize },
    /// (policy [B,Y,X,5], start [B,Y,X]) → [B,steps,5]: what the policy says at the
    /// cells of a walk from the largest of `start`, which goes up, down, left, right
    /// or stays, as the largest says, the last of equals, and stays at the border. A
    /// choice: no gradient flows through it.
    Walk { steps: usize },
}

impl Op {
    /// The op's name in programs and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Parameter { .. } => "parameter",
            Op::Constant { .. } => "constant",
            Op::Unary { .. } => "unary",
            Op::UnaryGradient { .. } => "unary_gradient",
            Op::Binary { .. } => "binary",
            Op::Affine { .. } => "affine",
            Op::ToFloat => "to_float",
            Op::Dropout { .. } => "dropout",
            Op::Reduce { .. } => "reduce",
            Op::MaximumGradient { .. } => "maximum_gradient",
            Op::OneHotMax { .. } => "one_hot_max",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::BroadcastTo { .. } => "broadcast_to",
            Op::Slice { .. } => "slice",
            Op::SliceGradient { .. } => "slice_gradient",
            Op::Concat { .. } => "concat",
            Op::Gather { .. } => "gather",
            Op::GatherGradient { .. } => "gather_gradient",
            Op::Shift { .. } => "shift",
            Op::MatMul { .. } => "mat_mul",
            Op::Linear => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGradient => "rms_norm_gradient",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormGradient => "layer_norm_gradient",
            Op::GatedLinearUnit { .. } => "gated_linear_unit",
            Op::GatedLinearUnitGradient { .. } => "gated_linear_unit_gradient",
            Op::Softmax => "softmax",
            Op::SoftmaxGradient => "softmax_gradient",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyGradient => "cross_entropy_gradient",
            Op::Embedding => "embedding",
            Op::EmbeddingBag => "embedding_bag",
            Op::EmbeddingGradient { .. } => "embedding_gradient",
            Op::ByteContext { .. } => "byte_context",
            Op::NgramHash { .. } => "ngram_hash",
            Op::WordHash { .. } => "word_hash",
            Op::CountedRows { .. } => "counted_rows",
            Op::MixRows => "mix_rows",
            Op::MixRowsGradient => "mix_rows_gradient",
            Op::CausalAttention { .. } => "causal_attention",
            Op::CausalAttentionGradient { .. } => "causal_attention_gradient",
            Op::Rope { .. } => "rope",
            Op::CausalConvolution => "causal_convolution",
            Op::CausalConvolutionGradient => "causal_convolution_gradient",
            Op::LinearScan => "linear_scan",
            Op::LinearScanGradient => "linear_scan_gradient",
            Op::GatedRecurrence => "gated_recurrence",
            Op::GatedRecurrenceGradient => "gated_recurrence_gradient",
            Op::Synchronisation => "synchronisation",
            Op::SynchronisationGradient => "synchronisation_gradient",
            Op::Think { .. } => "think",
            Op::ThinkGradient { .. } => "think_gradient",
            Op::SpatialThink { .. } => "spatial_think",
            Op::SpatialThinkGradient { .. } => "spatial_think_gradient",
            Op::Walk { .. } => "walk",
        }
    }
}
