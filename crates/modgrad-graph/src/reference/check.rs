//! Gradients of programs against central differences.

use std::collections::BTreeMap;

use super::{Array, RunKey, run};
use crate::error::{Error, Result};
use crate::gradient::differentiate;
use crate::op::Op;
use crate::program::{Program, ValueId};
use crate::tensor::DType;

/// Differences below this part of the tensor's largest gradient or of the loss
/// say more about rounding than about the gradient.
const SMALLEST_PART: f64 = 1e-3;

/// How well the gradient of one tensor agrees with differences.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientCheck {
    /// The f32 input or trainable parameter.
    pub name: String,
    /// How many of its elements were checked.
    pub checked: usize,
    /// The largest |analytic − numeric| over the larger of the two, where that
    /// is at least a thousandth of the tensor's largest gradient and of |loss|,
    /// else over that thousandth. 0 for a tensor without elements.
    pub worst_relative_error: f64,
    /// The element where it was found.
    pub worst_index: usize,
    /// The program's own gradient there.
    pub analytic: f64,
    /// The difference quotient there.
    pub numeric: f64,
}

/// Which map holds a tensor, and under which name.
struct Source {
    is_input: bool,
    name: String,
    value: ValueId,
}

/// Compares the gradients of the scalar output `loss` with central differences,
/// for every f32 input and trainable parameter.
///
/// An element x moves by `epsilon`·max(|x|, 1). Of a tensor with more than
/// `most_elements_per_tensor` elements, half the ones checked have the largest
/// gradients and the rest lie evenly spread.
pub fn check_gradients(
    program: &Program,
    loss: &str,
    inputs: &BTreeMap<String, Array>,
    parameters: &BTreeMap<String, Array>,
    key: RunKey,
    epsilon: f64,
    most_elements_per_tensor: usize,
) -> Result<Vec<GradientCheck>> {
    let loss_value = program.output(loss)?;
    let sources = differentiable(program);
    let mut differentiated = program.clone();
    let wanted: Vec<ValueId> = sources.iter().map(|source| source.value).collect();
    let gradients = differentiate(&mut differentiated, loss_value, &wanted)?;
    let values = run(&differentiated, inputs, parameters, key)?;
    let loss_scale = values[loss_value].data[0].abs();
    if !loss_scale.is_finite() {
        return Err(Error::NonFinite { subject: format!("output `{loss}`") });
    }

    let loss_with = |source: &Source, index: usize, move_by: f64| -> Result<f64> {
        let (mut inputs, mut parameters) = (inputs.clone(), parameters.clone());
        let tensors = if source.is_input { &mut inputs } else { &mut parameters };
        let array = tensors.get_mut(&source.name).expect("the run above found it");
        array.data[index] += move_by;
        Ok(run(program, &inputs, &parameters, key)?[loss_value].data[0])
    };
    let mut checks = Vec::with_capacity(sources.len());
    for (source, gradient) in sources.iter().zip(gradients) {
        let at = &values[source.value];
        let analytic = gradient.map_or(Array::zeros(&at.shape), |value| values[value].clone());
        if analytic.shape != at.shape {
            return Err(Error::shape(
                "gradient",
                format!("a gradient of shape {:?} for `{}`", at.shape, source.name),
                format!("{:?}", analytic.shape),
            ));
        }
        let chosen = choose(&analytic.data, most_elements_per_tensor);
        let mut numeric = Vec::with_capacity(chosen.len());
        for &index in &chosen {
            let step = epsilon * at.data[index].abs().max(1.0);
            let above = loss_with(source, index, step)?;
            numeric.push((above - loss_with(source, index, -step)?) / (2.0 * step));
        }
        checks.push(compare(&source.name, loss_scale, &analytic.data, &chosen, &numeric));
    }
    Ok(checks)
}

fn differentiable(program: &Program) -> Vec<Source> {
    let sources = program.nodes().iter().filter_map(|node| match &node.op {
        Op::Input { name, dtype: DType::F32, .. } => Some((true, name, node.outputs[0])),
        Op::Parameter { name, trainable: true, .. } => Some((false, name, node.outputs[0])),
        _ => None,
    });
    sources.map(|(is_input, name, value)| Source { is_input, name: name.clone(), value }).collect()
}

fn choose(analytic: &[f64], most: usize) -> Vec<usize> {
    if analytic.len() <= most {
        return (0..analytic.len()).collect();
    }
    let mut by_size: Vec<usize> = (0..analytic.len()).collect();
    by_size.sort_by(|&i, &j| analytic[j].abs().total_cmp(&analytic[i].abs()));
    let largest = &by_size[..most / 2];
    let spread = most - largest.len();
    let mut chosen: Vec<usize> = (0..spread).map(|i| i * analytic.len() / spread).collect();
    chosen.extend(largest);
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn compare(
    name: &str,
    loss_scale: f64,
    analytic: &[f64],
    chosen: &[usize],
    numeric: &[f64],
) -> GradientCheck {
    let largest = analytic.iter().fold(loss_scale, |largest, x| largest.max(x.abs()));
    let mut worst = GradientCheck {
        name: name.to_owned(),
        checked: chosen.len(),
        worst_relative_error: 0.0,
        worst_index: 0,
        analytic: 0.0,
        numeric: 0.0,
    };
    for (&index, &numeric) in chosen.iter().zip(numeric) {
        let analytic = analytic[index];
        let scale = analytic.abs().max(numeric.abs()).max(SMALLEST_PART * largest);
        let error = if analytic == numeric { 0.0 } else { (analytic - numeric).abs() / scale };
        // A NaN is the worst of all.
        if error.is_nan() || error > worst.worst_relative_error {
            let worst_relative_error = if error.is_nan() { f64::INFINITY } else { error };
            worst = GradientCheck {
                worst_relative_error,
                worst_index: index,
                analytic,
                numeric,
                ..worst
            };
        }
    }
    worst
}
