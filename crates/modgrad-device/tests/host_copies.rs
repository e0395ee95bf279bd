//! What the host works out from bytes that it gave: right when these change, and without
//! asking the device for them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use modgrad_compute::Pool;
use modgrad_device::Device;
use modgrad_device::driver::{
    Address, Argument, Description, Driver, Function, Module, Product, Shape,
};
use modgrad_device::emulated::Emulated;
use modgrad_device::source::Source;
use modgrad_ffn::memory::{ContextKind, CountLimits, Learned, Memory, MemoryConfig, MixerSets};
use modgrad_graph::cpu::Cpu;
use modgrad_graph::executor::{Executor, InputView};
use modgrad_graph::reference::RunKey;
use modgrad_graph::storage::Precision;
use modgrad_graph::tensor::Data;
use modgrad_graph::{DType, Op, Program, Result, Tensor};

/// Counts how often the host waits for bytes.
struct Counting {
    driver: Emulated,
    copies: AtomicUsize,
}

impl Driver for Counting {
    fn copy_out(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        self.driver.copy_out(from, bytes)
    }

    fn describe(&self) -> Result<Description> {
        self.driver.describe()
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.driver.allocate(bytes)
    }

    fn free(&self, address: Address) {
        self.driver.free(address);
    }

    fn copy_in(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.driver.copy_in(to, bytes)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.driver.copy(from, to, bytes)
    }

    fn set(&self, address: Address, byte: u8, bytes: usize) -> Result<()> {
        self.driver.set(address, byte, bytes)
    }

    fn poisons(&self) -> bool {
        self.driver.poisons()
    }

    fn load(&self, source: &Source) -> Result<Module> {
        self.driver.load(source)
    }

    fn function(&self, module: Module, name: &str) -> Result<Function> {
        self.driver.function(module, name)
    }

    fn launch(&self, function: Function, shape: Shape, arguments: &[Argument]) -> Result<()> {
        self.driver.launch(function, shape, arguments)
    }

    fn product(&self, product: &Product) -> Result<()> {
        self.driver.product(product)
    }

    fn synchronise(&self) -> Result<()> {
        self.driver.synchronise()
    }
}

fn config() -> MemoryConfig {
    MemoryConfig {
        kinds: vec![ContextKind::Order(1), ContextKind::Order(2)],
        base: 0,
        in_window: vec![1],
        entries: 16,
        mixers: vec![MixerSets::Depth],
        mixer_rate: 0.02,
    }
}

const TIME: usize = 30;
const MARGIN: usize = 4;

/// Rows of a window whose tables and weights are parameters.
fn program(tables: usize, learned: &Learned) -> Program {
    let mut program = Program::new();
    let shape = vec![2, TIME + 2 * MARGIN];
    let tokens = Op::Input { name: "tokens".to_owned(), shape, dtype: DType::U8 };
    let mut operands = vec![program.apply(tokens, &[]).unwrap()];
    let weights = learned.weights();
    for (name, count, dtype) in [
        ("tables", tables, DType::U8),
        ("back_off", weights.back_off.len(), DType::F32),
        ("mixer", weights.mixer.len(), DType::F32),
    ] {
        let (name, shape) = (name.to_owned(), vec![count]);
        let parameter = Op::Parameter { name, shape, dtype, trainable: false, sparse: false };
        operands.push(program.apply(parameter, &[]).unwrap());
    }
    let op = Op::CountedRows { memory: config(), earlier: 0, margin: MARGIN };
    let rows = program.push(op, &operands).unwrap();
    program.set_output("base", rows[0]).unwrap();
    program.set_output("lessons", rows[6]).unwrap();
    program
}

#[test]
fn rows_follow_the_bytes_that_the_host_gives_and_are_formed_without_waiting() {
    let text = b"one two three, one two four; one three, one two. ".repeat(8);
    let limits = CountLimits { memory: usize::MAX, time: Duration::from_secs(60) };
    let tables = Memory::count(&Pool::new(1), &config(), &text, limits).unwrap().to_bytes();
    let tables = Tensor::new([tables.len()], Data::U8(tables)).unwrap();
    let mut learned = Learned::new(&config());
    let program = program(tables.bytes().len(), &learned);

    let driver = Counting { driver: Emulated::new().unwrap(), copies: AtomicUsize::new(0) };
    let driver = Arc::new(driver);
    let device = Device::new(driver.clone()).unwrap();
    let names = ["base", "lessons"];
    let mut ours = Executor::new(device, &program, &names, Precision::F32).unwrap();
    let mut theirs = Executor::new(Cpu::new(1), &program, &names, Precision::F32).unwrap();
    ours.set_parameter("tables", (&tables).into()).unwrap();
    theirs.set_parameter("tables", (&tables).into()).unwrap();
    for round in 0..4 {
        let weights = learned.weights();
        for (name, values) in [("back_off", weights.back_off), ("mixer", weights.mixer)] {
            let tensor = Tensor::f32(vec![values.len()], values.to_vec()).unwrap();
            ours.set_parameter(name, (&tensor).into()).unwrap();
            theirs.set_parameter(name, (&tensor).into()).unwrap();
        }
        let bytes = &text[7 * round..][..2 * (TIME + 2 * MARGIN)];
        let shape = [2, TIME + 2 * MARGIN];
        let inputs = [("tokens", InputView { shape: &shape, dtype: DType::U8, bytes })];
        let key = RunKey { seed: 0, step: round as u64 };
        let before = driver.copies.load(Ordering::Relaxed);
        ours.run(&inputs, key).unwrap();
        theirs.run(&inputs, key).unwrap();
        let lessons = ours.output("lessons").unwrap();
        let waits = driver.copies.load(Ordering::Relaxed) - before;
        assert!(round == 0 || waits == 0, "{waits} copies to the host in round {round}");
        assert_eq!(lessons, theirs.output("lessons").unwrap());
        assert_eq!(ours.output("base").unwrap(), theirs.output("base").unwrap());
        learned.learn(lessons.as_f32().unwrap());
    }
}
