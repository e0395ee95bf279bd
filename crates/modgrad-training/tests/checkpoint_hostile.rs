//! Files that are no checkpoint, or one that somebody has been at: always an
//! error that says why, never a panic, and never a load.

mod common;

use common::bigram;
use modgrad_training::checkpoint_bundle::Reason;
use modgrad_training::{Checkpoint, Limits, sha256_hex};
use proptest::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn read(bytes: &[u8]) -> Result<Checkpoint, Reason> {
    Checkpoint::from_bytes(bytes, Path::new("x"), &Limits::default()).map_err(|e| e.reason)
}

fn refused(bytes: &[u8]) -> Reason {
    match read(bytes) {
        Err(reason) => {
            assert!(!reason.to_string().contains('\n'), "{reason}");
            reason
        }
        Ok(_) => panic!("it was loaded"),
    }
}

/// A small file as it is saved, and where its header ends.
fn saved() -> (Vec<u8>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let mut checkpoint = bigram(2, 8);
    checkpoint.meta.insert("step".into(), 12.into());
    checkpoint.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (bytes, 8 + header)
}

/// A file with the given header and data, and a digest that fits: what a forger
/// can make.
fn forged(header: &str, data: &[u8]) -> Vec<u8> {
    let mut header = header.to_owned();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let file =
        |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let digest = sha256_hex(&file(&header));
    file(&header.replace(NO_DIGEST, &digest))
}

/// The metadata of a good file with the given programs.
fn metadata(programs: &str) -> String {
    let entries = serde_json::json!({
        "format": "modgrad checkpoint", "meta": "{}", "programs": programs,
        "sha256": NO_DIGEST, "version": "1",
    });
    format!("\"__metadata__\":{entries}")
}

/// A good file's header with the given tensors.
fn with_tensors(tensors: &str) -> String {
    format!("{{{},{tensors}}}", metadata("{}"))
}

