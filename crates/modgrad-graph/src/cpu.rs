//! The CPU backend: host memory, one thread pool, kernels of modgrad-compute.

mod memory;
mod memory_rows;
mod muon;
mod ops;
mod sequences;
mod spatial;
mod thought;

use modgrad_compute::embedding::SparseGradient;
use modgrad_compute::optimiser::{self, AdamW, RowwiseAdagrad, Sgd};
use modgrad_compute::{Pool, bf16, elementwise, reduce};
use std::sync::Arc;

use crate::backend::{
    Backend, Clip, Gradient, Muon, Operand, OperandMut, Product, Stretch, Update,
};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::reference::RunKey;
use crate::storage::{Precision, Storage};
pub use memory::HostMemory;

/// Runs programs on the processor.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<Pool>,
}

impl Cpu {
    /// A backend with `threads` threads, the calling one counted.
    pub fn new(threads: usize) -> Self {
        Cpu { pool: Arc::new(Pool::new(threads)) }
    }

    /// The threads that it shares its work among.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Backend for Cpu {
    type Memory = HostMemory;
    type SparseGradient = SparseGradient;

    fn allocate(&self, bytes: usize) -> Result<HostMemory> {
        HostMemory::zeros(bytes)
    }

    fn write(&self, memory: &mut HostMemory, offset: usize, bytes: &[u8]) -> Result<()> {
        memory.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, memory: &HostMemory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&memory.bytes()[offset..offset + bytes.len()]);
        Ok(())
    }

    fn fill(&self, memory: &mut HostMemory, stretch: Stretch, value: f32) -> Result<()> {
        memory.slice_mut::<f32>(stretch).fill(value);
        Ok(())
    }

    fn run(
        &self,
        op: &Op,
        key: RunKey,
        precision: Precision,
        inputs: &[Operand<'_, HostMemory>],
        outputs: &mut [OperandMut<'_, HostMemory>],
        add: bool,
    ) -> Result<()> {
        ops::run(&self.pool, op, key, precision, inputs, outputs, add)
    }

    fn accumulate(
        &self,
        from: Operand<'_, HostMemory>,
        mut into: OperandMut<'_, HostMemory>,
        add: bool,
    ) -> Result<()> {
        match (from.storage, add) {
            (Storage::F32, true) => {
                elementwise::accumulate(&self.pool, from.slice(), into.slice_mut());
            }
            (Storage::F32, false) => into.slice_mut::<f32>().copy_from_slice(from.slice()),
            (Storage::Bf16, add) => {
                let zero = if add { 1.0 } else { 0.0 };
                for (into, from) in into.slice_mut::<f32>().iter_mut().zip(from.slice::<bf16>()) {
                    *into = *into * zero + from.to_f32();
                }
            }
            _ => return Err(Error::malformed("a gradient of integers")),
        }
        Ok(())
    }

    fn narrow(&self, from: &HostMemory, into: &mut HostMemory, stretch: Stretch) -> Result<()> {
        let into = into.slice_mut::<bf16>(stretch);
        elementwise::convert(&self.pool, from.slice::<f32>(stretch), into);
        Ok(())
    }

    fn clip(
        &self,
        precision: Precision,
        gradient: &Gradient<'_, HostMemory, SparseGradient>,
        mean: f32,
        limit: f32,
        into: &mut HostMemory,
    ) -> Result<()> {
        let mut squares = 0.0;
        for &stretch in &gradient.stored {
            squares += reduce::sum_of_squares(&self.pool, gradient.flat.slice(stretch));
        }
        if !gradient.products.is_empty() {
            let products: Result<Vec<_>> = gradient.products.iter().map(ops::factors).collect();
            let precision = ops::products(precision);
            squares += optimiser::sum_of_squares_of_products(&self.pool, precision, &products?);
        }
        for sparse in &gradient.sparse {
            squares += sparse.sum_of_squares();
        }
        let clip = Clip::new(squares, mean, limit);
        self.write(into, Clip::NORM, &clip.norm.to_ne_bytes())?;
        self.write(into, Clip::FACTOR, &clip.factor.to_ne_bytes())
    }

    fn adamw(
        &self,
        rule: AdamW,
        update: Update<'_, HostMemory>,
        first: &mut HostMemory,
        second: &mut HostMemory,
    ) -> Result<()> {
        let at = update.stretch;
        let gradient_scale = clipped(rule.gradient_scale, update.clip);
        optimiser::adamw(
            &self.pool,
            AdamW { gradient_scale, ..rule },
            update.parameter.slice_mut(at),
            update.gradient.slice(at),
            first.slice_mut(at),
            second.slice_mut(at),
            update.shadow.map(|shadow| shadow.slice_mut(at)),
        );
        Ok(())
    }

    fn takes_factors(&self) -> bool {
        true
    }

    fn adamw_of_product(
        &self,
        rule: AdamW,
        precision: Precision,
        product: Product<'_, HostMemory>,
        update: Update<'_, HostMemory>,
        first: &mut HostMemory,
        second: &mut HostMemory,
    ) -> Result<()> {
        let at = update.stretch;
        let (left, right) = ops::factors(&product)?;
        let gradient_scale = clipped(rule.gradient_scale, update.clip);
        optimiser::adamw_of_product(
            &self.pool,
            AdamW { gradient_scale, ..rule },
            ops::products(precision),
            left,
            right,
            update.parameter.slice_mut(at),
            first.slice_mut(at),
            second.slice_mut(at),
            update.shadow.map(|shadow| shadow.slice_mut(at)),
        );
        Ok(())
    }

    fn sgd(
        &self,
        rule: Sgd,
        update: Update<'_, HostMemory>,
        velocity: &mut HostMemory,
    ) -> Result<()> {
        let at = update.stretch;
        let gradient_scale = clipped(rule.gradient_scale, update.clip);
        optimiser::sgd(
            &self.pool,
            Sgd { gradient_scale, ..rule },
            update.parameter.slice_mut(at),
            update.gradient.slice(at),
            velocity.slice_mut(at),
            update.shadow.map(|shadow| shadow.slice_mut(at)),
        );
        Ok(())
    }

    fn muon(
        &self,
        rule: Muon,
        rows: usize,
        columns: usize,
        update: Update<'_, HostMemory>,
        velocity: &mut HostMemory,
    ) -> Result<()> {
        let gradient_scale = clipped(rule.gradient_scale, update.clip);
        let rule = Muon { gradient_scale, ..rule };
        muon::update(&self.pool, rule, rows, columns, update, velocity);
        Ok(())
    }

    fn average(
        &self,
        decay: f32,
        from: &HostMemory,
        average: &mut HostMemory,
        stretch: Stretch,
    ) -> Result<()> {
        let average = average.slice_mut(stretch);
        optimiser::exponential_average(&self.pool, decay, from.slice(stretch), average);
        Ok(())
    }

    fn sparse_gradient(&self, rows: usize, width: usize) -> SparseGradient {
        SparseGradient::new(rows, width)
    }

    fn sparse_accumulate(
        &self,
        sparse: &mut SparseGradient,
        bag: usize,
        indices: Operand<'_, HostMemory>,
        gradient: Operand<'_, HostMemory>,
    ) -> Result<()> {
        match (indices.storage, gradient.storage) {
            (Storage::I32, Storage::F32) => {
                sparse.accumulate(&self.pool, indices.slice::<i32>(), bag, gradient.slice::<f32>())
            }
            (Storage::I32, _) => {
                sparse.accumulate(&self.pool, indices.slice::<i32>(), bag, gradient.slice::<bf16>())
            }
            (_, Storage::F32) => {
                sparse.accumulate(&self.pool, indices.slice::<u8>(), bag, gradient.slice::<f32>());
            }
            (_, _) => {
                sparse.accumulate(&self.pool, indices.slice::<u8>(), bag, gradient.slice::<bf16>());
            }
        }
        Ok(())
    }

    fn rowwise_adagrad(
        &self,
        rule: RowwiseAdagrad,
        sparse: &mut SparseGradient,
        width: usize,
        table: &mut HostMemory,
        state: &mut HostMemory,
        clip: Option<&HostMemory>,
    ) -> Result<()> {
        let gradient_scale = clipped(rule.gradient_scale, clip);
        optimiser::rowwise_adagrad(
            &self.pool,
            RowwiseAdagrad { gradient_scale, ..rule },
            table.all_mut(),
            width,
            state.all_mut(),
            sparse,
        );
        sparse.clear();
        Ok(())
    }
}

/// A rule's scale times the factor of clipping.
fn clipped(scale: f32, clip: Option<&HostMemory>) -> f32 {
    let factor = Stretch { start: Clip::FACTOR / 4, count: 1 };
    clip.map_or(scale, |clip| scale * clip.slice::<f32>(factor)[0])
}
