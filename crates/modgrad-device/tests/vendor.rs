//! The drivers for NVIDIA's and AMD's libraries, against stand-ins for these
//! (`fake/vendor.cpp`): what is called, in what order, with which arguments, and what is
//! said when something goes wrong. That real libraries do the same only a card can show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use modgrad_device::{Device, peak, vendor};
use modgrad_graph::Op;
use modgrad_graph::backend::{Backend, Stretch};
use modgrad_graph::storage::Precision;
use modgrad_testing::compare::table_failures;

/// The stand-ins' folder, compiled once a process.
fn libraries(hip: bool, hipblas: u32) -> PathBuf {
    static COMPILED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = if hip { format!("fake-hip-{hipblas}") } else { "fake-cuda".to_owned() };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !compiled.insert(folder.clone()) {
        return folder;
    }
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    let names: &[&str] = if hip {
        &["libamdhip64.so", "libhiprtc.so", "libhipblas.so"]
    } else {
        &["libcuda.so.1", "libnvrtc.so.12", "libcublas.so.12", "libcublasLt.so.12"]
    };
    let emulator = here.join("kernels/emulator.h");
    let output = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fno-gnu-unique"])
        .arg(format!("-DEMULATOR=\"{}\"", emulator.display()))
        .arg(format!("-DHIPBLAS_MAJOR={hipblas}"))
        .args(hip.then_some("-DHIP"))
        .arg(here.join("tests/fake/vendor.cpp"))
        .arg("-o")
        .arg(folder.join(names[0]))
        .arg("-ldl")
        .output()
        .expect("a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in &names[1..] {
        fs::copy(folder.join(names[0]), folder.join(name)).unwrap();
    }
    folder
}

/// Of a process's environment.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// Does `action` in a process of its own, which finds the stand-ins; returns what it says.
fn child(action: &str, device: &str, libraries: &Path, settings: Settings<'_>) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "acts_on_stand_ins", "--ignored", "--nocapture"])
        .env("ACTION", action)
        .env("DEVICE", device)
        .env("MODGRAD_LIBRARIES", libraries)
        .env("MODGRAD_CACHE", libraries.join("cache"))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("SAID ")).map(|(_, said)| said).collect();
    assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    said.join("\n")
}

