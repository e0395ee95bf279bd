//! The planner: from a program to instructions over buffers allocated once.
//!
//! It walks the nodes that are needed, gives each value a scratch slot for as
//! long as something still reads it, and turns reshapes into views. Gradient
//! terms of parameters go straight into the flat gradient buffer where the op
//! can add in place, and are added to it by an instruction where it cannot.

use std::collections::BTreeMap;

use crate::backend::Stretch;
use crate::error::{Error, Result};
use crate::factored::{self, Factored};
use crate::op::Op;
use crate::program::{Program, ValueId};
use crate::storage::{self, Precision, Storage};
use crate::tensor::{DType, TensorSpec};

/// Parameters in the flat buffer start at multiples of this many elements.
const ALIGNMENT: usize = 16;

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Scratch that several values share in turn.
    Slot(usize),
    /// The flat f32 buffer of dense trainable parameters, at this element.
    Parameter(usize),
    /// The bf16 copy of the same, at this element.
    Shadow(usize),
    /// The gradients of the same, at this element.
    Gradient(usize),
    /// A tensor of its own: a sparse table or a buffer.
    Separate(usize),
}

/// An operand of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Where it lives.
    pub memory: Memory,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements as stored.
    pub storage: Storage,
}

impl Place {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Fields are explained with their variant.
pub enum Instruction {
    /// Runs an op. Where `adds` is set the output is a gradient that is added
    /// to, except by its first writer in a fresh step.
    Run { op: Op, inputs: Vec<Place>, outputs: Vec<Place>, adds: Option<FirstWriter> },
    /// Adds a term to a gradient.
    Accumulate { from: Place, into: Place, first: FirstWriter },
    /// Hands (indices, dy) to the sparse gradient of table `table`.
    Sparse { table: usize, bag: usize, indices: Place, gradient: Place },
}

impl Instruction {
    /// What a profile calls it: the op and the sizes that its time depends on.
    pub fn label(&self) -> String {
        match self {
            Instruction::Run { op, inputs, outputs, .. } => {
                let places = inputs.iter().chain(outputs);
                let shapes: Vec<String> =
                    places.map(|place| format!("{:?}{:?}", place.storage, place.shape)).collect();
                format!("{} {}", op.name(), shapes.join(" "))
            }
            Instruction::Accumulate { from, .. } => format!("accumulate {:?}", from.shape),
            Instruction::Sparse { indices, .. } => format!("sparse_gradient {:?}", indices.shape),
        }
    }
}

/// Whether a write to a gradient is the first of a backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstWriter(pub bool);

/// A parameter's place in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterPlace {
    /// Its shape and type.
    pub spec: TensorSpec,
    /// `Parameter(offset)` or `Separate(index)`.
    pub memory: Memory,
    /// Whether training changes it.
    pub trainable: bool,
    /// Whether its gradient is sparse.
    pub sparse: bool,
}

/// What a backend needs to run a program.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order of execution.
    pub instructions: Vec<Instruction>,
    /// Gradients that the instructions leave as factors; see [`crate::factored`].
    pub factored: Vec<Factored>,
    /// Bytes of each scratch slot.
    pub slots: Vec<usize>,
    /// Slots that hold one value for ever: (slot, elements, value).
    pub constants: Vec<(usize, usize, f32)>,
    /// Where each input is written.
    pub inputs: BTreeMap<String, Place>,
    /// Where each output is read.
    pub outputs: BTreeMap<String, Place>,
    /// Where each parameter lives.
    pub parameters: BTreeMap<String, ParameterPlace>,
    /// Elements of the flat parameter buffer.
    pub flat_elements: usize,
    /// How matrix products are formed.
    pub precision: Precision,
    /// Floating-point operations of the matrix products of one run.
    pub product_flops: u64,
}

/// Gradient terms by parameter name, as `gradient::backpropagate` returns them.
pub type GradientTerms = BTreeMap<String, Vec<ValueId>>;

