//! Ops with indices beside the CPU's: long lists, indices outside their table, and masks
//! and sums that must not differ in a bit.

mod common;

use common::device;
use modgrad_graph::backend::Backend;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::Executor;
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use modgrad_graph::tensor::Data;
use modgrad_graph::{Op, Program, Result, Tensor};

/// The first output of `op` on `operands`.
fn outcome<B: Backend>(backend: B, op: &Op, operands: &[Tensor]) -> Result<Tensor> {
    let mut program = Program::new();
    let names: Vec<String> = (0..operands.len()).map(|index| format!("x{index}")).collect();
    let mut values = Vec::new();
    for (name, tensor) in names.iter().zip(operands) {
        let (name, shape) = (name.clone(), tensor.shape().to_vec());
        let input = Op::Input { name, shape, dtype: tensor.dtype() };
        values.push(program.apply(input, &[]).unwrap());
    }
    let outputs = program.push(op.clone(), &values).unwrap();
    program.set_output("y", outputs[0]).unwrap();
    let mut executor = Executor::new(backend, &program, &["y"], Precision::F32)?;
    let views: Vec<_> =
        names.iter().map(String::as_str).zip(operands.iter().map(Into::into)).collect();
    executor.run(&views, RunKey { seed: 3, step: 70 })?;
    executor.output("y")
}

