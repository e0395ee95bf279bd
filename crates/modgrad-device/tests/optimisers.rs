//! Updates of parameters beside the CPU's.

mod common;

use common::device;
use half::bf16;
use modgrad_compute::optimiser::{AdamW, RowwiseAdagrad, Sgd};
use modgrad_graph::backend::{Backend, Clip, Gradient, Muon, Operand, Stretch, Update};
use modgrad_graph::cpu::Cpu;
use modgrad_graph::storage::{Precision, Storage};

/// Of all buffers; the updates are of a stretch inside.
const ALL: usize = 700;

/// Parameters, their copy and two states, with gradients that change from step to step.
struct Buffers<B: Backend> {
    backend: B,
    parameter: B::Memory,
    shadow: Option<B::Memory>,
    gradient: B::Memory,
    states: [B::Memory; 2],
}

impl<B: Backend> Buffers<B> {
    fn new(backend: B, shadow: bool) -> Self {
        let filled = |seed| {
            let mut memory = backend.allocate(ALL * 4).unwrap();
            backend.write(&mut memory, 0, bytemuck::cast_slice(&values(seed))).unwrap();
            memory
        };
        let shadow = shadow.then(|| backend.allocate(ALL * 2).unwrap());
        let states = [0, 1].map(|_| backend.allocate(ALL * 4).unwrap());
        Buffers { parameter: filled(1), gradient: filled(2), shadow, states, backend }
    }

    fn step(&mut self, step: u64, stretch: Stretch, rule: Rule) {
        let Buffers { backend, parameter, shadow, gradient, states: [first, second] } = self;
        let changed = values(step + 1);
        backend.write(gradient, 0, bytemuck::cast_slice(&changed)).unwrap();
        let update = Update { stretch, parameter, shadow: shadow.as_mut(), gradient, clip: None };
        match rule {
            Rule::AdamW(rule) => backend.adamw(rule, update, first, second),
            Rule::Sgd(rule) => backend.sgd(rule, update, first),
            Rule::Muon(rule, rows, columns) => backend.muon(rule, rows, columns, update, first),
            Rule::Average(decay) => backend.average(decay, gradient, first, stretch),
        }
        .unwrap();
    }

    fn all(&self) -> Vec<f32> {
        let mut all = Vec::new();
        for memory in [&self.parameter, &self.states[0], &self.states[1]] {
            let mut values = vec![0.0f32; ALL];
            self.backend.read(memory, 0, bytemuck::cast_slice_mut(&mut values)).unwrap();
            all.extend(values);
        }
        if let Some(shadow) = &self.shadow {
            let mut values = vec![bf16::ZERO; ALL];
            self.backend.read(shadow, 0, bytemuck::cast_slice_mut(&mut values)).unwrap();
            all.extend(values.into_iter().map(bf16::to_f32));
        }
        all
    }
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    AdamW(AdamW),
    Sgd(Sgd),
    Muon(Muon, usize, usize),
    Average(f32),
}

fn values(seed: u64) -> Vec<f32> {
    let word = |index: u64| (seed * 7919 + index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..ALL as u64).map(|index| (word(index) % 2001) as f32 / 1000.0 - 1.0).collect()
}

fn assert_agree(rule: Rule, count: usize, tolerance: f32) {
    for shadow in [false, true] {
        let mut ours = Buffers::new(device(), shadow);
        let mut theirs = Buffers::new(Cpu::new(1), shadow);
        let stretch = Stretch { start: 37, count };
        for step in 1..=3 {
            let rule = match rule {
                Rule::AdamW(rule) => Rule::AdamW(AdamW { step, ..rule }),
                rule => rule,
            };
            ours.step(step, stretch, rule);
            theirs.step(step, stretch, rule);
        }
        for (place, (ours, theirs)) in ours.all().iter().zip(theirs.all()).enumerate() {
            // A copy in bf16 may be rounded the other way.
            let allowed = if place >= 3 * ALL { tolerance.max(1e-2) } else { tolerance };
            let near = (ours - theirs).abs() <= allowed;
            assert!(near, "{rule:?}, {count}: {ours} for {theirs} at {place}");
        }
    }
}

#[test]
fn updates_agree_with_the_cpus() {
    for nesterov in [false, true] {
        for count in [0, 1, 300, 600] {
            assert_agree(
                Rule::Sgd(Sgd {
                    learning_rate: 0.1,
                    momentum: 0.9,
                    nesterov,
                    weight_decay: 0.01,
                    gradient_scale: 0.5,
                }),
                count,
                1e-6,
            );
        }
        // Products of bf16 factors: a rounding of a factor shows in the sums.
        for (rows, columns) in [(1, 1), (12, 31), (33, 8), (16, 16), (0, 5)] {
            let rule = Muon {
                learning_rate: 0.1,
                momentum: 0.9,
                nesterov,
                weight_decay: 0.01,
                steps: 5,
                gradient_scale: 0.5,
            };
            assert_agree(Rule::Muon(rule, rows, columns), rows * columns, 1e-2);
        }
    }
    let rule = AdamW {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.01,
        step: 0,
        gradient_scale: 0.5,
    };
    assert_agree(Rule::AdamW(rule), 300, 1e-5);
    assert_agree(Rule::Average(0.75), 300, 1e-6);
}

