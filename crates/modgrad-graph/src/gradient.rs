//! Reverse-mode differentiation: one rule an op, all in one table.
//!
//! [`backpropagate`] walks a program backwards and appends the nodes that
//! compute gradients, so that what runs in training is again a plain program.

use modgrad_compute::function::{BinaryFunction, UnaryFunction};
use modgrad_compute::reduce::Reduction;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::program::{Node, Program, ValueId};
use crate::tensor::DType;

/// Appends the gradients of the scalar `loss` with respect to each of
/// `with_respect_to`; `None` where the loss does not depend on it.
pub fn differentiate(
    program: &mut Program,
    loss: ValueId,
    with_respect_to: &[ValueId],
) -> Result<Vec<Option<ValueId>>> {
    let terms = backpropagate(program, loss, with_respect_to)?;
    terms.into_iter().map(|terms| sum(program, &terms)).collect()
}

/// As [`differentiate`], but each gradient as the terms that add up to it, so
/// that an executor can accumulate them in place.
pub fn backpropagate(
    program: &mut Program,
    loss: ValueId,
    with_respect_to: &[ValueId],
) -> Result<Vec<Vec<ValueId>>> {
    let spec = program.spec(loss);
    if spec.dtype != DType::F32 || !spec.shape.is_empty() {
        return Err(Error::shape("gradient", "a scalar f32 loss", spec.to_string()));
    }
    let forward_nodes = program.nodes().len();
    let wanted = depends_on(program, with_respect_to);
    let mut terms: Vec<Vec<ValueId>> = vec![Vec::new(); program.values()];
    terms[loss].push(program.apply(Op::Constant { shape: vec![], value: 1.0 }, &[])?);

    for index in (0..forward_nodes).rev() {
        let node = program.nodes()[index].clone();
        let reached = node.outputs.iter().any(|&value| !terms[value].is_empty());
        let wants: Vec<bool> = node.inputs.iter().map(|&value| wanted[value]).collect();
        if !reached || !wants.contains(&true) {
            continue;
        }
        let mut gradients = Vec::with_capacity(node.outputs.len());
        for &value in &node.outputs {
            let gradient = sum(program, &terms[value])?;
            terms[value] = gradient.into_iter().collect();
            gradients.push(gradient);
        }
        let mut rule = Rule { program, node: &node, gradients: &gradients, wants: &wants };
        let found = rule.apply()?;
        for ((value, gradient), want) in node.inputs.iter().zip(found).zip(&wants) {
            if *want && let Some(gradient) = gradient {
                terms[*value].push(gradient);
            }
        }
    }
    Ok(with_respect_to.iter().map(|&value| terms[value].clone()).collect())
}

/// Which values are, or are computed from, one of `sources` by floats.
fn depends_on(program: &Program, sources: &[ValueId]) -> Vec<bool> {
    let mut depends = vec![false; program.values()];
    sources.iter().for_each(|&value| depends[value] = true);
    for node in program.nodes() {
        if node.inputs.iter().any(|&value| depends[value]) {
            for &value in &node.outputs {
                depends[value] |= program.spec(value).dtype == DType::F32;
            }
        }
    }
    depends
}

fn sum(program: &mut Program, terms: &[ValueId]) -> Result<Option<ValueId>> {
    let Some((&first, rest)) = terms.split_first() else {
        return Ok(None);
    };
    let add = Op::Binary { function: BinaryFunction::Add };
    let total =
        rest.iter().try_fold(first, |total, &term| program.apply(add.clone(), &[total, term]))?;
    Ok(Some(total))
}

/// Gradients of float operands, with none for the two operands of indices at `at`.
fn around_indices(mut gradients: Vec<Option<ValueId>>, at: usize) -> Vec<Option<ValueId>> {
    gradients.splice(at..at, [None, None]);
    gradients
}

/// One node, the gradients of its outputs, and which inputs want one.
struct Rule<'a> {
    program: &'a mut Program,
    node: &'a Node,
    gradients: &'a [Option<ValueId>],
    wants: &'a [bool],
}

type Gradients = Result<Vec<Option<ValueId>>>;

