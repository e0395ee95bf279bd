//! The operands of a thought, taken apart.

use modgrad_graph::{Op, Result};

use super::super::indices::look;
use super::super::synchronisation::Recurrence;
use super::super::{Call, Input};
use crate::driver::Address;
use crate::launch::Place;

/// A weight, and the bias or the like that goes with it.
pub(super) type Pair = [Address; 2];

/// A layer of the synapse.
pub(super) struct Layer {
    /// [inputs, columns], [columns].
    pub linear: Pair,
    /// [width] each.
    pub norm: Pair,
    /// Upwards: of the norm after what came down is added [width].
    pub skip: Option<Pair>,
    pub inputs: usize,
    pub columns: usize,
    pub width: usize,
    /// Where its products stand among those of all layers.
    pub at: usize,
}

/// Projections of the query and of what is read, and the levels' temperatures.
pub(super) struct Projections {
    pub query: Pair,
    pub read: Pair,
    pub temperatures: Address,
}

/// Operands and sizes; axes as in `modgrad_ctm::thought`.
pub(super) struct Thought {
    pub batch: usize,
    pub ticks: usize,
    pub tokens: usize,
    pub width: usize,
    pub heads: usize,
    pub neurons: usize,
    pub memory: usize,
    pub hidden: usize,
    /// All pairs; they are asked with unless a sample reads the same at every tick.
    pub pairs: usize,
    /// Of all layers' products.
    pub columns: usize,
    pub keys: Address,
    pub values: Address,
    pub state: Address,
    pub trace: Address,
    pub left: Address,
    pub right: Address,
    pub retention: Address,
    pub query: Pair,
    pub layers: Vec<Layer>,
    pub level1: Pair,
    pub level2: Option<Pair>,
    pub projections: Option<Projections>,
    /// How many operands those were.
    pub operands: usize,
}

impl Thought {
    /// Those of `think`, or the first of `think_gradient`. Pairs that name no neuron leave
    /// their note.
    pub(super) fn new(call: &Call<'_, '_>) -> Result<Thought> {
        let (Op::Think { ticks, heads, hidden, depth, projected }
        | Op::ThinkGradient { ticks, heads, hidden, depth, projected }) = *call.op
        else {
            return Err(call.missing());
        };
        let x = call.x;
        let (keys, trace) = (x[0].shape, x[3].shape);
        look(call, &x[4], trace[1])?;
        look(call, &x[5], trace[1])?;
        let mut taken = 0;
        let mut next = || -> &Input<'_> {
            taken += 1;
            &x[taken - 1]
        };
        let [keys_at, values, state, trace_at, left, right, retention] =
            [(); 7].map(|()| next().address());
        let query = [(); 2].map(|()| next().address());
        let (mut layers, mut columns) = (Vec::new(), 0);
        for index in 0..2 * depth - 1 {
            let weight = next();
            let [inputs, wide] = [weight.shape[0], weight.shape[1]];
            let linear = [weight.address(), next().address()];
            layers.push(Layer {
                linear,
                norm: [(); 2].map(|()| next().address()),
                skip: (index >= depth).then(|| [(); 2].map(|()| next().address())),
                inputs,
                columns: wide,
                width: if depth == 1 { wide / 2 } else { wide },
                at: columns,
            });
            columns += wide;
        }
        let level1 = [(); 2].map(|()| next().address());
        let level2 = (hidden > 0).then(|| [(); 2].map(|()| next().address()));
        let projections = projected.then(|| Projections {
            query: [(); 2].map(|()| next().address()),
            read: [(); 2].map(|()| next().address()),
            temperatures: next().address(),
        });
        Ok(Thought {
            batch: keys[0],
            ticks,
            tokens: keys[1],
            width: keys[2],
            heads,
            neurons: trace[1],
            memory: trace[2],
            hidden,
            pairs: x[6].shape[0],
            columns,
            keys: keys_at,
            values,
            state,
            trace: trace_at,
            left,
            right,
            retention,
            query,
            layers,
            level1,
            level2,
            projections,
            operands: taken,
        })
    }

    /// O.
    pub(super) fn outputs(&self) -> usize {
        2 * self.hidden.max(1)
    }

    /// Whether a sample reads the same at every tick: there is nothing to ask with, or one
    /// token only.
    pub(super) fn reads_once(&self) -> bool {
        self.pairs == 0 || self.tokens == 1
    }

    /// How wide queries are as they are kept, and what attention read.
    pub(super) fn kept(&self) -> usize {
        if self.projections.is_some() { 2 * self.width } else { self.width }
    }

    /// Elements of [B, N].
    pub(super) fn slot(&self) -> usize {
        self.batch * self.neurons
    }

    /// Address of slot `index` among those of the traces.
    pub(super) fn slot_at(&self, traces: Address, index: usize) -> Address {
        traces + (index * self.slot() * 4) as Address
    }

    /// The synchronisation of what the ticks read: the states before each.
    pub(super) fn recurrence(&self, states: Address, beta: Address) -> Recurrence {
        Recurrence {
            start: self.state,
            states,
            left: self.left,
            right: self.right,
            retention: self.retention,
            beta,
            ticks: self.ticks as i64,
            neurons: self.neurons as i64,
            pairs: self.pairs as i64,
            first: 0,
            end: self.ticks as i64,
        }
    }
}
