//! Milliseconds of a thought and of its gradient: 256 neurons, 16 ticks, 121 tokens,
//! and a small region of a larger graph.
//!
//!     cargo run --release -p modgrad-ctm --example thought_bench [threads [which]]

use std::time::Instant;

use modgrad_compute::Pool;
use modgrad_ctm::thought::{
    Gradients, Inputs, Layer, Projections, Read, Saved, Shape, Upstream, Weights, think,
    think_gradient,
};

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    let machine = Shape {
        batch: 8,
        ticks: 16,
        neurons: 256,
        width: 128,
        tokens: 121,
        heads: 4,
        memory: 16,
        hidden: 16,
        pairs: 256,
        projected: true,
    };
    let region = Shape {
        ticks: 4,
        neurons: 32,
        width: 32,
        tokens: 1,
        heads: 1,
        memory: 8,
        hidden: 4,
        pairs: 0,
        projected: false,
        ..machine
    };
    let which: Option<usize> = std::env::args().nth(2).and_then(|text| text.parse().ok());
    let shapes = [machine, Shape { batch: 32, ..machine }, region];
    for (index, shape) in shapes.into_iter().enumerate() {
        if which.is_none_or(|which| which == index) {
            measure(&pool, shape);
        }
    }
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 5000.0 - 0.1).collect()
}

fn measure(pool: &Pool, shape: Shape) {
    let Shape { batch, ticks, neurons, width, tokens, heads, memory, pairs, .. } = shape;
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
        memory * shape.outputs() * neurons,
        shape.outputs() * neurons,
        shape.hidden * 2 * neurons,
        2 * neurons,
        width * width,
        width,
        width * width,
        width,
        2,
    ];
    let given: Vec<Vec<f32>> = sizes.iter().map(|&size| values(size)).collect();
    let mut found = given.clone();
    let index: Vec<i32> = (0..pairs).map(|p| ((p * 37) % neurons) as i32).collect();
    let inputs = Inputs { keys: &given[0], values: &given[1], state: &given[2], trace: &given[3] };
    let synapse = [Layer {
        weight: &given[7],
        bias: &given[8],
        norm_weight: &given[9],
        norm_bias: &given[10],
        skip: None,
    }];
    let weights = Weights {
        left: &index,
        right: &index,
        retention: &given[4],
        query_weight: &given[5],
        query_bias: &given[6],
        projections: shape.projected.then(|| Projections {
            query_weight: &given[15],
            query_bias: &given[16],
            read_weight: &given[17],
            read_bias: &given[18],
            temperatures: &given[19],
        }),
        synapse: &synapse,
        level1_weight: &given[11],
        level1_bias: &given[12],
        level2_weight: &given[13],
        level2_bias: &given[14],
    };
    let mut kept = [
        rows * neurons,
        batch * neurons * memory,
        rows * shape.kept_width(),
        rows * shape.kept_width(),
        rows * heads * tokens,
        rows * 2 * neurons,
    ]
    .map(|size| vec![0.0f32; size]);
    let forward = best(|| {
        let [states, trace, attended, query, attention, synapse] = &mut kept;
        let saved = Saved { states, trace, attended, query, attention, synapse };
        think(pool, shape, inputs, &weights, saved);
    });
    let dstates = values(rows * neurons);
    let upstream = Upstream { states: &dstates, trace: &given[3] };
    let backward = best(|| {
        let [states, _, attended, query, attention, synapse] = &kept;
        let read = Read { states, attended, query, attention, synapse };
        let gradients = Gradients::from_parts(shape, 1, found.iter_mut().map(Vec::as_mut_slice));
        think_gradient(pool, shape, inputs, &weights, read, upstream, gradients);
    });
    println!(
        "{neurons} neurons, batch {batch}, {} threads: forward {forward:.3} ms, gradient \
         {backward:.3} ms",
        pool.threads()
    );
}

/// The least milliseconds of a hundred calls.
fn best(mut call: impl FnMut()) -> f64 {
    (0..100)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .fold(f64::INFINITY, f64::min)
}
