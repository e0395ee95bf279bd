//! The trivial predictors against figures known beforehand, the judge on loops,
//! and the rules against models that break them in ways that no program can.

use super::model::MOVES;
use super::puzzle::Outcome;
use super::*;
use crate::maze_gen::{WAIT, moved};
use modgrad_compute::Pool;
use modgrad_graph::Tensor;
use std::collections::HashMap;

const CORNER: MazeOptions =
    MazeOptions { size: 21, algorithm: Algorithm::Dfs, layout: Layout::Corner, loops: 0.0 };
const BATCH: usize = 16;
const STEPS: usize = 6;
const SIZE: usize = 9;

/// Figures that an independent program found on 2000 such mazes: the first step,
/// all of 20 steps, the correct prefix. Where it gave a range, the middle of it.
#[test]
fn trivial_predictors_reach_what_is_known_of_them() {
    let known = [
        ("always_up", [0.0, 0.09, 0.0]),
        ("always_down", [0.4935, 0.40, 2.0]),
        ("always_left", [0.0, 0.09, 0.0]),
        ("always_right", [0.5065, 0.41, 2.0]),
        ("best_move_per_step", [0.51, 0.417, 1.8]),
        ("best_move_per_step_given_first_ways", [1.0, 0.481, 3.5]),
        ("corridors_turning_at_random", [1.0, 0.955, 19.0]),
        ("corridors_turning_down_or_right", [1.0, 1.0, 19.99]),
        ("corridors_turning_toward_the_goal", [1.0, 1.0, 19.99]),
    ];
    let pool = Pool::new(2);
    for seed in [42, 1041] {
        let puzzles = Puzzle::all(&pool, &CORNER, Stream::Sequential { seed }, 2000).unwrap();
        let scores = trivial_scores(&pool, &CORNER, &puzzles, 20).unwrap();
        assert!(scores.iter().map(|score| score.name).eq(known.map(|(name, _)| name)));
        for (TrivialScore { name, figures }, (_, [first, step, prefix])) in scores.iter().zip(known)
        {
            // Two samples of 2000 differ by 0.032 in a rate of a half, at 95 %, and
            // by 0.17 in such a prefix.
            assert!((figures.first_step.value - first).abs() < 0.032, "{name}: {figures:?}");
            assert!((figures.per_step.value - step).abs() < 0.016, "{name}: {figures:?}");
            assert!((figures.correct_prefix.value - prefix).abs() < 0.17, "{name}: {figures:?}");
            assert_eq!(figures.whole_route.value, 0.0, "no route has 20 steps");
        }
        if seed == 42 {
            let first = |index: usize| scores[index].figures.first_step.value;
            assert_eq!((first(1), first(3)), (0.4935, 0.5065), "counted, not estimated");
        }
        let share = |forced: &Outcome| forced.prefix == 20;
        let forced = |puzzle: &Puzzle| puzzle.judge(&forced_moves(puzzle));
        let alone = puzzles.iter().map(forced).filter(share).count() as f64 / 2000.0;
        assert!((alone - 0.73).abs() < 0.03, "no junction in 20 steps: {alone}");
    }
}

/// The moves up to the first junction, then waits.
fn forced_moves(puzzle: &Puzzle) -> Vec<u8> {
    let mut back = None;
    let mut moves = Vec::new();
    for (pixel, code) in puzzle.solution.route().take(20) {
        if puzzle.maze.ways(pixel).filter(|&way| Some(way) != back).count() > 1 {
            break;
        }
        moves.push(code);
        back = Some(code ^ 1);
    }
    moves.resize(20, WAIT);
    moves
}

#[test]
fn on_open_mazes_the_first_step_is_a_decision() {
    let (pool, options) = (Pool::new(2), MazeOptions::default());
    let stream = Stream::Indexed { seed: 3, first: 0 };
    let puzzles = Puzzle::all(&pool, &options, stream, 2000).unwrap();
    for score in trivial_scores(&pool, &options, &puzzles, 20).unwrap() {
        let first = score.figures.first_step.value;
        assert!(first < 0.62, "{}: {first}", score.name);
    }
}

#[test]
fn any_shortest_path_counts_and_the_judge_goes_on_after_a_mistake() {
    // Without walls every path that never turns back is shortest.
    let options = MazeOptions { loops: 1.0, size: SIZE, ..CORNER };
    let pool = Pool::new(1);
    let puzzle = &Puzzle::all(&pool, &options, Stream::Sequential { seed: 1 }, 1).unwrap()[0];
    let outcome = |moves: &[u8]| {
        let Outcome { length, scored, right, prefix } = puzzle.judge(moves);
        assert_eq!((length, scored), (12, moves.len().min(12)));
        (right, prefix)
    };
    let (down, right) = (1, 3);
    assert_eq!(outcome(&[&[down; 6][..], &[right; 6]].concat()), (12, 12));
    assert_eq!(outcome(&[&[right; 6][..], &[down; 6]].concat()), (12, 12));
    assert_eq!(outcome(&[&[right; 2][..], &[down; 6], &[right; 4], &[WAIT; 9]].concat()), (12, 12));
    assert_eq!(outcome(&[down; 12]), (6, 6), "past the last row there is wall");
    // A turn between cells is a mistake. The judge goes down in its place, and the
    // rest is right again.
    assert_eq!(outcome(&[down, right, right, right]), (3, 1));
    assert_eq!(outcome(&[WAIT, 0, 2, right]), (0, 0), "three mistakes, then between cells");
}

