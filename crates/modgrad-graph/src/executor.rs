//! The executor: runs a plan on a backend, again and again, over the same buffers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Operand, OperandMut, Stretch};
use crate::error::{Error, Result};
use crate::gradient;
use crate::planner::{self, FirstWriter, GradientTerms, Instruction, Memory, Place, Plan};
use crate::program::Program;
use crate::reference::RunKey;
use crate::storage::{Precision, Storage};
use crate::tensor::{DType, Data, Tensor, TensorSpec};

/// A tensor that a caller lends for one run.
#[derive(Clone, Copy, Debug)]
pub struct InputView<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements' type.
    pub dtype: DType,
    /// Its elements in host order, row-major.
    pub bytes: &'a [u8],
}

impl<'a> From<&'a Tensor> for InputView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        InputView { shape: tensor.shape(), dtype: tensor.dtype(), bytes: tensor.bytes() }
    }
}

/// A program made ready to run, with its parameters.
pub struct Executor<B: Backend> {
    pub(crate) backend: B,
    pub(crate) plan: Plan,
    pub(crate) slots: Vec<Option<B::Memory>>,
    pub(crate) store: Store<B>,
    profile: Option<Profile>,
}

/// Where the time of runs went: by instruction, how often and how long.
pub type Profile = BTreeMap<String, (u64, Duration)>;

/// Parameters, their bf16 copy and their gradients.
pub(crate) struct Store<B: Backend> {
    pub(crate) flat: B::Memory,
    pub(crate) shadow: Option<B::Memory>,
    pub(crate) gradient: Option<B::Memory>,
    pub(crate) separate: Vec<B::Memory>,
    pub(crate) sparse: BTreeMap<usize, B::SparseGradient>,
}

impl<B: Backend> Executor<B> {
    /// Prepares `program` to compute `outputs`.
    pub fn new(
        backend: B,
        program: &Program,
        outputs: &[&str],
        precision: Precision,
    ) -> Result<Self> {
        let plan = planner::plan(program, outputs, &GradientTerms::new(), precision, &[], &[])?;
        Self::from_plan(backend, plan, false)
    }

    /// Prepares `program` to compute the scalar output `loss` (and the outputs
    /// `watch`) and the gradients of all trainable parameters; `order` is the order of the flat
    /// buffer, `factors` names those whose gradients may be left as factors.
    pub(crate) fn for_training(
        backend: B,
        program: &Program,
        loss: &str,
        watch: &[String],
        precision: Precision,
        order: &[String],
        factors: &[String],
    ) -> Result<Self> {
        let mut program = program.clone();
        let trainable: Vec<(String, usize)> = program
            .nodes()
            .iter()
            .filter_map(|node| match &node.op {
                crate::Op::Parameter { name, trainable: true, .. } => {
                    Some((name.clone(), node.outputs[0]))
                }
                _ => None,
            })
            .collect();
        let values: Vec<usize> = trainable.iter().map(|(_, value)| *value).collect();
        let value = program.output(loss)?;
        let terms = gradient::backpropagate(&mut program, value, &values)?;
        let terms = trainable.into_iter().map(|(name, _)| name).zip(terms).collect();
        let mut outputs = vec![loss];
        outputs.extend(watch.iter().map(String::as_str));
        let plan = planner::plan(&program, &outputs, &terms, precision, order, factors)?;
        Self::from_plan(backend, plan, true)
    }

