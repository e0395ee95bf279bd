//! The shape rule of a thought: its operands, and what it makes of them.

use super::{Operands, pair_indices};
use crate::error::Result;
use crate::tensor::TensorSpec;

/// Where the operands of the synapse begin.
pub(crate) const SYNAPSE: usize = 9;

/// How many operands the synapse of some depth has.
pub(crate) fn synapse_operands(depth: usize) -> usize {
    4 * depth + 6 * (depth - 1)
}

/// How many operands the neuron-level models have.
pub(crate) fn level_operands(hidden: usize) -> usize {
    if hidden == 0 { 2 } else { 4 }
}

/// How many operands projections have, and temperatures.
pub(crate) const PROJECTIONS: usize = 5;

/// Checks the operands of `think`, which come first; how many there are, and the specs
/// of its results.
pub(super) fn shapes(
    given: &Operands<'_>,
    ticks: usize,
    heads: usize,
    hidden: usize,
    depth: usize,
    projected: bool,
) -> Result<(usize, Vec<TensorSpec>)> {
    given.attribute(depth > 0 && depth < 1 << 20, || format!("a synapse of depth {depth}"))?;
    let of_synapse = synapse_operands(depth);
    let levels = SYNAPSE + of_synapse;
    let projections = levels + level_operands(hidden);
    let operands = projections + if projected { PROJECTIONS } else { 0 };
    given.require(
        given.specs.len() >= operands,
        || format!("{operands} operands"),
        || given.specs.len().to_string(),
    )?;
    let specs = given.specs;
    let (keys, trace, retention) = (specs[0], specs[3], specs[6]);
    given.float(keys)?;
    given.rank(keys, 3, "[B, L, C]")?;
    given.float(trace)?;
    given.rank(trace, 3, "[B, N, M]")?;
    given.float(retention)?;
    given.rank(retention, 1, "[S]")?;
    let (tokens, channels, pairs) = (keys.shape[1], keys.shape[2], retention.shape[0]);
    let (batch, neurons, memory) = (keys.shape[0], trace.shape[1], trace.shape[2]);
    let empty = [ticks, tokens, channels, neurons, memory].contains(&0);
    given.attribute(!empty, || {
        format!("{ticks} ticks over {keys} with traces {trace} leave nothing to think about")
    })?;
    given.attribute(heads > 0 && channels % heads == 0, || {
        format!("{channels} channels do not divide into {heads} heads")
    })?;
    given.attribute(hidden < usize::MAX / 2, || format!("{hidden} hidden is too many"))?;
    given.shaped(specs[1], &keys.shape, "values")?;
    given.shaped(specs[2], &[batch, neurons], "a state")?;
    given.shaped(trace, &[batch, neurons, memory], "a trace")?;
    pair_indices(given, specs[4], specs[5], retention)?;
    given.shaped(specs[7], &[channels, pairs], "a query weight")?;
    given.shaped(specs[8], &[channels], "a query bias")?;
    let columns = synapse(given, &specs[SYNAPSE..SYNAPSE + of_synapse], depth, channels, neurons)?;
    let outputs = if hidden == 0 { 2 } else { 2 * hidden };
    let shapes: [(&[usize], &str); 4] = [
        (&[memory, outputs, neurons], "a level-1 weight"),
        (&[outputs, neurons], "a level-1 bias"),
        (&[hidden, 2, neurons], "a level-2 weight"),
        (&[2, neurons], "a level-2 bias"),
    ];
    for (spec, (shape, what)) in specs[levels..projections].iter().zip(shapes) {
        given.shaped(spec, shape, what)?;
    }
    let (square, row) = ([channels, channels], [channels]);
    let shapes: [(&[usize], &str); PROJECTIONS] = [
        (&square, "a projection of the query"),
        (&row, "its bias"),
        (&square, "a projection of what is read"),
        (&row, "its bias"),
        (&[if hidden == 0 { 1 } else { 2 }], "temperatures"),
    ];
    for (spec, (shape, what)) in specs[projections..operands].iter().zip(shapes) {
        given.shaped(spec, shape, what)?;
    }
    let kept = if projected { 2 * channels } else { channels };
    let results = vec![
        TensorSpec::f32([batch, ticks, neurons]),
        trace.clone(),
        TensorSpec::f32([batch, ticks, kept]),
        TensorSpec::f32([batch, ticks, kept]),
        TensorSpec::f32([batch, ticks, heads, tokens]),
        TensorSpec::f32([batch, ticks, columns]),
    ];
    Ok((operands, results))
}

/// Checks the layers of the synapse; the columns of all their products.
fn synapse(
    given: &Operands<'_>,
    specs: &[&TensorSpec],
    depth: usize,
    channels: usize,
    neurons: usize,
) -> Result<usize> {
    let mut inner = channels + neurons;
    if depth == 1 {
        given.shaped(specs[0], &[inner, 2 * neurons], "a synapse weight")?;
        given.shaped(specs[1], &[2 * neurons], "a synapse bias")?;
        given.shaped(specs[2], &[neurons], "a norm weight")?;
        given.shaped(specs[3], &[neurons], "a norm bias")?;
        return Ok(2 * neurons);
    }
    let (mut widths, mut columns, mut rest) = (Vec::new(), 0, specs);
    for layer in 0..2 * depth - 1 {
        let up = layer >= depth;
        let (layer, after) = rest.split_at(if up { 6 } else { 4 });
        rest = after;
        let width = if up {
            widths[widths.len() - 2]
        } else if widths.is_empty() {
            neurons
        } else {
            given.rank(layer[1], 1, "[width] for a bias of the synapse")?;
            given.attribute(layer[1].shape[0] > 0, || "a synapse of width 0".into())?;
            layer[1].shape[0]
        };
        given.shaped(layer[0], &[inner, width], "a synapse weight")?;
        for spec in &layer[1..] {
            given.shaped(spec, &[width], "a bias or norm of the synapse")?;
        }
        if up {
            widths.pop();
        } else {
            widths.push(width);
        }
        (inner, columns) = (width, columns + width);
    }
    Ok(columns)
}
