//! Updates of parameters.

use bytemuck::{Pod, Zeroable};
use modgrad_compute::optimiser::{AdamW, Sgd};
use modgrad_graph::Result;
use modgrad_graph::backend::{Stretch, Update};

use crate::device::{Device, Memory};
use crate::driver::Argument;
use crate::launch::{index, over, plain};
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

/// The settings as they enter the formula; `AdamWRates` of `kernels/optimisers.hip`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AdamWRates {
    keep: f32,
    rate: f32,
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    root_correction: f32,
    epsilon: f32,
    gradient_scale: f32,
}

impl AdamWRates {
    fn new(rule: AdamW) -> AdamWRates {
        let (beta1, beta2) = (f64::from(rule.beta1), f64::from(rule.beta2));
        let (step, rate) = (rule.step as f64, f64::from(rule.learning_rate));
        AdamWRates {
            keep: (1.0 - rate * f64::from(rule.weight_decay)) as f32,
            rate: (rate / (1.0 - beta1.powf(step))) as f32,
            beta1: rule.beta1,
            beta2: rule.beta2,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            root_correction: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            epsilon: rule.epsilon,
            gradient_scale: rule.gradient_scale,
        }
    }
}

pub(crate) fn adamw(
    device: &Device,
    rule: AdamW,
    update: Update<'_, Memory>,
    first: &mut Memory,
    second: &mut Memory,
) -> Result<()> {
    let stretch = update.stretch;
    let arguments = [
        at(update.parameter, stretch),
        at(update.gradient, stretch),
        at(first, stretch),
        at(second, stretch),
        shadow_at(update.shadow, stretch),
        plain(&AdamWRates::new(rule)),
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