    fn from_plan(backend: B, plan: Plan, gradients: bool) -> Result<Self> {
        let flat_bytes = plan.flat_elements * 4;
        let mut separate = BTreeMap::new();
        let mut sparse = BTreeMap::new();
        for place in plan.parameters.values() {
            if let Memory::Separate(index) = place.memory {
                let bytes = place.spec.elements() * place.spec.dtype.size();
                separate.insert(index, backend.allocate(bytes)?);
                if place.sparse && gradients {
                    let shape = &place.spec.shape;
                    sparse.insert(index, backend.sparse_gradient(shape[0], shape[1]));
                }
            }
        }
        let store = Store {
            flat: backend.allocate(flat_bytes)?,
            shadow: match plan.precision {
                Precision::Bf16 => Some(backend.allocate(flat_bytes / 2)?),
                Precision::F32 => None,
            },
            gradient: if gradients { Some(backend.allocate(flat_bytes)?) } else { None },
            separate: separate.into_values().collect(),
            sparse,
        };
        let mut slots = Vec::with_capacity(plan.slots.len());
        for &bytes in &plan.slots {
            slots.push(Some(backend.allocate(bytes)?));
        }
        for &(slot, count, value) in &plan.constants {
            let memory = slots[slot].as_mut().expect("allocated above");
            backend.fill(memory, Stretch { start: 0, count }, value)?;
        }
        Ok(Executor { backend, plan, slots, store, profile: None })
    }

