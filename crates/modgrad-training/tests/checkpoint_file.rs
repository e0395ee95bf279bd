//! Saving and loading: what goes in comes out, and the file system's refusals.

mod common;

use common::{bigram, looks_back};
use modgrad_graph::{DType, Tensor, tensor::Data};
use modgrad_training::checkpoint_bundle::{CheckpointError, Reason, Step};
use modgrad_training::{Checkpoint, Limits, sha256_hex};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::load(path, &Limits::default())
}

/// Something of everything that a checkpoint can hold.
fn rich() -> Checkpoint {
    let mut checkpoint = looks_back(2, 8);
    checkpoint.programs.insert("empty".into(), modgrad_graph::Program::new());
    let mut tensor = |name: &str, shape: &[usize], data| {
        let tensor = Tensor::new(shape, data).unwrap();
        checkpoint.state.insert(name.into(), tensor);
    };
    tensor("first", &[3], Data::F32(vec![-0.0, f32::MIN_POSITIVE / 2.0, f32::MAX]));
    tensor("loss", &[], Data::F32(vec![f32::NAN]));
    tensor("cursor", &[2, 1], Data::I32(vec![i32::MIN, 7]));
    tensor("bytes", &[5], Data::U8(vec![0, 1, 2, 254, 255]));
    tensor("none", &[4, 0], Data::I32(vec![]));
    tensor("a/b \"quoted\" ü\n", &[1], Data::U8(vec![9]));
    checkpoint.weights.insert("spare".into(), Tensor::f32([1], vec![0.1]).unwrap());
    let meta = serde_json::json!({
        "step": 953, "task": "language", "budget_spent": 299.97, "nested": {"cursor": [1, 2, 3]},
    });
    checkpoint.meta = meta.as_object().unwrap().clone();
    checkpoint
}

