//! The reference itself, against values worked out by hand, and its refusals.

use std::collections::BTreeMap;

use modgrad_compute::function::{BinaryFunction, GateActivation, UnaryFunction};
use modgrad_compute::reduce::Reduction;
use modgrad_graph::reference::{Array, RunKey, check_gradients, evaluate, run};
use modgrad_graph::{DType, Error, Op, Program, Tensor};

fn array(shape: &[usize], data: &[f64]) -> Array {
    Array::new(shape, data.to_vec())
}

#[track_caller]
fn gives<const N: usize, const M: usize>(op: Op, inputs: [Array; N], expected: [Array; M]) {
    let outputs = evaluate(&op, &inputs.each_ref(), RunKey::default()).unwrap();
    assert_eq!(outputs.len(), M, "{op:?}");
    for (output, expected) in outputs.iter().zip(&expected) {
        assert_eq!(output.shape, expected.shape, "{op:?}");
        for (x, y) in output.data.iter().zip(&expected.data) {
            assert!((x - y).abs() < 1e-12, "{op:?}: {output:?} is not {expected:?}");
        }
    }
}

#[test]
fn elementwise_and_reductions() {
    let x = array(&[2, 2], &[1.0, -2.0, 3.0, 3.0]);
    let function = UnaryFunction::ReluSquared;
    gives(Op::Unary { function }, [x.clone()], [array(&[2, 2], &[1.0, 0.0, 9.0, 9.0])]);
    let function = BinaryFunction::Subtract;
    let row = array(&[2], &[1.0, 2.0]);
    gives(
        Op::Binary { function },
        [x.clone(), row.clone()],
        [array(&[2, 2], &[0.0, -4.0, 2.0, 1.0])],
    );
    // The smaller operand may come first, and both may grow.
    let column = array(&[2, 1], &[10.0, 20.0]);
    gives(Op::Binary { function }, [row, column], [array(&[2, 2], &[-9.0, -8.0, -19.0, -18.0])]);
    let reduce = |kind, axis| Op::Reduce { kind, axis };
    gives(reduce(Reduction::Sum, 0), [x.clone()], [array(&[2], &[4.0, 1.0])]);
    gives(reduce(Reduction::Mean, 1), [x.clone()], [array(&[2], &[-0.5, 3.0])]);
    gives(reduce(Reduction::Maximum, 1), [x.clone()], [array(&[2], &[1.0, 3.0])]);
    let (y, dy) = (array(&[2], &[1.0, 3.0]), array(&[2], &[5.0, 8.0]));
    gives(Op::MaximumGradient { axis: 1 }, [x, y, dy], [array(&[2, 2], &[5.0, 0.0, 4.0, 4.0])]);
}