    /// Begins to measure where the time goes, from zero.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::new());
    }

    /// What was measured since [`Executor::start_profile`].
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of scratch, parameters and gradients that it holds.
    pub fn bytes(&self) -> usize {
        let separate: usize = self
            .plan
            .parameters
            .values()
            .filter(|place| matches!(place.memory, Memory::Separate(_)))
            .map(|place| place.spec.elements() * place.spec.dtype.size())
            .sum();
        let copies = 4
            + if self.store.shadow.is_some() { 2 } else { 0 }
            + if self.store.gradient.is_some() { 4 } else { 0 };
        self.plan.slots.iter().sum::<usize>() + separate + self.plan.flat_elements * copies
    }

    /// Sets a parameter.
    pub fn set_parameter(&mut self, name: &str, tensor: InputView<'_>) -> Result<()> {
        let place =
            self.plan.parameters.get(name).ok_or_else(|| {
                Error::named("parameter", name, "the program has none of this name")
            })?;
        check_spec("parameter", name, &place.spec, tensor)?;
        match place.memory {
            Memory::Parameter(start) => {
                self.backend.write(&mut self.store.flat, start * 4, tensor.bytes)?;
                if let Some(shadow) = &mut self.store.shadow {
                    let stretch = Stretch { start, count: place.spec.elements() };
                    self.backend.narrow(&self.store.flat, shadow, stretch)?;
                }
                Ok(())
            }
            Memory::Separate(index) => {
                self.backend.write(&mut self.store.separate[index], 0, tensor.bytes)
            }
            _ => Err(Error::malformed("a parameter in scratch memory")),
        }
    }

    /// Reads a parameter.
    pub fn parameter(&self, name: &str) -> Result<Tensor> {
        let place =
            self.plan.parameters.get(name).ok_or_else(|| {
                Error::named("parameter", name, "the program has none of this name")
            })?;
        match place.memory {
            Memory::Parameter(start) => self.read_flat(&self.store.flat, start, &place.spec),
            Memory::Separate(index) => {
                self.read_tensor(&self.store.separate[index], 0, &place.spec)
            }
            _ => Err(Error::malformed("a parameter in scratch memory")),
        }
    }

    /// Reads one parameter's stretch of a flat buffer.
    pub(crate) fn read_flat(
        &self,
        memory: &B::Memory,
        start: usize,
        spec: &TensorSpec,
    ) -> Result<Tensor> {
        self.read_tensor(memory, start * 4, spec)
    }

    /// Reads what lies `offset` bytes into a buffer.
    fn read_tensor(&self, memory: &B::Memory, offset: usize, spec: &TensorSpec) -> Result<Tensor> {
        let elements = spec.elements();
        let data = match spec.dtype {
            DType::F32 => Data::F32(self.read_values(memory, offset, elements)?),
            DType::I32 => Data::I32(self.read_values(memory, offset, elements)?),
            DType::U8 => Data::U8(self.read_values(memory, offset, elements)?),
        };
        Tensor::new(spec.shape.clone(), data)
    }

    fn read_values<T: bytemuck::Pod>(
        &self,
        memory: &B::Memory,
        offset: usize,
        count: usize,
    ) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); count];
        self.backend.read(memory, offset, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Runs the program on the given inputs, all of them and no others.
    pub fn run(&mut self, inputs: &[(&str, InputView<'_>)], key: RunKey) -> Result<()> {
        self.run_from(inputs, key, true)
    }

    /// As [`Executor::run`]; unless `fresh`, gradients are added to.
    pub(crate) fn run_from(
        &mut self,
        inputs: &[(&str, InputView<'_>)],
        key: RunKey,
        fresh: bool,
    ) -> Result<()> {
        self.write_inputs(inputs)?;
        run_all(
            &self.backend,
            self.plan.precision,
            &self.plan.instructions,
            (&mut self.slots, &mut self.store),
            &mut self.profile,
            (key, fresh),
        )
    }

    /// Forms the gradients that the last run left as factors; unless `fresh`, adds them.
    pub(crate) fn multiply_factors(&mut self, key: RunKey, fresh: bool) -> Result<()> {
        let products = self.plan.factored.iter().map(|factored| &factored.product);
        run_all(
            &self.backend,
            self.plan.precision,
            products,
            (&mut self.slots, &mut self.store),
            &mut self.profile,
            (key, fresh),
        )
    }

    fn write_inputs(&mut self, inputs: &[(&str, InputView<'_>)]) -> Result<()> {
        for (name, view) in inputs {
            let Some(place) = self.plan.inputs.get(*name) else {
                let names: Vec<&str> = self.plan.inputs.keys().map(String::as_str).collect();
                let reason = format!("the program reads only [{}]", names.join(", "));
                return Err(Error::named("input", name, reason));
            };
            let spec = TensorSpec::new(place.shape.clone(), planner::host_dtype(place.storage));
            check_spec("input", name, &spec, *view)?;
            let Memory::Slot(slot) = place.memory else {
                return Err(Error::malformed("an input outside scratch memory"));
            };
            let memory = self.slots[slot].as_mut().expect("every slot is in place between runs");
            // An input that only matrix products read is stored as bf16.
            if place.storage == Storage::Bf16 {
                let values: Vec<half::bf16> = view
                    .bytes
                    .chunks_exact(4)
                    .map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
                    .map(half::bf16::from_f32)
                    .collect();
                self.backend.write(memory, 0, bytemuck::cast_slice(&values))?;
            } else {
                self.backend.write(memory, 0, view.bytes)?;
            }
        }
        for name in self.plan.inputs.keys() {
            if !inputs.iter().any(|(given, _)| given == name) {
                return Err(Error::named("input", name, "it is missing"));
            }
        }
        Ok(())
    }

    /// Reads an output of the last run.
    pub fn output(&self, name: &str) -> Result<Tensor> {
        let place = self.plan.outputs.get(name).ok_or_else(|| {
            Error::named("output", name, "it was not asked for when the program was prepared")
        })?;
        let spec = TensorSpec::new(place.shape.clone(), planner::host_dtype(place.storage));
        let operand = operand(&self.slots, &self.store, place)?;
        self.read_tensor(operand.memory, operand.offset * place.storage.size(), &spec)
    }
}

/// Runs instructions in order, over (slots, store); (key, whether gradients are fresh).
fn run_all<'a, B: Backend>(
    backend: &B,
    precision: Precision,
    instructions: impl IntoIterator<Item = &'a Instruction>,
    (slots, store): (&mut [Option<B::Memory>], &mut Store<B>),
    profile: &mut Option<Profile>,
    (key, fresh): (RunKey, bool),
) -> Result<()> {
    for instruction in instructions {
        let start = profile.is_some().then(Instant::now);
        match instruction {
            Instruction::Run { op, inputs, outputs, adds } => {
                let mut taken = Vec::with_capacity(outputs.len());
                for place in outputs {
                    taken.push(take(slots, store, place)?);
                }
                let done = {
                    let mut operands = Vec::with_capacity(inputs.len());
                    for place in inputs {
                        operands.push(operand(slots, store, place)?);
                    }
                    let mut results = Vec::with_capacity(outputs.len());
                    for (memory, place) in taken.iter_mut().zip(outputs) {
                        results.push(operand_mut(memory, place));
                    }
                    let add = adds.is_some_and(|first| !(first.0 && fresh));
                    backend.run(op, key, precision, &operands, &mut results, add)
                };
                for (memory, place) in taken.into_iter().zip(outputs) {
                    give_back(slots, store, place, memory);
                }
                done?;
            }
            Instruction::Accumulate { from, into, first: FirstWriter(first) } => {
                let mut memory = take(slots, store, into)?;
                let operand = operand(slots, store, from)?;
                let add = !(*first && fresh);
                let done = backend.accumulate(operand, operand_mut(&mut memory, into), add);
                give_back(slots, store, into, memory);
                done?;
            }
            Instruction::Sparse { table, bag, indices, gradient } => {
                let Some(mut sparse) = store.sparse.remove(table) else {
                    return Err(Error::malformed("a table without a sparse gradient"));
                };
                let indices = operand(slots, store, indices)?;
                let gradient = operand(slots, store, gradient)?;
                let done = backend.sparse_accumulate(&mut sparse, *bag, indices, gradient);
                store.sparse.insert(*table, sparse);
                done?;
            }
        }
        if let (Some(profile), Some(start)) = (profile.as_mut(), start) {
            let entry = profile.entry(instruction.label()).or_default();
            *entry = (entry.0 + 1, entry.1 + start.elapsed());
        }
    }
    Ok(())
}

fn check_spec(
    kind: &'static str,
    name: &str,
    spec: &TensorSpec,
    view: InputView<'_>,
) -> Result<()> {
    if spec.shape != view.shape || spec.dtype != view.dtype {
        let found = TensorSpec::new(view.shape, view.dtype);
        return Err(Error::named(kind, name, format!("expected {spec}, found {found}")));
    }
    if view.bytes.len() != spec.elements() * spec.dtype.size() {
        let reason = format!("{} bytes are not {spec}", view.bytes.len());
        return Err(Error::named(kind, name, reason));
    }
    Ok(())
}

fn take<B: Backend>(
    slots: &mut [Option<B::Memory>],
    store: &mut Store<B>,
    place: &Place,
) -> Result<B::Memory> {
    let memory = match place.memory {
        Memory::Slot(slot) => slots[slot].take(),
        Memory::Gradient(_) => store.gradient.take(),
        _ => None,
    };
    memory.ok_or_else(|| Error::malformed("an instruction writes where it may not"))
}

fn give_back<B: Backend>(
    slots: &mut [Option<B::Memory>],
    store: &mut Store<B>,
    place: &Place,
    memory: B::Memory,
) {
    match place.memory {
        Memory::Slot(slot) => slots[slot] = Some(memory),
        _ => store.gradient = Some(memory),
    }
}

fn operand<'a, B: Backend>(
    slots: &'a [Option<B::Memory>],
    store: &'a Store<B>,
    place: &'a Place,
) -> Result<Operand<'a, B::Memory>> {
    let (memory, offset) = match place.memory {
        Memory::Slot(slot) => (slots[slot].as_ref(), 0),
        Memory::Parameter(start) => (Some(&store.flat), start),
        Memory::Shadow(start) => (store.shadow.as_ref(), start),
        Memory::Gradient(start) => (store.gradient.as_ref(), start),
        Memory::Separate(index) => (store.separate.get(index), 0),
    };
    let memory =
        memory.ok_or_else(|| Error::malformed("an instruction reads what it overwrites"))?;
    Ok(Operand { memory, offset, shape: &place.shape, storage: place.storage })
}

fn operand_mut<'a, M>(memory: &'a mut M, place: &'a Place) -> OperandMut<'a, M> {
    let offset = match place.memory {
        Memory::Gradient(start) => start,
        _ => 0,
    };
    OperandMut { memory, offset, shape: &place.shape, storage: place.storage }
}