impl Rule<'_> {
    /// The rules: for each op, the gradient of every input.
    fn apply(&mut self) -> Gradients {
        let input = |index: usize| self.node.inputs[index];
        let output = |index: usize| self.node.outputs[index];
        match self.node.op.clone() {
            Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => Ok(vec![]),

            Op::Unary { function } => {
                let dy = self.only()?;
                self.one(Op::UnaryGradient { function }, &[input(0), dy])
            }
            Op::Binary { function } => self.binary(function),
            Op::Affine { scale, .. } => {
                let dy = self.only()?;
                self.one(Op::Affine { scale, offset: 0.0 }, &[dy])
            }
            op @ Op::Dropout { .. } => {
                let dy = self.only()?;
                self.one(op, &[dy])
            }

            Op::Reduce { kind: Reduction::Maximum, axis } => {
                let dy = self.only()?;
                self.one(Op::MaximumGradient { axis }, &[input(0), output(0), dy])
            }
            Op::Reduce { kind, axis } => {
                let shape = self.program.spec(input(0)).shape.clone();
                let mut dy = self.only()?;
                if kind == Reduction::Mean {
                    let scale = 1.0 / shape[axis] as f32;
                    dy = self.push(Op::Affine { scale, offset: 0.0 }, &[dy])?;
                }
                let mut kept = shape.clone();
                kept[axis] = 1;
                let dy = self.push(Op::Reshape { shape: kept }, &[dy])?;
                self.one(Op::BroadcastTo { shape }, &[dy])
            }
            Op::OneHotMax { .. } => Ok(vec![None]),
            Op::Walk { .. } => Ok(vec![None, None]),

            Op::Reshape { .. } => {
                let shape = self.program.spec(input(0)).shape.clone();
                let dy = self.only()?;
                self.one(Op::Reshape { shape }, &[dy])
            }
            Op::Transpose { permutation } => {
                let mut inverse = vec![0; permutation.len()];
                permutation.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
                let dy = self.only()?;
                self.one(Op::Transpose { permutation: inverse }, &[dy])
            }
            Op::BroadcastTo { .. } => {
                let dy = self.only()?;
                Ok(vec![Some(self.reduce_to(dy, input(0))?)])
            }
            Op::Slice { axis, start, step, .. } => {
                let size = self.program.spec(input(0)).shape[axis];
                let dy = self.only()?;
                self.one(Op::SliceGradient { axis, start, step, size }, &[dy])
            }
            Op::Concat { axis } => self.concat(axis),
            Op::Gather { axis } => {
                let size = self.program.spec(input(0)).shape[axis];
                let dy = self.only()?;
                let dx = self.push(Op::GatherGradient { axis, size }, &[input(1), dy])?;
                Ok(vec![Some(dx), None])
            }
            Op::Shift { amount } => {
                let dy = self.only()?;
                self.one(Op::Shift { amount: -amount }, &[dy])
            }

            Op::MatMul { transpose_a, transpose_b } => self.mat_mul(transpose_a, transpose_b),
            Op::Linear => self.linear(),

            Op::RmsNorm { .. } => {
                self.none_of(1, "1/rms")?;
                let dy = self.only()?;
                self.all(Op::RmsNormGradient, &[input(0), input(1), output(1), dy])
            }
            Op::LayerNorm { .. } => {
                self.none_of(1, "the mean")?;
                self.none_of(2, "1/deviation")?;
                let dy = self.only()?;
                let operands = [input(0), input(1), output(1), output(2), dy];
                self.all(Op::LayerNormGradient, &operands)
            }

            Op::GatedLinearUnit { activation } => {
                let dy = self.only()?;
                self.one(Op::GatedLinearUnitGradient { activation }, &[input(0), dy])
            }
            Op::Softmax => {
                let dy = self.only()?;
                self.one(Op::SoftmaxGradient, &[output(0), dy])
            }
            Op::CrossEntropy => self.cross_entropy(),

            Op::Embedding => self.embedding(1),
            Op::EmbeddingBag => {
                let bag = self.program.spec(input(1)).shape.last().copied().unwrap_or(0);
                self.embedding(bag)
            }

            Op::CausalAttention { window } => {
                self.none_of(1, "logsumexp")?;
                let dout = self.only()?;
                let operands = [input(0), input(1), input(2), output(0), output(1), dout];
                self.all(Op::CausalAttentionGradient { window }, &operands)
            }
            Op::Rope { base, rotated, inverse } => {
                let dy = self.only()?;
                self.one(Op::Rope { base, rotated, inverse: !inverse }, &[dy])
            }
            Op::CausalConvolution => {
                let dy = self.only()?;
                self.all(Op::CausalConvolutionGradient, &[input(0), input(1), dy])
            }
            Op::LinearScan => {
                let dh = self.only()?;
                self.all(Op::LinearScanGradient, &[input(0), output(0), dh])
            }
            Op::GatedRecurrence => {
                let dy = self.only()?;
                self.all(Op::GatedRecurrenceGradient, &[input(0), input(1), dy])
            }
            Op::Synchronisation => {
                let dout = self.only()?;
                let operands = [self.node.inputs.as_slice(), &[dout]].concat();
                let found = self.all(Op::SynchronisationGradient, &operands)?;
                Ok(around_indices(found, 2))
            }
            Op::Think { ticks, heads, hidden, depth, projected } => {
                let saved = ["the attended", "the query", "the attention", "the synapse"];
                for (index, what) in saved.into_iter().enumerate() {
                    self.none_of(index + 2, what)?;
                }
                let upstream = [self.of_output(0)?, self.of_output(1)?];
                let operands =
                    [&self.node.inputs, self.node.outputs.as_slice(), &upstream].concat();
                let op = Op::ThinkGradient { ticks, heads, hidden, depth, projected };
                let found = self.all(op, &operands)?;
                Ok(around_indices(found, 4))
            }
            Op::SpatialThink { ticks, kept } => {
                for (saved, what) in [(1, "the activations"), (2, "the gates"), (3, "the sums")] {
                    self.none_of(saved, what)?;
                }
                if kept == 0 || self.node.inputs.len() < 7 {
                    let operand = "its operands unless it keeps ticks and is given reads".into();
                    return Err(Error::NotDifferentiable { op: self.node.op.name(), operand });
                }
                let dreadings = self.only()?;
                let operands =
                    [&self.node.inputs, self.node.outputs.as_slice(), &[dreadings]].concat();
                let mut found = self.all(Op::SpatialThinkGradient { ticks, kept }, &operands)?;
                found.push(None);
                Ok(found)
            }

            Op::MixRows => {
                // Rows are looked up, not computed: they have no gradient.
                if self.wants[2..].contains(&true) {
                    let operand = "the rows".to_string();
                    return Err(Error::NotDifferentiable { op: "mix_rows", operand });
                }
                let dout = self.only()?;
                let operands = [input(2), input(3), input(4), input(5), dout];
                let dgates = self.push(Op::MixRowsGradient, &operands)?;
                Ok(vec![Some(dout), Some(dgates), None, None, None, None])
            }

            op @ (Op::ToFloat
            | Op::ByteContext { .. }
            | Op::NgramHash { .. }
            | Op::WordHash { .. }
            | Op::CountedRows { .. }
            | Op::MixRowsGradient
            | Op::UnaryGradient { .. }
            | Op::MaximumGradient { .. }
            | Op::SliceGradient { .. }
            | Op::GatherGradient { .. }
            | Op::RmsNormGradient
            | Op::LayerNormGradient
            | Op::GatedLinearUnitGradient { .. }
            | Op::SoftmaxGradient
            | Op::CrossEntropyGradient
            | Op::EmbeddingGradient { .. }
            | Op::CausalAttentionGradient { .. }
            | Op::CausalConvolutionGradient
            | Op::LinearScanGradient
            | Op::GatedRecurrenceGradient
            | Op::SynchronisationGradient
            | Op::ThinkGradient { .. }
            | Op::SpatialThinkGradient { .. }) => {
                Err(Error::NotDifferentiable { op: op.name(), operand: "its operands".into() })
            }
        }
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        self.program.apply(op, inputs)
    }

    /// The gradient of the first output; a rule is only called where one
    /// output has a gradient, so for single-output ops it is always there.
    fn only(&mut self) -> Result<ValueId> {
        self.of_output(0)
    }

    /// The gradient of an output, zeros where it has none.
    fn of_output(&mut self, output: usize) -> Result<ValueId> {
        match self.gradients[output] {
            Some(gradient) => Ok(gradient),
            None => {
                let shape = self.program.spec(self.node.outputs[output]).shape.clone();
                self.push(Op::Constant { shape, value: 0.0 }, &[])
            }
        }
    }

    fn none_of(&self, output: usize, what: &str) -> Result<()> {
        match self.gradients[output] {
            None => Ok(()),
            Some(_) => Err(Error::NotDifferentiable {
                op: self.node.op.name(),
                operand: format!("what {what} depends on"),
            }),
        }
    }

    fn one(&mut self, op: Op, inputs: &[ValueId]) -> Gradients {
        Ok(vec![Some(self.push(op, inputs)?)])
    }

    fn all(&mut self, op: Op, inputs: &[ValueId]) -> Gradients {
        Ok(self.program.push(op, inputs)?.into_iter().map(Some).collect())
    }

    /// Sums `gradient` over the axes along which `operand` was broadcast.
    fn reduce_to(&mut self, gradient: ValueId, operand: ValueId) -> Result<ValueId> {
        let target = self.program.spec(operand).shape.clone();
        let mut reduced = gradient;
        while self.program.spec(reduced).shape.len() > target.len() {
            reduced = self.push(Op::Reduce { kind: Reduction::Sum, axis: 0 }, &[reduced])?;
        }
        for axis in (0..target.len()).rev() {
            if target[axis] == 1 && self.program.spec(reduced).shape[axis] != 1 {
                let mut kept = self.program.spec(reduced).shape.clone();
                kept[axis] = 1;
                reduced = self.push(Op::Reduce { kind: Reduction::Sum, axis }, &[reduced])?;
                reduced = self.push(Op::Reshape { shape: kept }, &[reduced])?;
            }
        }
        Ok(reduced)
    }

    fn binary(&mut self, function: BinaryFunction) -> Gradients {
        let (x, y) = (self.node.inputs[0], self.node.inputs[1]);
        let out = self.node.outputs[0];
        let dout = self.only()?;
        let op = |function| Op::Binary { function };
        let negate = Op::Unary { function: UnaryFunction::Negate };
        let wants = [self.wants[0], self.wants[1]];
        let (dx, dy) = match function {
            BinaryFunction::Add => (Some(dout), Some(dout)),
            BinaryFunction::Subtract => {
                (Some(dout), if wants[1] { Some(self.push(negate, &[dout])?) } else { None })
            }
            BinaryFunction::Multiply => {
                let product = op(BinaryFunction::Multiply);
                let mut times = |wanted: bool, other| {
                    wanted.then(|| self.push(product.clone(), &[dout, other])).transpose()
                };
                (times(wants[0], y)?, times(wants[1], x)?)
            }
            BinaryFunction::Divide => {
                // d(x/y)/dy = −(x/y)/y
                let dx = self.push(op(BinaryFunction::Divide), &[dout, y])?;
                let dy = if wants[1] {
                    let product = self.push(op(BinaryFunction::Multiply), &[dx, out])?;
                    Some(self.push(negate, &[product])?)
                } else {
                    None
                };
                (Some(dx), dy)
            }
            BinaryFunction::Maximum | BinaryFunction::Minimum => {
                // max(x, y) = y + relu(x − y) and min(x, y) = x − relu(x − y):
                // at a tie the whole gradient goes to y, or to x.
                let difference = self.push(op(BinaryFunction::Subtract), &[x, y])?;
                let shape = self.program.spec(difference).shape.clone();
                let dout = self.push(Op::BroadcastTo { shape }, &[dout])?;
                let step = Op::UnaryGradient { function: UnaryFunction::Relu };
                let above = self.push(step, &[difference, dout])?;
                let below = self.push(op(BinaryFunction::Subtract), &[dout, above])?;
                match function {
                    BinaryFunction::Maximum => (Some(above), Some(below)),
                    _ => (Some(below), Some(above)),
                }
            }
        };
        let mut gradients = vec![None, None];
        for (index, (gradient, operand)) in [(dx, x), (dy, y)].into_iter().enumerate() {
            if let (Some(gradient), true) = (gradient, self.wants[index]) {
                gradients[index] = Some(self.reduce_to(gradient, operand)?);
            }
        }
        Ok(gradients)
    }

    fn concat(&mut self, axis: usize) -> Gradients {
        let dy = self.only()?;
        let mut start = 0;
        let mut gradients = Vec::new();
        for (index, &operand) in self.node.inputs.iter().enumerate() {
            let end = start + self.program.spec(operand).shape[axis];
            gradients.push(if self.wants[index] {
                Some(self.push(Op::Slice { axis, start, end, step: 1 }, &[dy])?)
            } else {
                None
            });
            start = end;
        }
        Ok(gradients)
    }

    /// Views leading axes as rows, so that weights see one matrix.
    fn as_rows(&mut self, value: ValueId) -> Result<ValueId> {
        let shape = &self.program.spec(value).shape;
        if shape.len() == 2 {
            return Ok(value);
        }
        let (&last, leading) = shape.split_last().expect("checked by the shape rule");
        let rows = leading.iter().product();
        self.push(Op::Reshape { shape: vec![rows, last] }, &[value])
    }

    fn mat_mul(&mut self, transpose_a: bool, transpose_b: bool) -> Gradients {
        let (mut a, b) = (self.node.inputs[0], self.node.inputs[1]);
        let shape_a = self.program.spec(a).shape.clone();
        let mut dy = self.only()?;
        if self.program.spec(b).shape.len() == 2 && shape_a.len() > 2 {
            a = self.as_rows(a)?;
            dy = self.as_rows(dy)?;
        }
        let op = |transpose_a, transpose_b| Op::MatMul { transpose_a, transpose_b };
        let da = match (self.wants[0], transpose_a) {
            (false, _) => None,
            (true, false) => Some(self.push(op(false, !transpose_b), &[dy, b])?),
            (true, true) => Some(self.push(op(transpose_b, true), &[b, dy])?),
        };
        let da = match da {
            Some(da) => Some(self.push(Op::Reshape { shape: shape_a }, &[da])?),
            None => None,
        };
        let db = match (self.wants[1], transpose_b) {
            (false, _) => None,
            (true, false) => Some(self.push(op(!transpose_a, false), &[a, dy])?),
            (true, true) => Some(self.push(op(true, transpose_a), &[dy, a])?),
        };
        Ok(vec![da, db])
    }

    fn linear(&mut self) -> Gradients {
        let (x, weight) = (self.node.inputs[0], self.node.inputs[1]);
        let shape = self.program.spec(x).shape.clone();
        let dy = self.only()?;
        let dy = self.as_rows(dy)?;
        let mut gradients = vec![None; self.node.inputs.len()];
        // The weight's gradient comes first: it is the last use of x.
        if self.wants[1] {
            let rows = self.as_rows(x)?;
            let op = Op::MatMul { transpose_a: true, transpose_b: false };
            gradients[1] = Some(self.push(op, &[dy, rows])?);
        }
        if self.wants.get(2) == Some(&true) {
            let op = Op::Reduce { kind: Reduction::Sum, axis: 0 };
            gradients[2] = Some(self.push(op, &[dy])?);
        }
        if self.wants[0] {
            let op = Op::MatMul { transpose_a: false, transpose_b: false };
            let dx = self.push(op, &[dy, weight])?;
            gradients[0] = Some(self.push(Op::Reshape { shape }, &[dx])?);
        }
        Ok(gradients)
    }

    fn cross_entropy(&mut self) -> Gradients {
        let (logits, targets) = (self.node.inputs[0], self.node.inputs[1]);
        let logsumexp = self.node.outputs[1];
        let mut total = None;
        if let Some(dloss) = self.gradients[0] {
            let operands = [logits, targets, logsumexp, dloss];
            total = Some(self.push(Op::CrossEntropyGradient, &operands)?);
        }
        if let Some(gradient) = self.gradients[1] {
            // d logsumexp / d logits = softmax(logits)
            let mut shape = self.program.spec(logsumexp).shape.clone();
            shape.push(1);
            let gradient = self.push(Op::Reshape { shape }, &[gradient])?;
            let softmax = self.push(Op::Softmax, &[logits])?;
            let multiply = Op::Binary { function: BinaryFunction::Multiply };
            let term = self.push(multiply, &[softmax, gradient])?;
            let terms: Vec<_> = total.into_iter().chain([term]).collect();
            total = sum(self.program, &terms)?;
        }
        Ok(vec![total, None])
    }

    fn embedding(&mut self, bag: usize) -> Gradients {
        let (table, indices) = (self.node.inputs[0], self.node.inputs[1]);
        let rows = self.program.spec(table).shape[0];
        let dy = self.only()?;
        let op = Op::EmbeddingGradient { rows, bag };
        Ok(vec![Some(self.push(op, &[indices, dy])?), None])
    }
}
