//! Optimiser steps, in place and fused: each array is read and written once.
//!
//! Where a `shadow` is given, the bf16 copy of the parameter is written in the
//! same pass. `gradient_scale` multiplies the gradient first (clipping, loss
//! scaling). Muon's orthogonalisation is made of matrix products and is not
//! here; [`muon_momentum`] and [`muon_apply`] are what stands around it.

use crate::elementwise::{ELEMENTS_PER_THREAD, expect_length, rows_per_thread};
use crate::embedding::{LOOKUPS_AHEAD, SparseGradient, prefetch};
use crate::pool::SharedMut;
use crate::reduce::{fold_lanes, sum_lanes};
use crate::{Element, Pool, bf16, multiversion};
use std::ops::Range;

mod product;

pub use product::{adamw_of_product, sum_of_squares_of_products};

/// Settings of one step of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the corrected second moment.
    pub epsilon: f32,
    /// Decoupled: the parameter loses learning_rate * weight_decay of itself.
    pub weight_decay: f32,
    /// The step, from 1, for the correction of the moments' bias.
    pub step: u64,
    /// Multiplies the gradient.
    pub gradient_scale: f32,
}

/// Settings of one step of [`sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub learning_rate: f32,
    /// Decay of the velocity.
    pub momentum: f32,
    /// Whether to look ahead along the velocity.
    pub nesterov: bool,
    /// Coupled, as is usual for this optimiser: added to the gradient.
    pub weight_decay: f32,
    /// Multiplies the gradient.
    pub gradient_scale: f32,
}

/// Settings of one step of [`rowwise_adagrad`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowwiseAdagrad {
    /// The learning rate.
    pub learning_rate: f32,
    /// Added to the root of the accumulated mean square.
    pub epsilon: f32,
    /// Decoupled, and only for the rows that were touched.
    pub weight_decay: f32,
    /// Multiplies the gradient.
    pub gradient_scale: f32,
}

/// One step of AdamW (Loshchilov and Hutter, 2019).
pub fn adamw(
    pool: &Pool,
    settings: AdamW,
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    shadow: Option<&mut [bf16]>,
) {
    assert!(settings.step > 0, "`adamw`: steps count from 1");
    expect_length("adamw", "gradient", gradient.len(), parameter.len());
    expect_length("adamw", "first", first.len(), parameter.len());
    expect_length("adamw", "second", second.len(), parameter.len());
    let shadow = Shadow::new("adamw", shadow, parameter.len());
    let rates = AdamWRates::new(settings);
    let (first, second) = (SharedMut::new(first), SharedMut::new(second));
    pool.for_rows(parameter, 1, ELEMENTS_PER_THREAD, |start, parameter| {
        let range = start..start + parameter.len();
        // SAFETY: the ranges of one region are disjoint.
        let (first, second) = unsafe { (first.slice(range.clone()), second.slice(range.clone())) };
        // SAFETY: as above.
        let shadow = unsafe { shadow.part(range.clone()) };
        adamw_range(rates, parameter, &gradient[range], first, second, shadow);
    });
}

/// The settings of [`adamw`] as they enter the formula, computed in f64.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // The formula stands in `update`.
pub struct AdamWRates {
    pub keep: f32,
    pub rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub one_minus_beta1: f32,
    pub one_minus_beta2: f32,
    pub root_correction: f32,
    pub epsilon: f32,
    pub gradient_scale: f32,
}

impl AdamWRates {
    /// Of one step.
    pub fn new(settings: AdamW) -> Self {
        let (beta1, beta2) = (settings.beta1 as f64, settings.beta2 as f64);
        let step = settings.step as f64;
        let learning_rate = settings.learning_rate as f64;
        AdamWRates {
            keep: (1.0 - learning_rate * settings.weight_decay as f64) as f32,
            rate: (learning_rate / (1.0 - beta1.powf(step))) as f32,
            beta1: settings.beta1,
            beta2: settings.beta2,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            root_correction: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            epsilon: settings.epsilon,
            gradient_scale: settings.gradient_scale,
        }
    }

    /// The new parameter; updates the moments.
    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, first: &mut f32, second: &mut f32) -> f32 {
        let gradient = gradient * self.gradient_scale;
        *first = self.beta1 * *first + self.one_minus_beta1 * gradient;
        *second = self.beta2 * *second + self.one_minus_beta2 * gradient * gradient;
        let root = second.sqrt() * self.root_correction + self.epsilon;
        parameter * self.keep - self.rate * *first / root
    }
}

