//! Updates of parameters.

use bytemuck::{Pod, Zeroable};
use modgrad_compute::optimiser::{AdamW, AdamWRates, Sgd};
use modgrad_graph::Result;
use modgrad_graph::backend::{Clip, Stretch, Update};

use crate::device::Device;
use crate::driver::Argument;
use crate::launch::{index, over, plain};
use crate::memory::Memory;
use crate::source::OPTIMISERS;

/// The element `stretch.start` of an f32 buffer.
pub(crate) fn at(memory: &Memory, stretch: Stretch) -> Argument {
    Argument::Pointer(memory.address() + stretch.start as u64 * 4)
}

/// The same of the bf16 copy, or null.
pub(crate) fn shadow_at(shadow: Option<&mut Memory>, stretch: Stretch) -> Argument {
    let address = shadow.map_or(0, |memory| memory.address() + stretch.start as u64 * 2);
    Argument::Pointer(address)
}

/// Where [`Backend::clip`](modgrad_graph::backend::Backend::clip) left the factor, or null.
pub(crate) fn factor_of(clip: Option<&Memory>) -> Argument {
    Argument::Pointer(clip.map_or(0, |memory| memory.address() + Clip::FACTOR as u64))
}

pub(crate) fn adamw(
    device: &Device,
    rule: AdamW,
    update: Update<'_, Memory>,
    first: &mut Memory,
    second: &mut Memory,
) -> Result<()> {
    let stretch = update.stretch;
    let rates = AdamWRates::new(rule);
    // In the order of `AdamWRates` of `kernels/optimisers.hip`.
    let rates = [
        rates.keep,
        rates.rate,
        rates.beta1,
        rates.beta2,
        rates.one_minus_beta1,
        rates.one_minus_beta2,
        rates.root_correction,
        rates.epsilon,
        rates.gradient_scale,
    ];
    let arguments = [
        at(update.parameter, stretch),
        at(update.gradient, stretch),
        at(first, stretch),
        at(second, stretch),
        shadow_at(update.shadow, stretch),
        factor_of(update.clip),
        plain(&rates),
        index(stretch.count),
    ];
    device.launch(&OPTIMISERS, "adamw", over(stretch.count), &arguments)
}

/// `SgdRates` of `kernels/optimisers.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SgdRates {
    rate: f32,
    momentum: f32,
    weight_decay: f32,
    gradient_scale: f32,
    nesterov: i32,
}

pub(crate) fn sgd(
    device: &Device,
    rule: Sgd,
    update: Update<'_, Memory>,
    velocity: &mut Memory,
) -> Result<()> {
    let stretch = update.stretch;
    let rates = SgdRates {
        rate: rule.learning_rate,
        momentum: rule.momentum,
        weight_decay: rule.weight_decay,
        gradient_scale: rule.gradient_scale,
        nesterov: i32::from(rule.nesterov),
    };
    let arguments = [
        at(update.parameter, stretch),
        at(update.gradient, stretch),
        at(velocity, stretch),
        shadow_at(update.shadow, stretch),
        factor_of(update.clip),
        plain(&rates),
        index(stretch.count),
    ];
    device.launch(&OPTIMISERS, "sgd", over(stretch.count), &arguments)
}

pub(crate) fn average(
    device: &Device,
    decay: f32,
    from: &Memory,
    average: &mut Memory,
    stretch: Stretch,
) -> Result<()> {
    let arguments =
        [at(from, stretch), at(average, stretch), Argument::Float(decay), index(stretch.count)];
    device.launch(&OPTIMISERS, "average", over(stretch.count), &arguments)
}
