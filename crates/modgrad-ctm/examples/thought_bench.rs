//! Milliseconds of a thought and of its gradient: 256 neurons, 16 ticks, 121 tokens.
//!
//!     cargo run --release -p modgrad-ctm --example thought_bench [threads]

use std::time::Instant;

use modgrad_compute::Pool;
use modgrad_ctm::thought::{
    Gradients, Inputs, Read, Saved, Shape, Upstream, Weights, think, think_gradient,
};

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    for batch in [8, 32] {
        let shape = Shape {
            batch,
            ticks: 16,
            neurons: 256,
            width: 128,
            tokens: 121,
            heads: 4,
            memory: 16,
            hidden: 16,
            pairs: 256,
        };
        measure(&pool, shape);
    }
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 5000.0 - 0.1).collect()
}

fn measure(pool: &Pool, shape: Shape) {
    let Shape { batch, ticks, neurons, width, tokens, memory, hidden, pairs, .. } = shape;
    let rows = batch * ticks;
    let sizes = [
        batch * tokens * width,
        batch * tokens * width,
        batch * neurons,
        batch * neurons * memory,
        pairs,
        pairs * width,
        width,
        (width + neurons) * 2 * neurons,
        2 * neurons,
        neurons,
        neurons,
        memory * 2 * hidden * neurons,
        2 * hidden * neurons,
        hidden * 2 * neurons,
        2 * neurons,
    ];
    let given: Vec<Vec<f32>> = sizes.iter().map(|&size| values(size)).collect();
    let mut found = given.clone();
    let index: Vec<i32> = (0..pairs).map(|p| ((p * 37) % neurons) as i32).collect();
    let inputs = Inputs { keys: &given[0], values: &given[1], state: &given[2], trace: &given[3] };
    let weights = Weights {
        left: &index,
        right: &index,
        retention: &given[4],
        query_weight: &given[5],
        query_bias: &given[6],
        synapse_weight: &given[7],
        synapse_bias: &given[8],
        norm_weight: &given[9],
        norm_bias: &given[10],
        level1_weight: &given[11],
        level1_bias: &given[12],
        level2_weight: &given[13],
        level2_bias: &given[14],
    };
    let mut states = vec![0.0f32; rows * neurons];
    let mut trace = given[3].clone();
    let mut attended = vec![0.0f32; rows * width];
    let mut synapse = vec![0.0f32; rows * 2 * neurons];
    let mut layer = vec![0.0f32; rows * 2 * hidden * neurons];
    let forward = best(|| {
        let saved = Saved {
            states: &mut states,
            trace: &mut trace,
            attended: &mut attended,
            synapse: &mut synapse,
            hidden: &mut layer,
        };
        think(pool, shape, inputs, &weights, saved);
    });
    let dstates = values(states.len());
    let upstream = Upstream { states: &dstates, trace: &given[3] };
    let backward = best(|| {
        let read = Read { states: &states, attended: &attended, synapse: &synapse, hidden: &layer };
        let gradients = Gradients::from_parts(found.iter_mut().map(Vec::as_mut_slice));
        think_gradient(pool, shape, inputs, &weights, read, upstream, gradients);
    });
    println!(
        "batch {batch:>3}, {} threads: forward {forward:.2} ms, gradient {backward:.2} ms",
        pool.threads()
    );
}

/// The least milliseconds of thirty calls.
fn best(mut call: impl FnMut()) -> f64 {
    (0..30)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .fold(f64::INFINITY, f64::min)
}