fn tensor(name: &str, dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

#[test]
fn a_forger_can_make_a_good_file() {
    // Else the tests below would refuse for the wrong reason.
    let header = with_tensors(&tensor("model/a", "F32", "[2]", 0, 8));
    let found = read(&forged(&header, &[0; 8])).unwrap();
    assert_eq!(found.weights["a"].as_f32(), Some(&[0.0, 0.0][..]));
}

#[test]
fn every_flipped_bit_of_the_header_is_refused() {
    let (mut bytes, end) = saved();
    for index in 0..end {
        for bit in 0..8 {
            bytes[index] ^= 1 << bit;
            refused(&bytes);
            bytes[index] ^= 1 << bit;
        }
    }
    assert!(read(&bytes).is_ok());
}

#[test]
fn a_header_in_other_words_is_refused_under_the_same_digest() {
    // The digest is that of the one form; only the comparison with it can tell.
    let header = with_tensors(&tensor("model/a", "F32", "[2]", 0, 8));
    let header = header.replace("\"meta\":\"{}\"", &format!("\"meta\":\"{{{}}}\"", " ".repeat(5)));
    let padding = header.len().next_multiple_of(8) - header.len();
    assert!(padding > 0, "a test of nothing: {}", header.len());
    let good = forged(&header, &[0; 8]);
    assert!(read(&good).is_ok());
    let last = good.len() - 8 - 1;
    for other in [b'\n', b'\t', b'\r'] {
        let mut bytes = good.clone();
        assert_eq!(std::mem::replace(&mut bytes[last], other), b' ');
        assert!(matches!(refused(&bytes), Reason::Damaged));
    }
}

#[test]
fn flipped_bits_of_the_data_are_refused() {
    let (mut bytes, end) = saved();
    let last = bytes.len() - 1;
    for index in (end..bytes.len()).step_by(97).chain([end, last]) {
        let bit = 1 << (index % 8);
        bytes[index] ^= bit;
        assert!(matches!(refused(&bytes), Reason::Damaged), "byte {index}");
        bytes[index] ^= bit;
    }
}

#[test]
fn truncated_files_are_refused() {
    let (bytes, end) = saved();
    for length in (0..=end).chain((end..bytes.len()).step_by(131)) {
        let reason = refused(&bytes[..length]);
        assert!(matches!(reason, Reason::Truncated { .. }), "{length}: {reason}");
    }
    let longer = [&bytes[..], &[0; 3]].concat();
    assert!(matches!(refused(&longer), Reason::Trailing { extra: 3 }));
}

#[test]
fn files_of_others_are_refused() {
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &[0; 8]);
    let foreign = safetensors::serialize([("model/a", view.unwrap())], None).unwrap();
    assert!(matches!(refused(&foreign), Reason::Foreign { .. }));
    let other = forged(r#"{"__metadata__":{"format":"pt"}}"#, &[]);
    assert!(refused(&other).to_string().contains("its format is `pt`"));
    assert!(matches!(refused(b"PK\x03\x04 a zip file of PyTorch"), Reason::Header { .. }));
    assert!(matches!(refused(b"short"), Reason::Truncated { .. }));
    assert!(matches!(refused(&[0; 64]), Reason::Header { .. }));
    let stray = with_tensors(&tensor("layer.weight", "F32", "[2]", 0, 8));
    assert!(matches!(refused(&forged(&stray, &[0; 8])), Reason::Foreign { .. }));
    let more = metadata("{}").replace("\"version\"", "\"extra\":\"1\",\"version\"");
    assert!(matches!(refused(&forged(&format!("{{{more}}}"), &[])), Reason::Foreign { .. }));
}

#[test]
fn later_versions_are_refused_by_number() {
    for (version, future) in [("2", true), ("10", true), ("0", false), ("one", false), ("", false)]
    {
        let header = format!("{{{}}}", metadata("{}"))
            .replace(r#""version":"1""#, &format!(r#""version":"{version}""#));
        match refused(&forged(&header, &[])) {
            Reason::FutureVersion { version: found } => assert!(future && found == version),
            Reason::Foreign { .. } => assert!(!future),
            other => panic!("{version}: {other}"),
        }
    }
}

#[test]
fn every_way_a_layout_can_be_wrong_has_its_name() {
    let good = |name, start, end| tensor(name, "F32", "[2]", start, end);
    let pair = |one: &str, two: &str| with_tensors(&format!("{one},{two}"));
    let reason = |header: &str, data: usize| refused(&forged(header, &vec![0; data]));

    let overlap = pair(&good("model/a", 0, 8), &good("model/b", 4, 12));
    assert!(matches!(reason(&overlap, 12), Reason::Overlap { tensor } if tensor == "model/b"));
    let same = pair(&good("model/a", 0, 8), &good("model/b", 0, 8));
    assert!(matches!(reason(&same, 8), Reason::Overlap { .. }));
    let gap = pair(&good("model/a", 0, 8), &good("model/b", 12, 20));
    assert!(matches!(reason(&gap, 20), Reason::Gap { bytes: 4, .. }));
    let outside = with_tensors(&good("model/a", 0, 8));
    assert!(matches!(reason(&outside, 7), Reason::Truncated { .. }));
    assert!(matches!(reason(&outside, 9), Reason::Trailing { extra: 1 }));
    let backwards = with_tensors(&good("model/a", 8, 0));
    assert!(matches!(reason(&backwards, 8), Reason::Size { .. }));
    let unaligned = pair(&tensor("model/a", "U8", "[3]", 0, 3), &good("model/b", 3, 11));
    assert!(matches!(reason(&unaligned, 11), Reason::Unaligned { .. }));
    let vast = format!("[{0},{0},{0}]", usize::MAX);
    let vast = with_tensors(&tensor("model/a", "U8", &vast, 0, 8));
    assert!(matches!(reason(&vast, 8), Reason::Size { .. }));
    let end = with_tensors(&tensor("model/a", "U8", &format!("[{}]", usize::MAX), 0, usize::MAX));
    assert!(matches!(reason(&end, 8), Reason::Truncated { .. }));
    let size = with_tensors(&tensor("model/a", "F32", "[3]", 0, 8));
    assert!(matches!(reason(&size, 8), Reason::Size { .. }));
    for dtype in ["F64", "BF16", "F99", "f32", ""] {
        let header = with_tensors(&tensor("model/a", dtype, "[2]", 0, 8));
        assert!(matches!(reason(&header, 8), Reason::UnknownDtype { dtype: d, .. } if d == dtype));
    }
    let twice = pair(&good("model/a", 0, 8), &good("model/a", 8, 16));
    assert!(matches!(reason(&twice, 16), Reason::Duplicate { name } if name == "model/a"));
    let metadata_twice = format!("{{{0},{0}}}", metadata("{}"));
    assert!(matches!(reason(&metadata_twice, 0), Reason::Duplicate { .. }));
    for broken in [
        r#""model/a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}"#,
        r#""model/a":{"dtype":"F32","shape":[2]}"#,
        r#""model/a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#,
        r#""model/a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#,
        r#""model/a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}"#,
        r#""model/a":7"#,
    ] {
        assert!(matches!(reason(&with_tensors(broken), 8), Reason::Header { .. }), "{broken}");
    }
    // The same header in other words.
    let spaced = outside.replace("\"dtype\":", "\"dtype\": ");
    assert!(matches!(reason(&spaced, 8), Reason::Damaged));
}

#[test]
fn weights_that_are_not_finite_are_refused_and_state_is_not() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let data = [1.0f32.to_le_bytes(), value.to_le_bytes()].concat();
        let weight = with_tensors(&tensor("model/a", "F32", "[2]", 0, 8));
        match refused(&forged(&weight, &data)) {
            Reason::NonFinite { tensor, element: 1 } => assert_eq!(tensor, "a"),
            other => panic!("{other}"),
        }
        let state = with_tensors(&tensor("optimiser/a", "F32", "[2]", 0, 8));
        assert!(read(&forged(&state, &data)).is_ok());
    }
}

