//! The arms of `ops` for Continuous Thought Machines.

use modgrad_compute::Pool;
use modgrad_ctm::synchronisation::{self, Shape as Recurrence};
use modgrad_ctm::thought::{
    self, Gradients, Inputs, Layer, Projections, Read, Saved, Shape, Upstream, Weights,
};

use super::HostMemory;
use crate::error::{Error, Result};
use crate::shape::thought::{PROJECTIONS, SYNAPSE, level_operands, synapse_operands};

type Input<'a> = crate::backend::Operand<'a, HostMemory>;
type Out<'a> = crate::backend::OperandMut<'a, HostMemory>;

pub(super) fn synchronisation(pool: &Pool, x: &[Input<'_>], out: &mut [Out<'_>]) -> Result<()> {
    let shape = recurrence("synchronisation", x)?;
    synchronisation::synchronisation(
        pool,
        shape,
        x[0].slice(),
        x[1].slice(),
        x[2].slice(),
        x[3].slice(),
        x[4].slice(),
        out[0].slice_mut(),
    );
    Ok(())
}

pub(super) fn synchronisation_gradient(
    pool: &Pool,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let shape = recurrence("synchronisation_gradient", x)?;
    let [start, states, retention] = out else { return Err(arity("synchronisation_gradient")) };
    synchronisation::synchronisation_gradient(
        pool,
        shape,
        x[0].slice(),
        x[1].slice(),
        x[2].slice(),
        x[3].slice(),
        x[4].slice(),
        x[5].slice(),
        start.slice_mut(),
        states.slice_mut(),
        retention.slice_mut(),
    );
    Ok(())
}

fn recurrence(op: &'static str, x: &[Input<'_>]) -> Result<Recurrence> {
    let (states, pairs) = (x[1].shape, x[4].shape[0]);
    let shape = Recurrence { batch: states[0], ticks: states[1], neurons: states[2], pairs };
    check_pairs(op, &x[2..4], shape.neurons)?;
    Ok(shape)
}

/// Refuses pairs that name no neuron.
fn check_pairs(op: &'static str, pairs: &[Input<'_>], neurons: usize) -> Result<()> {
    for &index in pairs.iter().flat_map(|operand| operand.slice::<i32>()) {
        if usize::try_from(index).is_ok_and(|index| index < neurons) {
            continue;
        }
        let expected = format!("indices from 0 to {}", neurons as i64 - 1);
        return Err(Error::shape(op, expected, index.to_string()));
    }
    Ok(())
}

/// The attributes of a thought.
#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) ticks: usize,
    pub(super) heads: usize,
    pub(super) hidden: usize,
    pub(super) depth: usize,
    pub(super) projected: bool,
}

impl Attributes {
    /// How many operands a thought has.
    fn operands(self) -> usize {
        self.projections() + if self.projected { PROJECTIONS } else { 0 }
    }

    /// Where those of projections begin.
    fn projections(self) -> usize {
        SYNAPSE + synapse_operands(self.depth) + level_operands(self.hidden)
    }
}

pub(super) fn think(
    pool: &Pool,
    attributes: Attributes,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let shape = thought_shape("think", attributes, x)?;
    let [states, trace, attended, query, attention, synapse] = out else {
        return Err(arity("think"));
    };
    let saved = Saved {
        states: states.slice_mut(),
        trace: trace.slice_mut(),
        attended: attended.slice_mut(),
        query: query.slice_mut(),
        attention: attention.slice_mut(),
        synapse: synapse.slice_mut(),
    };
    let layers = layers(x, attributes.depth);
    thought::think(pool, shape, inputs(x), &weights(x, attributes, &layers), saved);
    Ok(())
}

pub(super) fn think_gradient(
    pool: &Pool,
    attributes: Attributes,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let shape = thought_shape("think_gradient", attributes, x)?;
    let saved = |index: usize| x[attributes.operands() + index].slice::<f32>();
    let read = Read {
        states: saved(0),
        attended: saved(2),
        query: saved(3),
        attention: saved(4),
        synapse: saved(5),
    };
    let upstream = Upstream { states: saved(6), trace: saved(7) };
    let parts = out.iter_mut().map(|out| out.slice_mut());
    let gradients = Gradients::from_parts(shape, attributes.depth, parts);
    let layers = layers(x, attributes.depth);
    let weights = weights(x, attributes, &layers);
    thought::think_gradient(pool, shape, inputs(x), &weights, read, upstream, gradients);
    Ok(())
}

fn thought_shape(op: &'static str, attributes: Attributes, x: &[Input<'_>]) -> Result<Shape> {
    let Attributes { ticks, heads, hidden, projected, .. } = attributes;
    let (keys, trace) = (x[0].shape, x[3].shape);
    let shape = Shape {
        batch: keys[0],
        ticks,
        neurons: trace[1],
        width: keys[2],
        tokens: keys[1],
        heads,
        memory: trace[2],
        hidden,
        pairs: x[6].shape[0],
        projected,
    };
    check_pairs(op, &x[4..6], shape.neurons)?;
    Ok(shape)
}

fn inputs<'a>(x: &[Input<'a>]) -> Inputs<'a> {
    Inputs { keys: x[0].slice(), values: x[1].slice(), state: x[2].slice(), trace: x[3].slice() }
}

/// The layers of the synapse.
fn layers<'a>(x: &[Input<'a>], depth: usize) -> Vec<Layer<'a>> {
    let mut rest = x[SYNAPSE..].iter().map(|operand| operand.slice());
    let mut next = || rest.next().unwrap_or_default();
    (0..thought::layers(depth))
        .map(|layer| Layer {
            weight: next(),
            bias: next(),
            norm_weight: next(),
            norm_bias: next(),
            skip: (layer >= depth).then(|| [next(), next()]),
        })
        .collect()
}

fn weights<'a>(x: &[Input<'a>], attributes: Attributes, synapse: &'a [Layer<'a>]) -> Weights<'a> {
    let levels = &x[SYNAPSE + synapse_operands(attributes.depth)..];
    let second = |index: usize| match attributes.hidden {
        0 => &[],
        _ => levels[index].slice(),
    };
    let projections = attributes.projected.then(|| {
        let given = &x[attributes.projections()..];
        Projections {
            query_weight: given[0].slice(),
            query_bias: given[1].slice(),
            read_weight: given[2].slice(),
            read_bias: given[3].slice(),
            temperatures: given[4].slice(),
        }
    });
    Weights {
        left: x[4].slice(),
        right: x[5].slice(),
        retention: x[6].slice(),
        query_weight: x[7].slice(),
        query_bias: x[8].slice(),
        projections,
        synapse,
        level1_weight: levels[0].slice(),
        level1_bias: levels[1].slice(),
        level2_weight: second(2),
        level2_bias: second(3),
    }
}

fn arity(op: &'static str) -> Error {
    Error::malformed(format!("`{op}` was planned with the wrong number of outputs"))
}
