//! The rules against models that break them in ways that no program can: with
//! state, with dice, with logits of another shape.

use super::*;
use modgrad_graph::tensor::Data;

const BATCH: usize = 4;
const CONTEXT: usize = 16;

/// Row t of window b gets `level(call, b, t, window)` at its own byte.
fn model(level: impl FnMut(usize, usize, usize, &[u8]) -> f32 + 'static) -> Model {
    model_of(CONTEXT, level)
}

fn model_of(
    context: usize,
    mut level: impl FnMut(usize, usize, usize, &[u8]) -> f32 + 'static,
) -> Model {
    let mut calls = 0;
    let run = move |tokens: &[u8]| {
        let mut logits = vec![0.0; BATCH * context * BYTES];
        for (index, row) in logits.chunks_exact_mut(BYTES).enumerate() {
            let (place, t) = (index / context, index % context);
            let window = &tokens[place * context..(place + 1) * context];
            row[usize::from(window[t])] = level(calls, place, t, window);
        }
        calls += 1;
        Ok(Tensor::f32([BATCH, context, BYTES], logits)?)
    };
    Model::from_function(BATCH, context, Box::new(run))
}

fn text(length: usize) -> Vec<u8> {
    let mut random = Random::new(length as u64);
    (0..length).map(|_| b'a' + random.below(26) as u8).collect()
}

fn judged(model: Model, length: usize) -> Result<f64, EvalError> {
    judged_on(model, &text(length))
}

fn judged_on(mut model: Model, text: &[u8]) -> Result<f64, EvalError> {
    let options = EvalOptions { seed: Some(3), ..EvalOptions::default() };
    let windows = Windows::new(text, model.context);
    let (bits, probes) = judge(&mut model, &windows, &options)?;
    assert_eq!(probes, if model.context == 1 { 0 } else { LEAST_PROBES });
    Ok(bits.mean()?)
}

#[test]
fn a_model_within_the_rules_passes_at_every_length() {
    for length in [2, 3, 16, 17, 18, 100, 1000, 3001] {
        let honest = model(|_, _, t, window| f32::from(window[t / 2]) / 64.0);
        assert!(judged(honest, length).unwrap() > 7.0, "{length}");
    }
}

#[test]
fn a_model_that_counts_its_runs_keeps_state() {
    for first in [1, 20, 60] {
        let counting = model(move |call, _, _, _| if call < first { 1.0 } else { 1.5 });
        let error = judged(counting, 2000).unwrap_err();
        assert!(matches!(error, EvalError::State { .. }), "{first}: {error}");
    }
}

#[test]
fn a_model_that_remembers_what_it_saw_keeps_state() {
    let mut seen = std::collections::HashSet::new();
    let remembering = model(move |_, _, t, window| {
        if t == 0 && !seen.insert(window.to_vec()) {
            return 9.0;
        }
        1.0
    });
    let error = judged(remembering, 2000).unwrap_err();
    assert!(matches!(error, EvalError::State { row: 0, .. }), "{error}");
}

#[test]
fn a_model_that_rolls_dice_keeps_state() {
    let mut random = Random::new(5);
    let rolling = model(move |_, _, _, _| random.byte().into());
    assert!(matches!(judged(rolling, 2000), Err(EvalError::State { .. })));
}

#[test]
fn a_model_that_knows_its_place_mixes_rows() {
    let placed = model(|_, place, t, _| if t == 3 { place as f32 } else { 1.0 });
    let error = judged(placed, 2000).unwrap_err();
    assert!(matches!(error, EvalError::CrossRow { row: 3, .. }), "{error}");
}