/// The norm and the factor of `mean` times a gradient of dense stretches and a sparse one.
fn clip<B: Backend>(
    backend: &B,
    (values, stored): (&[f32], &[Stretch]),
    sparse: &B::SparseGradient,
    mean: f32,
    limit: f32,
) -> (f64, f32) {
    let mut flat = backend.allocate(values.len() * 4).unwrap();
    backend.write(&mut flat, 0, bytemuck::cast_slice(values)).unwrap();
    let mut into = backend.allocate(Clip::BYTES).unwrap();
    let (stored, products, sparse) = (stored.to_vec(), Vec::new(), vec![sparse]);
    let gradient = Gradient { flat: &flat, stored, products, sparse };
    backend.clip(Precision::F32, &gradient, mean, limit, &mut into).unwrap();
    let (mut norm, mut factor) = (0.0, 0.0);
    backend.read(&into, Clip::NORM, bytemuck::bytes_of_mut(&mut norm)).unwrap();
    backend.read(&into, Clip::FACTOR, bytemuck::bytes_of_mut(&mut factor)).unwrap();
    (norm, factor)
}

#[test]
fn norms_and_what_they_are_clipped_by_agree_with_the_cpus() {
    let (device, cpu) = (device(), Cpu::new(1));
    let few = values(3);
    let long: Vec<f32> = few.iter().copied().cycle().take(140_000).collect();
    let spoiled = |value| few[..300].iter().copied().chain([value]).collect::<Vec<f32>>();
    for values in [Vec::new(), few.clone(), long, spoiled(f32::NAN), spoiled(f32::INFINITY)] {
        let (middle, count) = (values.len() / 3, values.len());
        let stored = [(0, middle), (middle, 0), (middle, count - middle)]
            .map(|(start, count)| Stretch { start, count });
        let gradient = (&values[..], &stored[..]);
        for (mean, limit) in [(1.0, 0.5), (0.25, 1e4), (0.25, 0.0)] {
            let ours = clip(&device, gradient, &device.sparse_gradient(5, 3), mean, limit);
            let theirs = clip(&cpu, gradient, &cpu.sparse_gradient(5, 3), mean, limit);
            if !theirs.0.is_finite() {
                assert!(!ours.0.is_finite() && ours.1.is_nan() && theirs.1.is_nan(), "{ours:?}");
                continue;
            }
            assert!((ours.0 - theirs.0).abs() <= 1e-12 * theirs.0, "{ours:?} for {theirs:?}");
            assert!((ours.1 - theirs.1).abs() <= 1e-6 * theirs.1, "{ours:?} for {theirs:?}");
            assert_eq!(ours.1 < 1.0, theirs.0 > f64::from(limit));
        }
    }
}

/// A table after updates by gradients that came in several passes, and the norm before each.
fn sparse<B: Backend>(backend: &B) -> (Vec<f32>, Vec<f64>) {
    let (rows, width, bag, bags) = (20_000, 3, 2, 1_500);
    let mut table = backend.allocate(rows * width * 4).unwrap();
    let mut state = backend.allocate(rows * 4).unwrap();
    let mut sparse = backend.sparse_gradient(rows, width);
    let mut norms = Vec::new();
    let norm = |sparse: &B::SparseGradient| clip(backend, (&[], &[]), sparse, 1.0, 1.0).0;
    for step in 0..2u64 {
        for pass in 0..2u64 {
            let place = |index: u64| {
                let word = (index + 1000 * (step + pass)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                ((word >> 33) % if index.is_multiple_of(3) { 9 } else { rows as u64 }) as i32
            };
            let indices: Vec<i32> = (0..(bags * bag) as u64).map(place).collect();
            let values: Vec<f32> = values(step).into_iter().cycle().take(bags * width).collect();
            let mut memories =
                [indices.len() * 4, values.len() * 4].map(|bytes| backend.allocate(bytes).unwrap());
            backend.write(&mut memories[0], 0, bytemuck::cast_slice(&indices)).unwrap();
            backend.write(&mut memories[1], 0, bytemuck::cast_slice(&values)).unwrap();
            let [indices, gradient] = &memories;
            let (index_shape, shape) = ([bags, bag], [bags, width]);
            let indices =
                Operand { memory: indices, offset: 0, shape: &index_shape, storage: Storage::I32 };
            let gradient =
                Operand { memory: gradient, offset: 0, shape: &shape, storage: Storage::F32 };
            backend.sparse_accumulate(&mut sparse, bag, indices, gradient).unwrap();
            norms.push(norm(&sparse));
        }
        let rule = RowwiseAdagrad {
            learning_rate: 0.1,
            epsilon: 0.01,
            weight_decay: 0.1,
            gradient_scale: 0.5,
        };
        backend.rowwise_adagrad(rule, &mut sparse, width, &mut table, &mut state, None).unwrap();
        norms.push(norm(&sparse));
    }
    let mut all = vec![0.0f32; rows * (width + 1)];
    let (first, second) = all.split_at_mut(rows * width);
    backend.read(&table, 0, bytemuck::cast_slice_mut(first)).unwrap();
    backend.read(&state, 0, bytemuck::cast_slice_mut(second)).unwrap();
    (all, norms)
}

#[test]
fn sparse_tables_of_many_rows_agree_with_the_cpus() {
    let (ours, theirs) = (sparse(&device()), sparse(&Cpu::new(1)));
    for (ours, theirs) in ours.1.iter().zip(theirs.1) {
        assert!((ours - theirs).abs() <= 1e-5 * theirs, "{ours} for {theirs}");
    }
    for (place, (ours, theirs)) in ours.0.iter().zip(theirs.0).enumerate() {
        let near = (ours - theirs).abs() <= 1e-3 * (1e-2 + theirs.abs());
        assert!(near, "{ours} for {theirs} at {place}");
    }
}
