//! Properties of random programs.

use std::collections::BTreeMap;

use modgrad_compute::function::{BinaryFunction, GateActivation, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_graph::reference::{RunKey, run};
use modgrad_graph::{DType, Op, Program, ValueId};
use modgrad_testing::random::Random;
use proptest::prelude::*;

/// An f32 input and a byte input, and some f32 value to go on from.
fn start() -> (Program, ValueId) {
    let mut program = Program::new();
    let op = Op::Input { name: "x".into(), shape: vec![2, 3, 4], dtype: DType::F32 };
    let x = program.apply(op, &[]).unwrap();
    let op = Op::Input { name: "tokens".into(), shape: vec![2, 3], dtype: DType::U8 };
    program.apply(op, &[]).unwrap();
    (program, x)
}

/// An op that fits `x`, and the operands to give it.
fn fitting(
    program: &mut Program,
    x: ValueId,
    choice: u8,
    random: &mut Random,
) -> (Op, Vec<ValueId>) {
    let shape = program.spec(x).shape.clone();
    let rank = shape.len() as u64;
    let last = shape.last().copied().unwrap_or(0);
    let constant = |program: &mut Program, shape: &[usize]| {
        program.apply(Op::Constant { shape: shape.to_vec(), value: 0.5 }, &[]).unwrap()
    };
    let pick = |random: &mut Random, end: usize| random.below(end as u64) as usize;
    match choice % 12 {
        1 if rank > 0 => {
            let axis = random.below(rank) as usize;
            let kind = if shape[axis] == 0 { Reduction::Sum } else { Reduction::Maximum };
            (Op::Reduce { kind, axis }, vec![x])
        }
        2 if rank > 0 => {
            let axis = random.below(rank) as usize;
            let start = pick(random, shape[axis] + 1);
            let end = start + pick(random, shape[axis] - start + 1);
            (Op::Slice { axis, start, end, step: 1 + pick(random, 3) }, vec![x])
        }
        3 => {
            let mut permutation: Vec<usize> = (0..shape.len()).collect();
            permutation.rotate_left(pick(random, shape.len() + 1));
            (Op::Transpose { permutation }, vec![x])
        }
        4 => (Op::Reshape { shape: vec![shape.iter().product(), 1] }, vec![x]),
        5 if rank < 5 => {
            let repeated = [&[1 + pick(random, 2)], &shape[..]].concat();
            (Op::BroadcastTo { shape: repeated }, vec![x])
        }
        6 if rank > 0 => {
            let weight = constant(program, &[1 + pick(random, 3), last]);
            (Op::Linear, vec![x, weight])
        }
        7 if rank > 0 && last > 0 => {
            let weight = constant(program, &[last]);
            (Op::RmsNorm { epsilon: 1.0 }, vec![x, weight])
        }
        8 if rank > 0 && last % 2 == 0 => {
            (Op::GatedLinearUnit { activation: GateActivation::Silu }, vec![x])
        }
        9 if rank > 0 => (Op::Concat { axis: pick(random, shape.len()) }, vec![x, x]),
        10 if rank == 3 => {
            let weight = constant(program, &[1 + pick(random, 3), last]);
            (Op::CausalConvolution, vec![x, weight])
        }
        11 if rank >= 2 => (Op::Shift { amount: pick(random, 7) as isize - 3 }, vec![x]),
        0 => (Op::Binary { function: BinaryFunction::Multiply }, vec![x, x]),
        _ => (Op::Unary { function: UnaryFunction::Tanh }, vec![x]),
    }
}

/// Any attribute: a small number, or one that sums and products overflow with.
fn any_size(random: &mut Random) -> usize {
    match random.below(8) {
        0 => usize::MAX,
        1 => usize::MAX / 2 + 1,
        2 => 1 << 33,
        _ => random.below(5) as usize,
    }
}

/// An op with no regard for what fits.
fn any_op(random: &mut Random) -> Op {
    let mut size = || any_size(random);
    let (a, b, c, d, choice) = (size(), size(), size(), size(), size());
    match choice.wrapping_add(d.wrapping_mul(5)) % 22 {
        0 => Op::Constant { shape: vec![a, b, c], value: 1.0 },
        1 => Op::Reduce { kind: Reduction::Sum, axis: a },
        2 if b % 2 == 0 => Op::OneHotMax { axis: a },
        2 => Op::MaximumGradient { axis: a },
        3 => Op::Reshape { shape: vec![a, b] },
        4 => Op::Transpose { permutation: vec![a, b, c] },
        5 => Op::BroadcastTo { shape: vec![a, b, c] },
        6 => Op::Slice { axis: a, start: b, end: c, step: d },
        7 => Op::SliceGradient { axis: a, start: b, step: c, size: d },
        8 => Op::Concat { axis: a },
        9 => Op::Gather { axis: a },
        10 => Op::GatherGradient { axis: a, size: b },
        11 => Op::MatMul { transpose_a: a % 2 == 0, transpose_b: b % 2 == 0 },
        12 => Op::Linear,
        13 => Op::EmbeddingBag,
        14 => Op::EmbeddingGradient { rows: a, bag: b },
        15 => Op::ByteContext { length: a },
        16 => Op::CausalAttention { window: Some(a) },
        17 => Op::Rope { base: 10.0, rotated: a, inverse: false },
        18 => Op::Shift { amount: a as isize },
        19 => Op::Binary { function: BinaryFunction::Add },
        20 => Op::CrossEntropy,
        _ => Op::GatedLinearUnit { activation: GateActivation::Gelu },
    }
}

proptest! {
    #[test]
    fn chains_of_fitting_ops_verify_run_and_read_back(
        choices in prop::collection::vec(any::<u8>(), 0..12),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let (mut program, mut x) = start();
        for choice in choices {
            let (op, operands) = fitting(&mut program, x, choice, &mut random);
            let pushed = program.apply(op.clone(), &operands);
            prop_assert!(pushed.is_ok(), "{:?}: {:?}", op, pushed);
            x = pushed.unwrap();
        }
        program.set_output("y", x).unwrap();
        let read = Program::from_json(&program.to_json());
        prop_assert_eq!(read.as_ref(), Ok(&program));

        let inputs = BTreeMap::from([
            ("x".to_owned(), random.small(&[2, 3, 4]).array),
            ("tokens".to_owned(), random.text(&[2, 3]).array),
        ]);
        let values = run(&program, &inputs, &BTreeMap::new(), RunKey::default()).unwrap();
        for (value, array) in values.iter().enumerate() {
            prop_assert_eq!(&program.spec(value).shape, &array.shape);
        }
    }

}

proptest! {
    // Most of these ops are refused at once, so many are tried.
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever is asked for, the answer is a program or an error in words.
    #[test]
    fn ops_that_may_not_fit_never_panic(seed in any::<u64>(), length in 0usize..40) {
        let mut random = Random(seed);
        let (mut program, _) = start();
        let op = Op::Input { name: "indices".into(), shape: vec![3], dtype: DType::I32 };
        program.apply(op, &[]).unwrap();
        for _ in 0..length {
            let op = any_op(&mut random);
            let operands: Vec<ValueId> = (0..random.below(4))
                .map(|_| random.below(program.values() as u64 + 1) as usize)
                .collect();
            if let Err(error) = program.push(op, &operands) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        prop_assert_eq!(Program::from_json(&program.to_json()), Ok(program));
    }
}