/// Plans a run of `program` that computes `outputs` and, where given, adds the
/// gradient terms of parameters. `order` lists trainable dense parameters in
/// the order in which they are to stand in the flat buffer; those that it
/// leaves out follow in order of definition. Gradients of `factors` may be left
/// as the factors of their product.
pub fn plan(
    program: &Program,
    outputs: &[&str],
    terms: &GradientTerms,
    precision: Precision,
    order: &[String],
    factors: &[String],
) -> Result<Plan> {
    let mut wanted = Vec::new();
    for name in outputs {
        wanted.push(program.output(name)?);
    }
    let kept = wanted.clone();
    wanted.extend(terms.values().flatten());
    let mut needed = program.needed_for(&wanted);
    for (needed, node) in needed.iter_mut().zip(program.nodes()) {
        // A declared input is given at each run, also where nothing reads it.
        *needed |= matches!(node.op, Op::Input { .. });
    }
    let (parameters, flat_elements) = place_parameters(program, order)?;
    // What enters or leaves a run, and gradients, are f32.
    let storage = storage::assign(program, precision, &needed, &wanted);
    let mut planner = Planner {
        program,
        needed: &needed,
        storage: &storage,
        roots: storage::roots(program),
        places: vec![None; program.values()],
        slots: Slots::default(),
        instructions: Vec::new(),
        factored: Vec::new(),
        constants: Vec::new(),
        inputs: BTreeMap::new(),
        parameters: &parameters,
        product_flops: 0,
        precision,
    };
    let direct = planner.direct_writes(&kept, terms);
    let left = factored::choose(program, &parameters, factors, &direct, terms);
    let producers = program.producers();
    let of_left = left.iter().flat_map(|&value| &program.nodes()[producers[value]].inputs);
    let kept: Vec<ValueId> = kept.iter().chain(of_left).copied().collect();
    let uses = planner.last_uses(&kept, terms);
    planner.lay_out(&uses, &direct, &left, terms)?;
    planner.factored.sort_by_key(|factored| factored.stretch.start);
    let outputs = outputs
        .iter()
        .map(|name| Ok((name.to_string(), planner.place(program.output(name)?)?)))
        .collect::<Result<_>>()?;
    Ok(Plan {
        instructions: planner.instructions,
        factored: planner.factored,
        slots: planner.slots.sizes,
        constants: planner.constants,
        inputs: planner.inputs,
        outputs,
        flat_elements,
        precision,
        product_flops: planner.product_flops,
        parameters,
    })
}

fn place_parameters(
    program: &Program,
    order: &[String],
) -> Result<(BTreeMap<String, ParameterPlace>, usize)> {
    let mut separate = 0;
    let mut places = BTreeMap::new();
    let mut dense = Vec::new();
    for node in program.nodes() {
        let Op::Parameter { name, shape, dtype, trainable, sparse } = &node.op else {
            continue;
        };
        let spec = TensorSpec::new(shape.clone(), *dtype);
        if *trainable && !*sparse {
            dense.push(name);
        }
        let memory = if *trainable && !*sparse {
            Memory::Parameter(0)
        } else {
            separate += 1;
            Memory::Separate(separate - 1)
        };
        let place = ParameterPlace { spec, memory, trainable: *trainable, sparse: *sparse };
        places.insert(name.clone(), place);
    }
    let listed = order.iter().filter(|name| dense.contains(name));
    let rest = dense.iter().copied().filter(|name| !order.contains(name));
    let mut offset = 0usize;
    for name in listed.chain(rest) {
        let place = places.get_mut(name).expect("listed above");
        place.memory = Memory::Parameter(offset);
        offset = offset
            .checked_add(place.spec.elements().next_multiple_of(ALIGNMENT))
            .ok_or_else(|| Error::named("parameter", name, "the parameters are too large"))?;
    }
    Ok((places, offset))
}

/// Scratch buffers, each used by many values in turn.
#[derive(Default)]
struct Slots {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Slots {
    /// The smallest free slot that fits, else the largest one grown, else a new one.
    fn take(&mut self, bytes: usize) -> usize {
        let fitting = self.free.iter().copied().filter(|&slot| self.sizes[slot] >= bytes);
        let best = fitting
            .min_by_key(|&slot| self.sizes[slot])
            .or_else(|| self.free.iter().copied().max_by_key(|&slot| self.sizes[slot]));
        match best {
            Some(slot) => {
                self.free.retain(|&other| other != slot);
                self.sizes[slot] = self.sizes[slot].max(bytes);
                slot
            }
            None => self.own(bytes),
        }
    }

    /// A slot that is never given back.
    fn own(&mut self, bytes: usize) -> usize {
        self.sizes.push(bytes);
        self.sizes.len() - 1
    }
}

struct Planner<'a> {
    program: &'a Program,
    needed: &'a [bool],
    storage: &'a [Storage],
    roots: Vec<ValueId>,
    /// By root.
    places: Vec<Option<Memory>>,
    slots: Slots,
    instructions: Vec<Instruction>,
    factored: Vec<Factored>,
    constants: Vec<(usize, usize, f32)>,
    inputs: BTreeMap<String, Place>,
    parameters: &'a BTreeMap<String, ParameterPlace>,
    product_flops: u64,
    precision: Precision,
}

