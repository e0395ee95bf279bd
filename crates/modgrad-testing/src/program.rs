//! Programs around single rows.

use std::collections::BTreeMap;

use modgrad_compute::function::BinaryFunction;
use modgrad_compute::reduce::Reduction;
use modgrad_graph::gradient::differentiate;
use modgrad_graph::reference::Array;
use modgrad_graph::{DType, Op, Program, ValueId};

use crate::random::Random;
use crate::rows::Row;

/// A program and what it runs on.
pub struct Case {
    pub program: Program,
    /// The outputs to ask for.
    pub outputs: Vec<String>,
    pub inputs: BTreeMap<String, Array>,
    pub parameters: BTreeMap<String, Array>,
}

impl Case {
    pub fn set_output(&mut self, name: &str, value: ValueId) {
        self.program.set_output(name, value).unwrap();
        self.outputs.push(name.to_owned());
    }
}

impl Row {
    /// One input an operand, named `x0`, `x1`, … and one output an output of
    /// the op, named `y0`, `y1`, ….
    pub fn case(&self) -> Case {
        let mut program = Program::new();
        let mut inputs = BTreeMap::new();
        let mut operands = Vec::new();
        for (index, operand) in self.operands.iter().enumerate() {
            let name = format!("x{index}");
            let shape = operand.array.shape.clone();
            let op = Op::Input { name: name.clone(), shape, dtype: operand.dtype };
            operands.push(program.apply(op, &[]).unwrap());
            inputs.insert(name, operand.array.clone());
        }
        let outputs = program
            .push(self.op.clone(), &operands)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut case = Case { program, outputs: Vec::new(), inputs, parameters: BTreeMap::new() };
        for (index, &value) in outputs.iter().enumerate() {
            case.set_output(&format!("y{index}"), value);
        }
        case
    }

    /// As [`Row::case`], with the output `loss`: the sum of all differentiable
    /// outputs, each element times a fixed random weight.
    pub fn case_with_loss(&self) -> Case {
        let mut case = self.case();
        let mut random = Random(self.operands.len() as u64);
        let mut total = None;
        for &output in &self.differentiable {
            let value = case.program.output(&format!("y{output}")).unwrap();
            let shape = case.program.spec(value).shape.clone();
            let name = format!("weights{output}");
            case.parameters.insert(name.clone(), random.floats(&shape).array);
            let weights =
                Op::Parameter { name, shape, dtype: DType::F32, trainable: false, sparse: false };
            let weights = case.program.apply(weights, &[]).unwrap();
            let term = weighted_sum(&mut case.program, value, weights);
            total = Some(match total {
                None => term,
                Some(total) => binary(&mut case.program, BinaryFunction::Add, total, term),
            });
        }
        case.set_output("loss", total.expect("a differentiable output"));
        case
    }

    /// As [`Row::case_with_loss`], with the gradients of all f32 operands, so that buffers
    /// are shared and gradient rules meet the planner.
    pub fn case_with_gradients(&self) -> Case {
        let mut case = self.case_with_loss();
        let loss = case.program.output("loss").unwrap();
        let inputs = case.program.inputs();
        let (names, values): (Vec<String>, Vec<usize>) = inputs
            .filter(|(_, value)| case.program.spec(*value).dtype == DType::F32)
            .map(|(name, value)| (format!("gradient of {name}"), value))
            .unzip();
        let gradients = differentiate(&mut case.program, loss, &values).unwrap();
        for (name, gradient) in names.iter().zip(gradients) {
            if let Some(gradient) = gradient {
                case.set_output(name, gradient);
            }
        }
        case
    }

    /// As [`Row::case`], but its results go on to an op that reads bf16, so that in bf16
    /// they are rounded where their op can write bf16.
    pub fn case_stored_as_bf16(&self) -> Case {
        let mut case = self.case();
        for name in std::mem::take(&mut case.outputs) {
            let value = case.program.output(&name).unwrap();
            if case.program.spec(value).dtype == DType::F32 {
                let op = Op::Affine { scale: -0.5, offset: 0.0 };
                let half = case.program.apply(op, &[value]).unwrap();
                case.set_output(&format!("half of {name}"), half);
            }
        }
        case
    }
}

fn weighted_sum(program: &mut Program, value: ValueId, weights: ValueId) -> ValueId {
    let mut sum = binary(program, BinaryFunction::Multiply, value, weights);
    while !program.spec(sum).shape.is_empty() {
        let op = Op::Reduce { kind: Reduction::Sum, axis: 0 };
        sum = program.apply(op, &[sum]).unwrap();
    }
    sum
}

fn binary(program: &mut Program, function: BinaryFunction, x: ValueId, y: ValueId) -> ValueId {
    program.apply(Op::Binary { function }, &[x, y]).unwrap()
}
