//! Shapes of thoughts on a lattice, and of walks on it.

use super::Operands;
use crate::error::Result;
use crate::tensor::{DType, TensorSpec};

/// Up, down, left, right, stay.
const MOVES: usize = 5;

pub(super) fn think(given: &Operands<'_>, ticks: usize, kept: usize) -> Result<Vec<TensorSpec>> {
    let specs = given.specs;
    let (drive, start) = (specs[0], specs[1]);
    given.float(drive)?;
    given.rank(drive, 4, "[B, Y, X, 2C]")?;
    given.float(start)?;
    given.rank(start, 2, "[M, C]")?;
    let &[batch, height, width, pairs] = &drive.shape[..] else { unreachable!("rank 4") };
    let (memory, channels) = (start.shape[0], start.shape[1]);
    given.attribute(![height, width, memory, channels].contains(&0), || {
        format!("a grid {drive} with traces {start} leaves nothing to think about")
    })?;
    given.attribute(channels % 4 == 0, || {
        format!("{channels} channels do not divide into four directions")
    })?;
    given.require(
        pairs == 2 * channels,
        || format!("a drive of {} for {channels} channels", 2 * channels),
        || drive.to_string(),
    )?;
    given.attribute(kept <= ticks && ticks < i32::MAX as usize, || {
        format!("cannot keep {kept} of {ticks} ticks")
    })?;
    let rest: [(&[usize], &str); 4] = [
        (&[pairs, pairs], "a synapse weight"),
        (&[memory, 2, channels], "a neuron weight"),
        (&[2, channels], "a neuron bias"),
        (&[pairs], "a retention"),
    ];
    for (spec, (shape, what)) in specs[2..6].iter().zip(rest) {
        given.shaped(spec, shape, what)?;
    }
    let mut readings = 1;
    if let Some(reads) = specs.get(6) {
        given.require(
            reads.dtype == DType::I32 && reads.shape.len() == 1 && reads.shape[0] > 0,
            || "the ticks to read i32[R], at least one".into(),
            || reads.to_string(),
        )?;
        readings = reads.shape[0];
    }
    let (slots, sums) = if kept == 0 { (0, 0) } else { (kept + memory, batch) };
    Ok(vec![
        TensorSpec::f32([batch, readings, height, width, pairs]),
        TensorSpec::f32([batch, slots, height, width, channels]),
        TensorSpec::f32([batch, kept, height, width, pairs]),
        TensorSpec::f32([sums, height, width, pairs]),
    ])
}

pub(super) fn think_gradient(
    given: &Operands<'_>,
    ticks: usize,
    kept: usize,
) -> Result<Vec<TensorSpec>> {
    let results = think(given, ticks, kept)?;
    given.attribute(kept > 0, || "without kept ticks there is no gradient".into())?;
    for (spec, result) in given.specs[7..11].iter().zip(&results) {
        given.shaped(spec, &result.shape, "a result of `spatial_think`")?;
    }
    given.shaped(given.specs[11], &results[0].shape, "a gradient")?;
    Ok(given.specs[..6].iter().map(|spec| (*spec).clone()).collect())
}

pub(super) fn walk(
    given: &Operands<'_>,
    steps: usize,
    policy: &TensorSpec,
    start: &TensorSpec,
) -> Result<Vec<TensorSpec>> {
    given.rank(policy, 4, "[B, Y, X, 5]")?;
    given.require(
        policy.shape[3] == MOVES && policy.shape[1..].iter().all(|&size| size > 0),
        || "a policy of 5 moves over a grid [B, Y, X, 5]".into(),
        || policy.to_string(),
    )?;
    given.shaped(start, &policy.shape[..3], "a start")?;
    Ok(vec![TensorSpec::f32([policy.shape[0], steps, MOVES])])
}
