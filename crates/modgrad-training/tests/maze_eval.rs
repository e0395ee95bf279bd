//! Programs made by hand, scored on mazes: with figures known beforehand, or
//! refused by name.

mod common;

use modgrad_graph::op::Op;
use modgrad_graph::{DType, Program, Tensor, ValueId};
use modgrad_training::maze_gen::{Algorithm, Layout, Maze, MazeError, MazeOptions};
use modgrad_training::{Checkpoint, MazeEvalError, MazeEvalOptions, MazeScore, eval_mazes};
use std::collections::BTreeMap;

const CORNER: MazeEvalOptions<'static> = MazeEvalOptions {
    size: Some(21),
    algorithm: Algorithm::Dfs,
    layout: Layout::Corner,
    loops: 0.0,
    mazes: 200,
    seed: 42,
    route_length: None,
    threads: 2,
    secret: Some(1),
    max_memory: 1 << 30,
    progress: None,
    cancelled: None,
};

/// A program for mazes under construction.
struct Builder {
    program: Program,
    batch: usize,
    size: usize,
    steps: usize,
    pixels: ValueId,
}

impl Builder {
    fn new(batch: usize, size: usize, steps: usize) -> Self {
        let mut program = Program::new();
        let shape = vec![batch, 3, size, size];
        let input = Op::Input { name: "pixels".into(), shape, dtype: DType::F32 };
        let pixels = program.apply(input, &[]).unwrap();
        Builder { program, batch, size, steps, pixels }
    }

    fn apply(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.program.apply(op, inputs).unwrap()
    }

    fn constant(&mut self, shape: &[usize], value: f32) -> ValueId {
        self.apply(Op::Constant { shape: shape.to_vec(), value }, &[])
    }

    /// f32[B, 1]: whether a pixel is floor, from its red.
    fn floor_at(&mut self, row: usize, column: usize) -> ValueId {
        let flat = Op::Reshape { shape: vec![self.batch, 3 * self.size * self.size] };
        let flat = self.apply(flat, &[self.pixels]);
        let start = row * self.size + column;
        self.apply(Op::Slice { axis: 1, start, end: start + 1, step: 1 }, &[flat])
    }

    /// Logits f32[B, 5] at every step.
    fn at_every_step(&mut self, logits: ValueId) -> ValueId {
        let one = self.apply(Op::Reshape { shape: vec![self.batch, 1, 5] }, &[logits]);
        self.apply(Op::BroadcastTo { shape: vec![self.batch, self.steps, 5] }, &[one])
    }

    fn finish(mut self, logits: ValueId) -> Program {
        self.program.set_output("logits", logits).unwrap();
        self.program
    }
}

