//! AMD: libamdhip64, hiprtc and hipBLAS come with ROCm.

use std::ffi::c_void;
use std::path::PathBuf;

use modgrad_graph::Result;

use crate::card::{Card, Current, Functions, Words};
use crate::library::{Library, Wanted, failed};
use crate::products::Products;
use crate::vendor::Vendor;

const FLAG: &str = "hip";
/// `hipErrorNoDevice` and `hipErrorInvalidDevice`, which is what versions differ in saying.
const NO_DEVICE: [i32; 2] = [100, 101];
/// More than any version's `hipDeviceProp_t` has.
const PROPERTIES_BYTES: usize = 8192;

/// The first card, ready.
pub fn open(folders: &[PathBuf]) -> Result<Vendor> {
    let Some(card) = cards(folders)?.into_iter().next() else {
        return Err(failed(
            "--device hip: there is no AMD card that the driver knows; hint: see what rocminfo \
             says, or use --device cpu"
                .to_owned(),
        ));
    };
    let compiler = compiler(folders)?;
    let hint = "install ROCm's hipblas (Debian: libhipblas0)";
    let products = library(&["hipblas"], hint, folders)?;
    Vendor::new(card, &compiler, |stream| Products::hip(&products, stream))
}

/// hiprtc; before ROCm 5.5 it was a part of the runtime's own library.
pub(crate) fn compiler(folders: &[PathBuf]) -> Result<Library> {
    let hint = "install ROCm's hip-runtime-amd (Debian: libamdhip64-5)";
    library(&["hiprtc", "amdhip64"], hint, folders)
}

/// All cards.
pub(crate) fn cards(folders: &[PathBuf]) -> Result<Vec<Card>> {
    let hint = "install ROCm's hip-runtime-amd (Debian: libamdhip64-5), or use --device cpu";
    let library = library(&["amdhip64"], hint, folders)?;
    // Before anything is asked of it, so that an unfit library is known without a card.
    let functions = Functions::load(&library, false)?;
    let start: unsafe extern "C" fn(u32) -> i32 = library.function("hipInit")?;
    // SAFETY: it takes no flags.
    let started = unsafe { start(0) };
    if NO_DEVICE.contains(&started) {
        return Ok(Vec::new());
    }
    if started != 0 {
        return Err(failed(format!(
            "--device hip: AMD's runtime does not start (error {started}); hint: see what \
             rocminfo says; a user must be in the groups render and video"
        )));
    }
    let (mut count, mut version) = (0, 0);
    // SAFETY: each writes one int.
    unsafe {
        (functions.count)(&mut count);
        (functions.driver_version)(&mut version);
    }
    let mut cards = Vec::new();
    for ordinal in 0..count {
        cards.push(Card {
            functions: Functions::load(&library, false)?,
            words: Words::Returned(library.function("hipGetErrorString")?),
            current: Current::Ordinal { set: library.function("hipSetDevice")?, ordinal },
            flag: FLAG,
            ordinal,
            architecture: architecture(&library, ordinal)?,
            driver_version: format!("HIP {}.{}", version / 10_000_000, version / 100_000 % 100),
        });
    }
    Ok(cards)
}

/// As gfx1102. The struct of properties differs between versions, but the name of the
/// architecture stands in each as text, and nothing else begins so.
fn architecture(library: &Library, ordinal: i32) -> Result<String> {
    let newer = "hipGetDevicePropertiesR0600";
    let symbol = if library.has(newer) { newer } else { "hipGetDeviceProperties" };
    let get: unsafe extern "C" fn(*mut c_void, i32) -> i32 = library.function(symbol)?;
    let mut properties = vec![0u64; PROPERTIES_BYTES / 8];
    // SAFETY: the buffer is larger than the struct and as aligned.
    unsafe { get(properties.as_mut_ptr().cast(), ordinal) };
    let bytes: &[u8] = bytemuck::cast_slice(&properties);
    // The card's name, which users can't set, is the struct's first field of 256 bytes.
    let found =
        bytes[256..].windows(4).position(|at| at.starts_with(b"gfx") && at[3].is_ascii_digit());
    let Some(start) = found else {
        return Err(failed("--device hip: the card does not tell its architecture".to_owned()));
    };
    let text = bytes[256 + start..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
    Ok(text.map(|byte| char::from(*byte)).collect())
}

fn library(stems: &[&str], hint: &str, folders: &[PathBuf]) -> Result<Library> {
    let endings = ["", ".7", ".6", ".5", ".3", ".2", ".1", ".0"];
    let names: Vec<String> = stems
        .iter()
        .flat_map(|stem| endings.iter().map(move |ending| format!("lib{stem}.so{ending}")))
        .collect();
    let mut folders = folders.to_vec();
    folders.push(PathBuf::from("/opt/rocm/lib"));
    Library::open(&Wanted { names: &names, device: FLAG, hint }, &folders)
}
