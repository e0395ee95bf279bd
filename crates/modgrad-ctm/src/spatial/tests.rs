//! What programs cannot show: the definition stands in `modgrad-graph`, where the
//! rows of all ops compare with it.

use super::*;

fn values(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..length).map(|_| next()).collect()
}

struct Case {
    shape: Shape,
    reads: Vec<usize>,
    drive: Vec<f32>,
    weights: [Vec<f32>; 5],
}

struct Found {
    saved: [Vec<f32>; 4],
    gradients: [Vec<f32>; 6],
}

impl Case {
    fn new(shape: Shape, reads: Vec<usize>) -> Case {
        let Shape { batch, channels, memory, .. } = shape;
        let pairs = shape.pairs();
        let weights = [
            values(2, memory * channels),
            values(3, pairs * pairs).into_iter().map(|w| 0.3 * w).collect(),
            values(4, memory * pairs),
            values(5, pairs),
            values(6, pairs).into_iter().map(f32::abs).collect(),
        ];
        Case { shape, reads, drive: values(1, batch * shape.cells() * pairs), weights }
    }

    fn run(&self, threads: usize) -> Found {
        let (shape, pool) = (self.shape, Pool::new(threads));
        let [start, synapse, neuron, neuron_bias, retention] = &self.weights;
        let weights = Weights { start, synapse, neuron, neuron_bias, retention };
        let mut saved = forward::sample_sizes(shape).map(|size| vec![7.0; shape.batch * size]);
        let [readings, activations, gates, sums] = &mut saved;
        let out = Saved { readings, activations, gates, sums };
        think(&pool, shape, &self.drive, &weights, &self.reads, out);
        let mut gradients = [&self.drive, start, synapse, neuron, neuron_bias, retention]
            .map(|operand| vec![7.0; operand.len()]);
        let [readings, activations, gates, sums] = &saved;
        let read = Read { readings, activations, gates, sums };
        let [drive, start, synapse, neuron, neuron_bias, retention] = &mut gradients;
        let out = Gradients { drive, start, synapse, neuron, neuron_bias, retention };
        let dreadings = values(9, saved[0].len());
        think_gradient(&pool, shape, &self.drive, &weights, &self.reads, read, &dreadings, out);
        Found { saved, gradients }
    }
}

fn shape() -> Shape {
    Shape { batch: 5, height: 5, width: 6, channels: 32, memory: 3, kept: 7, reads: 3 }
}

#[test]
fn threads_change_nothing() {
    let case = Case::new(shape(), vec![4, 9, 9]);
    let one = case.run(1);
    for threads in [2, 3] {
        let more = case.run(threads);
        assert_eq!(one.saved, more.saved);
        assert_eq!(one.gradients, more.gradients);
    }
}

#[test]
fn a_sample_does_not_depend_on_the_others() {
    let case = Case::new(shape(), vec![4, 9, 2]);
    let all = case.run(1);
    let size = case.drive.len() / 5;
    for sample in 0..5 {
        let mut alone = Case::new(Shape { batch: 1, ..shape() }, vec![4, 9, 2]);
        alone.drive = case.drive[sample * size..][..size].to_vec();
        let found = alone.run(1);
        for (found, all) in found.saved.iter().zip(&all.saved) {
            assert_eq!(found[..], all[sample * found.len()..][..found.len()]);
        }
    }
}

/// What was kept for the gradient does not change what is read.
#[test]
fn readings_are_those_of_a_run_that_keeps_nothing() {
    let kept = Case::new(shape(), vec![4, 9, 2]).run(1);
    let mut saved = vec![0.0; kept.saved[0].len()];
    let case = Case::new(Shape { kept: 0, ..shape() }, vec![4, 9, 2]);
    let [start, synapse, neuron, neuron_bias, retention] = &case.weights;
    let weights = Weights { start, synapse, neuron, neuron_bias, retention };
    let out = Saved { readings: &mut saved, activations: &mut [], gates: &mut [], sums: &mut [] };
    think(&Pool::new(1), case.shape, &case.drive, &weights, &case.reads, out);
    assert_eq!(saved, kept.saved[0]);
}

/// A tick carries news one cell further.
#[test]
fn news_travel_one_cell_a_tick() {
    let shape = Shape { batch: 1, height: 1, width: 9, channels: 4, memory: 2, kept: 6, reads: 6 };
    let mut case = Case::new(shape, (1..=6).collect());
    let before = case.run(1);
    case.drive[..8].iter_mut().for_each(|drive| *drive += 0.5);
    let after = case.run(1);
    for tick in 1..=6 {
        let differs = (0..9).filter(|cell| {
            let at = ((tick - 1) * 9 + cell) * 8;
            before.saved[0][at..at + 8] != after.saved[0][at..at + 8]
        });
        // A reading holds what a cell hears, too: one more.
        assert_eq!(differs.max(), Some(tick.min(8)), "tick {tick}");
    }
}
