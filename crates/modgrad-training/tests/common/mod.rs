//! Small byte models, built op by op.
#![allow(dead_code)] // Each test file uses its own part.

use modgrad_graph::op::Op;
use modgrad_graph::{DType, Program, Tensor, ValueId};
use modgrad_training::Checkpoint;
use std::collections::BTreeMap;

/// A deterministic stream of small numbers.
pub struct Stream(pub u64);

impl Stream {
    pub fn next(&mut self) -> u64 {
        // xorshift64* (Vigna, 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Multiples of 1/8 between −2 and 2: sums of a few products are exact in f32.
    pub fn eighths(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() % 33) as f32 / 8.0 - 2.0).collect()
    }

    pub fn text(&mut self, length: usize, letters: u64) -> Vec<u8> {
        (0..length).map(|_| b'0' + (self.next() % letters) as u8).collect()
    }
}

/// A program under construction, with its weights.
pub struct Builder {
    pub program: Program,
    pub weights: BTreeMap<String, Tensor>,
    pub stream: Stream,
    pub batch: usize,
    pub context: usize,
    pub tokens: ValueId,
}

impl Builder {
    pub fn new(batch: usize, context: usize) -> Self {
        let mut program = Program::new();
        let input =
            Op::Input { name: "tokens".into(), shape: vec![batch, context], dtype: DType::U8 };
        let tokens = program.apply(input, &[]).unwrap();
        Builder {
            program,
            weights: BTreeMap::new(),
            stream: Stream(0x1234_5678_9abc_def1),
            batch,
            context,
            tokens,
        }
    }

    pub fn apply(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.program.apply(op, inputs).unwrap()
    }

    /// A trainable parameter holding `values`.
    pub fn weight(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> ValueId {
        self.weights.insert(name.into(), Tensor::f32(shape, values).unwrap());
        let op = Op::Parameter {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: DType::F32,
            trainable: true,
            sparse: false,
        };
        self.apply(op, &[])
    }

    /// A trainable parameter of small multiples of 1/8.
    pub fn eighths(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let values = self.stream.eighths(shape.iter().product());
        self.weight(name, shape, values)
    }

    pub fn binary(&mut self, function: &str, x: ValueId, y: ValueId) -> ValueId {
        let op = serde_json::json!({"op": "binary", "function": function});
        self.apply(serde_json::from_value(op).unwrap(), &[x, y])
    }

    /// tokens → [B, T, width] by a table.
    pub fn embed(&mut self, name: &str, width: usize) -> ValueId {
        let table = self.eighths(name, &[256, width]);
        self.apply(Op::Embedding, &[table, self.tokens])
    }

    /// [..., width] → [..., 256].
    pub fn head(&mut self, x: ValueId, width: usize) -> ValueId {
        let weight = self.eighths("head", &[256, width]);
        let bias = self.eighths("bias", &[256]);
        self.apply(Op::Linear, &[x, weight, bias])
    }

    /// Logits that name the byte at every row with great confidence.
    pub fn one_hot(&mut self, name: &str) -> ValueId {
        let identity = (0..256 * 256).map(|i| if i % 257 == 0 { 20.0 } else { 0.0 });
        let table = self.weight(name, &[256, 256], identity.collect());
        self.apply(Op::Embedding, &[table, self.tokens])
    }

    /// What row t would be told if it saw byte t + 1.
    pub fn next_byte(&mut self) -> ValueId {
        let seen = self.one_hot("identity");
        self.apply(Op::Shift { amount: -1 }, &[seen])
    }

    pub fn finish(mut self, logits: ValueId) -> Checkpoint {
        self.program.set_output("logits", logits).unwrap();
        Checkpoint {
            programs: BTreeMap::from([("score".into(), self.program)]),
            weights: self.weights,
            ..Checkpoint::default()
        }
    }
}

/// Embedding, then a linear layer: row t sees byte t.
pub fn bigram(batch: usize, context: usize) -> Checkpoint {
    let mut builder = Builder::new(batch, context);
    let x = builder.embed("embedding", 6);
    let logits = builder.head(x, 6);
    builder.finish(logits)
}

/// The same logits for every byte, at every row.
pub fn uniform(batch: usize, context: usize, level: f32) -> Checkpoint {
    let mut builder = Builder::new(batch, context);
    let constant = Op::Constant { shape: vec![batch, context, 256], value: level };
    let logits = builder.apply(constant, &[]);
    builder.finish(logits)
}

/// A small model with a part of every kind that looks back: attention, scan,
/// convolution, shift, hashed and plain contexts.
pub fn looks_back(batch: usize, context: usize) -> Checkpoint {
    let mut builder = Builder::new(batch, context);
    let width = 12;
    let mut x = builder.embed("embedding", width);

    let context_bytes = builder.apply(Op::ByteContext { length: 3 }, &[builder.tokens]);
    let table = builder.eighths("bytes", &[257, width]);
    let bag = builder.apply(Op::EmbeddingBag, &[table, context_bytes]);
    x = builder.binary("add", x, bag);

    let norm = builder.weight("norm", &[width], vec![1.0; width]);
    x = builder.apply(Op::RmsNorm { epsilon: 1e-5 }, &[x, norm]);

    let heads = Op::Reshape { shape: vec![batch, context, 2, width / 2] };
    let qkv = builder.apply(heads, &[x]);
    let turned = Op::Rope { base: 1e4, rotated: 4, inverse: false };
    let q = builder.apply(turned, &[qkv]);
    let attended = builder.apply(Op::CausalAttention { window: None }, &[q, q, qkv]);
    let joined = Op::Reshape { shape: vec![batch, context, width] };
    let attended = builder.apply(joined, &[attended]);
    x = builder.binary("add", x, attended);

    let kernel = builder.eighths("kernel", &[3, width]);
    let convolved = builder.apply(Op::CausalConvolution, &[x, kernel]);
    let gate = serde_json::json!({"op": "unary", "function": "sigmoid"});
    let gate = builder.apply(serde_json::from_value(gate).unwrap(), &[convolved]);
    let scanned = builder.apply(Op::LinearScan, &[gate, x]);
    let before = builder.apply(Op::Shift { amount: 2 }, &[scanned]);
    x = builder.binary("add", x, before);

    let logits = builder.head(x, width);
    builder.finish(logits)
}