/// Pseudo-random words.
fn words(count: usize, seed: u64) -> Vec<u64> {
    (0..count as u64)
        .map(|index| (seed + index).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .map(|word| (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20)
        .collect()
}

fn floats(shape: &[usize], seed: u64) -> Tensor {
    let count = shape.iter().product();
    let values = words(count, seed).into_iter().map(|word| (word % 4001) as f32 / 2000.0 - 1.0);
    Tensor::f32(shape.to_vec(), values.collect()).unwrap()
}

/// Indices below `bound`, half of them below a tenth of it.
fn indices(shape: &[usize], bound: usize, seed: u64) -> Tensor {
    let count = shape.iter().product();
    let skewed = |word: u64| match word % 2 {
        0 => (word >> 1) % (bound as u64).div_ceil(10),
        _ => (word >> 1) % bound as u64,
    };
    let values = words(count, seed).into_iter().map(|word| skewed(word) as i32);
    Tensor::new(shape.to_vec(), Data::I32(values.collect())).unwrap()
}

fn bytes(shape: &[usize], seed: u64) -> Tensor {
    let count = shape.iter().product();
    let values = words(count, seed).into_iter().map(|word| word as u8);
    Tensor::new(shape.to_vec(), Data::U8(values.collect())).unwrap()
}

fn assert_near(op: &Op, ours: &Tensor, theirs: &Tensor) {
    let (ours, theirs) = (ours.as_f32().unwrap(), theirs.as_f32().unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let near = (ours - theirs).abs() <= 1e-4 * (1.0 + theirs.abs());
        assert!(near, "{op:?}: {ours} for {theirs}");
    }
}

#[test]
fn sums_over_long_lists_of_indices_agree_and_repeat_to_the_bit() {
    let device = device();
    let cases = [
        (1, 9_000, 1, 1),
        (3, 5_000, 2, 1),
        (300, 10_001, 5, 1),
        (5_000, 8_200, 3, 2),
        (70_000, 6_000, 1, 4),
    ];
    for (rows, taken, width, bag) in cases {
        let op = Op::EmbeddingGradient { rows, bag };
        let operands = [indices(&[taken, bag], rows, 1), floats(&[taken, width], 2)];
        let operands =
            if bag == 1 { [indices(&[taken], rows, 1), operands[1].clone()] } else { operands };
        let ours = outcome(device.clone(), &op, &operands).unwrap();
        assert_near(&op, &ours, &outcome(Cpu::new(1), &op, &operands).unwrap());
        // Blocks and threads of some launches now run in the opposite order.
        for _ in 0..3 {
            assert_eq!(ours, outcome(device.clone(), &op, &operands).unwrap(), "{op:?}");
        }
    }
    let op = Op::GatherGradient { axis: 1, size: 20 };
    let operands = [bytes_below(&[4_500], 20), floats(&[2, 4_500, 3], 4)];
    let ours = outcome(device, &op, &operands).unwrap();
    assert_near(&op, &ours, &outcome(Cpu::new(1), &op, &operands).unwrap());
}

fn bytes_below(shape: &[usize], bound: u8) -> Tensor {
    let count = shape.iter().product();
    let values = words(count, 5).into_iter().map(|word| (word % u64::from(bound)) as u8);
    Tensor::new(shape.to_vec(), Data::U8(values.collect())).unwrap()
}

/// Ops with operands of which one holds indices, and how many it may name.
fn with_indices(indices: &Tensor) -> Vec<(Op, Vec<Tensor>)> {
    let count = indices.shape()[0];
    let logits = floats(&[count, 6], 1);
    let each = floats(&[count], 2);
    let (bagged, dy) = (indices.clone(), floats(&[count, 3], 4));
    vec![
        (Op::Gather { axis: 0 }, vec![floats(&[6, 3], 5), indices.clone()]),
        (Op::Gather { axis: 0 }, vec![floats(&[6, 0], 5), indices.clone()]),
        (Op::GatherGradient { axis: 0, size: 6 }, vec![indices.clone(), dy.clone()]),
        (Op::GatherGradient { axis: 0, size: 6 }, vec![indices.clone(), floats(&[count, 0], 4)]),
        (Op::CrossEntropy, vec![logits.clone(), indices.clone()]),
        (Op::CrossEntropyGradient, vec![logits, indices.clone(), each.clone(), each]),
        (Op::Embedding, vec![floats(&[6, 3], 6), indices.clone()]),
        (Op::EmbeddingBag, vec![floats(&[6, 3], 6), bagged]),
        (Op::EmbeddingGradient { rows: 6, bag: 1 }, vec![indices.clone(), dy]),
    ]
}

#[test]
fn an_index_outside_its_table_is_the_same_error_as_on_the_cpu() {
    let device = device();
    let good = vec![0, 5, 2, 2, 1];
    for bad in [vec![6], vec![-1], vec![i32::MIN], vec![i32::MAX, 6], vec![7, -3, -2, 9]] {
        let mut values = good.clone();
        values.extend(bad);
        let tensor = Tensor::new([values.len()], Data::I32(values)).unwrap();
        for (op, operands) in with_indices(&tensor) {
            let theirs = outcome(Cpu::new(1), &op, &operands).unwrap_err();
            let ours = outcome(device.clone(), &op, &operands);
            assert_eq!(ours, Err(theirs), "{op:?}");
        }
    }
    let tensor = Tensor::new([3], Data::U8(vec![1, 200, 6])).unwrap();
    for (op, operands) in with_indices(&tensor) {
        let theirs = outcome(Cpu::new(1), &op, &operands).unwrap_err();
        assert_eq!(outcome(device.clone(), &op, &operands), Err(theirs), "{op:?}");
    }
    // The device goes on afterwards.
    for (op, operands) in with_indices(&Tensor::new([5], Data::I32(good)).unwrap()) {
        outcome(device.clone(), &op, &operands).unwrap();
    }
}

#[test]
fn an_entry_that_is_no_byte_is_refused() {
    let device = device();
    let rows = |entries: Vec<i32>| {
        let entries = Tensor::new([2, 2], Data::I32(entries)).unwrap();
        let (each, differences) = (floats(&[2, 1], 2), floats(&[2, 1, 2], 3));
        let (base, dout) = (floats(&[2, 256], 4), floats(&[2, 256], 5));
        let mixed = [&dout, &each, &base, &entries, &differences, &each].map(Clone::clone);
        let gradient = [base, entries, differences, each, dout];
        [(Op::MixRows, mixed.to_vec()), (Op::MixRowsGradient, gradient.to_vec())]
    };
    for bad in [256, -1] {
        for (op, operands) in rows(vec![0, 255, bad, 7]) {
            let error = outcome(device.clone(), &op, &operands).unwrap_err().to_string();
            assert!(error.contains("from 0 to 255") && error.contains(&bad.to_string()), "{error}");
        }
    }
    // An entry may come more than once.
    for (op, operands) in rows(vec![9, 9, 255, 0]) {
        let ours = outcome(device.clone(), &op, &operands).unwrap();
        assert_near(&op, &ours, &outcome(Cpu::new(1), &op, &operands).unwrap());
    }
}

#[test]
fn dropout_and_gathering_agree_to_the_bit() {
    let device = device();
    for probability in [0.0, 0.1, 0.5, 0.999] {
        let op = Op::Dropout { probability, stream: 9 };
        let operands = [floats(&[3001], 7)];
        let theirs = outcome(Cpu::new(1), &op, &operands).unwrap();
        assert_eq!(outcome(device.clone(), &op, &operands).unwrap(), theirs, "{probability}");
    }
    let op = Op::Embedding;
    let operands = [floats(&[256, 9], 8), bytes(&[40, 7], 9)];
    let theirs = outcome(Cpu::new(1), &op, &operands).unwrap();
    assert_eq!(outcome(device, &op, &operands).unwrap(), theirs);
}