#[test]
fn without_loops_the_judge_compares_with_the_route() {
    let mut random = Random::new(8);
    let pool = Pool::new(1);
    for puzzle in Puzzle::all(&pool, &CORNER, Stream::Sequential { seed: 9 }, 200).unwrap() {
        let route: Vec<u8> = puzzle.solution.route().map(|(_, code)| code).collect();
        let keep = |code: &u8| if random.below(4) > 0 { *code } else { random.below(5) as u8 };
        let moves: Vec<u8> = route.iter().take(30).map(keep).collect();
        let same: Vec<bool> = moves.iter().zip(&route).map(|(found, code)| found == code).collect();
        let expected = Outcome {
            length: route.len(),
            scored: moves.len(),
            right: same.iter().filter(|same| **same).count(),
            prefix: same.iter().take_while(|same| **same).count(),
        };
        assert_eq!(puzzle.judge(&moves), expected);
    }
}

#[test]
fn figures_of_known_outcomes() {
    let outcome = |length, right, prefix| Outcome { length, scored: 10.min(length), right, prefix };
    let outcomes = [outcome(8, 8, 8), outcome(30, 10, 10), outcome(30, 5, 0), outcome(10, 1, 1)];
    let figures = Figures::of(&outcomes, 10);
    assert_eq!(figures.first_step.value, 0.75);
    assert_eq!(figures.per_step.value, 24.0 / 38.0);
    assert_eq!(figures.correct_prefix.value, 4.75);
    assert_eq!((figures.scored_route.value, figures.whole_route.value), (0.5, 0.25));
    let (low, high) = crate::metrics::wilson_95(3, 4);
    assert_eq!((figures.first_step.low, figures.first_step.high), (low, high));
    // (8, 10, 0, 1) have a deviation of 4.992: 1.96 · 4.992 / 2 is 4.892.
    let prefix = figures.correct_prefix;
    assert!(prefix.low == 0.0 && (prefix.high - 9.642).abs() < 0.001, "{prefix:?}");
    // Residuals 2.947, 3.684, −1.316, −5.316: variance 4/3 · 52.25 / 38² = 0.0482,
    // as of 4.82 trials.
    let (low, high) = crate::metrics::wilson_95_at(24.0 / 38.0, 4.822);
    let step = figures.per_step;
    assert!((step.low - low).abs() < 0.001 && (step.high - high).abs() < 0.001, "{step:?}");

    let perfect = Figures::of(&[outcome(10, 10, 10); 50], 10);
    let (low, high) = crate::metrics::wilson_95(50, 50);
    assert_eq!(perfect.per_step, Estimate { value: 1.0, low, high });
    assert_eq!(perfect.correct_prefix, Estimate { value: 10.0, low: 10.0, high: 10.0 });
    let one = Figures::of(&[outcome(10, 5, 5)], 10);
    assert_eq!((one.correct_prefix.low, one.correct_prefix.high), (0.0, 10.0));
    assert!(one.per_step.low < 0.2 && one.per_step.high > 0.8);
}

/// A model that gives `logits(call, place, pixels)` for the maze at a place.
fn model(mut logits: impl FnMut(usize, usize, &[f32]) -> Vec<f32> + 'static) -> Model {
    let mut calls = 0;
    let run = move |pixels: Vec<f32>| {
        let mazes = pixels.chunks_exact(3 * SIZE * SIZE).enumerate();
        let all: Vec<f32> = mazes.flat_map(|(place, maze)| logits(calls, place, maze)).collect();
        calls += 1;
        Tensor::f32([BATCH, all.len() / BATCH / MOVES, MOVES], all)
    };
    Model::from_function(BATCH, SIZE, STEPS, Box::new(run))
}

fn judged(model: Model) -> Result<MazeScore, MazeEvalError> {
    let options = MazeEvalOptions { secret: Some(4), threads: 2, ..MazeEvalOptions::default() };
    score(model, &options, Instant::now())
}

/// Logits for one move throughout.
fn always(code: usize) -> Vec<f32> {
    (0..STEPS * MOVES).map(|index| f32::from(u8::from(index % MOVES == code))).collect()
}

#[test]
fn a_model_within_the_rules_passes() {
    let score = judged(model(|_, _, maze| always(maze.iter().sum::<f32>() as usize % 4))).unwrap();
    assert_eq!((score.mazes, score.repeated, score.fresh_mazes), (200, 200, 200));
    assert_eq!(score.val_bpb, 1.0 - score.figures.first_step.value);
    let blind = judged(model(|_, _, _| vec![0.25; STEPS * MOVES])).unwrap();
    assert_eq!(blind.val_bpb, 1.0, "of equals the last: wait");
}

