//! What crosses between host and device in a step of training: its inputs go up; the note on
//! indices, the loss and the norm of the gradient before come down; nothing else moves.

use std::sync::{Arc, Mutex};

use modgrad_compute::function::BinaryFunction;
use modgrad_compute::reduce::Reduction;
use modgrad_device::Device;
use modgrad_device::driver::{
    Address, Argument, Description, Driver, Function, Module, Product, Shape,
};
use modgrad_device::emulated::Emulated;
use modgrad_device::source::Source;
use modgrad_ffn::NgramHash;
use modgrad_graph::storage::Precision;
use modgrad_graph::tensor::{DType, Data, Tensor};
use modgrad_graph::training::{Group, Rule, Settings, Training};
use modgrad_graph::{Op, Program, Result};

/// Which way, and how many bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moved {
    Up(usize),
    Down(usize),
    /// Waited for the device, or asked it for memory.
    Waited,
    Allocated,
}

/// The emulated device, with a list of what was asked of it.
struct Watched {
    inner: Emulated,
    moved: Arc<Mutex<Vec<Moved>>>,
}

impl Watched {
    fn note(&self, moved: Moved) {
        self.moved.lock().unwrap().push(moved);
    }
}

impl Driver for Watched {
    fn describe(&self) -> Result<Description> {
        self.inner.describe()
    }
    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.note(Moved::Allocated);
        self.inner.allocate(bytes)
    }
    fn free(&self, address: Address) {
        self.inner.free(address);
    }
    fn copy_in(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.note(Moved::Up(bytes.len()));
        self.inner.copy_in(to, bytes)
    }
    fn copy_out(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.note(Moved::Down(bytes.len()));
        self.inner.copy_out(from, bytes)
    }
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.inner.copy(from, to, bytes)
    }
    fn set(&self, address: Address, byte: u8, bytes: usize) -> Result<()> {
        self.inner.set(address, byte, bytes)
    }
    fn poisons(&self) -> bool {
        self.inner.poisons()
    }
    fn load(&self, source: &Source) -> Result<Module> {
        self.inner.load(source)
    }
    fn function(&self, module: Module, name: &str) -> Result<Function> {
        self.inner.function(module, name)
    }
    fn launch(&self, function: Function, shape: Shape, arguments: &[Argument]) -> Result<()> {
        self.inner.launch(function, shape, arguments)
    }
    fn product(&self, product: &Product) -> Result<()> {
        self.inner.product(product)
    }
    fn synchronise(&self) -> Result<()> {
        self.note(Moved::Waited);
        self.inner.synchronise()
    }
}

const TOKENS: usize = 37;
const WIDTH: usize = 24;

/// A table of hashed pairs (sparse) and one of bytes (dense), a layer, and the cross-entropy.
fn program() -> Program {
    let mut program = Program::new();
    let input =
        |name: &str| Op::Input { name: name.into(), shape: vec![1, TOKENS], dtype: DType::U8 };
    let parameter = |name: &str, rows: usize, sparse| Op::Parameter {
        name: name.into(),
        shape: vec![rows, WIDTH],
        dtype: DType::F32,
        trainable: true,
        sparse,
    };
    let mut apply = |op, operands: &[usize]| program.apply(op, operands).unwrap();
    let (tokens, targets) = (apply(input("tokens"), &[]), apply(input("targets"), &[]));
    let bytes = apply(parameter("bytes", 256, false), &[]);
    let pairs = apply(parameter("pairs", 512, true), &[]);
    let head = apply(parameter("head", 256, false), &[]);
    let slots = apply(
        Op::NgramHash { hash: NgramHash { orders: vec![2, 3], rows: 256, seed: 5 } },
        &[tokens],
    );
    let x = apply(Op::Embedding, &[bytes, tokens]);
    let y = apply(Op::EmbeddingBag, &[pairs, slots]);
    let sum = Op::Binary { function: BinaryFunction::Add };
    let x = apply(sum, &[x, y]);
    let x = apply(Op::Dropout { probability: 0.1, stream: 3 }, &[x]);
    let logits = apply(Op::Linear, &[x, head]);
    let losses = apply(Op::CrossEntropy, &[logits, targets]);
    let loss = apply(Op::Reduce { kind: Reduction::Mean, axis: 1 }, &[losses]);
    let loss = apply(Op::Reduce { kind: Reduction::Mean, axis: 0 }, &[loss]);
    program.set_output("loss", loss).unwrap();
    program
}

fn traffic(precision: Precision, clip_norm: Option<f32>) -> Vec<Vec<Moved>> {
    let moved = Arc::new(Mutex::new(Vec::new()));
    let driver = Watched { inner: Emulated::new().unwrap(), moved: moved.clone() };
    let device = Device::new(Arc::new(driver)).unwrap();
    let adamw = Rule::AdamW {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    let muon = Rule::Muon {
        learning_rate: 1e-2,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.1,
        steps: 5,
    };
    let adagrad = Rule::RowwiseAdagrad { learning_rate: 0.1, epsilon: 1e-8, weight_decay: 0.0 };
    let settings = Settings {
        loss: "loss".into(),
        watch: Vec::new(),
        groups: vec![
            Group { rule: adamw, parameters: vec!["bytes".into()] },
            Group { rule: muon, parameters: vec!["head".into()] },
            Group { rule: adagrad, parameters: vec!["pairs".into()] },
        ],
        precision,
        clip_norm,
        seed: 1,
    };
    let mut training = Training::new(device, &program(), settings).unwrap();
    let mut steps = Vec::new();
    for step in 0..4u8 {
        let data = |by| Data::U8((0..TOKENS).map(|at| (at * by) as u8 + step).collect());
        let tokens = Tensor::new([1, TOKENS], data(3)).unwrap();
        let targets = Tensor::new([1, TOKENS], data(5)).unwrap();
        let inputs = [("tokens", (&tokens).into()), ("targets", (&targets).into())];
        training.backward(&inputs).unwrap();
        training.update(1.0).unwrap();
        training.average(0.9).unwrap();
        steps.push(std::mem::take(&mut *moved.lock().unwrap()));
    }
    steps
}

#[test]
fn a_step_moves_its_inputs_up_and_its_loss_down() {
    for precision in [Precision::F32, Precision::Bf16] {
        let steps = traffic(precision, None);
        // Buffers are made in the first step and kept.
        for step in &steps[1..] {
            let expected = [Moved::Up(TOKENS), Moved::Up(TOKENS), Moved::Down(8), Moved::Down(4)];
            assert_eq!(step, &expected, "{precision:?}");
        }
    }
}

#[test]
fn a_clipped_step_moves_the_norm_of_the_one_before_down_with_its_loss() {
    for step in &traffic(Precision::F32, Some(1.0))[1..] {
        let up = [Moved::Up(TOKENS), Moved::Up(TOKENS)];
        let down = [Moved::Down(8), Moved::Down(4), Moved::Down(8)];
        assert_eq!(step, &[&up[..], &down[..]].concat());
    }
}