#[test]
#[ignore = "the other tests run it, each with its own environment"]
fn acts_on_stand_ins() {
    let (action, name) = (env::var("ACTION").unwrap(), env::var("DEVICE").unwrap());
    let said = match act(&action, &name) {
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    println!("\nSAID {}", said.replace('\n', "\nSAID "));
}

fn act(action: &str, name: &str) -> modgrad_graph::Result<String> {
    if action == "cards" {
        return Ok(format!("{:?}", vendor::cards(name, &[])?));
    }
    if action == "contexts" {
        return contexts();
    }
    let device = Device::open(name, &[])?;
    match action {
        "table" => {
            let ops = env::var("OPS").unwrap_or_default();
            let wanted = |op: &Op| ops.is_empty() || ops.split(' ').any(|name| name == op.name());
            let (rows, mut failures) = table_failures(&device, wanted);
            failures.truncate(20);
            Ok(if failures.is_empty() { format!("{rows} rows pass") } else { failures.join("\n") })
        }
        "describe" => Ok(format!("{:?}", device.driver().describe()?)),
        "peak" => peak::measured(&device, Precision::Bf16).map(|rate| format!("{}", rate > 0.0)),
        "allocate" => device.zeros(1 << 30).map(|_| "allocated".to_owned()),
        "wait" => {
            let first = device.driver().synchronise().unwrap_err();
            let second = device.driver().synchronise().unwrap_err();
            Ok(format!("{first}\n{second}"))
        }
        "copy" => {
            // Beyond and beside what copies go through at once, many before any wait.
            let sizes = [1, 100, (4 << 20) - 64, 4 << 20, (9 << 20) + 5, 3, 2 << 20, 2 << 20];
            let memory: Vec<_> =
                sizes.iter().map(|size| device.zeros(*size)).collect::<Result<_, _>>()?;
            let bytes = |seed: usize, size: usize| -> Vec<u8> {
                (0..size).map(|at| ((at * 31 + seed * 7) >> 3) as u8).collect()
            };
            for (seed, (memory, size)) in memory.iter().zip(sizes).enumerate() {
                device.driver().copy_in(memory.address(), &bytes(seed, size))?;
            }
            let mut same = 0;
            for (seed, (memory, size)) in memory.iter().zip(sizes).enumerate() {
                let mut found = vec![0; size];
                device.driver().copy_out(memory.address(), &mut found)?;
                same += usize::from(found == bytes(seed, size));
            }
            Ok(format!("{same} of {} are the same", sizes.len()))
        }
        "launch" => {
            let mut memory = device.zeros(4096)?;
            let stretch = Stretch { start: 0, count: 1024 };
            for _ in 0..5000 {
                device.fill(&mut memory, stretch, 1.0)?;
            }
            Ok("all was launched".to_owned())
        }
        "free" => {
            let mut memory = device.zeros(4096)?;
            let stretch = Stretch { start: 0, count: 1024 };
            (0..8).try_for_each(|_| device.fill(&mut memory, stretch, 1.0))?;
            drop(memory);
            Ok(device.driver().synchronise().unwrap_err().to_string())
        }
        _ => unreachable!("{action}"),
    }
}

/// Ops whose rows pass through all that HIP's driver does, from few sources.
const FEW: (&str, &str) = ("OPS", "mat_mul linear unary reduce");

/// How many contexts are held after each of some steps.
fn contexts() -> modgrad_graph::Result<String> {
    let path = Path::new(&env::var_os("MODGRAD_LIBRARIES").unwrap()).join("libcuda.so.1");
    // SAFETY: the stand-in does nothing when it is loaded; the function is as its source says.
    let (library, mut held) = unsafe { (libloading::Library::new(path).unwrap(), Vec::new()) };
    let count = || {
        // SAFETY: as above.
        let counts = unsafe { library.get::<unsafe extern "C" fn() -> i32>(b"fake_retained") };
        // SAFETY: as above.
        unsafe { counts.unwrap()() }
    };
    let device = Device::open("cuda", &[])?;
    held.push(count());
    let cards = vendor::cards("cuda", &[])?;
    held.push(count());
    // Those of the cards that were listed are gone, that of the device is not.
    let memory = device.zeros(1 << 20)?;
    drop(device);
    held.push(count());
    drop(memory);
    held.push(count());
    Ok(format!("{} cards: {held:?}", cards.len()))
}

#[test]
fn only_the_card_that_is_used_keeps_a_context() {
    let said = child("contexts", "cuda", &libraries(false, 2), &[("FAKE_CARDS", "4")]);
    assert_eq!(said, "4 cards: [1, 1, 1, 0]");
}

#[test]
fn the_op_table_passes_on_stand_ins() {
    let said = child("table", "cuda", &libraries(false, 2), &[]);
    assert!(said.ends_with(" rows pass"), "{said}");
    for hipblas in [1, 2, 3] {
        let said = child("table", "hip", &libraries(true, hipblas), &[FEW]);
        assert!(said.ends_with(" rows pass"), "hipBLAS {hipblas}: {said}");
    }
}

#[test]
fn compiled_code_is_kept() {
    let folder = libraries(false, 2);
    let cache = folder.join("cache of some");
    let kept = ("MODGRAD_CACHE", cache.to_str().unwrap());
    let said = child("table", "cuda", &folder, &[FEW, kept]);
    assert!(said.ends_with(" rows pass"), "{said}");

    // A compiler that fails is not asked again.
    let broken = [FEW, kept, ("FAKE_COMPILER_FAILS", "1")];
    assert_eq!(child("table", "cuda", &folder, &broken), said);

    // An entry that is not whole is made again.
    let entries: Vec<PathBuf> =
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    for (index, entry) in entries.iter().enumerate() {
        let bytes = fs::read(entry).unwrap();
        let kept = [0, 31, bytes.len() - 1, bytes.len() / 2][index % 4];
        fs::write(entry, &bytes[..kept]).unwrap();
    }
    let failed = child("table", "cuda", &folder, &broken);
    assert!(failed.contains("does not compile for sm_90 with NVRTC 12.4"), "{failed}");
    assert!(failed.contains(": x.hip(3): error: made up"), "{failed}");
    assert_eq!(child("table", "cuda", &folder, &[FEW, kept]), said);
}

#[test]
fn a_device_is_described() {
    let said = child("describe", "cuda", &libraries(false, 2), &[]);
    for part in ["Made-up card", "sm_90", "CUDA 12.4", "NVRTC", "cuBLAS", "12.4"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = child("describe", "hip", &libraries(true, 2), &[]);
    for part in ["Made-up card", "\"gfx90a\"", "HIP 6.0", "hiprtc", "hipBLAS"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let cards = child("cards", "cuda", &libraries(false, 2), &[("FAKE_CARDS", "0")]);
    assert_eq!(cards, "[]");
}

#[test]
fn what_goes_wrong_is_said_in_one_line() {
    let cuda = libraries(false, 2);
    let hip = libraries(true, 2);
    let nothing = cuda.join("nothing");
    fs::create_dir_all(&nothing).unwrap();
    fs::copy(cuda.join("libcuda.so.1"), nothing.join("libcuda.so.1")).unwrap();
    let cases: &[(&str, &str, &Path, Settings, &str)] = &[
        ("describe", "cuda", &cuda, &[("FAKE_INIT", "100")], "there is no NVIDIA card"),
        ("describe", "hip", &hip, &[("FAKE_INIT", "101")], "there is no AMD card"),
        ("describe", "cuda", &cuda, &[("FAKE_INIT", "803")], "does not start (error 803); hint:"),
        (
            "describe",
            "cuda",
            &cuda,
            &[("FAKE_RETAIN", "46")],
            "--device cuda: opening the card failed: made-up error (error 46)",
        ),
        (
            "describe",
            "hip",
            &hip,
            &[("FAKE_HOST_MEMORY", "1")],
            "--device hip: allocating memory for copies failed: made-up error (error 2)",
        ),
        ("describe", "cuda", &cuda, &[("FAKE_DRIVER", "11040")], "driver is for CUDA 11.4, and"),
        ("describe", "cuda", &cuda, &[("FAKE_MAJOR", "12")], "the card is sm_120, and NVRTC 12.4"),
        ("describe", "cuda", &nothing, &[], "pip install nvidia-cuda-nvrtc-cu12"),
        (
            "allocate",
            "cuda",
            &cuda,
            &[("FAKE_MEMORY_MIB", "100")],
            "out of memory: 1024 MiB were asked for, 99 of 100 MiB are free; hint:",
        ),
        (
            "allocate",
            "hip",
            &hip,
            &[("FAKE_MEMORY_MIB", "100")],
            "--device hip: out of memory: 1024 MiB were asked for",
        ),
    ];
    for (action, device, folder, settings, expected) in cases {
        let said = child(action, device, folder, settings);
        assert!(said.contains(expected) && !said.contains('\n'), "{expected}: {said}");
    }
}

#[test]
fn copies_of_any_size_arrive() {
    for (device, hip) in [("cuda", false), ("hip", true)] {
        let said = child("copy", device, &libraries(hip, 2), &[]);
        assert_eq!(said, "8 of 8 are the same");
    }
}

#[test]
fn a_peak_is_measured_in_the_memory_that_is_left() {
    // Three matrices of 256 by 256 in bf16 need 384 KiB, three of 1024 by 1024 6 MiB.
    let settings = [("FAKE_MEMORY_MIB", "3"), ("FAKE_PRODUCTS", "1")];
    assert_eq!(child("peak", "cuda", &libraries(false, 2), &settings), "true");
}

#[test]
fn a_kernel_that_hangs_is_given_up() {
    for (device, hip) in [("cuda", false), ("hip", true)] {
        let settings = [("FAKE_HANG", "0"), ("MODGRAD_WATCHDOG", "0.2")];
        let said = child("wait", device, &libraries(hip, 2), &settings);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("a kernel has not ended after"), "{said}");
        assert!(lines[1].contains("no longer answers"), "{said}");

        // Nor does anything else that the libraries do wait for it: launches without end, or
        // freeing what a hung kernel may use.
        let settings = [("FAKE_HANG", "5"), ("MODGRAD_WATCHDOG", "0.2")];
        let said = child("launch", device, &libraries(hip, 2), &settings);
        assert!(said.contains("a kernel has not ended after"), "{said}");
        let said = child("free", device, &libraries(hip, 2), &settings);
        assert!(said.contains("no longer answers"), "{said}");
    }
}