/// The last node that reads each root; `usize::MAX` for what outlives the run.
type LastUses = Vec<usize>;

/// Values that are written straight into a gradient: value → parameter.
type DirectWrites = BTreeMap<ValueId, String>;

impl Planner<'_> {
    fn last_uses(&self, kept: &[ValueId], terms: &GradientTerms) -> LastUses {
        let mut last = vec![0; self.program.values()];
        for (index, node) in self.program.nodes().iter().enumerate() {
            if self.needed[index] {
                for value in node.inputs.iter().chain(&node.outputs) {
                    last[self.roots[*value]] = index;
                }
            }
        }
        // A term is added to its gradient right after the node that makes it.
        let producers = self.program.producers();
        for &value in terms.values().flatten() {
            let root = self.roots[value];
            last[root] = last[root].max(producers[value]);
        }
        kept.iter().for_each(|&value| last[self.roots[value]] = usize::MAX);
        last
    }

    /// A term that nothing else reads, made by an op that can add in place.
    fn direct_writes(&self, kept: &[ValueId], terms: &GradientTerms) -> DirectWrites {
        let mut readers = vec![0usize; self.program.values()];
        for (node, _) in self.program.nodes().iter().zip(self.needed).filter(|(_, n)| **n) {
            node.inputs.iter().for_each(|&value| readers[self.roots[value]] += 1);
        }
        kept.iter().for_each(|&value| readers[self.roots[value]] += 1);
        terms.values().flatten().for_each(|&value| readers[self.roots[value]] += 1);
        let producers = self.program.producers();
        let mut direct = DirectWrites::new();
        for (name, values) in terms {
            if self.parameters[name].sparse {
                continue;
            }
            for &value in values {
                let node = &self.program.nodes()[producers[value]];
                let adds = match node.op {
                    Op::MatMul { .. } => self.program.spec(node.inputs[0]).shape.len() == 2,
                    Op::EmbeddingGradient { .. } => true,
                    _ => false,
                };
                if adds && readers[self.roots[value]] == 1 {
                    direct.insert(value, name.clone());
                }
            }
        }
        direct
    }

    fn lay_out(
        &mut self,
        last_uses: &LastUses,
        direct: &DirectWrites,
        left: &[ValueId],
        terms: &GradientTerms,
    ) -> Result<()> {
        let mut terms_of: BTreeMap<ValueId, Vec<&String>> = BTreeMap::new();
        for (name, values) in terms {
            values.iter().for_each(|&value| terms_of.entry(value).or_default().push(name));
        }
        let mut written = std::collections::BTreeSet::new();
        for (index, node) in self.program.nodes().iter().enumerate() {
            if !self.needed[index] {
                continue;
            }
            match &node.op {
                Op::Input { name, .. } => {
                    let value = node.outputs[0];
                    let slot = self.slots.own(self.bytes(value));
                    self.places[value] = Some(Memory::Slot(slot));
                    let place = self.place(value)?;
                    self.inputs.insert(name.clone(), place);
                }
                Op::Parameter { name, .. } => {
                    self.places[node.outputs[0]] = Some(self.parameters[name].memory);
                }
                Op::Constant { value, .. } => {
                    let id = node.outputs[0];
                    let slot = self.slots.own(self.bytes(id));
                    self.places[id] = Some(Memory::Slot(slot));
                    self.constants.push((slot, self.program.spec(id).elements(), *value));
                }
                Op::Reshape { .. } => {}
                Op::EmbeddingGradient { bag, .. }
                    if self.sparse_term(node.outputs[0], &terms_of) =>
                {
                    for name in &terms_of[&node.outputs[0]] {
                        let Memory::Separate(table) = self.parameters[*name].memory else {
                            return Err(Error::malformed("a sparse table in the flat buffer"));
                        };
                        self.instructions.push(Instruction::Sparse {
                            table,
                            bag: *bag,
                            indices: self.place(node.inputs[0])?,
                            gradient: self.place(node.inputs[1])?,
                        });
                    }
                    self.release(node.inputs.iter().copied(), index, last_uses);
                    continue;
                }
                _ => {
                    let mut adds = None;
                    for &value in &node.outputs {
                        self.places[value] = Some(match direct.get(&value) {
                            Some(name) => {
                                adds = Some(FirstWriter(written.insert(name.clone())));
                                self.gradient_of(name)?
                            }
                            None => Memory::Slot(self.slots.take(self.bytes(value))),
                        });
                    }
                    self.run(node, adds)?;
                    if node.outputs.iter().any(|value| left.contains(value)) {
                        self.leave_as_factors()?;
                    }
                }
            }
            for &value in &node.outputs {
                for name in terms_of.get(&value).into_iter().flatten() {
                    if !direct.contains_key(&value) {
                        let from = self.place(value)?;
                        let into = Place {
                            memory: self.gradient_of(name)?,
                            shape: from.shape.clone(),
                            storage: Storage::F32,
                        };
                        let first = FirstWriter(written.insert((*name).clone()));
                        self.instructions.push(Instruction::Accumulate { from, into, first });
                    }
                }
            }
            let touched = node.inputs.iter().chain(&node.outputs).copied();
            self.release(touched, index, last_uses);
        }
        Ok(())
    }

    fn sparse_term(&self, value: ValueId, terms_of: &BTreeMap<ValueId, Vec<&String>>) -> bool {
        let names = terms_of.get(&value);
        names.is_some_and(|names| names.iter().any(|name| self.parameters[*name].sparse))
    }

    fn run(&mut self, node: &crate::program::Node, adds: Option<FirstWriter>) -> Result<()> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &value in &node.inputs {
            inputs.push(self.place(value)?);
        }
        if let Op::MatMul { transpose_a, .. } = &node.op {
            let inner = inputs[0].shape[inputs[0].shape.len() - 1 - usize::from(*transpose_a)];
            self.product_flops +=
                2 * self.program.spec(node.outputs[0]).elements() as u64 * inner as u64;
        }
        if let Op::Linear = &node.op {
            let inner = inputs[1].shape[1];
            self.product_flops +=
                2 * self.program.spec(node.outputs[0]).elements() as u64 * inner as u64;
        }
        if self.precision == Precision::Bf16 && matches!(node.op, Op::MatMul { .. } | Op::Linear) {
            for operand in inputs.iter_mut().take(2) {
                if let Memory::Parameter(offset) = operand.memory {
                    operand.memory = Memory::Shadow(offset);
                    operand.storage = Storage::Bf16;
                }
            }
        }
        let outputs =
            node.outputs.iter().map(|&value| self.place(value)).collect::<Result<Vec<_>>>()?;
        self.instructions.push(Instruction::Run { op: node.op.clone(), inputs, outputs, adds });
        Ok(())
    }

    /// Takes the last instruction out of the run.
    fn leave_as_factors(&mut self) -> Result<()> {
        let malformed = || Error::malformed("a product without a gradient to write");
        let product = self.instructions.pop().ok_or_else(malformed)?;
        let Instruction::Run { outputs, .. } = &product else { return Err(malformed()) };
        let Memory::Gradient(start) = outputs[0].memory else { return Err(malformed()) };
        let stretch = Stretch { start, count: outputs[0].elements() };
        self.factored.push(Factored { stretch, product });
        Ok(())
    }

    fn place(&self, value: ValueId) -> Result<Place> {
        let memory = self.places[self.roots[value]]
            .ok_or_else(|| Error::malformed(format!("value {value} is read before it is made")))?;
        Ok(Place {
            memory,
            shape: self.program.spec(value).shape.clone(),
            storage: self.storage[value],
        })
    }

    fn gradient_of(&self, name: &str) -> Result<Memory> {
        match self.parameters[name].memory {
            Memory::Parameter(offset) => Ok(Memory::Gradient(offset)),
            _ => Err(Error::named("parameter", name, "it has no dense gradient")),
        }
    }

    fn bytes(&self, value: ValueId) -> usize {
        self.program.spec(value).elements() * self.storage[value].size()
    }

    /// Gives back the slots of values that nothing reads any more.
    fn release(
        &mut self,
        values: impl Iterator<Item = ValueId>,
        index: usize,
        last_uses: &LastUses,
    ) {
        for value in values {
            let root = self.roots[value];
            let owned = self.inputs.values().any(|place| Some(place.memory) == self.places[root])
                || matches!(self.places[root], Some(Memory::Slot(slot))
                    if self.constants.iter().any(|constant| constant.0 == slot));
            if let (Some(Memory::Slot(slot)), false) = (self.places[root], owned)
                && last_uses[root] <= index
                && !self.slots.free.contains(&slot)
            {
                self.slots.free.push(slot);
            }
        }
    }
}

/// The dtype that host code uses for a stored tensor.
pub fn host_dtype(storage: Storage) -> DType {
    match storage {
        Storage::F32 | Storage::Bf16 => DType::F32,
        Storage::I32 => DType::I32,
        Storage::U8 => DType::U8,
    }
}
