//! One update of a training run against the f64 reference.
//!
//! Each row's f32 operands become parameters, so that gradients are formed in
//! place, in the flat buffer or row by row. One update tells what they were.

use std::collections::BTreeMap;

use modgrad_graph::backend::Backend;
use modgrad_graph::gradient::differentiate;
use modgrad_graph::reference::{Array, run};
use modgrad_graph::storage::Precision;
use modgrad_graph::training::{Group, Rule, Settings, Training};
use modgrad_graph::{DType, Op, Program, Tensor};

use crate::program::Case;
use crate::rows::{KEY, table};

/// The first update is the gradient itself.
const SGD: Rule =
    Rule::Sgd { learning_rate: 1.0, momentum: 0.0, nesterov: false, weight_decay: 0.0 };

/// The first update is a row's gradient over its root mean square.
const ADAGRAD: Rule = Rule::RowwiseAdagrad { learning_rate: 1.0, epsilon: 0.25, weight_decay: 0.0 };

/// `case` with its f32 inputs as trainable parameters; two-dimensional ones are
/// sparse where `sparse`.
fn with_parameters(case: &Case, sparse: bool) -> Case {
    let mut changed = Case {
        program: Program::new(),
        outputs: vec!["loss".into()],
        inputs: case.inputs.clone(),
        parameters: case.parameters.clone(),
    };
    for node in case.program.nodes() {
        let op = match node.op.clone() {
            Op::Input { name, shape, dtype: DType::F32 } => {
                let array = changed.inputs.remove(&name).unwrap();
                changed.parameters.insert(name.clone(), array);
                let sparse = sparse && shape.len() == 2;
                Op::Parameter { name, shape, dtype: DType::F32, trainable: true, sparse }
            }
            op => op,
        };
        changed.program.push(op, &node.inputs).unwrap();
    }
    let loss = case.program.output("loss").unwrap();
    changed.program.set_output("loss", loss).unwrap();
    changed
}

/// The trainable parameters of `program`: name, value, whether sparse.
fn trainable(program: &Program) -> Vec<(String, usize, bool)> {
    let parameters = program.nodes().iter().filter_map(|node| match &node.op {
        Op::Parameter { name, trainable: true, sparse, .. } => {
            Some((name.clone(), node.outputs[0], *sparse))
        }
        _ => None,
    });
    parameters.collect()
}

/// What each trainable parameter is after one update, with half the gradient if it is clipped
/// to that, and the gradient's norm.
fn expected(case: &Case, clip: bool) -> (BTreeMap<String, Array>, f64) {
    let parameters = trainable(&case.program);
    let mut program = case.program.clone();
    let loss = program.output("loss").unwrap();
    let values: Vec<usize> = parameters.iter().map(|(_, value, _)| *value).collect();
    let gradients = differentiate(&mut program, loss, &values).unwrap();
    let values = run(&program, &case.inputs, &case.parameters, KEY).unwrap();
    let kept = if clip { 0.5 } else { 1.0 };
    let (mut updated, mut squares) = (BTreeMap::new(), 0.0);
    for ((name, value, sparse), gradient) in parameters.into_iter().zip(gradients) {
        let mut parameter = values[value].clone();
        let zero = Array::zeros(&parameter.shape);
        let gradient = gradient.map_or(&zero, |gradient| &values[gradient]);
        let width = if sparse { parameter.width() } else { 1 };
        let rows = parameter.data.chunks_mut(width.max(1));
        for (row, gradient) in rows.zip(gradient.data.chunks(width.max(1))) {
            let square = gradient.iter().map(|g| g * g).sum::<f64>();
            squares += square;
            let root = kept * (square / gradient.len() as f64).sqrt();
            let scale = if sparse { root + 0.25 } else { 1.0 };
            row.iter_mut().zip(gradient).for_each(|(x, g)| *x -= kept * g / scale);
        }
        updated.insert(name, parameter);
    }
    (updated, squares.sqrt())
}

/// What each is after `passes` backward passes on the same data and one update.
fn updated<B: Backend>(
    backend: B,
    case: &Case,
    precision: Precision,
    passes: usize,
    clip_norm: Option<f32>,
) -> BTreeMap<String, Array> {
    let parameters = trainable(&case.program);
    let group = |rule, wanted| Group {
        rule,
        parameters: parameters
            .iter()
            .filter(|(_, _, sparse)| *sparse == wanted)
            .map(|(name, _, _)| name.clone())
            .collect(),
    };
    let settings = Settings {
        loss: "loss".into(),
        watch: Vec::new(),
        groups: vec![group(SGD, false), group(ADAGRAD, true)],
        precision,
        clip_norm,
        seed: KEY.seed,
    };
    let mut training = Training::new(backend, &case.program, settings).unwrap();
    training.set_step(KEY.step);
    for (name, _) in case.program.parameters() {
        let tensor = case.parameters[name].to_tensor(DType::F32).unwrap();
        training.executor_mut().set_parameter(name, (&tensor).into()).unwrap();
    }
    let inputs: Vec<(&str, Tensor)> = case
        .program
        .inputs()
        .map(|(name, value)| {
            (name, case.inputs[name].to_tensor(case.program.spec(value).dtype).unwrap())
        })
        .collect();
    let views: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor.into())).collect();
    for _ in 0..passes {
        training.backward(&views).unwrap();
    }
    training.update(1.0).unwrap();
    let read = |name: &String| Array::from(&training.executor().parameter(name).unwrap());
    parameters.iter().map(|(name, _, _)| (name.clone(), read(name))).collect()
}

/// Compares the update of every row whose op is `wanted` after `passes` backward passes;
/// with `sparse`, only those of embeddings, whose tables are then sparse; with `clip`, the
/// gradient is clipped to half its norm.
pub fn assert_updates_agree<B: Backend + Clone>(
    backend: &B,
    precision: Precision,
    tolerance: f64,
    passes: usize,
    sparse: bool,
    clip: bool,
    wanted: impl Fn(&Op) -> bool,
) {
    let mut failures = Vec::new();
    for row in table().into_iter().filter(|row| !row.differentiable.is_empty()) {
        // The passes of one update have dropout masks of their own, and only an
        // embedding has a sparse gradient.
        let is_embedding = matches!(row.op, Op::Embedding | Op::EmbeddingBag);
        let is_dropout = matches!(row.op, Op::Dropout { .. });
        if (is_dropout && passes > 1) || (sparse && !is_embedding) || !wanted(&row.op) {
            continue;
        }
        let case = with_parameters(&row.case_with_loss(), sparse);
        let (expected, norm) = expected(&case, clip);
        let limit = clip.then_some((norm / 2.0) as f32);
        let found = updated(backend.clone(), &case, precision, passes, limit);
        for (name, expected) in expected {
            let scale = expected.data.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
            let pairs = expected.data.iter().zip(&found[&name].data);
            let near = |(x, y): (&f64, &f64)| (x - y).abs() <= tolerance * scale;
            if !pairs.clone().all(near) {
                let off = pairs.map(|(x, y)| (x - y).abs() / scale).fold(0.0, f64::max);
                failures.push(format!("`{name}` is off by {off:e} in {}", row.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
