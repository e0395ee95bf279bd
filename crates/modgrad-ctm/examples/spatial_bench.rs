//! Times the ticks of thoughts on a lattice: `cargo run --release -p modgrad-ctm
//! --example spatial_bench -- THREADS TICKS SIDE BATCH`.

use std::time::Instant;

use modgrad_compute::Pool;
use modgrad_ctm::spatial::{Gradients, Read, Saved, Shape, Weights, think, think_gradient};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("a number"));
    let mut next = |otherwise: usize| arguments.next().unwrap_or(otherwise);
    let (threads, ticks, side, batch) = (next(1), next(64), next(10), next(32));
    let shape =
        Shape { batch, height: side, width: side, channels: 32, memory: 4, kept: ticks, reads: 2 };
    let (cells, pairs, pool) = (side * side, 64, Pool::new(threads));
    let values = |length: usize, size: f32| -> Vec<f32> {
        (0..length).map(|at| ((at * 7919) % 1013) as f32 / 1013.0 * size - 0.5 * size).collect()
    };
    let drive = values(batch * cells * pairs, 1.0);
    let (start, synapse, neuron) = (values(128, 0.0), values(pairs * pairs, 0.3), values(256, 1.0));
    let (neuron_bias, retention) = (values(pairs, 0.1), vec![0.5; pairs]);
    let weights = Weights {
        start: &start,
        synapse: &synapse,
        neuron: &neuron,
        neuron_bias: &neuron_bias,
        retention: &retention,
    };
    let mut readings = vec![0.0; 2 * drive.len()];
    let mut activations = vec![0.0; (ticks + 4) * drive.len() / 2];
    let mut gates = vec![0.0; ticks * drive.len()];
    let mut sums = vec![0.0; drive.len()];
    let mut gradients = [&drive, &start, &synapse, &neuron, &neuron_bias, &retention]
        .map(|operand| vec![0.0; operand.len()]);
    let dreadings = values(readings.len(), 1.0);
    let reads = [ticks / 2, ticks];
    for _ in 0..3 {
        let clock = Instant::now();
        let saved = Saved {
            readings: &mut readings,
            activations: &mut activations,
            gates: &mut gates,
            sums: &mut sums,
        };
        think(&pool, shape, &drive, &weights, &reads, saved);
        let forward = clock.elapsed();
        let read =
            Read { readings: &readings, activations: &activations, gates: &gates, sums: &sums };
        let [drive_out, start, synapse, neuron, neuron_bias, retention] = &mut gradients;
        let out = Gradients { drive: drive_out, start, synapse, neuron, neuron_bias, retention };
        think_gradient(&pool, shape, &drive, &weights, &reads, read, &dreadings, out);
        let both = clock.elapsed();
        let each = 1e6 / (batch * ticks) as f64;
        println!(
            "forward {:.2} µs, backward {:.2} µs a tick and sample",
            forward.as_secs_f64() * each,
            (both - forward).as_secs_f64() * each
        );
    }
}