#[test]
fn programs_are_verified_and_agree_with_the_weights() {
    let with = |programs: &str, tensors: &str, data: &[u8]| {
        let comma = if tensors.is_empty() { "" } else { "," };
        read(&forged(&format!("{{{}{comma}{tensors}}}", metadata(programs)), data))
    };
    let program = |node: &str| {
        format!(r#"{{"score":{{"op_set":1,"nodes":[{{"do":{node}}}],"outputs":{{}}}}}}"#)
    };
    let parameter = program(
        r#"{"op":"parameter","name":"w","shape":[2],"dtype":"f32","trainable":true,"sparse":false}"#,
    );
    let right = tensor("model/w", "F32", "[2]", 0, 8);
    assert!(with(&parameter, &right, &[0; 8]).is_ok());
    let found = with(&parameter, "", &[]);
    assert!(matches!(found, Err(Reason::MissingParameter { parameter, .. }) if parameter == "w"));
    for wrong in [
        tensor("model/w", "F32", "[2,1]", 0, 8),
        tensor("model/w", "I32", "[2]", 0, 8),
        tensor("model/w", "F32", "[1,2]", 0, 8),
    ] {
        let found = with(&parameter, &wrong, &[0; 8]);
        assert!(matches!(found, Err(Reason::Parameter { .. })), "{wrong}");
    }
    let found = with(&program(r#"{"op":"steal_the_future"}"#), "", &[]);
    let message = found.unwrap_err().to_string();
    assert!(message.contains("`score`") && message.contains("`steal_the_future`"), "{message}");
    for broken in [
        program(r#"{"op":"parameter"}"#),
        program(r#"{"op":"softmax"}"#),
        parameter.replace("\"op_set\":1", "\"op_set\":99"),
        r#"{"score":7}"#.to_owned(),
    ] {
        assert!(matches!(with(&broken, "", &[]), Err(Reason::Program { .. })), "{broken}");
    }
    for broken in ["[]", "", "{", r#"{"a":1,"a":1}"#] {
        assert!(matches!(with(broken, "", &[]), Err(Reason::Entry { .. })), "{broken}");
    }
    let header = format!("{{{}}}", metadata("{}")).replace(r#""meta":"{}""#, r#""meta":"[1]""#);
    assert!(matches!(refused(&forged(&header, &[])), Reason::Entry { entry: "meta", .. }));
}

#[test]
fn hostile_headers_are_refused_in_no_time() {
    let start = Instant::now();
    // Deep nesting, where a parser could run out of stack.
    let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
    assert!(matches!(refused(&forged(&deep, &[])), Reason::Header { .. }));
    let deep = metadata(&"[".repeat(1 << 20));
    assert!(matches!(refused(&forged(&format!("{{{deep}}}"), &[])), Reason::Entry { .. }));
    // A length that would wrap around.
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, (16 << 20) + 1] {
        let bytes = [&length.to_le_bytes()[..], b"{}      "].concat();
        assert!(matches!(refused(&bytes), Reason::Header { .. }));
    }
    // Names as long as the header, in an error.
    let long = with_tensors(&tensor(&"x".repeat(1 << 20), "F32", "[2]", 0, 8));
    assert!(refused(&forged(&long, &[0; 8])).to_string().len() < 1000);
    let many: Vec<String> =
        (0..50_000).map(|i| tensor(&format!("model/{i}"), "U8", "[0]", 0, 0)).collect();
    assert_eq!(read(&forged(&with_tensors(&many.join(",")), &[])).unwrap().weights.len(), 50_000);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn random_headers_are_refused(text in "[\\[\\]{}\",:a-z0-9_ \\\\]{0,200}", data in any::<[u8; 8]>()) {
        prop_assert!(read(&forged(&text, &data)).is_err());
    }

    #[test]
    fn several_changed_bytes_are_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6),
    ) {
        let (mut bytes, end) = saved();
        let before = bytes.clone();
        for (index, change) in changes {
            bytes[index.index(end + 64)] ^= change;
        }
        prop_assert!(bytes == before || read(&bytes).is_err());
    }

    #[test]
    fn any_tensor_entry_is_read_or_refused(
        dtype in prop::sample::select(vec!["F32", "I32", "U8", "F16", "BOOL"]),
        shape in prop::collection::vec(prop_oneof![0usize..5, Just(usize::MAX), Just(1 << 62)], 0..4),
        start in prop_oneof![0usize..40, Just(usize::MAX)],
        end in prop_oneof![0usize..40, Just(usize::MAX)],
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = with_tensors(&tensor("optimiser/a", dtype, &format!("{shape:?}"), start, end));
        if let Ok(found) = read(&forged(&header, &data)) {
            let tensor = &found.state["a"];
            prop_assert_eq!(tensor.shape(), &shape[..]);
            prop_assert_eq!(tensor.bytes(), &data[..]);
        }
    }
}