#[test]
fn movement() {
    let x = array(&[1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(
        Op::Shift { amount: 1 },
        [x.clone()],
        [array(&[1, 3, 2], &[0.0, 0.0, 1.0, 2.0, 3.0, 4.0])],
    );
    gives(
        Op::Shift { amount: -2 },
        [x.clone()],
        [array(&[1, 3, 2], &[5.0, 6.0, 0.0, 0.0, 0.0, 0.0])],
    );
    gives(
        Op::Transpose { permutation: vec![2, 0, 1] },
        [x.clone()],
        [array(&[2, 1, 3], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0])],
    );
    gives(
        Op::Slice { axis: 1, start: 0, end: 3, step: 2 },
        [x.clone()],
        [array(&[1, 2, 2], &[1.0, 2.0, 5.0, 6.0])],
    );
    gives(
        Op::Gather { axis: 1 },
        [x, array(&[2, 2], &[2.0, 0.0, 0.0, 1.0])],
        [array(&[1, 2, 2, 2], &[5.0, 6.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0])],
    );
    gives(
        Op::GatherGradient { axis: 0, size: 3 },
        [array(&[3], &[2.0, 0.0, 2.0]), array(&[3], &[1.0, 10.0, 100.0])],
        [array(&[3], &[10.0, 0.0, 101.0])],
    );
}

#[test]
fn products() {
    let a = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = array(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    let product = array(&[2, 2], &[4.0, 5.0, 10.0, 11.0]);
    let op = |transpose_a, transpose_b| Op::MatMul { transpose_a, transpose_b };
    gives(op(false, false), [a.clone(), b.clone()], [product]);
    // aᵀ stored as [3, 2] is b's shape: bᵀ·aᵀ = (a·b)ᵀ.
    gives(op(true, true), [b, a.clone()], [array(&[2, 2], &[4.0, 10.0, 5.0, 11.0])]);
    let (weight, bias) = (array(&[1, 3], &[1.0, -1.0, 2.0]), array(&[1], &[0.5]));
    gives(Op::Linear, [a, weight, bias], [array(&[2, 1], &[5.5, 11.5])]);
}

#[test]
fn norms_gates_and_losses() {
    let x = array(&[1, 2], &[3.0, 4.0]);
    let weight = array(&[2], &[1.0, 2.0]);
    // rms = √12.5; with ε = 3.5 it is 4.
    gives(
        Op::RmsNorm { epsilon: 3.5 },
        [x.clone(), weight.clone()],
        [array(&[1, 2], &[0.75, 2.0]), array(&[1], &[0.25])],
    );
    // Mean 3.5, variance 0.25; with ε = 0.75 the deviation is 1.
    gives(
        Op::LayerNorm { epsilon: 0.75 },
        [x.clone(), weight, array(&[2], &[10.0, 20.0])],
        [array(&[1, 2], &[9.5, 21.0]), array(&[1], &[3.5]), array(&[1], &[1.0])],
    );
    let activation = GateActivation::Relu;
    gives(
        Op::GatedLinearUnit { activation },
        [array(&[4], &[2.0, 3.0, -1.0, 5.0])],
        [array(&[2], &[0.0, 15.0])],
    );
    let logits = array(&[1, 2], &[3f64.ln() + 700.0, 700.0]);
    gives(Op::Softmax, [logits.clone()], [array(&[1, 2], &[0.75, 0.25])]);
    gives(
        Op::CrossEntropy,
        [logits.clone(), array(&[1], &[1.0])],
        [array(&[1], &[4f64.ln()]), array(&[1], &[4f64.ln() + 700.0])],
    );
    gives(
        Op::CrossEntropyGradient,
        [logits, array(&[1], &[1.0]), array(&[1], &[4f64.ln() + 700.0]), array(&[1], &[2.0])],
        [array(&[1, 2], &[1.5, -1.5])],
    );
}

#[test]
fn tables_and_contexts() {
    let table = array(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let indices = array(&[2, 2], &[0.0, 2.0, 1.0, 1.0]);
    gives(Op::EmbeddingBag, [table, indices.clone()], [array(&[2, 2], &[6.0, 8.0, 6.0, 8.0])]);
    gives(
        Op::EmbeddingGradient { rows: 3, bag: 2 },
        [indices, array(&[2, 1], &[1.0, 10.0])],
        [array(&[3, 1], &[1.0, 20.0, 1.0])],
    );
    gives(
        Op::ByteContext { length: 2 },
        [array(&[2, 2], &[7.0, 8.0, 9.0, 10.0])],
        [array(&[2, 2, 2], &[7.0, 256.0, 8.0, 7.0, 9.0, 256.0, 10.0, 9.0])],
    );
}

#[test]
fn sequences() {
    // Two positions whose scores differ by ln 3 where both are seen.
    let q = array(&[1, 2, 1, 1], &[1.0, 1.0]);
    let k = array(&[1, 2, 1, 1], &[0.0, 3f64.ln()]);
    let v = array(&[1, 2, 1, 1], &[4.0, 8.0]);
    let qkv = [q, k, v];
    gives(
        Op::CausalAttention { window: None },
        qkv.clone(),
        [array(&[1, 2, 1, 1], &[4.0, 7.0]), array(&[1, 2, 1], &[0.0, 4f64.ln()])],
    );
    gives(
        Op::CausalAttention { window: Some(1) },
        qkv.clone(),
        [array(&[1, 2, 1, 1], &[4.0, 8.0]), array(&[1, 2, 1], &[0.0, 3f64.ln()])],
    );
    // One radian a position for the first pair; channel 2 is copied.
    let (sin, cos) = 1f64.sin_cos();
    let x = array(&[1, 2, 1, 3], &[1.0, 0.0, 5.0, 1.0, 0.0, 6.0]);
    let turned = array(&[1, 2, 1, 3], &[1.0, 0.0, 5.0, cos, sin, 6.0]);
    let op = |inverse| Op::Rope { base: 100.0, rotated: 2, inverse };
    gives(op(false), [x.clone()], [turned.clone()]);
    gives(op(true), [turned], [x]);
    // Pairs are (0, 2) and (1, 3); the second turns by 100^(−1/2) a position.
    let (sin, cos) = 0.1f64.sin_cos();
    gives(
        Op::Rope { base: 100.0, rotated: 4, inverse: false },
        [array(&[1, 2, 1, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])],
        [array(&[1, 2, 1, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, cos, 0.0, sin])],
    );
    gives(
        Op::CausalConvolution,
        [array(&[1, 3, 1], &[1.0, 2.0, 3.0]), array(&[2, 1], &[10.0, 1.0])],
        [array(&[1, 3, 1], &[10.0, 21.0, 32.0])],
    );
    gives(
        Op::LinearScan,
        [array(&[1, 3, 1], &[9.0, 0.5, 2.0]), array(&[1, 3, 1], &[4.0, 1.0, 0.0])],
        [array(&[1, 3, 1], &[4.0, 3.0, 6.0])],
    );
    // a = ¼ and ½; h = 6 and ½·6 + ½·2 = 4; silu(ln 3) = ¾·ln 3.
    let (third, three) = (-(3f64.ln()), 3f64.ln());
    gives(
        Op::GatedRecurrence,
        [array(&[1, 2, 3], &[third - 1.0, 8.0, three, -1.0, 2.0, three]), array(&[1], &[1.0])],
        [array(&[1, 2, 1], &[4.5 * three, 3.0 * three])],
    );
}

#[test]
fn dropout_keeps_the_mean_and_follows_the_key() {
    let x = Array::filled(&[10_000], 2.0);
    let mask = |seed, step, stream| {
        let op = Op::Dropout { probability: 0.25, stream };
        evaluate(&op, &[&x], RunKey { seed, step }).unwrap().remove(0)
    };
    let first = mask(1, 2, 3);
    assert!(first.data.iter().all(|&y| y == 0.0 || y == 2.0 / 0.75));
    let mean = first.data.iter().sum::<f64>() / 10_000.0;
    // Five standard deviations of the mean: 2·√(p/(1 − p)/n).
    assert!((mean - 2.0).abs() < 5.0 * 2.0 * (1.0 / 3.0 / 10_000f64).sqrt(), "{mean}");
    assert_eq!(first, mask(1, 2, 3));
    for other in [mask(2, 2, 3), mask(1, 3, 3), mask(1, 2, 4), mask(2, 1, 3)] {
        assert_ne!(first, other);
    }
}

#[test]
fn tensors_come_and_go_unchanged() {
    let tensor = Tensor::f32([2, 1], vec![0.1, -3.5]).unwrap();
    assert_eq!(Array::from(&tensor).to_tensor(DType::F32), Ok(tensor));
    let bytes = array(&[2], &[0.0, 255.0]);
    assert_eq!(Array::from(&bytes.to_tensor(DType::U8).unwrap()), bytes);
    for (value, dtype) in
        [(256.0, DType::U8), (-1.0, DType::U8), (0.5, DType::I32), (3e9, DType::I32)]
    {
        let error = array(&[1], &[value]).to_tensor(dtype).unwrap_err().to_string();
        assert!(error.contains("whole numbers") && error.contains(&value.to_string()), "{error}");
    }
}

#[test]
fn indices_outside_their_axis_are_refused_in_words() {
    let x = Array::zeros(&[2, 2]);
    let bad = array(&[2], &[0.0, 2.0]);
    let refused = |op: Op, inputs: &[&Array]| {
        evaluate(&op, inputs, RunKey::default()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(Op::Embedding, &[&x, &bad]),
        "`embedding`: expected indices from 0 to below 2, found 2 at element 1 of the indices [2]"
    );
    for message in [
        refused(Op::EmbeddingBag, &[&x, &bad]),
        refused(Op::EmbeddingGradient { rows: 2, bag: 1 }, &[&bad, &x]),
        refused(Op::Gather { axis: 1 }, &[&x, &bad]),
        refused(Op::GatherGradient { axis: 0, size: 2 }, &[&bad, &x]),
        refused(Op::CrossEntropy, &[&x, &bad]),
        refused(Op::CrossEntropyGradient, &[&x, &bad, &bad, &bad]),
    ] {
        assert!(message.contains("indices from 0 to below 2"), "{message}");
    }
    let fraction = refused(Op::Embedding, &[&x, &array(&[1], &[0.5])]);
    assert!(fraction.contains("found 0.5"), "{fraction}");
    let negative = refused(Op::Gather { axis: 0 }, &[&x, &array(&[1], &[-1.0])]);
    assert!(negative.contains("found -1"), "{negative}");
    let no_byte = refused(Op::ByteContext { length: 1 }, &[&array(&[1, 1], &[256.0])]);
    assert!(no_byte.contains("from 0 to 255"), "{no_byte}");
}

/// y = x·w, with an input and a parameter that a run must give.
fn product() -> Program {
    let mut program = Program::new();
    let x = Op::Input { name: "x".into(), shape: vec![2], dtype: DType::F32 };
    let x = program.apply(x, &[]).unwrap();
    let (name, shape, dtype) = ("w".into(), vec![2], DType::F32);
    let w = Op::Parameter { name, shape, dtype, trainable: true, sparse: false };
    let w = program.apply(w, &[]).unwrap();
    let y = program.apply(Op::Binary { function: BinaryFunction::Multiply }, &[x, w]).unwrap();
    let loss = program.apply(Op::Reduce { kind: Reduction::Sum, axis: 0 }, &[y]).unwrap();
    program.set_output("y", y).unwrap();
    program.set_output("loss", loss).unwrap();
    program
}

fn named(name: &str, array: Array) -> BTreeMap<String, Array> {
    BTreeMap::from([(name.to_owned(), array)])
}

#[test]
fn a_run_needs_all_inputs_and_no_others() {
    let program = product();
    let (x, w) = (array(&[2], &[2.0, 3.0]), array(&[2], &[5.0, 7.0]));
    let key = RunKey::default();
    let values = run(&program, &named("x", x.clone()), &named("w", w.clone()), key).unwrap();
    assert_eq!(values[program.output("y").unwrap()].data, [10.0, 21.0]);
    assert_eq!(values.len(), program.values());

    let fails = |inputs: &BTreeMap<String, Array>, parameters: &BTreeMap<String, Array>| {
        run(&program, inputs, parameters, key).unwrap_err().to_string()
    };
    let (good_x, good_w) = (named("x", x.clone()), named("w", w.clone()));
    assert_eq!(
        fails(&BTreeMap::new(), &good_w),
        "input `x`: it is missing; the program needs f32[2]"
    );
    assert_eq!(
        fails(&good_x, &named("v", w.clone())),
        "parameter `w`: it is missing; the program needs f32[2]"
    );
    let mut more = good_w.clone();
    more.insert("v".into(), w);
    assert_eq!(fails(&good_x, &more), "parameter `v`: the program has only [w]");
    assert_eq!(
        fails(&named("x", Array::zeros(&[3])), &good_w),
        "input `x`: expected f32[2], found shape [3] with 3 elements"
    );
    let broken = Array { shape: vec![2], data: vec![0.0] };
    assert_eq!(
        fails(&named("x", broken), &good_w),
        "input `x`: expected f32[2], found shape [2] with 1 elements"
    );
}

#[test]
fn gradient_checks_name_what_they_checked() {
    let program = product();
    let inputs = named("x", array(&[2], &[2.0, 3.0]));
    let parameters = named("w", array(&[2], &[5.0, 7.0]));
    let checks =
        check_gradients(&program, "loss", &inputs, &parameters, RunKey::default(), 1e-4, 1)
            .unwrap();
    let names: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.checked)).collect();
    assert_eq!(names, [("x", 1), ("w", 1)]);
    assert!(checks.iter().all(|check| check.worst_relative_error < 1e-9), "{checks:?}");

    let key = RunKey::default();
    let absent = check_gradients(&program, "cost", &inputs, &parameters, key, 1e-4, 1);
    assert_eq!(absent.unwrap_err().to_string(), "output `cost`: the program has only [loss, y]");
    let no_scalar = check_gradients(&program, "y", &inputs, &parameters, key, 1e-4, 1);
    assert!(matches!(no_scalar, Err(Error::Shape { op: "gradient", .. })), "{no_scalar:?}");
}