multiversion! {
    fn adamw_range(
        rates: AdamWRates,
        parameter: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        shadow: Option<&mut [bf16]>,
    ) {
        let moments = first.iter_mut().zip(second);
        let operands = parameter.iter_mut().zip(gradient).zip(moments);
        if let Some(shadow) = shadow {
            for (((parameter, gradient), (first, second)), shadow) in operands.zip(shadow) {
                *parameter = rates.update(*parameter, *gradient, first, second);
                *shadow = <bf16 as Element>::from_f32(*parameter);
            }
        } else {
            for ((parameter, gradient), (first, second)) in operands {
                *parameter = rates.update(*parameter, *gradient, first, second);
            }
        }
    }
}

/// One step of gradient descent with momentum: with g the scaled gradient plus
/// weight_decay * parameter, velocity = momentum * velocity + g, and the
/// parameter moves against the velocity, or g + momentum * velocity (Nesterov).
pub fn sgd(
    pool: &Pool,
    settings: Sgd,
    parameter: &mut [f32],
    gradient: &[f32],
    velocity: &mut [f32],
    shadow: Option<&mut [bf16]>,
) {
    expect_length("sgd", "gradient", gradient.len(), parameter.len());
    expect_length("sgd", "velocity", velocity.len(), parameter.len());
    let shadow = Shadow::new("sgd", shadow, parameter.len());
    let velocity = SharedMut::new(velocity);
    pool.for_rows(parameter, 1, ELEMENTS_PER_THREAD, |start, parameter| {
        let range = start..start + parameter.len();
        // SAFETY: the ranges of one region are disjoint.
        let velocity = unsafe { velocity.slice(range.clone()) };
        // SAFETY: as above.
        let shadow = unsafe { shadow.part(range.clone()) };
        sgd_range(settings, parameter, &gradient[range], velocity, shadow);
    });
}

impl Sgd {
    /// The new parameter; updates the velocity.
    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, velocity: &mut f32) -> f32 {
        let gradient = gradient * self.gradient_scale + self.weight_decay * parameter;
        *velocity = self.momentum * *velocity + gradient;
        let ahead = gradient + self.momentum * *velocity;
        parameter - self.learning_rate * if self.nesterov { ahead } else { *velocity }
    }
}

multiversion! {
    fn sgd_range(
        settings: Sgd,
        parameter: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
        shadow: Option<&mut [bf16]>,
    ) {
        let operands = parameter.iter_mut().zip(gradient).zip(velocity);
        if let Some(shadow) = shadow {
            for (((parameter, gradient), velocity), shadow) in operands.zip(shadow) {
                *parameter = settings.update(*parameter, *gradient, velocity);
                *shadow = <bf16 as Element>::from_f32(*parameter);
            }
        } else {
            for ((parameter, gradient), velocity) in operands {
                *parameter = settings.update(*parameter, *gradient, velocity);
            }
        }
    }
}

/// One step of Adagrad with one state for each row of `d`: the state gains the
/// mean square of the row's gradient, and the row moves by the learning rate
/// over its root. Rows that `sparse` does not hold stay as they are.
pub fn rowwise_adagrad(
    pool: &Pool,
    settings: RowwiseAdagrad,
    table: &mut [f32],
    d: usize,
    state: &mut [f32],
    sparse: &SparseGradient,
) {
    expect_length("rowwise_adagrad", "state", state.len(), sparse.rows());
    expect_length("rowwise_adagrad", "a row of `sparse`", sparse.d(), d);
    expect_length("rowwise_adagrad", "table", table.len(), state.len() * d);
    let shards = sparse.shards();
    let per_shard = (sparse.touched() / shards.len()).max(1);
    let (table, state) = (SharedMut::new(table), SharedMut::new(state));
    pool.for_ranges(shards.len(), rows_per_thread(d * per_shard), |range| {
        // SAFETY: a row is in one shard, and there once.
        let part = |row: usize| unsafe {
            (table.slice(row * d..(row + 1) * d), state.slice(row..row + 1))
        };
        for shard in &shards[range] {
            let mut ahead = shard.iter(d).skip(LOOKUPS_AHEAD);
            for (row, gradient) in shard.iter(d) {
                if let Some((row, _)) = ahead.next() {
                    let (table, state) = part(row);
                    prefetch(table);
                    prefetch(state);
                }
                let (table, state) = part(row);
                adagrad_row(settings, table, &mut state[0], gradient);
            }
        }
    });
}

multiversion! {
    fn adagrad_row(settings: RowwiseAdagrad, row: &mut [f32], state: &mut f32, gradient: &[f32]) {
        let squares = sum_lanes(fold_lanes!(0.0f32; lane, gradient => lane + gradient * gradient));
        let scale = settings.gradient_scale;
        *state += squares * scale * scale / row.len() as f32;
        let rate = settings.learning_rate * scale / (state.sqrt() + settings.epsilon);
        let keep = 1.0 - settings.learning_rate * settings.weight_decay;
        for (x, gradient) in row.iter_mut().zip(gradient) {
            *x = *x * keep - rate * gradient;
        }
    }
}

