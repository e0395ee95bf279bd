//! Training: a program's loss, the gradients of its parameters, and the
//! optimisers that change them, step by step.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use modgrad_compute::optimiser::{AdamW, RowwiseAdagrad, Sgd};

use crate::backend::{Backend, Clip, Gradient, Muon, Stretch, Update};
use crate::error::{Error, Result};
use crate::executor::{Executor, InputView};
use crate::factored::product;
use crate::planner::{Memory, ParameterPlace};
use crate::program::Program;
use crate::reference::RunKey;
use crate::storage::Precision;
use crate::tensor::Tensor;

/// An update rule with its constants; rates are multiplied with the schedule's
/// factor at each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // The names are those of the papers.
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    AdamW { learning_rate: f32, beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32 },
    /// Stochastic gradient descent with momentum.
    Sgd { learning_rate: f32, momentum: f32, nesterov: bool, weight_decay: f32 },
    /// Orthogonalised momentum, for weight matrices (Jordan et al., 2024).
    Muon { learning_rate: f32, momentum: f32, nesterov: bool, weight_decay: f32, steps: u32 },
    /// Adagrad with one accumulator a row, for sparse tables.
    RowwiseAdagrad { learning_rate: f32, epsilon: f32, weight_decay: f32 },
}

/// Parameters that share an update rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How they are updated.
    pub rule: Rule,
    /// Which they are.
    pub parameters: Vec<String>,
}

/// How a training run is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The scalar output to minimise.
    pub loss: String,
    /// Other outputs that can be read after a backward pass.
    pub watch: Vec<String>,
    /// Every trainable parameter in exactly one group.
    pub groups: Vec<Group>,
    /// How matrix products are formed.
    pub precision: Precision,
    /// Gradients are scaled down to at most this global norm.
    pub clip_norm: Option<f32>,
    /// Seeds dropout.
    pub seed: u64,
}

/// Weights beside each other, as their gradients are kept.
#[derive(Clone, Copy)]
enum Part {
    /// In the flat buffer of gradients.
    Stored(Stretch),
    /// As factors: the plan's gradient of this index.
    Factored(usize),
}

/// A training run in progress.
pub struct Training<B: Backend> {
    executor: Executor<B>,
    settings: Settings,
    /// First moments or velocities, flat.
    first: B::Memory,
    /// Second moments, flat.
    second: B::Memory,
    /// Accumulators of sparse tables, by their index.
    rows: BTreeMap<usize, B::Memory>,
    average: Option<B::Memory>,
    /// Updates done.
    step: u64,
    /// Backward passes since the last update.
    passes: u32,
    /// The last update's [`Clip`], if gradients are clipped,
    clip: Option<B::Memory>,
    /// its step,
    clipped: u64,
    /// and whether the host has yet to look at its norm.
    unread: bool,
}

impl<B: Backend> Training<B> {
    /// Prepares to train `program`.
    pub fn new(backend: B, program: &Program, settings: Settings) -> Result<Self> {
        let mut order = Vec::new();
        for group in &settings.groups {
            for name in &group.parameters {
                if order.contains(name) {
                    return Err(Error::named("parameter", name, "it is in two groups"));
                }
                order.push(name.clone());
            }
        }
        let mut factors = Vec::new();
        if backend.takes_factors() {
            let groups = settings.groups.iter();
            let adamw = groups.filter(|group| matches!(group.rule, Rule::AdamW { .. }));
            factors.extend(adamw.flat_map(|group| group.parameters.iter().cloned()));
        }
        let executor = Executor::for_training(
            backend,
            program,
            &settings.loss,
            &settings.watch,
            settings.precision,
            &order,
            &factors,
        )?;
        check_groups(&executor, &settings.groups, &order)?;
        let backend = &executor.backend;
        let bytes = executor.plan.flat_elements * 4;
        let mut rows = BTreeMap::new();
        for place in executor.plan.parameters.values().filter(|place| place.sparse) {
            if let Memory::Separate(table) = place.memory {
                rows.insert(table, backend.allocate(place.spec.shape[0] * 4)?);
            }
        }
        Ok(Training {
            first: backend.allocate(bytes)?,
            second: backend.allocate(bytes)?,
            rows,
            average: None,
            step: 0,
            passes: 0,
            clip: settings.clip_norm.map(|_| backend.allocate(Clip::BYTES)).transpose()?,
            clipped: 0,
            unread: false,
            executor,
            settings,
        })
    }

    /// The executor, for reading and setting parameters.
    pub fn executor(&self) -> &Executor<B> {
        &self.executor
    }

    /// As [`Training::executor`], to change parameters.
    pub fn executor_mut(&mut self) -> &mut Executor<B> {
        &mut self.executor
    }

