//! The arms of `ops` for Continuous Thought Machines.

use modgrad_compute::Pool;
use modgrad_ctm::synchronisation::{self, Shape as Recurrence};
use modgrad_ctm::thought::{self, Gradients, Inputs, Read, Saved, Shape, Upstream, Weights};

use super::HostMemory;
use crate::error::{Error, Result};

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
        let expected = format!("indices from 0 to below {neurons}");
        return Err(Error::shape(op, expected, index.to_string()));
    }
    Ok(())
}

pub(super) fn think(
    pool: &Pool,
    ticks: usize,
    heads: usize,
    hidden: usize,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let shape = thought_shape("think", ticks, heads, hidden, x)?;
    let [states, trace, attended, synapse, layer] = out else { return Err(arity("think")) };
    let saved = Saved {
        states: states.slice_mut(),
        trace: trace.slice_mut(),
        attended: attended.slice_mut(),
        synapse: synapse.slice_mut(),
        hidden: layer.slice_mut(),
    };
    thought::think(pool, shape, inputs(x), &weights(x, hidden), saved);
    Ok(())
}

pub(super) fn think_gradient(
    pool: &Pool,
    ticks: usize,
    heads: usize,
    hidden: usize,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let shape = thought_shape("think_gradient", ticks, heads, hidden, x)?;
    let operands = if hidden == 0 { 15 } else { 17 };
    let saved = |index: usize| x[operands + index].slice::<f32>();
    let read = Read { states: saved(0), attended: saved(2), synapse: saved(3), hidden: saved(4) };
    let upstream = Upstream { states: saved(5), trace: saved(6) };
    let gradients = Gradients::from_parts(out.iter_mut().map(|out| out.slice_mut()));
    let weights = weights(x, hidden);
    thought::think_gradient(pool, shape, inputs(x), &weights, read, upstream, gradients);
    Ok(())
}

fn thought_shape(
    op: &'static str,
    ticks: usize,
    heads: usize,
    hidden: usize,
    x: &[Input<'_>],
) -> Result<Shape> {
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
    };
    check_pairs(op, &x[4..6], shape.neurons)?;
    Ok(shape)
}

fn inputs<'a>(x: &[Input<'a>]) -> Inputs<'a> {
    Inputs { keys: x[0].slice(), values: x[1].slice(), state: x[2].slice(), trace: x[3].slice() }
}

fn weights<'a>(x: &[Input<'a>], hidden: usize) -> Weights<'a> {
    Weights {
        left: x[4].slice(),
        right: x[5].slice(),
        retention: x[6].slice(),
        query_weight: x[7].slice(),
        query_bias: x[8].slice(),
        synapse_weight: x[9].slice(),
        synapse_bias: x[10].slice(),
        norm_weight: x[11].slice(),
        norm_bias: x[12].slice(),
        level1_weight: x[13].slice(),
        level1_bias: x[14].slice(),
        level2_weight: if hidden == 0 { &[] } else { x[15].slice() },
        level2_bias: if hidden == 0 { &[] } else { x[16].slice() },
    }
}

fn arity(op: &'static str) -> Error {
    Error::malformed(format!("`{op}` was planned with the wrong number of outputs"))
}