/// average = decay * average + (1 - decay) * parameter.
pub fn exponential_average(pool: &Pool, decay: f32, parameter: &[f32], average: &mut [f32]) {
    expect_length("exponential_average", "average", average.len(), parameter.len());
    pool.for_rows(average, 1, ELEMENTS_PER_THREAD, |start, average| {
        exponential_average_range(decay, &parameter[start..start + average.len()], average);
    });
}

multiversion! {
    fn exponential_average_range(decay: f32, parameter: &[f32], average: &mut [f32]) {
        let gain = 1.0 - decay;
        for (average, parameter) in average.iter_mut().zip(parameter) {
            *average = decay * *average + gain * parameter;
        }
    }
}

/// The momentum of Muon (Jordan, 2024): velocity moves towards the scaled
/// gradient by 1 - momentum; the update is the velocity, or with Nesterov the
/// gradient moved towards it by momentum.
pub fn muon_momentum(
    pool: &Pool,
    momentum: f32,
    nesterov: bool,
    gradient: &[f32],
    gradient_scale: f32,
    velocity: &mut [f32],
    update: &mut [f32],
) {
    expect_length("muon_momentum", "velocity", velocity.len(), gradient.len());
    expect_length("muon_momentum", "update", update.len(), gradient.len());
    let velocity = SharedMut::new(velocity);
    pool.for_rows(update, 1, ELEMENTS_PER_THREAD, |start, update| {
        let range = start..start + update.len();
        // SAFETY: the ranges of one region are disjoint.
        let velocity = unsafe { velocity.slice(range.clone()) };
        muon_momentum_range(momentum, nesterov, &gradient[range], gradient_scale, velocity, update);
    });
}

multiversion! {
    fn muon_momentum_range(
        momentum: f32,
        nesterov: bool,
        gradient: &[f32],
        gradient_scale: f32,
        velocity: &mut [f32],
        update: &mut [f32],
    ) {
        let gain = 1.0 - momentum;
        for ((update, velocity), gradient) in update.iter_mut().zip(velocity).zip(gradient) {
            let gradient = gradient * gradient_scale;
            *velocity = momentum * *velocity + gain * gradient;
            let ahead = gain * gradient + momentum * *velocity;
            *update = if nesterov { ahead } else { *velocity };
        }
    }
}

/// parameter = parameter * (1 - learning_rate * weight_decay) - learning_rate
/// * scale * update.
pub fn muon_apply(
    pool: &Pool,
    learning_rate: f32,
    weight_decay: f32,
    scale: f32,
    update: &[f32],
    parameter: &mut [f32],
    shadow: Option<&mut [bf16]>,
) {
    expect_length("muon_apply", "update", update.len(), parameter.len());
    let shadow = Shadow::new("muon_apply", shadow, parameter.len());
    let keep = 1.0 - learning_rate * weight_decay;
    pool.for_rows(parameter, 1, ELEMENTS_PER_THREAD, |start, parameter| {
        let range = start..start + parameter.len();
        // SAFETY: the ranges of one region are disjoint.
        let shadow = unsafe { shadow.part(range.clone()) };
        muon_apply_range(keep, learning_rate * scale, &update[range], parameter, shadow);
    });
}

multiversion! {
    fn muon_apply_range(
        keep: f32,
        rate: f32,
        update: &[f32],
        parameter: &mut [f32],
        shadow: Option<&mut [bf16]>,
    ) {
        let operands = parameter.iter_mut().zip(update);
        if let Some(shadow) = shadow {
            for ((parameter, update), shadow) in operands.zip(shadow) {
                *parameter = keep * *parameter - rate * update;
                *shadow = <bf16 as Element>::from_f32(*parameter);
            }
        } else {
            for (parameter, update) in operands {
                *parameter = keep * *parameter - rate * update;
            }
        }
    }
}

/// The bf16 copy of a parameter, where there is one.
struct Shadow<'a>(Option<SharedMut<'a, bf16>>);

impl<'a> Shadow<'a> {
    #[track_caller]
    fn new(operation: &str, shadow: Option<&'a mut [bf16]>, length: usize) -> Self {
        if let Some(shadow) = &shadow {
            expect_length(operation, "shadow", shadow.len(), length);
        }
        Shadow(shadow.map(SharedMut::new))
    }

    /// # Safety
    /// No two parts that live at the same time may overlap.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, range: Range<usize>) -> Option<&mut [bf16]> {
        // SAFETY: as the caller promises.
        self.0.as_ref().map(|shadow| unsafe { shadow.slice(range) })
    }
}

#[cfg(test)]
mod tests;
