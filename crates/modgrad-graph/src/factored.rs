//! Gradients that are left as the two factors of their product.
//!
//! A weight's gradient is dyᵀ·x over the positions of a step. Where those are
//! few, the factors are a small part of the weight's size: the update forms the
//! product where it needs it, and a step neither writes the gradient nor reads
//! it again. Only a step of a single backward pass is taken so; passes that add
//! up run the products as any other instruction.

use std::collections::BTreeMap;

use crate::backend::{Operand, Product, Stretch};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::planner::{GradientTerms, Instruction, Memory, ParameterPlace, Place};
use crate::program::{Program, ValueId};

/// Weights of fewer elements are not worth an update of their own.
const LEAST_ELEMENTS: usize = 1 << 14;

/// The positions are at most one in so many of the weight's rows, and of its columns.
const LEAST_RATIO: usize = 2;

/// A weight's gradient that is not formed by the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Factored {
    /// Where the weight stands in the flat buffers.
    pub stretch: Stretch,
    /// The matrix product that would write it.
    pub product: Instruction,
}

/// Which terms may be left as factors, of those that are written straight into
/// the gradient of one of `candidates`: value → parameter.
pub(crate) fn choose(
    program: &Program,
    parameters: &BTreeMap<String, ParameterPlace>,
    candidates: &[String],
    direct: &BTreeMap<ValueId, String>,
    terms: &GradientTerms,
) -> Vec<ValueId> {
    let producers = program.producers();
    let mut chosen = Vec::new();
    for (&value, name) in direct {
        let node = &program.nodes()[producers[value]];
        let Op::MatMul { transpose_a, .. } = node.op else { continue };
        // An update of one weight must not change the factors of another.
        let of_parameters = node.inputs.iter().any(|&input| reads_parameter(program, input));
        let shape = &program.spec(node.inputs[0]).shape;
        let inner = shape[usize::from(!transpose_a)];
        let least = parameters[name].spec.shape.iter().min().copied().unwrap_or(0);
        if candidates.contains(name)
            && terms[name].len() == 1
            && !of_parameters
            && inner > 0
            && inner * LEAST_RATIO <= least
            && parameters[name].spec.elements() >= LEAST_ELEMENTS
        {
            chosen.push(value);
        }
    }
    chosen
}

/// Whether `value` is a parameter, seen through reshapes.
fn reads_parameter(program: &Program, value: ValueId) -> bool {
    let producers = program.producers();
    let node = &program.nodes()[producers[value]];
    match node.op {
        Op::Parameter { .. } => true,
        Op::Reshape { .. } => reads_parameter(program, node.inputs[0]),
        _ => false,
    }
}

/// The factors of `factored`, where the run left them.
pub(crate) fn product<'a, M>(
    slots: &'a [Option<M>],
    factored: &'a Factored,
) -> Result<Product<'a, M>> {
    let malformed = || Error::malformed("a gradient in factors that are not in scratch memory");
    let Instruction::Run { op: Op::MatMul { transpose_a, transpose_b }, inputs, .. } =
        &factored.product
    else {
        return Err(malformed());
    };
    let operand = |place: &'a Place| match place.memory {
        Memory::Slot(slot) => {
            let memory = slots[slot].as_ref().ok_or_else(malformed)?;
            Ok(Operand { memory, offset: 0, shape: &place.shape, storage: place.storage })
        }
        _ => Err(malformed()),
    };
    Ok(Product {
        left: operand(&inputs[0])?,
        right: operand(&inputs[1])?,
        transposed: (*transpose_a, *transpose_b),
    })
}
