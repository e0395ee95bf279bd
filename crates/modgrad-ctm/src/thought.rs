//! The tick loop of a Continuous Thought Machine (section 3 of the paper), all ticks
//! in one call.
//!
//! At tick t, from the states z and the traces A of the neurons:
//!
//! 1. action synchronisation of the states so far → a query;
//! 2. attention of the query over keys and values, the same at all ticks; a
//!    projection may follow the query, and another what attention read;
//! 3. synapse of [attended; z], pushed onto the trace: LayerNorm(GLU(W x + b)), or a
//!    U-shaped network (see [`synapse`]);
//! 4. neuron-level models: z_n = g_n(the last M of neuron n's trace).
//!
//! A call starts from the states and traces that it is given, and leaves the last
//! ones: another can go on from there, with gradients through both. Only the action
//! synchronisation starts anew with every call: it remembers nothing from before.
//!
//! Samples are independent: [`thin::ROWS`] of them go through together, on one
//! thread from the first tick to the last, so that weights stay in its cache and
//! threads meet once a call. The gradient forms again what is cheap (the neuron-level
//! models, and all that follows from a product), and sums over samples in a fixed
//! order. Neurons go in blocks of [`thin::LANES`], whose traces, weights and hidden
//! layers lie together.
//!
//! Axes: B samples, T ticks, D neurons, d width of keys and values, L tokens,
//! h heads, M trace, H hidden (0: shallow neuron models), O = 2H or 2, S pairs.

mod attention;
mod backward;
mod forward;
mod linear;
mod neurons;
mod packed;
mod synapse;
mod traces;
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
    /// Whether there are [`Projections`].
    pub projected: bool,
}

impl Shape {
    /// O: what the first layer of a neuron-level model puts out.
    pub fn outputs(&self) -> usize {
        if self.hidden == 0 { 2 } else { 2 * self.hidden }
    }

    /// How many blocks of neurons there are.
    pub(crate) fn blocks(&self) -> usize {
        self.neurons.div_ceil(thin::LANES)
    }

    /// The width, in whole blocks.
    pub(crate) fn padded_width(&self) -> usize {
        self.width.next_multiple_of(thin::LANES)
    }

    /// How wide queries are, and what attention read, as they are kept: with what
    /// their projections make of them behind them.
    pub fn kept_width(&self) -> usize {
        if self.projected { 2 * self.width } else { self.width }
    }

    /// The tokens of a sample.
    pub(crate) fn sizes(&self) -> thin::tokens::Sizes {
        let channels = self.width / self.heads;
        thin::tokens::Sizes { tokens: self.tokens, heads: self.heads, channels }
    }

    /// From how many groups of samples on a thread is worth waking.
    pub(crate) fn groups_a_thread(&self) -> usize {
        /// Products that take about as long as waking a thread.
        const FEW: usize = 200_000;
        let a_neuron = 2 * (self.width + self.neurons) + self.memory * self.outputs();
        let attention = self.width * (self.pairs + 2 * self.tokens);
        let group = ROWS * self.ticks * (self.neurons * a_neuron + attention);
        FEW.div_ceil(group.max(1))
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
    /// [d, S].
    pub query_weight: &'a [f32],
    /// [d].
    pub query_bias: &'a [f32],
    /// Where the published machine has some.
    pub projections: Option<Projections<'a>>,
    /// One layer with a gate, or those of a U: first, downwards, upwards.
    pub synapse: &'a [Layer<'a>],
    /// [M, O, D].
    pub level1_weight: &'a [f32],
    /// [O, D].
    pub level1_bias: &'a [f32],
    /// [H, 2, D]; empty where H is 0.
    pub level2_weight: &'a [f32],
    /// [2, D]; empty where H is 0.
    pub level2_bias: &'a [f32],
}

/// What attention of several heads brings along, and the temperatures that weights and
/// biases of the neuron-level models are divided by.
#[derive(Clone, Copy)]
pub struct Projections<'a> {
    /// Of the query [d, d], rows of outputs.
    pub query_weight: &'a [f32],
    /// [d].
    pub query_bias: &'a [f32],
    /// Of what was read [d, d], rows of outputs.
    pub read_weight: &'a [f32],
    /// [d].
    pub read_bias: &'a [f32],
    /// Of the first level, and of the second where there is one.
    pub temperatures: &'a [f32],
}

impl Weights<'_> {
    /// What weights and biases of a level are multiplied by.
    pub(crate) fn inverse_temperature(&self, level: usize) -> f32 {
        let temperatures = self.projections.map(|given| given.temperatures);
        temperatures.and_then(|all| all.get(level)).map_or(1.0, |temperature| 1.0 / temperature)
    }
}

/// A layer of the synapse: a product, an activation and a LayerNorm.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// [inputs, width], of the only layer [inputs, 2 width]: values, then gates. The
    /// first has the attended, then the state, for inputs.
    pub weight: &'a [f32],
    /// [width] or [2 width].
    pub bias: &'a [f32],
    /// [width].
    pub norm_weight: &'a [f32],
    /// [width].
    pub norm_bias: &'a [f32],
    /// Of a layer upwards: weight and bias [width] of the norm after what came down
    /// is added.
    pub skip: Option<[&'a [f32]; 2]>,
}

