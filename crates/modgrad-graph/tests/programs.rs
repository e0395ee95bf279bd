//! Programs as text, and what is refused when one is built or read.

use modgrad_compute::function::{BinaryFunction, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_ffn::NgramHash;
use modgrad_graph::{DType, Error, Op, Program, ValueId};

fn input(program: &mut Program, name: &str, shape: &[usize], dtype: DType) -> ValueId {
    let op = Op::Input { name: name.into(), shape: shape.to_vec(), dtype };
    program.apply(op, &[]).unwrap()
}

fn small_program() -> Program {
    let mut program = Program::new();
    let tokens = input(&mut program, "tokens", &[2, 3], DType::U8);
    let table = Op::Parameter {
        name: "table".into(),
        shape: vec![256, 4],
        dtype: DType::F32,
        trainable: true,
        sparse: true,
    };
    let table = program.apply(table, &[]).unwrap();
    let rows = program.apply(Op::Embedding, &[table, tokens]).unwrap();
    let gain = Op::Constant { shape: vec![4], value: 0.1 };
    let gain = program.apply(gain, &[]).unwrap();
    let y = program.push(Op::RmsNorm { epsilon: 1e-5 }, &[rows, gain]).unwrap();
    program.set_output("y", y[0]).unwrap();
    program.set_output("inverse_rms", y[1]).unwrap();
    program
}

/// This text stands in checkpoints.
#[test]
fn a_program_is_written_as_this_text() {
    let expected = concat!(
        r#"{"op_set":1,"nodes":["#,
        r#"{"do":{"dtype":"u8","name":"tokens","op":"input","shape":[2,3]}},"#,
        r#"{"do":{"dtype":"f32","name":"table","op":"parameter","shape":[256,4],"#,
        r#""sparse":true,"trainable":true}},"#,
        r#"{"do":{"op":"embedding"},"to":[1,0]},"#,
        r#"{"do":{"op":"constant","shape":[4],"value":0.10000000149011612}},"#,
        r#"{"do":{"epsilon":9.999999747378752e-6,"op":"rms_norm"},"to":[2,3]}],"#,
        r#""outputs":{"inverse_rms":5,"y":4}}"#,
    );
    let program = small_program();
    let text = program.to_json();
    assert_eq!(Program::from_json(&text), Ok(program));
    assert_eq!(text, expected);
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = Program::from_json(text).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

fn with_nodes(nodes: &str) -> String {
    format!(r#"{{"op_set":1,"nodes":[{nodes}],"outputs":{{}}}}"#)
}

#[test]
fn an_unknown_op_is_named() {
    let text = with_nodes(r#"{"do":{"op":"hyper_attention","width":3}}"#);
    let error = Program::from_json(&text).unwrap_err();
    assert_eq!(error, Error::UnknownOp { name: "hyper_attention".into() });
    assert_eq!(
        error.to_string(),
        "the program uses the op `hyper_attention`, which this version of modgrad does not have"
    );
}

#[test]
fn text_that_is_no_program_is_malformed() {
    refused("", "malformed");
    refused("[1, 2]", "malformed");
    refused(r#"{"op_set":1,"nodes":[]}"#, "missing field `outputs`");
    refused(r#"{"op_set":1,"nodes":[],"outputs":{},"more":0}"#, "unknown field `more`");
    refused(&with_nodes(r#"{"to":[0]}"#), "missing field `do`");
    refused(&with_nodes(r#"{"do":{},"to":[]}"#), "missing field `op`");
    refused(&with_nodes(r#"{"do":"linear","to":[]}"#), "malformed");
}

#[test]
fn a_known_op_with_wrong_attributes_is_named() {
    refused(
        &with_nodes(r#"{"do":{"op":"affine","scale":1}}"#),
        "op `affine`: missing field `offset`",
    );
    refused(
        &with_nodes(r#"{"do":{"op":"affine","scale":1,"offset":0,"gain":2}}"#),
        "op `affine`: unknown field `gain`",
    );
    refused(
        &with_nodes(r#"{"do":{"op":"unary","function":"sine"}}"#),
        "op `unary`: unknown variant `sine`",
    );
    refused(
        &with_nodes(r#"{"do":{"op":"constant","shape":[-1],"value":0}}"#),
        "op `constant`: invalid value",
    );
}

#[test]
fn another_op_set_is_refused() {
    refused(r#"{"op_set":2,"nodes":[],"outputs":{}}"#, "op set 2, this version of modgrad has 1");
}

#[test]
fn a_node_uses_earlier_values_only() {
    let constant = r#"{"do":{"op":"constant","shape":[],"value":1}}"#;
    let square = r#"{"do":{"op":"unary","function":"square"},"to":[1]}"#;
    refused(
        &with_nodes(&format!("{constant},{square}")),
        "`unary` uses value 1, which no node defines",
    );
    refused(&with_nodes(&format!("{square},{constant}")), "uses value 1");
    refused(r#"{"op_set":1,"nodes":[],"outputs":{"y":0}}"#, "output `y`: value 0 does not exist");
}

#[test]
fn a_name_is_taken_once() {
    let mut program = Program::new();
    let x = input(&mut program, "x", &[1], DType::F32);
    let op = Op::Input { name: "x".into(), shape: vec![2], dtype: DType::U8 };
    let again = program.push(op, &[]).unwrap_err();
    assert_eq!(again.to_string(), "input `x`: the name is taken");
    let parameter = |name: &str| Op::Parameter {
        name: name.into(),
        shape: vec![1],
        dtype: DType::F32,
        trainable: true,
        sparse: false,
    };
    // Inputs and parameters are apart.
    program.push(parameter("x"), &[]).unwrap();
    let again = program.push(parameter("x"), &[]).unwrap_err();
    assert_eq!(again.to_string(), "parameter `x`: the name is taken");
    let nameless = program.push(parameter(""), &[]).unwrap_err();
    assert_eq!(nameless.to_string(), "parameter ``: the name is empty");
    program.set_output("y", x).unwrap();
    let again = program.set_output("y", x).unwrap_err();
    assert_eq!(again.to_string(), "output `y`: the name is taken");
    // What was refused left nothing behind.
    assert_eq!(program.nodes().len(), 2);
    assert_eq!(program.values(), 2);
}

/// One refusal of each kind, with its whole message.
#[test]
fn shape_rules_say_what_they_expected_and_found() {
    let f32s = |shapes: &[&[usize]]| -> Vec<(Vec<usize>, DType)> {
        shapes.iter().map(|shape| (shape.to_vec(), DType::F32)).collect()
    };
    let function = UnaryFunction::Tanh;
    let hash = |orders: Vec<usize>, rows| NgramHash { orders, rows, seed: 0 };
    let mut with_indices = f32s(&[&[5, 4]]);
    with_indices.push((vec![2, 3], DType::I32));
    let mut with_two_floats = with_indices.clone();
    with_two_floats.swap(0, 1);
    let bytes = vec![(vec![2, 3], DType::U8)];
    let mul = Op::MatMul { transpose_a: false, transpose_b: true };
    let rows = [
        (Op::Unary { function }, f32s(&[]), "`unary`: expected 1 operand(s), found 0"),
        (Op::Unary { function }, bytes.clone(), "`unary`: expected an f32 operand, found u8[2, 3]"),
        (
            Op::Binary { function: BinaryFunction::Add },
            f32s(&[&[2, 3], &[2]]),
            "`binary`: expected operands that broadcast together, found f32[2, 3] and f32[2]",
        ),
        (Op::ToFloat, f32s(&[&[2]]), "`to_float`: expected i32 or u8 indices, found f32[2]"),
        (
            Op::Dropout { probability: 1.0, stream: 0 },
            f32s(&[&[2]]),
            "`dropout`: the probability must be at least 0 and below 1, not 1",
        ),
        (
            Op::Reduce { kind: Reduction::Mean, axis: 2 },
            f32s(&[&[2, 3]]),
            "`reduce`: expected an operand with axis 2, found f32[2, 3]",
        ),
        (
            Op::Reduce { kind: Reduction::Maximum, axis: 0 },
            f32s(&[&[0, 3]]),
            "`reduce`: axis 0 of f32[0, 3] is empty and has no mean or maximum",
        ),
        (
            Op::Reshape { shape: vec![4] },
            f32s(&[&[2, 3]]),
            "`reshape`: expected 6 elements for f32[2, 3], found the shape [4]",
        ),
        (
            Op::Transpose { permutation: vec![0, 0] },
            f32s(&[&[2, 3]]),
            "`transpose`: expected a permutation of the 2 axes of f32[2, 3], found [0, 0]",
        ),
        (
            Op::BroadcastTo { shape: vec![3, 1] },
            f32s(&[&[3, 2]]),
            "`broadcast_to`: expected an operand that broadcasts to [3, 1], found f32[3, 2]",
        ),
        (
            Op::Slice { axis: 0, start: 1, end: 4, step: 1 },
            f32s(&[&[3]]),
            "`slice`: 1..4 by 1 does not lie in axis 0 of f32[3]",
        ),
        (
            Op::Slice { axis: 0, start: 0, end: 3, step: 0 },
            f32s(&[&[3]]),
            "`slice`: 0..3 by 0 does not lie in axis 0 of f32[3]",
        ),
        (Op::Concat { axis: 0 }, f32s(&[]), "`concat`: expected at least one operand, found none"),
        (
            Op::Concat { axis: 0 },
            f32s(&[&[2, 3], &[2, 4]]),
            "`concat`: expected operands like f32[2, 3], alike but for axis 0, found f32[2, 4]",
        ),
        (
            mul,
            f32s(&[&[2, 3], &[3, 4]]),
            "`mat_mul`: expected matrices [..., m, k] and [k, n], or both with the same leading \
             axes, found f32[2, 3] and f32[3, 4]ᵀ",
        ),
        (
            Op::Linear,
            f32s(&[&[2, 3], &[4, 5]]),
            "`linear`: expected a weight of shape [n, 3] for x of f32[2, 3], found f32[4, 5]",
        ),
        (
            Op::Linear,
            f32s(&[&[2, 3], &[4, 3], &[3]]),
            "`linear`: expected a bias of shape [4], found f32[3]",
        ),
        (
            Op::RmsNorm { epsilon: 1e-5 },
            f32s(&[&[2, 3], &[2]]),
            "`rms_norm`: expected a weight of shape [3], found f32[2]",
        ),
        (
            Op::LayerNorm { epsilon: 1e-5 },
            f32s(&[&[2, 0], &[0], &[0]]),
            "`layer_norm`: expected at least one channel, found f32[2, 0]",
        ),
        (
            Op::EmbeddingBag,
            vec![(vec![5, 4], DType::F32), (vec![3, 0], DType::U8)],
            "`embedding_bag`: expected at least one index a bag, found u8[3, 0]",
        ),
        (
            Op::Softmax,
            f32s(&[&[]]),
            "`softmax`: expected an operand with at least one axis, found f32[]",
        ),
        (
            Op::CrossEntropy,
            with_indices.clone(),
            "`cross_entropy`: expected targets of shape [5] for logits of f32[5, 4], \
             found i32[2, 3]",
        ),
        (Op::Embedding, with_two_floats, "`embedding`: expected an f32 operand, found i32[2, 3]"),
        (
            Op::ByteContext { length: 0 },
            bytes.clone(),
            "`byte_context`: the length must be at least 1",
        ),
        (
            Op::ByteContext { length: 4 },
            f32s(&[&[2, 3]]),
            "`byte_context`: expected tokens u8[B, T], found f32[2, 3]",
        ),
        (
            Op::NgramHash { hash: hash(vec![3, 33], 10) },
            bytes.clone(),
            "`ngram_hash`: `orders` holds 33; an order is 1 to 32",
        ),
        (
            Op::NgramHash { hash: hash(vec![3], 0) },
            bytes,
            "`ngram_hash`: `rows` is 0; a hash needs at least one row",
        ),
        (
            Op::CausalAttention { window: Some(0) },
            f32s(&[&[1, 2, 3, 4][..]; 3]),
            "`causal_attention`: the window must be at least 1",
        ),
        (
            Op::Rope { base: 1e4, rotated: 3, inverse: false },
            f32s(&[&[1, 2, 3, 4]]),
            "`rope`: 3 rotated channels are not an even number up to 4",
        ),
        (
            Op::CausalConvolution,
            f32s(&[&[1, 2, 3], &[0, 3]]),
            "`causal_convolution`: expected a weight [K, 3] for x of f32[1, 2, 3], found f32[0, 3]",
        ),
        (
            Op::GatedRecurrence,
            f32s(&[&[1, 2, 5], &[2]]),
            "`gated_recurrence`: expected x [B, T, 6] for a retention of 2, found f32[1, 2, 5]",
        ),
    ];
    for (op, operands, expected) in rows {
        let mut program = Program::new();
        let operands: Vec<_> = operands
            .iter()
            .enumerate()
            .map(|(index, (shape, dtype))| input(&mut program, &index.to_string(), shape, *dtype))
            .collect();
        let before = program.clone();
        let error = program.push(op.clone(), &operands).unwrap_err().to_string();
        assert_eq!(error, expected, "{op:?}");
        assert_eq!(program, before, "a refused op leaves nothing behind");
    }
}

#[test]
fn hostile_sizes_are_refused_before_anything_is_allocated() {
    const HUGE: usize = usize::MAX;
    let constant =
        |shape: Vec<usize>| Program::new().apply(Op::Constant { shape, value: 0.0 }, &[]);
    for shape in [vec![HUGE], vec![1 << 20, 1 << 20], vec![1 << 40, 1 << 40], vec![HUGE, HUGE, 0]] {
        let error = constant(shape).unwrap_err().to_string();
        assert!(error.contains("is too large"), "{error}");
    }
    assert!(constant(vec![1 << 34]).is_ok());

    let mut program = Program::new();
    let x = input(&mut program, "x", &[1, 3], DType::F32);
    let indices = input(&mut program, "indices", &[1], DType::I32);
    let tokens = input(&mut program, "tokens", &[1, 3], DType::U8);
    let orders = vec![1; 8];
    for (op, operands) in [
        (Op::Reshape { shape: vec![HUGE, 2] }, vec![x]),
        (Op::BroadcastTo { shape: vec![HUGE, HUGE, 3] }, vec![x]),
        (Op::Slice { axis: 1, start: HUGE, end: HUGE, step: 1 }, vec![x]),
        (Op::Slice { axis: HUGE, start: 0, end: 1, step: 1 }, vec![x]),
        (Op::SliceGradient { axis: 1, start: HUGE, step: HUGE, size: 3 }, vec![x]),
        (Op::SliceGradient { axis: 1, start: 0, step: 1, size: HUGE }, vec![x]),
        (Op::Gather { axis: HUGE }, vec![x, indices]),
        (Op::GatherGradient { axis: HUGE, size: 1 }, vec![indices, x]),
        (Op::GatherGradient { axis: 0, size: HUGE }, vec![indices, x]),
        (Op::EmbeddingGradient { rows: HUGE, bag: 1 }, vec![indices, x]),
        (Op::EmbeddingGradient { rows: 1, bag: HUGE }, vec![indices, x]),
        (Op::ByteContext { length: HUGE }, vec![tokens]),
        (Op::NgramHash { hash: NgramHash { orders, rows: HUGE, seed: 0 } }, vec![tokens]),
        (Op::Transpose { permutation: vec![HUGE, 0] }, vec![x]),
    ] {
        let result = program.push(op.clone(), &operands);
        assert!(matches!(result, Err(Error::Attribute { .. } | Error::Shape { .. })), "{op:?}");
    }
}

/// JSON has no NaN and no infinity, so an attribute must be neither.
#[test]
fn attributes_that_text_cannot_hold_are_refused() {
    let mut program = Program::new();
    let x = input(&mut program, "x", &[2, 3], DType::F32);
    let weight = input(&mut program, "weight", &[3], DType::F32);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (op, operands) in [
            (Op::Constant { shape: vec![], value: bad }, vec![]),
            (Op::Affine { scale: bad, offset: 0.0 }, vec![x]),
            (Op::Affine { scale: 0.0, offset: bad }, vec![x]),
            (Op::Dropout { probability: bad, stream: 0 }, vec![x]),
            (Op::RmsNorm { epsilon: bad }, vec![x, weight]),
            (Op::LayerNorm { epsilon: bad }, vec![x, weight, weight]),
        ] {
            let result = program.push(op.clone(), &operands);
            assert!(matches!(result, Err(Error::Attribute { .. })), "{op:?}: {result:?}");
        }
    }
}

#[test]
fn an_attribute_that_an_op_does_not_have_is_refused() {
    let op = serde_json::json!({ "op": "linear", "bias": true });
    let message = modgrad_graph::program::read_op(op).unwrap_err().to_string();
    assert_eq!(message, "the program is malformed: op `linear`: unknown field `bias`");
}