fn checkpoint(programs: impl IntoIterator<Item = (&'static str, Program)>) -> Checkpoint {
    let programs = programs.into_iter().map(|(name, program)| (name.to_owned(), program));
    Checkpoint { programs: programs.collect(), ..Checkpoint::default() }
}

/// One move, whatever it sees.
fn always(code: usize, batch: usize, size: usize, steps: usize) -> Program {
    let mut builder = Builder::new(batch, size, steps);
    let parts: Vec<ValueId> = (0..5)
        .map(|other| builder.constant(&[batch, 1], f32::from(u8::from(other == code))))
        .collect();
    let logits = builder.apply(Op::Concat { axis: 1 }, &parts);
    let logits = builder.at_every_step(logits);
    builder.finish(logits)
}

/// Looks at the pixels below and right of the corner, and goes on that way.
fn first_way(batch: usize, size: usize, steps: usize) -> Program {
    let mut builder = Builder::new(batch, size, steps);
    let none = builder.constant(&[batch, 1], 0.0);
    let down = builder.floor_at(2, 1);
    let right = builder.floor_at(1, 2);
    let low = builder.constant(&[batch, 1], -1.0);
    let logits = builder.apply(Op::Concat { axis: 1 }, &[none, down, none, right, low]);
    let logits = builder.at_every_step(logits);
    builder.finish(logits)
}

fn scored(program: Program, options: &MazeEvalOptions<'_>) -> MazeScore {
    eval_mazes(&checkpoint([("score", program)]), options).unwrap()
}

fn refusal(checkpoint: &Checkpoint, options: &MazeEvalOptions<'_>) -> MazeEvalError {
    match eval_mazes(checkpoint, options) {
        Ok(score) => panic!("scored {}", score.val_bpb),
        Err(error) => error,
    }
}

/// The routes of the published evaluation set of a seed.
fn routes(seed: u64) -> Vec<Vec<u8>> {
    let options = MazeOptions { layout: Layout::Corner, ..MazeOptions::default() };
    let route = |maze: Maze| maze.solve().route().map(|(_, code)| code).collect();
    options.sequence(seed + 999).unwrap().take(200).map(route).collect()
}

#[test]
fn a_majority_constant_scores_what_is_known_of_it() {
    // Counted by an independent program: 51.0, 53.5 and 50.0 % of 200.
    for (seed, majority) in [(42, 0.51), (43, 0.535), (44, 0.5)] {
        let options = MazeEvalOptions { seed, ..CORNER };
        let first = [1, 3].map(|code| {
            let score = scored(always(code, 50, 21, 20), &options);
            assert_eq!(score.val_bpb, 1.0 - score.figures.first_step.value);
            score.figures.first_step.value
        });
        assert!((first[0] + first[1] - 1.0).abs() < 1e-12, "down or right");
        assert_eq!(first[0].max(first[1]), majority, "seed {seed}");
    }
}

#[test]
fn a_program_that_reads_one_pixel_gets_the_first_step_of_the_corner() {
    let score = scored(first_way(32, 21, 20), &CORNER);
    assert_eq!(score.val_bpb, 0.0);
    let first = score.figures.first_step;
    assert!(first.value == 1.0 && first.high == 1.0 && (first.low - 0.981).abs() < 0.001);

    let routes = routes(42);
    let same = |route: &Vec<u8>| route[..20].iter().filter(|&&code| code == route[0]).count();
    let right: usize = routes.iter().map(same).sum();
    assert_eq!(score.figures.per_step.value, right as f64 / 4000.0);
    let prefix = |route: &Vec<u8>| route[..20].iter().take_while(|&&code| code == route[0]).count();
    let prefix: usize = routes.iter().map(prefix).sum();
    assert_eq!(score.figures.correct_prefix.value, prefix as f64 / 200.0);

    assert_eq!((score.mazes, score.route_length, score.mazes_in_reach), (200, 20, 0));
    assert_eq!(score.mean_length, 18_832.0 / 200.0);
    assert_eq!((score.program.as_str(), score.seed, score.options.size), ("score", 42, 21));
    let open = scored(first_way(32, 21, 20), &MazeEvalOptions { layout: Layout::Open, ..CORNER });
    assert!(open.val_bpb > 0.5, "{}", open.val_bpb);
}

#[test]
fn the_pinned_mazes_stay_as_they_are() {
    let digest = |options: &MazeEvalOptions<'_>| scored(always(0, 8, 21, 4), options).mazes_sha256;
    let open = MazeEvalOptions { layout: Layout::Open, ..CORNER };
    assert_eq!(digest(&CORNER), "86e47816cee04fb54666c97edfbe623fdd28b96e56732614f83718938da88e16");
    assert_eq!(digest(&open), "867c5de97edaa367b182af33c90d74cf8e431b9e57d4b0cc512a2ed18eda401a");
}

#[test]
fn a_score_does_not_depend_on_threads_batch_or_secret() {
    let open = MazeEvalOptions { layout: Layout::Open, loops: 0.05, mazes: 150, ..CORNER };
    let mut scores = Vec::new();
    for (batch, threads, secret) in [(1, 1, 1), (1, 2, 2), (7, 2, 3), (150, 1, 4), (400, 3, 5)] {
        let options = MazeEvalOptions { threads, secret: Some(secret), ..open };
        let score = scored(first_way(batch, 21, 20), &options);
        // All but what the secret and the clock decide.
        scores.push(MazeScore {
            seconds: 0.0,
            fresh_first_step: score.figures.first_step,
            ..score
        });
    }
    scores.iter().for_each(|other| assert_eq!(other, &scores[0]));
}

#[test]
fn fewer_steps_may_be_scored_than_are_predicted() {
    let known = scored(first_way(8, 21, 20), &CORNER);
    let longer = first_way(8, 21, 200);
    let short = scored(longer.clone(), &MazeEvalOptions { route_length: Some(20), ..CORNER });
    assert_eq!(short.figures, known.figures);
    assert_eq!(short.trivial, known.trivial);
    let whole = scored(longer, &CORNER);
    assert_eq!((whole.mazes_in_reach, whole.figures.whole_route.value), (200, 0.0));
    for asked in [0, 21] {
        let options = MazeEvalOptions { route_length: Some(asked), ..CORNER };
        let error = refusal(&checkpoint([("score", first_way(8, 21, 20))]), &options);
        assert!(matches!(error, MazeEvalError::RouteLength { found: 20, .. }), "{error}");
    }
}

#[test]
fn programs_for_other_sizes_stand_beside_it() {
    let sizes = [("score", 9), ("score_21", 21), ("score_39", 39)];
    let family = checkpoint(sizes.map(|(name, size)| (name, first_way(4, size, 8))));
    let found = |size| {
        let options = MazeEvalOptions { size, mazes: 20, ..CORNER };
        let score = eval_mazes(&family, &options).unwrap();
        assert_eq!(score.val_bpb, 0.0);
        (score.program, score.options.size)
    };
    assert_eq!(found(None), ("score".to_owned(), 9));
    assert_eq!(found(Some(9)), ("score".to_owned(), 9));
    assert_eq!(found(Some(21)), ("score_21".to_owned(), 21));
    assert_eq!(found(Some(39)), ("score_39".to_owned(), 39));
    let error = refusal(&family, &MazeEvalOptions { size: Some(11), ..CORNER }).to_string();
    let expected = "the checkpoint has no program `score` for mazes of 11x11, nor `score_11`, \
                    it has only [score: pixels f32[4, 3, 9, 9], ";
    assert!(error.starts_with(expected), "{error}");
    let error = refusal(&checkpoint([("train", first_way(4, 9, 8))]), &CORNER);
    assert!(matches!(error, MazeEvalError::NoProgram { .. }), "{error}");
    let none = MazeEvalOptions { size: None, ..CORNER };
    let error = refusal(&checkpoint([("score_9", first_way(4, 9, 8))]), &none).to_string();
    assert!(error.starts_with("the checkpoint has no program `score`, it has only ["), "{error}");
    // Its name does not make it one of that size.
    let error = refusal(&checkpoint([("score_21", first_way(4, 9, 8))]), &CORNER);
    assert!(matches!(&error, MazeEvalError::Inputs { size, .. } if size == "21"), "{error}");
}

#[test]
fn one_set_of_weights_serves_every_size() {
    let program = |size: usize| {
        let mut builder = Builder::new(4, size, 8);
        let parameter = Op::Parameter {
            name: "bias".into(),
            shape: vec![5],
            dtype: DType::F32,
            trainable: true,
            sparse: false,
        };
        let bias = builder.apply(parameter, &[]);
        let logits = builder.apply(Op::BroadcastTo { shape: vec![4, 8, 5] }, &[bias]);
        builder.finish(logits)
    };
    let bias = |values: [f32; 5]| {
        let tensor = Tensor::f32([5], values.to_vec()).unwrap();
        Checkpoint {
            weights: BTreeMap::from([("bias".to_owned(), tensor)]),
            ..checkpoint([("score", program(21)), ("score_39", program(39))])
        }
    };
    for size in [21, 39] {
        let options = MazeEvalOptions { size: Some(size), ..CORNER };
        let first = |values| eval_mazes(&bias(values), &options).unwrap().figures.first_step.value;
        let down = first([0.0, 1.0, 0.0, 0.0, 0.0]);
        let right = first([0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(down + right, 1.0);
        // Of equals the last: here right, not down.
        assert_eq!(first([0.0, 1.0, 0.0, 1.0, 0.0]), right);
    }
    let mut bad = bias([0.0; 5]);
    bad.weights.remove("bias");
    assert!(matches!(refusal(&bad, &CORNER), MazeEvalError::Parameter { .. }));
    let bad = bias([0.0, 0.0, f32::NAN, 0.0, 0.0]);
    assert!(refusal(&bad, &CORNER).to_string().contains("`bias`: it is not finite"));
}

#[test]
fn a_program_that_mixes_the_batch_is_refused() {
    let mut builder = Builder::new(8, 21, 20);
    let seen = builder.floor_at(1, 2);
    let mean = serde_json::json!({"op": "reduce", "kind": "mean", "axis": 0});
    let mean = builder.apply(serde_json::from_value(mean).unwrap(), &[seen]);
    let logits = builder.apply(Op::BroadcastTo { shape: vec![8, 20, 5] }, &[mean]);
    let error = refusal(&checkpoint([("score", builder.finish(logits))]), &CORNER);
    assert!(matches!(error, MazeEvalError::CrossRow { .. }), "{error}");
}

#[test]
fn logits_that_are_not_finite_are_refused() {
    let mut builder = Builder::new(8, 21, 20);
    let seen = builder.floor_at(1, 2);
    let log = serde_json::json!({"op": "unary", "function": "log"});
    let log = builder.apply(serde_json::from_value(log).unwrap(), &[seen]);
    let log = builder.apply(Op::Reshape { shape: vec![8, 1, 1] }, &[log]);
    let logits = builder.apply(Op::BroadcastTo { shape: vec![8, 20, 5] }, &[log]);
    let error = refusal(&checkpoint([("score", builder.finish(logits))]), &CORNER);
    assert!(matches!(error, MazeEvalError::NonFinite { step: 0 }), "{error}");
}

#[test]
fn programs_of_another_form_are_refused() {
    let of = |name: &str, shape: &[usize], dtype, logits: &[usize]| {
        let mut program = Program::new();
        let input = Op::Input { name: name.into(), shape: shape.to_vec(), dtype };
        program.apply(input, &[]).unwrap();
        let logits = Op::Constant { shape: logits.to_vec(), value: 0.0 };
        let logits = program.apply(logits, &[]).unwrap();
        program.set_output("logits", logits).unwrap();
        checkpoint([("score", program)])
    };
    let any = MazeEvalOptions { size: None, mazes: 3, ..CORNER };
    let good = of("pixels", &[2, 3, 21, 21], DType::F32, &[2, 20, 5]);
    assert_eq!(eval_mazes(&good, &any).unwrap().val_bpb, 1.0);
    for (name, shape, dtype) in [
        ("tokens", &[2, 3, 21, 21][..], DType::F32),
        ("pixels", &[2, 3, 21, 21], DType::I32),
        ("pixels", &[2, 1, 21, 21], DType::F32),
        ("pixels", &[2, 3, 21, 19], DType::F32),
        ("pixels", &[0, 3, 21, 21], DType::F32),
        ("pixels", &[2, 3, 21], DType::F32),
    ] {
        let error = refusal(&of(name, shape, dtype, &[2, 20, 5]), &any);
        assert!(matches!(error, MazeEvalError::Inputs { .. }), "{name} {shape:?}: {error}");
    }
    for logits in [&[2, 20, 4][..], &[1, 20, 5], &[2, 0, 5], &[2, 100]] {
        let error = refusal(&of("pixels", &[2, 3, 21, 21], DType::F32, logits), &any);
        assert!(matches!(error, MazeEvalError::Logits { .. }), "{logits:?}: {error}");
    }
    let error = refusal(&of("pixels", &[2, 3, 21, 21], DType::F32, &[2, 20, 4]), &any);
    let expected = "program `score`: expected an output `logits` f32[2, steps, 5], \
                    found f32[2, 20, 4]";
    assert_eq!(error.to_string(), expected);
    for size in [4, 20, 3, 1001] {
        let error = refusal(&of("pixels", &[1, 3, size, size], DType::F32, &[1, 20, 5]), &any);
        let impossible = MazeError::Size { size };
        assert!(matches!(error, MazeEvalError::Maze(found) if found == impossible), "{size}");
    }
    let mut builder = Builder::new(2, 21, 20);
    let seen = builder.floor_at(1, 2);
    let dropped = builder.apply(Op::Dropout { probability: 0.5, stream: 1 }, &[seen]);
    let dropped = builder.apply(Op::Reshape { shape: vec![2, 1, 1] }, &[dropped]);
    let logits = builder.apply(Op::BroadcastTo { shape: vec![2, 20, 5] }, &[dropped]);
    let error = refusal(&checkpoint([("score", builder.finish(logits))]), &CORNER);
    assert!(matches!(error, MazeEvalError::Dropout { .. }), "{error}");
    // A language model is none of mazes.
    let error = refusal(&common::bigram(2, 8), &any);
    assert!(error.to_string().contains("found [tokens u8[2, 8]]"), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let model = checkpoint([("score", first_way(8, 21, 20))]);
    let refused = |options| refusal(&model, &options);
    for mazes in [0, 100_001] {
        let error = refused(MazeEvalOptions { mazes, ..CORNER });
        assert!(matches!(error, MazeEvalError::Option { option: "mazes", .. }), "{error}");
    }
    for threads in [0, 100_000] {
        let error = refused(MazeEvalOptions { threads, ..CORNER });
        assert!(matches!(error, MazeEvalError::Option { option: "threads", .. }), "{error}");
    }
    for loops in [-1.0, f64::NAN] {
        let error = refused(MazeEvalOptions { loops, ..CORNER });
        assert!(matches!(error, MazeEvalError::Maze(MazeError::Loops { .. })), "{error}");
    }
    let error = refused(MazeEvalOptions { max_memory: 100_000, ..CORNER });
    assert!(matches!(error, MazeEvalError::Memory { limit: 100_000, .. }), "{error}");
    // 64 GiB of nothing, in forty bytes of program.
    let mut builder = Builder::new(2, 21, 20);
    let vast = builder.constant(&[1 << 17, 1 << 17], 0.0);
    let rows = serde_json::json!({"op": "reduce", "kind": "sum", "axis": 0});
    let rows = builder.apply(serde_json::from_value(rows).unwrap(), &[vast]);
    let logits = builder.apply(Op::Slice { axis: 0, start: 0, end: 200, step: 1 }, &[rows]);
    let logits = builder.apply(Op::Reshape { shape: vec![2, 20, 5] }, &[logits]);
    let error = refusal(&checkpoint([("score", builder.finish(logits))]), &CORNER);
    assert!(matches!(error, MazeEvalError::Memory { .. }), "{error}");
}

#[test]
fn a_score_is_written_flat() {
    let score = scored(first_way(8, 21, 20), &MazeEvalOptions { mazes: 9, ..CORNER });
    let json = serde_json::to_value(&score).unwrap();
    assert_eq!(json["val_bpb"], 0.0);
    assert_eq!(json["first_step"]["value"], 1.0);
    assert_eq!((&json["layout"], &json["algorithm"]), (&"corner".into(), &"dfs".into()));
    assert_eq!((&json["size"], &json["mazes"]), (&21.into(), &9.into()));
    assert_eq!(json["trivial"].as_array().map(Vec::len), Some(9));
    assert_eq!(json["trivial"][1]["name"], "always_down");
    assert!(json["trivial"][1]["correct_prefix"]["high"].is_f64());
}