#[test]
fn a_model_with_state_or_dice_is_refused() {
    for first in [1, 5, 12, 14] {
        let counting = model(move |call, _, _| always(usize::from(call < first)));
        let error = judged(counting).unwrap_err();
        assert!(matches!(error, MazeEvalError::State { .. }), "{first}: {error}");
    }
    let mut random = Random::new(6);
    let rolling =
        model(move |_, _, _| (0..STEPS * MOVES).map(|_| random.below(9) as f32).collect());
    assert!(matches!(judged(rolling), Err(MazeEvalError::State { .. })));
    let mut seen = std::collections::HashSet::new();
    let remembering = model(move |_, _, maze| {
        let bits: Vec<u32> = maze.iter().map(|value| value.to_bits()).collect();
        always(usize::from(seen.insert(bits)))
    });
    assert!(matches!(judged(remembering), Err(MazeEvalError::State { .. })));
}

#[test]
fn a_model_that_knows_its_place_mixes_mazes() {
    // One bit of one logit of one step, at one place.
    let placed = model(|_, place, _| {
        let mut logits = always(1);
        logits[17] = if place == 3 { 1e-30 } else { 0.0 };
        logits
    });
    let error = judged(placed).unwrap_err();
    assert!(matches!(error, MazeEvalError::CrossRow { .. }), "{error}");
}

#[test]
fn a_model_that_learned_the_pinned_mazes_is_refused() {
    let options = MazeOptions { size: SIZE, ..MazeOptions::default() };
    let puzzles =
        Puzzle::all(&Pool::new(1), &options, stream(&options, PINNED_SEED), PINNED_MAZES).unwrap();
    let key = |maze: &[f32]| maze.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let answers: HashMap<_, _> = puzzles
        .iter()
        .map(|Puzzle { maze, solution }| {
            let mut pixels = vec![0.0; 3 * SIZE * SIZE];
            maze.render(&mut pixels);
            (key(&pixels), usize::from(solution.first_right(maze.start())))
        })
        .collect();
    let learned = answers.clone();
    let knowing = model(move |_, _, maze| always(learned.get(&key(maze)).copied().unwrap_or(1)));
    match judged(knowing) {
        Err(MazeEvalError::Memorised { pinned, fresh }) => assert!(pinned == 1.0 && fresh < 0.5),
        other => panic!("{other:?}"),
    }
    // An honest model that is right on all of both is not.
    let solving = model(|_, _, maze| always(solved(maze)));
    assert_eq!(judged(solving).unwrap().val_bpb, 0.0);
}

/// The first move, by flooding from the goal: what an honest model might compute.
fn solved(maze: &[f32]) -> usize {
    let plane = SIZE * SIZE;
    let colour = |pixel: usize| [0, 1, 2].map(|channel| maze[channel * plane + pixel]);
    let of = |wanted| (0..plane).find(|&pixel| colour(pixel) == wanted).unwrap();
    let (start, mut reached) = (of([1.0, 0.0, 0.0]), vec![of([0.0, 1.0, 0.0])]);
    loop {
        if let Some(code) = (0..4).find(|&code| reached.contains(&moved(start, code, SIZE))) {
            return usize::from(code);
        }
        for pixel in reached.clone() {
            for there in (0..4).map(|code| moved(pixel, code, SIZE)) {
                if colour(there) != [0.0; 3] && there != start && !reached.contains(&there) {
                    reached.push(there);
                }
            }
        }
    }
}

#[test]
fn logits_of_another_shape_or_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let spoiled = model(move |call, place, _| {
            let mut logits = always(2);
            logits[22] = if (call, place) == (7, 5) { bad } else { 0.0 };
            logits
        });
        let error = judged(spoiled).unwrap_err();
        assert!(matches!(error, MazeEvalError::NonFinite { step: 4 }), "{error}");
    }
    let short = model(|_, _, _| vec![0.0; MOVES]);
    assert!(matches!(judged(short), Err(MazeEvalError::Logits { .. })));
}

#[test]
fn progress_is_told_and_a_wish_to_stop_is_heard() {
    let told = std::cell::RefCell::new(Vec::new());
    let progress = |done, total| told.borrow_mut().push((done, total));
    let cancelled = || told.borrow().len() == 9;
    let base = MazeEvalOptions { secret: Some(4), threads: 1, ..MazeEvalOptions::default() };
    let options = MazeEvalOptions { progress: Some(&progress), ..base };
    score(model(|_, _, _| always(0)), &options, Instant::now()).unwrap();
    // 200 mazes in batches of 16, then 200 again and 200 others.
    assert!(told.borrow().iter().copied().eq((1..=38).map(|done| (done, 38))));
    told.borrow_mut().clear();
    let options = MazeEvalOptions { cancelled: Some(&cancelled), ..options };
    let stopped = score(model(|_, _, _| always(0)), &options, Instant::now());
    assert!(matches!(stopped, Err(MazeEvalError::Cancelled)));
    assert_eq!(told.borrow().len(), 9);
}
