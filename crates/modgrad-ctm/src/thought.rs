//! The tick loop of a Continuous Thought Machine with a synapse of one layer
//! (section 3 of the paper), all ticks in one call.
//!
//! At tick t, from the states z and the traces A of the neurons:
//!
//! 1. action synchronisation of the states so far → a query;
//! 2. attention of the query over keys and values, the same at all ticks;
//! 3. synapse: a = LayerNorm(GLU(W [attended; z] + b)), pushed onto the trace;
//! 4. neuron-level models: z_n = g_n(the last M of neuron n's trace).
//!
//! A call starts from the states and traces that it is given, and leaves the last
//! ones: another can go on from there, with gradients through both. Only the action
//! synchronisation starts anew with every call: it remembers nothing from before.
//!
//! Samples are independent: [`thin::ROWS`] of them go through together, on one
//! thread from the first tick to the last, so that weights stay in its cache and
//! threads meet once a call. The gradient recomputes what is cheap, and sums over
//! samples in a fixed order.
//!
//! Axes: B samples, T ticks, D neurons, d width of keys and values, L tokens,
//! h heads, M trace, H hidden (0: shallow neuron models), O = 2H or 2, S pairs.

mod attention;
mod backward;
mod forward;
mod packed;
mod weights;

#[cfg(test)]
mod tests;

use modgrad_compute::Pool;
use modgrad_compute::thin;

use crate::check;
use packed::Packed;

pub(crate) use modgrad_compute::thin::ROWS;

/// The LayerNorm's guard against a variance of zero.
pub(crate) const EPSILON: f32 = 1e-5;

/// The sizes of a thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// T, at least 1.
    pub ticks: usize,
    /// D.
    pub neurons: usize,
    /// d, a multiple of the heads.
    pub width: usize,
    /// L, at least 1.
    pub tokens: usize,
    /// h.
    pub heads: usize,
    /// M, at least 1.
    pub memory: usize,
    /// H; 0 for shallow neuron models.
    pub hidden: usize,
    /// S.
    pub pairs: usize,
}

impl Shape {
    /// O: what the first layer of a neuron-level model puts out.
    pub fn outputs(&self) -> usize {
        if self.hidden == 0 { 2 } else { 2 * self.hidden }
    }

    /// Neurons, in whole blocks.
    pub(crate) fn padded(&self) -> usize {
        self.neurons.next_multiple_of(thin::LANES)
    }

    /// From a slot of a trace or hidden layer to the next: off the powers of two, so
    /// that the slots of a block fall on different sets of the nearest cache.
    pub(crate) fn slot(&self) -> usize {
        self.padded() + thin::LANES
    }

    /// The width, in whole blocks.
    pub(crate) fn padded_width(&self) -> usize {
        self.width.next_multiple_of(thin::LANES)
    }

    /// Whether a sample reads the same at every tick: there is nothing to ask with, or
    /// one token only. Then attention, and its adjoint, run once a call.
    pub(crate) fn reads_once(&self) -> bool {
        self.pairs == 0 || self.tokens == 1
    }
}

/// What the samples bring.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// [B, L, d].
    pub keys: &'a [f32],
    /// [B, L, d].
    pub values: &'a [f32],
    /// z before the first tick [B, D].
    pub state: &'a [f32],
    /// The trace before the first tick [B, D, M], the newest last.
    pub trace: &'a [f32],
}

impl<'a> Inputs<'a> {
    /// Those of some samples.
    pub(crate) fn of(self, shape: Shape, rows: std::ops::Range<usize>) -> Inputs<'a> {
        let of = |size: usize| rows.start * size..rows.end * size;
        Inputs {
            keys: &self.keys[of(shape.tokens * shape.width)],
            values: &self.values[of(shape.tokens * shape.width)],
            state: &self.state[of(shape.neurons)],
            trace: &self.trace[of(shape.neurons * shape.memory)],
        }
    }
}

/// Everything that is learned, or drawn once.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The left neurons of the action pairs [S].
    pub left: &'a [i32],
    /// The right neurons [S].
    pub right: &'a [i32],
    /// r of each pair [S], from 0 to 1.
    pub retention: &'a [f32],
    /// [S, d]: rows of inputs.
    pub query_weight: &'a [f32],
    /// [d].
    pub query_bias: &'a [f32],
    /// [d + D, 2D]: rows of inputs, the attended first; columns of values, then gates.
    pub synapse_weight: &'a [f32],
    /// [2D].
    pub synapse_bias: &'a [f32],
    /// [D].
    pub norm_weight: &'a [f32],
    /// [D].
    pub norm_bias: &'a [f32],
    /// [M, O, D].
    pub level1_weight: &'a [f32],
    /// [O, D].
    pub level1_bias: &'a [f32],
    /// [H, 2, D]; empty where H is 0.
    pub level2_weight: &'a [f32],
    /// [2, D]; empty where H is 0.
    pub level2_bias: &'a [f32],
}