/// Bitwise the same: `PartialEq` takes NaN for different from itself.
fn assert_same(found: &Checkpoint, expected: &Checkpoint) {
    assert_eq!(found.programs, expected.programs);
    assert_eq!(found.meta, expected.meta);
    let tensors = [(&found.weights, &expected.weights), (&found.state, &expected.state)];
    for (found, expected) in tensors {
        assert!(found.keys().eq(expected.keys()));
        for (found, expected) in found.values().zip(expected.values()) {
            assert_eq!((found.spec(), found.bytes()), (expected.spec(), expected.bytes()));
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_goes_in_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let checkpoint = rich();
    let digest = checkpoint.save(&path).unwrap();
    assert_same(&load(&path).unwrap(), &checkpoint);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(digest, sha256_hex(&bytes));
    assert_same(&Checkpoint::from_bytes(&bytes, &path, &Limits::default()).unwrap(), &checkpoint);

    // The same content is the same file; a second save leaves nothing behind.
    assert_eq!(load(&path).unwrap().save(&path).unwrap(), digest);
    assert_eq!(names(folder.path()), ["model.ckpt"]);

    let empty = Checkpoint::default();
    empty.save(&path).unwrap();
    assert_same(&load(&path).unwrap(), &empty);
}

#[test]
fn any_reader_of_safetensors_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let checkpoint = rich();
    checkpoint.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let entries = metadata.metadata().as_ref().unwrap();
    assert_eq!(entries["format"], "modgrad checkpoint");
    assert_eq!(entries["version"], "1");
    assert!(entries["programs"].contains(r#""score":{"op_set":"#));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), checkpoint.weights.len() + checkpoint.state.len());
    let weights = checkpoint.weights.iter().map(|(name, tensor)| (format!("model/{name}"), tensor));
    let state = checkpoint.state.iter().map(|(name, tensor)| (format!("optimiser/{name}"), tensor));
    for (name, tensor) in weights.chain(state) {
        let found = file.tensor(&name).unwrap();
        assert_eq!((found.shape(), found.data()), (tensor.shape(), tensor.bytes()), "{name}");
        assert_eq!(found.data().as_ptr() as usize % tensor.dtype().size(), 0, "{name}");
    }
}

#[test]
fn a_checkpoint_that_could_not_be_loaded_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let refused = |checkpoint: &Checkpoint| {
        let error = checkpoint.save(&path).unwrap_err();
        assert_eq!(names(folder.path()), [""; 0]);
        error.reason
    };
    let mut checkpoint = bigram(2, 8);
    let bias = |value| Tensor::f32([256], [&[0.0; 255][..], &[value]].concat()).unwrap();
    checkpoint.weights.insert("bias".into(), bias(f32::NAN));
    let reason = refused(&checkpoint);
    assert!(matches!(&reason, Reason::NonFinite { tensor, element: 255 } if tensor == "bias"));
    checkpoint.weights.insert("bias".into(), Tensor::f32([2, 128], vec![0.0; 256]).unwrap());
    let reason = refused(&checkpoint);
    assert!(matches!(&reason, Reason::Parameter { parameter, .. } if parameter == "bias"));
    checkpoint.weights.remove("bias");
    let reason = refused(&checkpoint);
    assert!(matches!(&reason, Reason::MissingParameter { parameter, .. } if parameter == "bias"));

    let mut checkpoint = bigram(2, 8);
    checkpoint.meta.insert("log".into(), "x".repeat(17 << 20).into());
    assert!(matches!(refused(&checkpoint), Reason::TooLarge { .. }));
}

#[test]
fn a_save_that_fails_anywhere_leaves_the_old_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let old = bigram(2, 8);
    let mut new = rich();
    // Large enough for several stretches of writing.
    let large = Tensor::new([3 << 20], Data::U8(vec![3; 3 << 20])).unwrap();
    new.state.insert("large".into(), large);
    let mut writes = 0;
    for fault in 1.. {
        old.save(&path).unwrap();
        let mut steps = Vec::new();
        let found = new.save_with(&path, &mut |step| {
            steps.push(step);
            match steps.len() == fault {
                true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                false => Ok(()),
            }
        });
        assert_eq!(names(folder.path()), ["model.ckpt"], "after {steps:?}");
        let Err(error) = found else {
            assert_same(&load(&path).unwrap(), &new);
            assert_eq!(steps.last(), Some(&Step::SyncFolder));
            break;
        };
        // A failed step is the last one: nothing is tried again.
        assert_eq!(steps.len(), fault);
        assert!(matches!(error.reason, Reason::NoSpace { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("model.ckpt") && message.contains("free some space"), "{message}");
        let expected = if steps.last() == Some(&Step::SyncFolder) { &new } else { &old };
        assert_same(&load(&path).unwrap(), expected);
        writes += usize::from(steps.last() == Some(&Step::Write));
    }
    assert!(writes >= 4, "{writes}");

    let eio = |_| Err(io::Error::from_raw_os_error(libc::EIO));
    let error = new.save_with(&path, &mut { eio }).unwrap_err();
    assert!(matches!(error.reason, Reason::Io { .. }), "{error}");
}

#[test]
fn what_a_killed_writer_left_is_removed_and_a_living_one_is_let_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let leave = |name: &str, time: SystemTime| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(time).unwrap();
        file
    };
    leave(".model.ckpt.0123456789abcdef.tmp", long_ago);
    let living = leave(".model.ckpt.0123456789abcde0.tmp", long_ago);
    living.lock().unwrap();
    leave(".model.ckpt.0123456789abcde1.tmp", SystemTime::now());
    leave(".other.ckpt.0123456789abcdef.tmp", long_ago);
    leave(".model.ckpt.notes.tmp", long_ago);
    bigram(2, 8).save(&path).unwrap();
    let expected = [
        ".model.ckpt.0123456789abcde0.tmp",
        ".model.ckpt.0123456789abcde1.tmp",
        ".model.ckpt.notes.tmp",
        ".other.ckpt.0123456789abcdef.tmp",
        "model.ckpt",
    ];
    assert_eq!(names(folder.path()), expected);
}

#[test]
fn names_that_are_no_place_for_a_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = bigram(2, 8);
    let refused = |path: &Path| checkpoint.save(path).unwrap_err();
    let error = refused(&folder.path().join("missing/model.ckpt"));
    assert!(matches!(error.reason, Reason::NoFolder), "{error}");
    assert!(error.to_string().contains("create it first"));
    assert!(matches!(refused(folder.path()).reason, Reason::NotRegular { kind: "a folder" }));
    assert!(matches!(refused(Path::new("..")).reason, Reason::NoName));
    // Saving may not put a file where the system's device was.
    let device = refused(Path::new("/dev/null"));
    assert!(matches!(device.reason, Reason::NotRegular { kind: "a device" }), "{device}");

    // The longest name that a folder takes.
    let long = folder.path().join("x".repeat(255));
    checkpoint.save(&long).unwrap();
    assert!(load(&long).is_ok());
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_read_and_nothing_waits() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = at("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    symlink("/dev/zero", at("zero")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let start = Instant::now();
    let kind = |path: &Path| match load(path).unwrap_err().reason {
        Reason::NotRegular { kind } => kind,
        other => panic!("{other}"),
    };
    assert_eq!(kind(&pipe), "a pipe");
    assert_eq!(kind(&at("zero")), "a device");
    assert_eq!(kind(Path::new("/dev/tty")), "a device");
    assert_eq!(kind(&at("socket")), "a socket");
    assert_eq!(kind(folder.path()), "a folder");
    assert!(matches!(load(&at("dangling")).unwrap_err().reason, Reason::NotFound));
    assert!(matches!(load(&at("loop")).unwrap_err().reason, Reason::Io { .. }));
    let error = load(&at("absent.ckpt")).unwrap_err();
    assert!(matches!(error.reason, Reason::NotFound));
    assert!(
        error.to_string().contains("absent.ckpt") && error.to_string().contains("check the path")
    );
    assert!(matches!(load(Path::new("")).unwrap_err().reason, Reason::NotFound));
    assert!(start.elapsed() < Duration::from_secs(1));

    bigram(2, 8).save(&at("model.ckpt")).unwrap();
    symlink(at("model.ckpt"), at("link")).unwrap();
    assert_same(&load(&at("link")).unwrap(), &bigram(2, 8));
}

#[test]
fn sizes_and_pins_are_checked_before_the_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let digest = bigram(2, 8).save(&path).unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    let with = |limits: Limits| Checkpoint::load(&path, &limits);
    assert!(with(Limits { max_bytes: bytes, ..Limits::default() }).is_ok());
    let error = with(Limits { max_bytes: bytes - 1, ..Limits::default() }).unwrap_err();
    assert!(matches!(error.reason, Reason::TooLarge { .. }), "{error}");
    let error = with(Limits { max_header_bytes: 100, ..Limits::default() }).unwrap_err();
    assert!(matches!(error.reason, Reason::Header { .. }), "{error}");
    let pinned =
        |digest: &str| Limits { expected_sha256: Some(digest.into()), ..Limits::default() };
    assert!(with(pinned(&digest)).is_ok());
    assert!(with(pinned(&digest.to_uppercase())).is_ok());
    let error = with(pinned(&"0".repeat(64))).unwrap_err();
    assert!(matches!(error.reason, Reason::Pin { .. }), "{error}");

    // A vast file of nothing is refused by its size, not by running out.
    let vast = folder.path().join("vast.ckpt");
    File::create(&vast).unwrap().set_len(1 << 40).unwrap();
    let start = Instant::now();
    assert!(matches!(load(&vast).unwrap_err().reason, Reason::TooLarge { .. }));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn dtypes_of_every_kind_come_back() {
    let checkpoint = rich();
    let found: Vec<DType> = checkpoint.state.values().map(Tensor::dtype).collect();
    for dtype in [DType::F32, DType::I32, DType::U8] {
        assert!(found.contains(&dtype));
    }
}
