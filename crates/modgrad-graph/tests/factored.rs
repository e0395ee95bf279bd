//! Gradients left as factors, against the same gradients formed and stored.
//!
//! Two passes over the same data store the mean of twice the gradient that one pass
//! leaves as factors.

use modgrad_compute::function::UnaryFunction;
use modgrad_compute::reduce::Reduction;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::reference::Array;
use modgrad_graph::storage::Precision;
use modgrad_graph::training::{Group, Rule, Settings, Training};
use modgrad_graph::{DType, Op, Program, Tensor, ValueId};
use modgrad_testing::random::Random;

const POSITIONS: usize = 37;
/// Name, rows, columns. The first two are large enough to be left as factors.
const WEIGHTS: [(&str, usize, usize); 4] =
    [("up", 250, 131), ("down", 131, 250), ("tied", 131, 131), ("narrow", 5, 131)];

fn parameter(program: &mut Program, name: &str, rows: usize, columns: usize) -> ValueId {
    let shape = vec![rows, columns];
    let op = Op::Parameter {
        name: name.into(),
        shape,
        dtype: DType::F32,
        trainable: true,
        sparse: false,
    };
    program.push(op, &[]).unwrap()[0]
}

/// A network with two matrices of one use, one of two uses and a small one.
fn program() -> Program {
    let mut program = Program::new();
    let shape = vec![POSITIONS, 131];
    let op = Op::Input { name: "x".into(), shape, dtype: DType::F32 };
    let mut x = program.push(op, &[]).unwrap()[0];
    let weights = WEIGHTS.map(|(name, rows, columns)| parameter(&mut program, name, rows, columns));
    let [up, down, tied, narrow] = weights;
    let tanh = || Op::Unary { function: UnaryFunction::Tanh };
    for weight in [up, down, tied, tied, narrow] {
        x = program.push(Op::Linear, &[x, weight]).unwrap()[0];
        x = program.push(tanh(), &[x]).unwrap()[0];
    }
    for _ in 0..2 {
        x = program.push(Op::Reduce { kind: Reduction::Sum, axis: 0 }, &[x]).unwrap()[0];
    }
    program.set_output("loss", x).unwrap();
    program
}

/// A run over `program` with `passes` passes a step, three steps: all weights, and the norms.
fn train(
    precision: Precision,
    threads: usize,
    clip_norm: Option<f32>,
    passes: usize,
) -> (Vec<f32>, Vec<f64>) {
    let rule = Rule::AdamW {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    let parameters = WEIGHTS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let settings = Settings {
        loss: "loss".into(),
        watch: Vec::new(),
        groups: vec![Group { rule, parameters }],
        precision,
        clip_norm,
        seed: 0,
    };
    let mut training = Training::new(Cpu::new(threads), &program(), settings).unwrap();
    let left: Vec<usize> =
        training.executor().plan().factored.iter().map(|left| left.stretch.count).collect();
    assert_eq!(left, [250 * 131, 131 * 250], "which gradients are left as factors");
    let mut random = Random(1);
    for (name, rows, columns) in WEIGHTS {
        let mut value = random.small(&[rows, columns]).array;
        value.data.iter_mut().for_each(|x| *x /= 8.0);
        let tensor = value.to_tensor(DType::F32).unwrap();
        training.executor_mut().set_parameter(name, (&tensor).into()).unwrap();
    }
    let mut norms = Vec::new();
    for _ in 0..3 {
        let x: Tensor = random.small(&[POSITIONS, 131]).array.to_tensor(DType::F32).unwrap();
        for _ in 0..passes {
            training.backward(&[("x", (&x).into())]).unwrap();
        }
        training.update(1.0).unwrap();
        norms.extend(training.gradient_norm().unwrap());
    }
    let read = |name: &str| Array::from(&training.executor().parameter(name).unwrap()).data;
    let weights = WEIGHTS.iter().flat_map(|(name, ..)| read(name));
    (weights.map(|x| x as f32).collect(), norms)
}

fn largest_difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn updates_by_factors_are_those_by_the_stored_gradient() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (stored, _) = train(precision, 1, None, 2);
        let (factored, _) = train(precision, 1, None, 1);
        // Of 0.03 that three steps may move a weight.
        let apart = largest_difference(&factored, &stored);
        assert!(apart < 1e-4, "{precision:?}: {apart}");
        for threads in [2, 3] {
            let (again, _) = train(precision, threads, None, 1);
            assert!(again == factored, "{precision:?}: {threads} threads change the result");
        }
    }
}

#[test]
fn the_norm_of_factors_is_that_of_the_stored_gradient() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (stored, norms) = train(precision, 2, Some(0.01), 2);
        let (factored, factored_norms) = train(precision, 2, Some(0.01), 1);
        assert_eq!(norms.len(), 3);
        for (factored, stored) in factored_norms.iter().zip(&norms) {
            assert!((factored / stored - 1.0).abs() < 1e-5, "{factored} is not {stored}");
        }
        let apart = largest_difference(&factored, &stored);
        assert!(apart < 1e-4, "{precision:?}: {apart}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_found_in_its_factors() {
    let (_, norms) = train(Precision::F32, 1, Some(1.0), 1);
    assert!(norms.iter().all(|norm| norm.is_finite()));
    let pool = modgrad_compute::Pool::new(2);
    let wide = |value: f32| (vec![value; 20 * 3], vec![1.0f32; 3 * 20]);
    for value in [f32::NAN, f32::INFINITY] {
        let (left, right) = wide(value);
        let left = modgrad_compute::gemm::Matrix::f32(&left, 20, 3);
        let right = modgrad_compute::gemm::Matrix::f32(&right, 3, 20);
        let sum = modgrad_compute::optimiser::sum_of_squares_of_products(
            &pool,
            modgrad_compute::gemm::Precision::F32,
            &[(left, right)],
        );
        assert!(!sum.is_finite());
    }
}