/// What a forward pass leaves.
pub struct Saved<'a> {
    /// z_1 … z_T [B, T, D].
    pub states: &'a mut [f32],
    /// The trace after the last tick [B, D, M], the newest last.
    pub trace: &'a mut [f32],
    /// What attention read [B, T, d].
    pub attended: &'a mut [f32],
    /// The synapse before its gate [B, T, 2D].
    pub synapse: &'a mut [f32],
    /// The neuron-level models before their first gate [B, T, O, D].
    pub hidden: &'a mut [f32],
}

/// The same, to be read; the last trace follows from the rest.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    /// See [`Saved`].
    pub states: &'a [f32],
    /// See [`Saved`].
    pub attended: &'a [f32],
    /// See [`Saved`].
    pub synapse: &'a [f32],
    /// See [`Saved`].
    pub hidden: &'a [f32],
}

/// Gradients of what a forward pass leaves, but for what it leaves for itself.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    /// [B, T, D].
    pub states: &'a [f32],
    /// [B, D, M].
    pub trace: &'a [f32],
}

/// Gradients, each of its operand's shape.
#[allow(missing_docs)] // Named after what they are the gradients of.
pub struct Gradients<'a> {
    pub keys: &'a mut [f32],
    pub values: &'a mut [f32],
    pub state: &'a mut [f32],
    pub trace: &'a mut [f32],
    pub retention: &'a mut [f32],
    pub query_weight: &'a mut [f32],
    pub query_bias: &'a mut [f32],
    pub synapse_weight: &'a mut [f32],
    pub synapse_bias: &'a mut [f32],
    pub norm_weight: &'a mut [f32],
    pub norm_bias: &'a mut [f32],
    pub level1_weight: &'a mut [f32],
    pub level1_bias: &'a mut [f32],
    pub level2_weight: &'a mut [f32],
    pub level2_bias: &'a mut [f32],
}

impl<'a> Gradients<'a> {
    /// From parts in the order of the fields; those that are not there are empty, as
    /// the second level of shallow neuron models is.
    pub fn from_parts(mut parts: impl Iterator<Item = &'a mut [f32]>) -> Self {
        let mut next = || parts.next().unwrap_or_default();
        Gradients {
            keys: next(),
            values: next(),
            state: next(),
            trace: next(),
            retention: next(),
            query_weight: next(),
            query_bias: next(),
            synapse_weight: next(),
            synapse_bias: next(),
            norm_weight: next(),
            norm_bias: next(),
            level1_weight: next(),
            level1_bias: next(),
            level2_weight: next(),
            level2_bias: next(),
        }
    }
}

/// Runs all ticks.
///
/// Panics when the lengths disagree or a pair names no neuron.
pub fn think(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    weights: &Weights<'_>,
    saved: Saved<'_>,
) {
    check_operands("think", shape, inputs, weights);
    let packed = Packed::new(pool, shape, weights);
    forward::run(pool, shape, inputs, &packed, saved);
}

/// The exact adjoint of [`think`].
///
/// Panics when the lengths disagree or a pair names no neuron.
pub fn think_gradient(
    pool: &Pool,
    shape: Shape,
    inputs: Inputs<'_>,
    weights: &Weights<'_>,
    read: Read<'_>,
    upstream: Upstream<'_>,
    mut gradients: Gradients<'_>,
) {
    check_operands("think_gradient", shape, inputs, weights);
    let packed = Packed::new(pool, shape, weights);
    let found = backward::run(pool, shape, inputs, &packed, read, upstream, &mut gradients);
    weights::run(pool, shape, inputs, read, &found, &mut gradients);
}

fn check_operands(op: &str, shape: Shape, inputs: Inputs<'_>, weights: &Weights<'_>) {
    let Shape { batch, ticks, neurons, width, tokens, heads, memory, hidden, pairs } = shape;
    let some = ticks > 0 && tokens > 0 && memory > 0 && neurons > 0 && width > 0;
    assert!(some, "`{op}`: an empty axis in {shape:?}");
    assert!(heads > 0 && width % heads == 0, "`{op}`: {width} channels for {heads} heads");
    let outputs = shape.outputs();
    check(
        op,
        &[
            ("keys", inputs.keys.len(), batch * tokens * width),
            ("values", inputs.values.len(), batch * tokens * width),
            ("state", inputs.state.len(), batch * neurons),
            ("trace", inputs.trace.len(), batch * neurons * memory),
            ("left", weights.left.len(), pairs),
            ("right", weights.right.len(), pairs),
            ("retention", weights.retention.len(), pairs),
            ("query_weight", weights.query_weight.len(), pairs * width),
            ("query_bias", weights.query_bias.len(), width),
            ("synapse_weight", weights.synapse_weight.len(), (width + neurons) * 2 * neurons),
            ("synapse_bias", weights.synapse_bias.len(), 2 * neurons),
            ("norm_weight", weights.norm_weight.len(), neurons),
            ("norm_bias", weights.norm_bias.len(), neurons),
            ("level1_weight", weights.level1_weight.len(), memory * outputs * neurons),
            ("level1_bias", weights.level1_bias.len(), outputs * neurons),
            ("level2_weight", weights.level2_weight.len(), hidden * 2 * neurons),
            ("level2_bias", weights.level2_bias.len(), if hidden == 0 { 0 } else { 2 * neurons }),
        ],
    );
}
