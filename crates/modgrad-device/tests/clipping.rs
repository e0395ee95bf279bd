//! Training whose gradient is clipped on the device, under every rule: beside the CPU's, and
//! where the gradient is not finite.

mod common;

use common::device;
use modgrad_compute::function::{BinaryFunction, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_graph::backend::Backend;
use modgrad_graph::cpu::Cpu;
use modgrad_graph::storage::Precision;
use modgrad_graph::tensor::{DType, Data, Tensor};
use modgrad_graph::training::{Group, Rule, Settings, Training};
use modgrad_graph::{Error, Op, Program, Result};
use modgrad_testing::random::Random;

const TOKENS: usize = 29;
/// Name, shape and whether sparse.
const PARAMETERS: [(&str, &[usize], bool); 5] = [
    ("table", &[256, 12], true),
    ("up", &[20, 12], false),
    ("middle", &[14, 20], false),
    ("down", &[256, 14], false),
    ("root", &[12], false),
];

/// The cross-entropy of three layers over a sparse table, and the mean of √(z·root): with
/// z = 0 it is 0, and its gradient 0/0.
fn program() -> Program {
    let mut program = Program::new();
    let mut apply = |op, operands: &[usize]| program.apply(op, operands).unwrap();
    let mut input = |name: &str, shape, dtype| {
        apply(Op::Input { name: name.into(), shape: vec![shape], dtype }, &[])
    };
    let tokens = input("tokens", TOKENS, DType::U8);
    let targets = input("targets", TOKENS, DType::U8);
    let z = input("z", 12, DType::F32);
    let [table, up, middle, down, root] = PARAMETERS.map(|(name, shape, sparse)| {
        let (name, shape) = (name.into(), shape.to_vec());
        apply(Op::Parameter { name, shape, dtype: DType::F32, trainable: true, sparse }, &[])
    });
    let mut x = apply(Op::Embedding, &[table, tokens]);
    for weight in [up, middle] {
        x = apply(Op::Linear, &[x, weight]);
        x = apply(Op::Unary { function: UnaryFunction::Tanh }, &[x]);
    }
    let logits = apply(Op::Linear, &[x, down]);
    let losses = apply(Op::CrossEntropy, &[logits, targets]);
    let product = apply(Op::Binary { function: BinaryFunction::Multiply }, &[z, root]);
    let roots = apply(Op::Unary { function: UnaryFunction::Sqrt }, &[product]);
    let means = [losses, roots].map(|x| apply(Op::Reduce { kind: Reduction::Mean, axis: 0 }, &[x]));
    let loss = apply(Op::Binary { function: BinaryFunction::Add }, &means);
    program.set_output("loss", loss).unwrap();
    program
}

fn training<B: Backend>(backend: B, precision: Precision, limit: f32) -> Training<B> {
    let adamw = Rule::AdamW {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        // Beside gradients of about this size, their scale shows.
        epsilon: 1e-3,
        weight_decay: 0.1,
    };
    let sgd = Rule::Sgd { learning_rate: 0.5, momentum: 0.9, nesterov: true, weight_decay: 0.01 };
    let muon = Rule::Muon {
        learning_rate: 0.02,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.1,
        steps: 5,
    };
    let adagrad = Rule::RowwiseAdagrad { learning_rate: 0.05, epsilon: 1e-3, weight_decay: 0.1 };
    let group = |rule, names: &[&str]| Group {
        rule,
        parameters: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let settings = Settings {
        loss: "loss".into(),
        watch: Vec::new(),
        groups: vec![
            group(adamw, &["down", "root"]),
            group(sgd, &["middle"]),
            group(muon, &["up"]),
            group(adagrad, &["table"]),
        ],
        precision,
        clip_norm: Some(limit),
        seed: 1,
    };
    let mut training = Training::new(backend, &program(), settings).unwrap();
    let mut random = Random(3);
    for (name, shape, _) in PARAMETERS {
        let mut array = random.small(shape).array;
        let root = name == "root";
        array.data.iter_mut().for_each(|x| *x = if root { 0.1 + x.abs() } else { *x / 2.0 });
        let tensor = array.to_tensor(DType::F32).unwrap();
        training.executor_mut().set_parameter(name, (&tensor).into()).unwrap();
    }
    training
}

/// A pass over data of its own; without a `finite` gradient its loss is finite all the same.
fn pass<B: Backend>(training: &mut Training<B>, data: u8, finite: bool) -> Result<f32> {
    let bytes = |by: usize| Data::U8((0..TOKENS).map(|at| (at * by) as u8 ^ data).collect());
    let tokens = Tensor::new([TOKENS], bytes(3)).unwrap();
    let targets = Tensor::new([TOKENS], bytes(5)).unwrap();
    let z = Tensor::f32([12], vec![if finite { 1.0 } else { 0.0 }; 12]).unwrap();
    let inputs = [("tokens", &tokens), ("targets", &targets), ("z", &z)];
    training.backward(&inputs.map(|(name, tensor)| (name, tensor.into())))
}

/// Moments, accumulators and weights by name.
fn contents<B: Backend>(training: &Training<B>) -> Vec<(String, Tensor)> {
    let mut all = training.state().unwrap();
    all.extend(training.parameters(false).unwrap());
    all
}

#[test]
fn clipped_updates_agree_with_the_cpus() {
    // A limit that clips every step, and one that none comes to.
    for (limit, clips) in [(0.05, true), (100.0, false)] {
        // Muon multiplies factors in bf16: of sums in another order some are rounded otherwise.
        for (precision, tolerance) in [(Precision::F32, 2e-3), (Precision::Bf16, 2e-2)] {
            let mut ours = training(device(), precision, limit);
            let mut theirs = training(Cpu::new(1), precision, limit);
            for step in 0..4 {
                for data in 0..=step % 2 {
                    pass(&mut ours, 2 * step + data, true).unwrap();
                    pass(&mut theirs, 2 * step + data, true).unwrap();
                }
                ours.update(1.0).unwrap();
                theirs.update(1.0).unwrap();
                let norms = [ours.gradient_norm(), theirs.gradient_norm()];
                let [ours, theirs] = norms.map(|norm| norm.unwrap().unwrap());
                assert!((ours / theirs - 1.0).abs() < tolerance, "{ours} for {theirs}");
                assert_eq!(theirs > f64::from(limit), clips, "{theirs}");
            }
            for ((name, ours), (_, theirs)) in contents(&ours).iter().zip(&contents(&theirs)) {
                let (ours, theirs) = (ours.as_f32().unwrap(), theirs.as_f32().unwrap());
                let length = |values: &mut dyn Iterator<Item = f32>| {
                    values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
                };
                let off = length(&mut ours.iter().zip(theirs).map(|(x, y)| x - y));
                let whole = length(&mut theirs.iter().copied());
                assert!(off <= tolerance * whole, "{precision:?} `{name}`: {off} of {whole}");
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_is_told_with_the_next_loss() {
    for precision in [Precision::F32, Precision::Bf16] {
        let [mut ours, mut spared] = [0; 2].map(|_| training(device(), precision, 0.05));
        for training in [&mut ours, &mut spared] {
            pass(training, 1, true).unwrap();
            training.update(1.0).unwrap();
            pass(training, 2, true).unwrap();
            training.update(1.0).unwrap();
        }
        pass(&mut ours, 3, false).unwrap();
        ours.update(1.0).unwrap();
        // Nothing is given away before the host was told,
        let told = Error::NonFinite { subject: "the gradient at step 2".into() };
        assert_eq!(ours.gradient_norm().unwrap_err(), told);
        assert_eq!(ours.state().unwrap_err(), told);
        assert_eq!(ours.parameters(true).unwrap_err(), told);
        assert_eq!(pass(&mut ours, 4, true).unwrap_err(), told);
        // and then it is what it was,
        assert_eq!(ours.step(), 2);
        assert_eq!(contents(&ours), contents(&spared));
        // also that pass, which no row of the refused gradient is left in.
        pass(&mut spared, 4, true).unwrap();
        for training in [&mut ours, &mut spared] {
            training.update(1.0).unwrap();
            pass(training, 5, true).unwrap();
        }
        assert_eq!(contents(&ours), contents(&spared));
    }
}

#[test]
fn on_the_cpu_it_is_the_updates_own_error() {
    let mut training = training(Cpu::new(1), Precision::F32, 0.05);
    pass(&mut training, 1, true).unwrap();
    training.update(1.0).unwrap();
    let before = contents(&training);
    pass(&mut training, 2, false).unwrap();
    let told = Error::NonFinite { subject: "the gradient at step 1".into() };
    assert_eq!(training.update(1.0).unwrap_err(), told);
    assert_eq!(training.step(), 1);
    assert_eq!(contents(&training), before);
}