/// What a forward pass leaves.
pub struct Saved<'a> {
    /// z_1 … z_T [B, T, D].
    pub states: &'a mut [f32],
    /// The trace after the last tick [B, D, M], the newest last.
    pub trace: &'a mut [f32],
    /// What attention read [B, T, d], or with its projection behind it [B, T, 2d].
    pub attended: &'a mut [f32],
    /// The query, likewise.
    pub query: &'a mut [f32],
    /// How much of each token each head read [B, T, h, L].
    pub attention: &'a mut [f32],
    /// The products of the synapse's layers [B, T, all their columns].
    pub synapse: &'a mut [f32],
}

/// The same, to be read; the last trace follows from the rest.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    /// See [`Saved`].
    pub states: &'a [f32],
    /// See [`Saved`].
    pub attended: &'a [f32],
    /// See [`Saved`].
    pub query: &'a [f32],
    /// See [`Saved`].
    pub attention: &'a [f32],
    /// See [`Saved`].
    pub synapse: &'a [f32],
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
    pub synapse: Vec<LayerGradients<'a>>,
    pub level1_weight: &'a mut [f32],
    pub level1_bias: &'a mut [f32],
    pub level2_weight: &'a mut [f32],
    pub level2_bias: &'a mut [f32],
    pub projections: Option<ProjectionGradients<'a>>,
}

/// Gradients of [`Projections`].
#[allow(missing_docs)]
pub struct ProjectionGradients<'a> {
    pub query_weight: &'a mut [f32],
    pub query_bias: &'a mut [f32],
    pub read_weight: &'a mut [f32],
    pub read_bias: &'a mut [f32],
    pub temperatures: &'a mut [f32],
}

/// Gradients of a [`Layer`]; without a skip its two are empty.
#[allow(missing_docs)]
pub struct LayerGradients<'a> {
    pub weight: &'a mut [f32],
    pub bias: &'a mut [f32],
    pub norm_weight: &'a mut [f32],
    pub norm_bias: &'a mut [f32],
    pub skip: [&'a mut [f32]; 2],
}

impl<'a> Gradients<'a> {
    /// From parts in the order of the fields, of a synapse of some depth; shallow
    /// neuron models have none for a second level.
    pub fn from_parts(
        shape: Shape,
        depth: usize,
        mut parts: impl Iterator<Item = &'a mut [f32]>,
    ) -> Self {
        let mut next = || parts.next().unwrap_or_default();
        let second = shape.hidden > 0;
        Gradients {
            keys: next(),
            values: next(),
            state: next(),
            trace: next(),
            retention: next(),
            query_weight: next(),
            query_bias: next(),
            synapse: (0..layers(depth))
                .map(|layer| LayerGradients {
                    weight: next(),
                    bias: next(),
                    norm_weight: next(),
                    norm_bias: next(),
                    skip: if layer < depth { Default::default() } else { [next(), next()] },
                })
                .collect(),
            level1_weight: next(),
            level1_bias: next(),
            level2_weight: if second { next() } else { &mut [] },
            level2_bias: if second { next() } else { &mut [] },
            projections: shape.projected.then(|| ProjectionGradients {
                query_weight: next(),
                query_bias: next(),
                read_weight: next(),
                read_bias: next(),
                temperatures: next(),
            }),
        }
    }
}

/// The layers of a synapse of `depth`: one, or as many down as `depth`, and up again.
pub fn layers(depth: usize) -> usize {
    2 * depth - 1
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
    weights::run(pool, shape, &packed, read, &found, &mut gradients);
}

fn check_operands(op: &str, shape: Shape, inputs: Inputs<'_>, weights: &Weights<'_>) {
    let Shape { batch, ticks, neurons, width, tokens, heads, memory, hidden, pairs, projected } =
        shape;
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
            ("level1_weight", weights.level1_weight.len(), memory * outputs * neurons),
            ("level1_bias", weights.level1_bias.len(), outputs * neurons),
            ("level2_weight", weights.level2_weight.len(), hidden * 2 * neurons),
            ("level2_bias", weights.level2_bias.len(), if hidden == 0 { 0 } else { 2 * neurons }),
        ],
    );
    assert_eq!(weights.projections.is_some(), projected, "`{op}`: projections");
    if let Some(given) = weights.projections {
        let levels = if hidden == 0 { 1 } else { 2 };
        check(
            op,
            &[
                ("the query's projection", given.query_weight.len(), width * width),
                ("the query's projection's bias", given.query_bias.len(), width),
                ("the reading's projection", given.read_weight.len(), width * width),
                ("the reading's projection's bias", given.read_bias.len(), width),
                ("temperatures", given.temperatures.len(), levels),
            ],
        );
    }
    let (count, mut inner) = (weights.synapse.len(), width + neurons);
    assert!(count % 2 == 1, "`{op}`: {count} layers go down and not up again");
    for (index, layer) in weights.synapse.iter().enumerate() {
        let down = index <= count / 2;
        let wide =
            if down { layer.norm_weight.len() } else { norm_width(weights, count - 1 - index) };
        let columns = if count == 1 { 2 * wide } else { wide };
        let skip = layer.skip.map_or(0, |[weight, bias]| weight.len() + bias.len());
        check(
            op,
            &[
                ("a synapse weight", layer.weight.len(), inner * columns),
                ("a synapse bias", layer.bias.len(), columns),
                ("a norm weight", layer.norm_weight.len(), wide),
                ("a norm bias", layer.norm_bias.len(), wide),
                ("a skip's norm", skip, if down { 0 } else { 2 * wide }),
            ],
        );
        inner = wide;
    }
    assert_eq!(inner, neurons, "`{op}`: width of the synapse");
}

fn norm_width(weights: &Weights<'_>, layer: usize) -> usize {
    weights.synapse[layer].norm_weight.len()
}
