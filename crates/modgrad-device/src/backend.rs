//! The device as a backend: buffers, and where each op goes.

use modgrad_compute::optimiser::{AdamW, RowwiseAdagrad, Sgd};
use modgrad_graph::backend::{Backend, Clip, Gradient, Muon, Operand, OperandMut, Stretch, Update};
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::{Precision, Storage};
use modgrad_graph::{Error, Op, Result};

use crate::device::{Device, Scratch};
use crate::driver::Argument;
use crate::launch::{Place, index, over, suffix};
use crate::memory::Memory;
use crate::optimisers::{self, at};
use crate::source::{BASICS, REDUCTIONS};
use crate::sparse::SparseGradient;
use crate::{launch, muon, ops, sparse};

/// Blocks of a sum of squares, at most; each leaves one term.
const SQUARES_BLOCKS: usize = 512;

impl Backend for Device {
    type Memory = Memory;
    type SparseGradient = SparseGradient;

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.zeros(bytes)
    }

    fn write(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        memory.write(offset, bytes)
    }

    fn read(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        memory.check_range(offset, bytes.len())?;
        if memory.read_on_host(offset, bytes) {
            return Ok(());
        }
        self.check_indices()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.driver().copy_out(memory.address() + offset as u64, bytes)
    }

    fn fill(&self, memory: &mut Memory, stretch: Stretch, value: f32) -> Result<()> {
        memory.changes();
        let arguments = [at(memory, stretch), Argument::Float(value), index(stretch.count)];
        self.launch(&BASICS, "fill", over(stretch.count), &arguments)
    }

    fn run(
        &self,
        op: &Op,
        key: RunKey,
        precision: Precision,
        inputs: &[Operand<'_, Memory>],
        outputs: &mut [OperandMut<'_, Memory>],
        add: bool,
    ) -> Result<()> {
        outputs.iter_mut().for_each(|output| output.memory.changes());
        if self.driver().poisons() && !add {
            for output in outputs.iter().filter(|output| output.elements() > 0) {
                let bytes = output.elements() * output.storage.size();
                self.driver().set(output.address(), 0xff, bytes)?;
            }
        }
        ops::run(self, op, key, precision, inputs, outputs, add)
    }

    fn accumulate(
        &self,
        from: Operand<'_, Memory>,
        into: OperandMut<'_, Memory>,
        add: bool,
    ) -> Result<()> {
        if !matches!(from.storage, Storage::F32 | Storage::Bf16) {
            return Err(Error::Malformed { reason: "a gradient of integers".to_owned() });
        }
        into.memory.changes();
        let kernel = format!("accumulate_{}", suffix(from.storage));
        let count = from.elements();
        let arguments =
            [from.pointer(), into.pointer(), Argument::Int(i32::from(add)), index(count)];
        self.launch(&BASICS, &kernel, over(count), &arguments)
    }

    fn narrow(&self, from: &Memory, into: &mut Memory, stretch: Stretch) -> Result<()> {
        into.changes();
        let arguments =
            [at(from, stretch), optimisers::shadow_at(Some(into), stretch), index(stretch.count)];
        self.launch(&BASICS, "narrow", over(stretch.count), &arguments)
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn clip(
        &self,
        _precision: Precision,
        gradient: &Gradient<'_, Memory, SparseGradient>,
        mean: f32,
        limit: f32,
        into: &mut Memory,
    ) -> Result<()> {
        if !gradient.products.is_empty() {
            return Err(Error::Malformed { reason: "a gradient as factors".to_owned() });
        }
        let stored = gradient.stored.iter();
        let stored = stored.map(|&stretch| Ok((at(gradient.flat, stretch), stretch.count)));
        let sparse = gradient.sparse.iter().map(|sparse| sparse.summed(self));
        let summands = stored.chain(sparse).collect::<Result<Vec<_>>>()?;
        into.changes();
        self.leave_clip(summands, mean, limit, into)
    }

    fn adamw(
        &self,
        rule: AdamW,
        update: Update<'_, Memory>,
        first: &mut Memory,
        second: &mut Memory,
    ) -> Result<()> {
        update.parameter.changes();
        optimisers::adamw(self, rule, update, first, second)
    }

    fn sgd(&self, rule: Sgd, update: Update<'_, Memory>, velocity: &mut Memory) -> Result<()> {
        update.parameter.changes();
        optimisers::sgd(self, rule, update, velocity)
    }

    fn muon(
        &self,
        rule: Muon,
        rows: usize,
        columns: usize,
        update: Update<'_, Memory>,
        velocity: &mut Memory,
    ) -> Result<()> {
        update.parameter.changes();
        muon::update(self, rule, rows, columns, update, velocity)
    }

    fn average(
        &self,
        decay: f32,
        from: &Memory,
        average: &mut Memory,
        stretch: Stretch,
    ) -> Result<()> {
        average.changes();
        optimisers::average(self, decay, from, average, stretch)
    }

    fn sparse_gradient(&self, rows: usize, width: usize) -> SparseGradient {
        SparseGradient::new(rows, width)
    }

    fn sparse_accumulate(
        &self,
        sparse: &mut SparseGradient,
        bag: usize,
        indices: Operand<'_, Memory>,
        gradient: Operand<'_, Memory>,
    ) -> Result<()> {
        sparse.accumulate(self, bag, &indices, &gradient)
    }

    fn rowwise_adagrad(
        &self,
        rule: RowwiseAdagrad,
        sparse: &mut SparseGradient,
        width: usize,
        table: &mut Memory,
        state: &mut Memory,
        clip: Option<&Memory>,
    ) -> Result<()> {
        table.changes();
        sparse::rowwise_adagrad(self, rule, sparse, width, table, state, clip)
    }
}

impl Device {
    /// [`Backend::clip`] over f32 stretches: where each begins, and its count.
    fn leave_clip(
        &self,
        summands: Vec<(Argument, usize)>,
        mean: f32,
        limit: f32,
        into: &Memory,
    ) -> Result<()> {
        let blocks = |count: usize| count.div_ceil(launch::BLOCK).min(SQUARES_BLOCKS);
        let terms = summands.iter().map(|(_, count)| blocks(*count)).sum();
        let squares = self.scratch(Scratch::Sums, terms * 8)?;
        let mut next = squares;
        for (from, count) in summands {
            let arguments = [from, Argument::Pointer(next), index(count)];
            let shape = launch::grid(blocks(count), 1);
            self.launch(&REDUCTIONS, "sum_of_squares", shape, &arguments)?;
            next += blocks(count) as u64 * 8;
        }
        let arguments = [
            Argument::Pointer(squares),
            Argument::Pointer(into.address() + Clip::NORM as u64),
            optimisers::factor_of(Some(into)),
            Argument::Float(mean),
            Argument::Float(limit),
            index(terms),
        ];
        self.launch(&REDUCTIONS, "clip", launch::grid(1, 1), &arguments)
    }
}