#[test]
fn a_look_at_one_later_byte_is_found_and_named() {
    let peeking = model(|_, _, t, window| match window.get(t + 1) {
        Some(next) if t == 7 => f32::from(*next),
        _ => 1.0,
    });
    match judged(peeking, 2000) {
        Err(EvalError::Causality { position: 7, row: 7, .. }) => {}
        other => panic!("{other:?}"),
    }
    // Where the look goes far, any change in between shows it.
    let far = model(|_, _, t, window| if t == 2 { window[14].into() } else { 1.0 });
    match judged(far, 2000) {
        Err(EvalError::Causality { position: 2..14, row: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_look_that_hides_from_noise_and_zeros_is_found() {
    // It looks ahead only where all that follows is lower-case text.
    let wary = model(|_, _, t, window| {
        let natural = window.iter().all(u8::is_ascii_lowercase);
        match window.get(t + 1) {
            Some(next) if natural => f32::from(*next),
            _ => 1.0,
        }
    });
    assert!(matches!(judged(wary, 4000), Err(EvalError::Causality { .. })));
}

#[test]
fn a_look_at_what_is_zero_anyway_is_found_by_a_change() {
    // In such a text cutting off changes nothing.
    let peeking = model(|_, _, t, window| match window.get(t + 1) {
        Some(next) => f32::from(*next),
        _ => 0.0,
    });
    let found = judged_on(peeking, &[0; 2000]);
    assert!(matches!(found, Err(EvalError::Causality { edit: "changed", .. })), "{found:?}");
}

#[test]
fn a_look_for_the_end_of_the_text_is_found_by_cutting_it_off() {
    // No change of every byte makes three zeros of three letters.
    let measuring = model(|_, _, t, window| {
        let later = &window[t + 1..];
        f32::from(u8::from(later.len() > 2 && later.iter().all(|&byte| byte == 0)))
    });
    let found = judged(measuring, 2001);
    assert!(matches!(found, Err(EvalError::Causality { edit: "cut off", .. })), "{found:?}");
}

#[test]
fn with_a_context_of_one_state_and_place_still_show() {
    assert!(judged_on(model_of(1, |_, _, _, _| 1.0), &text(300)).is_ok());
    // Only the windows that are scored twice can tell.
    let counting = model_of(1, |call, _, _, _| call as f32 / 64.0);
    assert!(matches!(judged_on(counting, &text(300)), Err(EvalError::State { .. })));
    let placed = model_of(1, |_, place, _, _| place as f32);
    assert!(matches!(judged_on(placed, &text(300)), Err(EvalError::CrossRow { .. })));
}

#[test]
fn windows_are_scored_in_an_order_that_the_secret_decides() {
    let order = |seed| {
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let log = seen.clone();
        let mut model = model(move |call, _, t, window| {
            if t == 0 && call < 8 {
                log.borrow_mut().push(window.to_vec());
            }
            1.0
        });
        let text = text(8 * BATCH * CONTEXT + 1);
        let options = EvalOptions { seed, ..EvalOptions::default() };
        judge(&mut model, &Windows::new(&text, CONTEXT), &options).unwrap();
        let in_order: Vec<Vec<u8>> = text.chunks_exact(CONTEXT).map(<[u8]>::to_vec).collect();
        assert_ne!(*seen.borrow(), in_order);
        let mut sorted = (seen.borrow().clone(), in_order);
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1, "each window once");
        seen.take()
    };
    assert_eq!(order(Some(1)), order(Some(1)));
    assert_ne!(order(Some(1)), order(Some(2)));
    assert_ne!(order(None), order(None));
}

#[test]
fn logits_of_another_shape_or_not_finite_are_refused() {
    let wrong = |shape: [usize; 3], value: f32| {
        let run = move |_: &[u8]| {
            let count = shape.iter().product();
            Ok(Tensor::new(shape, Data::F32(vec![value; count]))?)
        };
        judged(Model::from_function(BATCH, CONTEXT, Box::new(run)), 500)
    };
    assert_eq!(wrong([BATCH, CONTEXT, BYTES], 0.25).unwrap(), 8.0);
    let shapes = [[BATCH, CONTEXT, 255], [CONTEXT, BATCH, BYTES], [1, BATCH * CONTEXT, BYTES]];
    for shape in shapes {
        assert!(matches!(wrong(shape, 0.0), Err(EvalError::Logits { .. })), "{shape:?}");
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let found = wrong([BATCH, CONTEXT, BYTES], value);
        assert!(matches!(found, Err(EvalError::NonFinite { row: 0, .. })), "{found:?}");
    }
    // One infinity far from the target counts as well.
    let mut calls = 0;
    let late = model(move |_, _, t, _| {
        calls += 1;
        if calls > 600 && t == 5 { f32::NEG_INFINITY } else { 0.0 }
    });
    assert!(matches!(judged(late, 1000), Err(EvalError::NonFinite { row: 5, .. })));
}

#[test]
fn progress_is_told_and_asked() {
    let text = text(1000);
    let windows = Windows::new(&text, CONTEXT);
    let told = std::cell::RefCell::new(Vec::new());
    let progress = |done, total| told.borrow_mut().push((done, total));
    let options = EvalOptions { progress: Some(&progress), ..EvalOptions::default() };
    judge(&mut model(|_, _, _, _| 0.0), &windows, &options).unwrap();
    let told = told.into_inner();
    let total = told.len();
    assert!(told.iter().enumerate().all(|(index, &seen)| seen == (index + 1, total)));

    let cancelled = || true;
    let options = EvalOptions { cancelled: Some(&cancelled), ..EvalOptions::default() };
    let found = judge(&mut model(|_, _, _, _| 0.0), &windows, &options);
    assert!(matches!(found, Err(EvalError::Cancelled)));
}
