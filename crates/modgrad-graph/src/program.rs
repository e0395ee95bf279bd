//! The program: nodes in order of execution, each output a value with a spec.
//!
//! A program is only ever built by [`Program::push`], which runs the op's shape
//! rule; reading one from text replays it node by node. So a program that
//! exists is a verified one.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Result};
use crate::op::{OP_SET_VERSION, Op};
use crate::shape;
use crate::tensor::TensorSpec;

/// The index of a value within its program.
pub type ValueId = usize;

/// More nodes than any sane program has; a longer one is refused when read.
const MOST_NODES: usize = 1 << 20;

/// An op applied to earlier values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// To which values.
    pub inputs: Vec<ValueId>,
    /// The values it defines, in the op's own order.
    pub outputs: Vec<ValueId>,
}

/// A static graph of ops over shaped tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    nodes: Vec<Node>,
    values: Vec<TensorSpec>,
    outputs: BTreeMap<String, ValueId>,
    /// Names that are taken, of inputs (true) and of parameters (false).
    names: HashSet<(bool, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    op_set: u32,
    nodes: Vec<TextNode>,
    outputs: BTreeMap<String, ValueId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextNode {
    #[serde(rename = "do")]
    op: serde_json::Value,
    #[serde(rename = "to", default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<ValueId>,
}

impl Program {
    /// An empty program.
    pub fn new() -> Self {
        Program::default()
    }

    /// Appends `op` on `inputs` and returns the values that it defines.
    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let mut specs = Vec::with_capacity(inputs.len());
        for &id in inputs {
            specs.push(self.values.get(id).ok_or_else(|| {
                Error::malformed(format!("`{}` uses value {id}, which no node defines", op.name()))
            })?);
        }
        if let Op::Input { name, .. } | Op::Parameter { name, .. } = &op {
            self.check_name(&op, name)?;
        }
        let outputs = shape::infer(&op, &specs)?;
        if let Op::Input { name, .. } | Op::Parameter { name, .. } = &op {
            self.names.insert((matches!(op, Op::Input { .. }), name.clone()));
        }
        let first = self.values.len();
        self.values.extend(outputs);
        let outputs: Vec<ValueId> = (first..self.values.len()).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    /// As [`Program::push`], for an op whose first output is what is wanted.
    pub fn apply(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.push(op, inputs)?[0])
    }

    /// Names a value as an output.
    pub fn set_output(&mut self, name: &str, value: ValueId) -> Result<()> {
        if value >= self.values.len() {
            return Err(Error::named("output", name, format!("value {value} does not exist")));
        }
        if self.outputs.insert(name.to_owned(), value).is_some() {
            return Err(Error::named("output", name, "the name is taken"));
        }
        Ok(())
    }

    /// Nodes in order of execution.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A value's shape and type.
    pub fn spec(&self, value: ValueId) -> &TensorSpec {
        &self.values[value]
    }

    /// The number of values.
    pub fn values(&self) -> usize {
        self.values.len()
    }

    /// Named outputs.
    pub fn outputs(&self) -> &BTreeMap<String, ValueId> {
        &self.outputs
    }

    /// The value of a named output.
    pub fn output(&self, name: &str) -> Result<ValueId> {
        self.outputs.get(name).copied().ok_or_else(|| {
            let names: Vec<_> = self.outputs.keys().map(String::as_str).collect();
            Error::named("output", name, format!("the program has only [{}]", names.join(", ")))
        })
    }

    /// Inputs with their values, in order of definition.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Input { name, .. } => Some((name.as_str(), node.outputs[0])),
            _ => None,
        })
    }

    /// Parameters and buffers with their values, in order of definition.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Parameter { name, .. } => Some((name.as_str(), node.outputs[0])),
            _ => None,
        })
    }

    /// The node that defines each value.
    pub fn producers(&self) -> Vec<usize> {
        let mut producers = vec![0; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|&value| producers[value] = index);
        }
        producers
    }

    /// Which nodes the given values depend on.
    pub fn needed_for(&self, wanted: &[ValueId]) -> Vec<bool> {
        let mut value_needed = vec![false; self.values.len()];
        wanted.iter().for_each(|&value| value_needed[value] = true);
        let mut needed = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|&value| value_needed[value]) {
                needed[index] = true;
                node.inputs.iter().for_each(|&value| value_needed[value] = true);
            }
        }
        needed
    }

    /// The program as JSON text: what a checkpoint holds.
    pub fn to_json(&self) -> String {
        let nodes = self
            .nodes
            .iter()
            .map(|node| TextNode {
                op: serde_json::to_value(&node.op).expect("ops are plain data"),
                inputs: node.inputs.clone(),
            })
            .collect();
        let text = Text { op_set: OP_SET_VERSION, nodes, outputs: self.outputs.clone() };
        serde_json::to_string(&text).expect("programs are plain data")
    }

    /// Reads and verifies a program.
    pub fn from_json(text: &str) -> Result<Self> {
        let text: Text =
            serde_json::from_str(text).map_err(|error| Error::malformed(error.to_string()))?;
        if text.op_set != OP_SET_VERSION {
            return Err(Error::malformed(format!(
                "it was written for op set {}, this version of modgrad has {OP_SET_VERSION}",
                text.op_set
            )));
        }
        if text.nodes.len() > MOST_NODES {
            return Err(Error::malformed(format!("{} nodes are too many", text.nodes.len())));
        }
        let mut program = Program::new();
        for node in text.nodes {
            program.push(read_op(node.op)?, &node.inputs)?;
        }
        for (name, value) in text.outputs {
            program.set_output(&name, value)?;
        }
        Ok(program)
    }

    fn check_name(&self, op: &Op, name: &str) -> Result<()> {
        let input = matches!(op, Op::Input { .. });
        let kind = if input { "input" } else { "parameter" };
        if name.is_empty() {
            return Err(Error::named(kind, name, "the name is empty"));
        }
        if self.names.contains(&(input, name.to_owned())) {
            return Err(Error::named(kind, name, "the name is taken"));
        }
        Ok(())
    }
}

/// Reads an op, telling an unknown op from a known one with bad attributes.
pub fn read_op(value: serde_json::Value) -> Result<Op> {
    let name = value.get("op").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
    let op: Op = serde_json::from_value(value.clone()).map_err(|error| {
        let reason = error.to_string();
        if reason.starts_with("unknown variant") && reason.contains(&format!("`{name}`")) {
            Error::UnknownOp { name: name.clone() }
        } else {
            Error::malformed(format!("op `{name}`: {reason}"))
        }
    })?;
    // serde lets attributes of an op that has none pass.
    let known = serde_json::to_value(&op).expect("ops are plain data");
    let given = value.as_object().into_iter().flat_map(|map| map.keys());
    match given.into_iter().find(|key| known.get(key.as_str()).is_none()) {
        Some(key) => Err(Error::malformed(format!("op `{name}`: unknown field `{key}`"))),
        None => Ok(op),
    }
}
