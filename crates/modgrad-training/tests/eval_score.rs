//! What a score is: exact where it can be, the same every time.

mod common;

use common::{Builder, Stream, bigram, looks_back, uniform};
use modgrad_graph::Op;
use modgrad_training::{Checkpoint, EvalError, EvalOptions, eval_ffn, sha256_hex};

fn score(checkpoint: &Checkpoint, data: &[u8]) -> modgrad_training::LanguageScore {
    eval_ffn(checkpoint, data, &EvalOptions::default()).unwrap()
}

#[test]
fn uniform_logits_score_exactly_eight() {
    let text = Stream(7).text(1000, 60);
    for level in [0.0, 1.5, -1e20] {
        assert_eq!(score(&uniform(3, 16, level), &text).bits_per_byte, 8.0);
    }
}

#[test]
fn every_context_scores_the_same_targets() {
    let text = Stream(8).text(331, 60);
    let mut scores = Vec::new();
    for context in [1, 2, 3, 7, 16, 110, 165, 329, 330, 331, 400] {
        let found = score(&bigram(2, context), &text);
        assert_eq!(found.n_targets, 330);
        assert_eq!(found.context, context);
        assert_eq!(found.windows, 330usize.div_ceil(context));
        assert_eq!(found.bits_by_position.iter().map(|b| b.targets).sum::<u64>(), 330);
        assert_eq!(found.probes, if context == 1 { 0 } else { 256 });
        scores.push(found.bits_per_byte);
    }
    // A model of one byte of context costs the same however the text is cut.
    for score in &scores {
        assert!((score - scores[0]).abs() < 1e-12, "{scores:?}");
    }
}

#[test]
fn a_known_model_agrees_with_a_plain_computation() {
    let (width, context) = (6, 24);
    let text = Stream(9).text(700, 70);
    let mut builder = Builder::new(5, context);
    let x = builder.embed("embedding", width);
    let earlier = builder.apply(Op::Shift { amount: 1 }, &[x]);
    let sum = builder.binary("add", x, earlier);
    let logits = builder.head(sum, width);
    let checkpoint = builder.finish(logits);

    let values = |name: &str| checkpoint.weights[name].as_f32().unwrap();
    let (embedding, head, bias) = (values("embedding"), values("head"), values("bias"));
    let mut total = 0.0;
    for target in 1..text.len() {
        let t = target - 1;
        let channel = |byte: usize, c: usize| f64::from(embedding[byte * width + c]);
        let x: Vec<f64> = (0..width)
            .map(|c| {
                let own = channel(text[t].into(), c);
                let before = if t % context > 0 { channel(text[t - 1].into(), c) } else { 0.0 };
                own + before
            })
            .collect();
        let row: Vec<f64> = (0..256)
            .map(|class| {
                let products = (0..width).map(|c| x[c] * f64::from(head[class * width + c]));
                f64::from(bias[class]) + products.sum::<f64>()
            })
            .collect();
        let all: f64 = row.iter().map(|logit| logit.exp()).sum();
        total -= (row[usize::from(text[target])].exp() / all).log2();
    }
    let expected = total / (text.len() - 1) as f64;
    let found = score(&checkpoint, &text).bits_per_byte;
    assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
    assert!(expected > 4.0, "a test of nothing: {expected}");
}

#[test]
fn a_score_does_not_depend_on_seed_threads_or_batch() {
    let text = Stream(10).text(5000, 90);
    let mut scores = Vec::new();
    for (batch, seed, threads) in
        [(8, 1, 1), (8, 2, 1), (8, 2, 2), (8, 3, 3), (1, 4, 2), (13, 5, 2)]
    {
        let options = EvalOptions { threads, seed: Some(seed), ..EvalOptions::default() };
        let found = eval_ffn(&looks_back(batch, 33), &text, &options)
            .unwrap_or_else(|error| panic!("batch {batch}, {threads} threads: {error}"));
        let buckets: Vec<u64> =
            found.bits_by_position.iter().map(|b| b.bits_per_byte.to_bits()).collect();
        scores.push((found.bits_per_byte.to_bits(), buckets));
    }
    for other in &scores[1..] {
        assert_eq!(other, &scores[0]);
    }
}

#[test]
fn honest_models_of_many_sizes_pass() {
    // The bitwise rules may not refuse a kernel's odd edges.
    let text = Stream(11).text(2600, 90);
    for (batch, context) in
        [(1, 2), (2, 5), (3, 17), (5, 31), (7, 64), (16, 65), (33, 96), (2, 257)]
    {
        let found = eval_ffn(&looks_back(batch, context), &text, &EvalOptions::default());
        let found = found.unwrap_or_else(|error| panic!("{batch} x {context}: {error}"));
        assert!(found.bits_per_byte > 1.0 && found.bits_per_byte.is_finite());
    }
}

#[test]
fn wide_honest_layers_pass() {
    let text = Stream(12).text(1500, 90);
    for (batch, context, width, hidden) in [(3, 19, 40, 130), (4, 32, 128, 512), (9, 13, 67, 201)] {
        let mut builder = Builder::new(batch, context);
        let x = builder.embed("embedding", width);
        let up = builder.eighths("up", &[2 * hidden, width]);
        let gate = serde_json::json!({"op": "gated_linear_unit", "activation": "silu"});
        let x = builder.apply(Op::Linear, &[x, up]);
        let x = builder.apply(serde_json::from_value(gate).unwrap(), &[x]);
        let down = builder.eighths("down", &[hidden, width]);
        let matmul = Op::MatMul { transpose_a: false, transpose_b: false };
        let x = builder.apply(matmul, &[x, down]);
        let norm = builder.weight("norm", &[width], vec![0.5; width]);
        let shift = builder.weight("shift", &[width], vec![0.1; width]);
        let x = builder.apply(Op::LayerNorm { epsilon: 1e-5 }, &[x, norm, shift]);
        let logits = builder.head(x, width);
        let checkpoint = builder.finish(logits);
        let found = eval_ffn(&checkpoint, &text, &EvalOptions::default());
        assert!(found.is_ok(), "{batch} x {context} x {width}: {}", found.unwrap_err());
    }
}

#[test]
fn data_is_pinned_and_measured() {
    let text = Stream(13).text(500, 60);
    let digest = sha256_hex(&text);
    let model = bigram(2, 16);
    let upper = digest.to_uppercase();
    let options = EvalOptions { expected_sha256: Some(&upper), ..EvalOptions::default() };
    let found = eval_ffn(&model, &text, &options).unwrap();
    assert_eq!((found.sha256.as_str(), found.bytes), (digest.as_str(), 500));
    let mut changed = text.clone();
    changed[250] ^= 1;
    assert!(matches!(eval_ffn(&model, &changed, &options), Err(EvalError::Pin { .. })));
    assert!(matches!(eval_ffn(&model, &text[..499], &options), Err(EvalError::Pin { .. })));

    // A part is scored as if it were all, under the digest of the whole.
    let part = EvalOptions { max_bytes: Some(100), ..options };
    let found = eval_ffn(&model, &text, &part).unwrap();
    assert_eq!((found.n_targets, found.bytes), (99, 500));
    assert_eq!(found.bits_per_byte, score(&model, &text[..100]).bits_per_byte);

    for short in [0, 1] {
        let found = eval_ffn(&model, &text[..short], &EvalOptions::default());
        assert!(matches!(found, Err(EvalError::TooShort { bytes }) if bytes == short));
    }
    assert_eq!(score(&model, &text[..2]).n_targets, 1);
}
