//! Gradients of the few rows of a table that a step touches.
//!
//! Each pass adds its indices and its gradients as they are; what they are for each row is
//! summed once, in a fixed order, when it is asked for. All of it stays on the device.

use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};
use modgrad_compute::optimiser::RowwiseAdagrad;
use modgrad_graph::backend::Operand;
use modgrad_graph::storage::Storage;
use modgrad_graph::{Error, Result};

use crate::device::{Device, Scratch};
use crate::driver::Argument;
use crate::launch::{Place, index, over, plain, suffix};
use crate::memory::Memory;
use crate::optimisers::factor_of;
use crate::order::{Indices, Ordered};
use crate::source::{BASICS, SPARSE};

/// Rows that were touched, and their gradients.
pub struct SparseGradient {
    rows: usize,
    width: usize,
    /// Indices so far, i32, and rows of gradients so far, f32 [·, width].
    count: usize,
    taken: usize,
    indices: Option<Memory>,
    /// For each index, which of the rows of gradients it goes with, i32.
    sources: Option<Memory>,
    gradients: Option<Memory>,
    /// The ordered indices, i32, and the sum of its row's gradients at the first of each,
    /// f32 [·, width]: made when `summed`.
    keys: Option<Memory>,
    sums: Option<Memory>,
    summed: AtomicBool,
}

impl SparseGradient {
    pub(crate) fn new(rows: usize, width: usize) -> SparseGradient {
        SparseGradient {
            rows,
            width,
            count: 0,
            taken: 0,
            indices: None,
            sources: None,
            gradients: None,
            keys: None,
            sums: None,
            summed: AtomicBool::new(false),
        }
    }

    pub(crate) fn accumulate(
        &mut self,
        device: &Device,
        bag: usize,
        indices: &Operand<'_, Memory>,
        gradient: &Operand<'_, Memory>,
    ) -> Result<()> {
        let (more, rows) = (indices.elements(), indices.elements() / bag.max(1));
        if !matches!(indices.storage, Storage::I32 | Storage::U8)
            || !matches!(gradient.storage, Storage::F32 | Storage::Bf16)
        {
            let reason = format!("rows {:?} of {:?}", indices.storage, gradient.storage);
            return Err(Error::Malformed { reason });
        }
        let (first, row) = (self.count, self.width * 4);
        let (count, taken) = (first + more, self.taken + rows);
        grow(device, &mut self.indices, first * 4, count * 4)?;
        grow(device, &mut self.sources, first * 4, count * 4)?;
        grow(device, &mut self.gradients, self.taken * row, taken * row)?;
        grow(device, &mut self.keys, 0, count * 4)?;
        grow(device, &mut self.sums, 0, count * row)?;

        let mut arguments = vec![
            indices.pointer(),
            behind(&self.indices, first * 4),
            behind(&self.sources, first * 4),
            index(self.rows),
            index(self.taken),
            index(bag),
            index(more),
        ];
        arguments.extend(device.index_check("embedding_gradient", self.rows));
        let kernel = format!("sparse_keep_{}", suffix(indices.storage));
        device.launch(&SPARSE, &kernel, over(more), &arguments)?;
        let elements = rows * self.width;
        let arguments = [
            gradient.pointer(),
            behind(&self.gradients, self.taken * row),
            Argument::Int(0),
            index(elements),
        ];
        let kernel = format!("accumulate_{}", suffix(gradient.storage));
        device.launch(&BASICS, &kernel, over(elements), &arguments)?;
        (self.count, self.taken) = (count, taken);
        self.summed.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Sums the gradients of each row, unless that is done.
    fn sum(&self, device: &Device) -> Result<()> {
        if self.summed.load(Ordering::Relaxed) || self.count == 0 {
            return Ok(());
        }
        let indices = Indices {
            op: "embedding_gradient",
            address: self.indices.as_ref().map_or(0, Memory::address),
            suffix: "i32",
            count: self.count,
            bound: self.rows,
        };
        let ordered = Ordered::new(device, &indices)?;
        let keys = self.keys.as_ref().map_or(0, Memory::address);
        device.driver().copy(ordered.keys, keys, self.count * 4)?;
        let elements = self.count * self.width;
        let arguments = [
            Argument::Pointer(keys),
            Argument::Pointer(ordered.positions),
            behind(&self.sources, 0),
            behind(&self.gradients, 0),
            behind(&self.sums, 0),
            index(self.width),
            index(self.count),
            index(elements),
        ];
        device.launch(&SPARSE, "sparse_sum", over(elements), &arguments)?;
        self.summed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What [`SparseGradient::sum`] made of it: where it begins, and how many f32.
    pub(crate) fn summed(&self, device: &Device) -> Result<(Argument, usize)> {
        self.sum(device)?;
        Ok((behind(&self.sums, 0), self.count * self.width))
    }
}

/// `RowwiseRates` of `kernels/sparse.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RowwiseRates {
    learning_rate: f32,
    epsilon: f32,
    weight_decay: f32,
    gradient_scale: f32,
}

/// Updates the touched rows and empties the gradient, whose memory is kept.
pub(crate) fn rowwise_adagrad(
    device: &Device,
    rule: RowwiseAdagrad,
    sparse: &mut SparseGradient,
    width: usize,
    table: &mut Memory,
    state: &mut Memory,
    clip: Option<&Memory>,
) -> Result<()> {
    sparse.sum(device)?;
    let rates = RowwiseRates {
        learning_rate: rule.learning_rate,
        epsilon: rule.epsilon,
        weight_decay: rule.weight_decay,
        gradient_scale: rule.gradient_scale,
    };
    let (keys, sums) = (behind(&sparse.keys, 0), behind(&sparse.sums, 0));
    let touched = if width == 0 { 0 } else { sparse.count };
    let moves = Argument::Pointer(device.scratch(Scratch::First, touched * 4)?);
    let arguments = [
        keys.clone(),
        sums.clone(),
        Argument::Pointer(state.address()),
        moves.clone(),
        factor_of(clip),
        index(width),
        plain(&rates),
        index(touched),
    ];
    device.launch(&SPARSE, "rowwise_rates", over(touched), &arguments)?;
    let elements = touched * width;
    let arguments = [
        keys,
        sums,
        moves,
        Argument::Pointer(table.address()),
        factor_of(clip),
        index(width),
        plain(&rates),
        index(elements),
    ];
    device.launch(&SPARSE, "rowwise_adagrad", over(elements), &arguments)?;
    (sparse.count, sparse.taken) = (0, 0);
    sparse.summed.store(false, Ordering::Relaxed);
    Ok(())
}

fn behind(memory: &Option<Memory>, bytes: usize) -> Argument {
    Argument::Pointer(memory.as_ref().map_or(0, |memory| memory.address() + bytes as u64))
}

/// Makes room for `bytes`, of which the first `kept` keep their contents.
fn grow(device: &Device, memory: &mut Option<Memory>, kept: usize, bytes: usize) -> Result<()> {
    if memory.as_ref().is_some_and(|memory| memory.bytes() >= bytes) {
        return Ok(());
    }
    let larger = device.zeros(bytes)?;
    if let Some(memory) = memory.as_ref().filter(|_| kept > 0) {
        device.driver().copy(memory.address(), larger.address(), kept)?;
    }
    *memory = Some(larger);
    Ok(())
}