    /// Updates done so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Continues from `step`, whatever became of the last update.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
        self.unread = false;
    }

    /// Runs forward and backward, adds to the gradients, returns the loss. On a device that
    /// runs behind the host, the first pass after an update also fails where the gradient of
    /// that one was not finite.
    pub fn backward(&mut self, inputs: &[(&str, InputView<'_>)]) -> Result<f32> {
        // Each pass of an accumulated step draws its own dropout masks.
        let key = RunKey {
            seed: self.settings.seed.wrapping_add(u64::from(self.passes) << 32),
            step: self.step,
        };
        if self.passes == 1 {
            self.executor.multiply_factors(key, true)?;
        }
        self.executor.run_from(inputs, key, self.passes == 0)?;
        if self.passes >= 1 {
            self.executor.multiply_factors(key, false)?;
        }
        self.passes += 1;
        let loss = self.executor.output(&self.settings.loss)?;
        let loss = loss.as_f32().and_then(|values| values.first()).copied().unwrap_or(f32::NAN);
        // The loss is there, and so is all that was asked for before it.
        if std::mem::take(&mut self.unread) {
            self.gradient_norm().inspect_err(|_| self.step = self.clipped)?;
        }
        if !loss.is_finite() {
            return Err(Error::NonFinite { subject: format!("the loss at step {}", self.step) });
        }
        Ok(loss)
    }

    /// Updates every parameter by the mean gradient of the backward passes
    /// since the last update; `factor` multiplies every learning rate. A gradient
    /// that is clipped and not finite changes nothing: this is an error here, or
    /// of the next [`Training::backward`] where the device runs behind the host.
    pub fn update(&mut self, factor: f32) -> Result<()> {
        if self.passes == 0 {
            return Err(Error::malformed("an update needs a backward pass before it"));
        }
        let mean = 1.0 / self.passes as f32;
        if let Some(limit) = self.settings.clip_norm {
            self.clip(mean, limit)?;
        }
        self.step += 1;
        let groups = std::mem::take(&mut self.settings.groups);
        let done = groups.iter().try_for_each(|group| self.update_group(group, factor, mean));
        self.settings.groups = groups;
        self.passes = 0;
        done
    }

    /// The global norm of the last update's gradient before clipping, if it is
    /// clipped; 0 before the first. Waits for a device.
    pub fn gradient_norm(&self) -> Result<Option<f64>> {
        let Some(clip) = &self.clip else { return Ok(None) };
        let mut norm = 0.0f64;
        self.executor.backend.read(clip, Clip::NORM, bytemuck::bytes_of_mut(&mut norm))?;
        if !norm.is_finite() {
            let subject = format!("the gradient at step {}", self.clipped);
            return Err(Error::NonFinite { subject });
        }
        Ok(Some(norm))
    }

    /// An error where the last update changed nothing and nobody was told.
    fn check_update(&self) -> Result<()> {
        if self.unread { self.gradient_norm().map(|_| ()) } else { Ok(()) }
    }

    /// A stretch of the flat buffers, cut where a gradient is left as factors.
    fn parts(&self, whole: Stretch) -> Vec<Part> {
        let end = whole.start + whole.count;
        let mut parts = Vec::new();
        let mut start = whole.start;
        let taken = if self.passes == 1 { &self.executor.plan.factored[..] } else { &[] };
        for (index, factored) in taken.iter().enumerate() {
            let at = factored.stretch;
            if (start..end).contains(&at.start) {
                if start < at.start {
                    parts.push(Part::Stored(Stretch { start, count: at.start - start }));
                }
                parts.push(Part::Factored(index));
                start = at.start + at.count;
            }
        }
        if start < end {
            parts.push(Part::Stored(Stretch { start, count: end - start }));
        }
        parts
    }

    /// Forms the norm of the mean gradient and what it is clipped by.
    fn clip(&mut self, mean: f32, limit: f32) -> Result<()> {
        let parts = self.parts(Stretch { start: 0, count: self.executor.plan.flat_elements });
        let Executor { backend, store, plan, slots, .. } = &self.executor;
        let missing = || Error::malformed("gradients are missing");
        let mut gradient = Gradient {
            flat: store.gradient.as_ref().ok_or_else(missing)?,
            stored: Vec::new(),
            products: Vec::new(),
            sparse: store.sparse.values().collect(),
        };
        for part in parts {
            match part {
                Part::Stored(stretch) => gradient.stored.push(stretch),
                Part::Factored(index) => {
                    gradient.products.push(product(slots, &plan.factored[index])?);
                }
            }
        }
        let clip = self.clip.as_mut().ok_or_else(missing)?;
        backend.clip(plan.precision, &gradient, mean, limit, clip)?;
        self.clipped = self.step;
        self.unread = backend.is_asynchronous();
        // Where reading it means to wait, the host reads it after the next loss.
        if !self.unread {
            self.gradient_norm()?;
        }
        Ok(())
    }

    fn update_group(&mut self, group: &Group, factor: f32, gradient_scale: f32) -> Result<()> {
        let mut start = usize::MAX;
        let mut end = 0;
        for name in &group.parameters {
            let place = &self.executor.plan.parameters[name];
            let elements = place.spec.elements();
            match (place.memory, &group.rule) {
                (Memory::Parameter(at), Rule::Muon { .. }) => {
                    let shape = place.spec.shape.clone();
                    let stretch = Stretch { start: at, count: elements };
                    let part = Part::Stored(stretch);
                    self.update_dense(&group.rule, part, &shape, factor, gradient_scale)?;
                }
                (Memory::Parameter(at), _) => {
                    start = start.min(at);
                    end = end.max(at + elements);
                }
                (Memory::Separate(table), _) => {
                    self.update_table(&group.rule, table, factor, gradient_scale)?;
                }
                _ => return Err(Error::malformed("a parameter in scratch memory")),
            }
        }
        // A group's parameters stand side by side: one call updates all that are stored so.
        if start < end {
            for part in self.parts(Stretch { start, count: end - start }) {
                self.update_dense(&group.rule, part, &[], factor, gradient_scale)?;
            }
        }
        Ok(())
    }

    fn update_dense(
        &mut self,
        rule: &Rule,
        part: Part,
        shape: &[usize],
        factor: f32,
        gradient_scale: f32,
    ) -> Result<()> {
        let Executor { backend, store, slots, plan, .. } = &mut self.executor;
        let stretch = match part {
            Part::Stored(stretch) => stretch,
            Part::Factored(index) => plan.factored[index].stretch,
        };
        let gradient =
            store.gradient.as_ref().ok_or_else(|| Error::malformed("gradients are missing"))?;
        let update = Update {
            stretch,
            parameter: &mut store.flat,
            shadow: store.shadow.as_mut(),
            gradient,
            clip: self.clip.as_ref(),
        };
        match *rule {
            Rule::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } => {
                let rule = AdamW {
                    learning_rate: learning_rate * factor,
                    beta1,
                    beta2,
                    epsilon,
                    weight_decay,
                    step: self.step,
                    gradient_scale,
                };
                let (first, second) = (&mut self.first, &mut self.second);
                match part {
                    Part::Stored(_) => backend.adamw(rule, update, first, second),
                    Part::Factored(index) => {
                        let product = product(slots, &plan.factored[index])?;
                        let precision = plan.precision;
                        backend.adamw_of_product(rule, precision, product, update, first, second)
                    }
                }
            }
            Rule::Sgd { learning_rate, momentum, nesterov, weight_decay } => {
                let rule = Sgd {
                    learning_rate: learning_rate * factor,
                    momentum,
                    nesterov,
                    weight_decay,
                    gradient_scale,
                };
                backend.sgd(rule, update, &mut self.first)
            }
            Rule::Muon { learning_rate, momentum, nesterov, weight_decay, steps } => {
                let rule = Muon {
                    learning_rate: learning_rate * factor,
                    momentum,
                    nesterov,
                    weight_decay,
                    steps,
                    gradient_scale,
                };
                backend.muon(rule, shape[0], shape[1], update, &mut self.first)
            }
            Rule::RowwiseAdagrad { .. } => {
                Err(Error::malformed("row-wise Adagrad updates sparse tables only"))
            }
        }
    }

    fn update_table(
        &mut self,
        rule: &Rule,
        table: usize,
        factor: f32,
        gradient_scale: f32,
    ) -> Result<()> {
        let Rule::RowwiseAdagrad { learning_rate, epsilon, weight_decay } = *rule else {
            return Err(Error::malformed("a sparse table needs row-wise Adagrad"));
        };
        let Executor { backend, store, plan, .. } = &mut self.executor;
        let width = plan
            .parameters
            .values()
            .find(|place| place.memory == Memory::Separate(table))
            .map_or(0, |place| place.spec.shape[1]);
        let rule = RowwiseAdagrad {
            learning_rate: learning_rate * factor,
            epsilon,
            weight_decay,
            gradient_scale,
        };
        let missing = || Error::malformed("a table without its accumulators");
        let sparse = store.sparse.get_mut(&table).ok_or_else(missing)?;
        let state = self.rows.get_mut(&table).ok_or_else(missing)?;
        let table = &mut store.separate[table];
        backend.rowwise_adagrad(rule, sparse, width, table, state, self.clip.as_ref())
    }

    /// Moves the running average of the dense parameters towards their present
    /// values: average ← decay·average + (1 − decay)·value. Begins with them.
    pub fn average(&mut self, decay: f32) -> Result<()> {
        let all = Stretch { start: 0, count: self.executor.plan.flat_elements };
        let Executor { backend, store, .. } = &self.executor;
        let (average, decay) = match &mut self.average {
            Some(average) => (average, decay),
            None => (self.average.insert(backend.allocate(all.count * 4)?), 0.0),
        };
        backend.average(decay, &store.flat, average, all)
    }

    /// A parameter or a buffer, not averaged.
    pub fn parameter(&self, name: &str) -> Result<Tensor> {
        self.check_update()?;
        self.executor.parameter(name)
    }

    /// Parameters and buffers by name; with `averaged`, as they should be evaluated: averaged,
    /// where averaging began.
    pub fn parameters(&self, averaged: bool) -> Result<Vec<(String, Tensor)>> {
        self.check_update()?;
        let average = self.average.as_ref().filter(|_| averaged);
        let read = |(name, place): (&String, &ParameterPlace)| {
            let tensor = match (place.memory, average) {
                (Memory::Parameter(start), Some(average)) => {
                    self.executor.read_flat(average, start, &place.spec)
                }
                _ => self.executor.parameter(name),
            };
            Ok((name.clone(), tensor?))
        };
        self.executor.plan.parameters.iter().map(read).collect()
    }

    /// What an exact resume needs beside the parameters, by name.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        self.check_update()?;
        let mut state = Vec::new();
        for (name, place) in &self.executor.plan.parameters {
            match place.memory {
                Memory::Parameter(start) => {
                    let read = |memory| self.executor.read_flat(memory, start, &place.spec);
                    state.push((format!("first/{name}"), read(&self.first)?));
                    state.push((format!("second/{name}"), read(&self.second)?));
                    if let Some(average) = &self.average {
                        state.push((format!("average/{name}"), read(average)?));
                    }
                }
                Memory::Separate(table) if place.sparse => {
                    let mut bytes = vec![0; place.spec.shape[0] * 4];
                    self.executor.backend.read(&self.rows[&table], 0, &mut bytes)?;
                    let values = bytemuck::pod_collect_to_vec(&bytes);
                    state.push((format!("rows/{name}"), Tensor::f32([values.len()], values)?));
                }
                _ => {}
            }
        }
        Ok(state)
    }

    /// Restores one tensor of [`Training::state`].
    pub fn set_state(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let unknown = || Error::named("optimiser state", name, "this run has none of this name");
        let (kind, parameter) = name.split_once('/').ok_or_else(unknown)?;
        let place = self.executor.plan.parameters.get(parameter).ok_or_else(unknown)?;
        let backend = &self.executor.backend;
        let expected = match kind {
            "rows" => vec![place.spec.shape[0]],
            _ => place.spec.shape.clone(),
        };
        if tensor.shape() != expected || tensor.as_f32().is_none() {
            let reason = format!("expected f32{expected:?}, found {}", tensor.spec());
            return Err(Error::named("optimiser state", name, reason));
        }
        match (kind, place.memory) {
            ("first", Memory::Parameter(start)) => {
                backend.write(&mut self.first, start * 4, tensor.bytes())
            }
            ("second", Memory::Parameter(start)) => {
                backend.write(&mut self.second, start * 4, tensor.bytes())
            }
            ("average", Memory::Parameter(start)) => {
                let average = match &mut self.average {
                    Some(average) => average,
                    None => {
                        let bytes = self.executor.plan.flat_elements * 4;
                        self.average.insert(backend.allocate(bytes)?)
                    }
                };
                backend.write(average, start * 4, tensor.bytes())
            }
            ("rows", Memory::Separate(table)) => {
                let rows = self.rows.get_mut(&table).ok_or_else(unknown)?;
                backend.write(rows, 0, tensor.bytes())
            }
            _ => Err(unknown()),
        }
    }
}

fn check_groups<B: Backend>(
    executor: &Executor<B>,
    groups: &[Group],
    order: &[String],
) -> Result<()> {
    for (name, place) in &executor.plan.parameters {
        if place.trainable && !order.contains(name) {
            return Err(Error::named("parameter", name, "no optimiser has it"));
        }
    }
    for group in groups {
        for name in &group.parameters {
            let Some(place) = executor.plan.parameters.get(name) else {
                return Err(Error::named("parameter", name, "the program has none of this name"));
            };
            let sparse_rule = matches!(group.rule, Rule::RowwiseAdagrad { .. });
            if !place.trainable {
                return Err(Error::named("parameter", name, "it is a buffer, not trainable"));
            }
            if place.sparse != sparse_rule {
                let reason = "sparse tables, and only they, take row-wise Adagrad";
                return Err(Error::named("parameter", name, reason));
            }
            if matches!(group.rule, Rule::Muon { .. }) && place.spec.shape.len() != 2 {
                let reason = format!("Muon updates matrices, not {}", place.spec);
                return Err(Error::named("parameter", name, reason));
            }
        }
    }
    Ok(())
}
