//! The arms of `ops` for thoughts on a lattice, and walks on it.

use modgrad_compute::Pool;
use modgrad_ctm::spatial::{self, Gradients, Read, Saved, Shape, Weights};
use modgrad_ctm::walk;

use super::HostMemory;
use crate::error::{Error, Result};

type Input<'a> = crate::backend::Operand<'a, HostMemory>;
type Out<'a> = crate::backend::OperandMut<'a, HostMemory>;

pub(super) fn think(
    pool: &Pool,
    ticks: usize,
    kept: usize,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let (shape, reads) = prepared("spatial_think", ticks, kept, x)?;
    let [readings, activations, gates, sums] = out else { return Err(arity("spatial_think")) };
    let saved = Saved {
        readings: readings.slice_mut(),
        activations: activations.slice_mut(),
        gates: gates.slice_mut(),
        sums: sums.slice_mut(),
    };
    spatial::think(pool, shape, x[0].slice(), &weights(x), &reads, saved);
    Ok(())
}

pub(super) fn think_gradient(
    pool: &Pool,
    ticks: usize,
    kept: usize,
    x: &[Input<'_>],
    out: &mut [Out<'_>],
) -> Result<()> {
    let op = "spatial_think_gradient";
    let (shape, reads) = prepared(op, ticks, kept, x)?;
    let read = Read {
        readings: x[7].slice(),
        activations: x[8].slice(),
        gates: x[9].slice(),
        sums: x[10].slice(),
    };
    let [drive, start, synapse, neuron, neuron_bias, retention] = out else {
        return Err(arity(op));
    };
    let gradients = Gradients {
        drive: drive.slice_mut(),
        start: start.slice_mut(),
        synapse: synapse.slice_mut(),
        neuron: neuron.slice_mut(),
        neuron_bias: neuron_bias.slice_mut(),
        retention: retention.slice_mut(),
    };
    let (drive, dreadings) = (x[0].slice(), x[11].slice());
    spatial::think_gradient(pool, shape, drive, &weights(x), &reads, read, dreadings, gradients);
    Ok(())
}

pub(super) fn walk(steps: usize, x: &[Input<'_>], out: &mut [Out<'_>]) {
    let grid = [x[0].shape[0], x[0].shape[1], x[0].shape[2]];
    walk::walk(grid, steps, x[0].slice(), x[1].slice(), out[0].slice_mut());
}

/// The sizes, and the ticks to read, which must be there.
fn prepared(
    op: &'static str,
    ticks: usize,
    kept: usize,
    x: &[Input<'_>],
) -> Result<(Shape, Vec<usize>)> {
    let (drive, start) = (x[0].shape, x[1].shape);
    let last = [i32::try_from(ticks).unwrap_or(i32::MAX)];
    let reads = x.get(6).map_or(&last[..], |reads| reads.slice());
    let reads = reads.iter().map(|&read| {
        let tick = usize::try_from(read).ok().filter(|&tick| tick <= ticks);
        let refused = || Error::shape(op, format!("ticks from 0 to {ticks}"), read.to_string());
        tick.ok_or_else(refused)
    });
    let reads: Vec<usize> = reads.collect::<Result<_>>()?;
    let shape = Shape {
        batch: drive[0],
        height: drive[1],
        width: drive[2],
        channels: start[1],
        memory: start[0],
        kept,
        reads: reads.len(),
    };
    Ok((shape, reads))
}

fn weights<'a>(x: &[Input<'a>]) -> Weights<'a> {
    Weights {
        start: x[1].slice(),
        synapse: x[2].slice(),
        neuron: x[3].slice(),
        neuron_bias: x[4].slice(),
        retention: x[5].slice(),
    }
}

fn arity(op: &'static str) -> Error {
    Error::shape(op, "its results", "another number of them")
}
