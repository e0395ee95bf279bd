//! NVIDIA: libcuda comes with the driver; NVRTC and cuBLAS with CUDA or as packages.

use std::ffi::c_void;
use std::path::PathBuf;
use std::ptr::null_mut;

use modgrad_graph::Result;

use crate::card::{Card, Current, Functions, Words};
use crate::library::{Library, Wanted, failed};
use crate::products::Products;
use crate::vendor::Vendor;

const FLAG: &str = "cuda";
/// NVRTC must be able to give machine code, and cuBLAS to multiply bf16.
const LEAST_VERSION: i32 = 11_080;
/// The last major version of CUDA that there is.
const NEWEST_MAJOR: i32 = 13;
const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
const COMPUTE_CAPABILITY_MINOR: i32 = 76;
/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

/// The first card, ready.
pub fn open(folders: &[PathBuf]) -> Result<Vendor> {
    let first = cards(folders)?.next().transpose()?;
    let Some(card) = first else {
        return Err(failed(
            "--device cuda: there is no NVIDIA card that the driver knows; hint: see what \
             nvidia-smi says, or use --device cpu"
                .to_owned(),
        ));
    };
    let driver = driver_version(&card)?;
    let compiler = compiler(driver, folders)?;
    // cuBLAS asks the loader for this one, which does not look beside it.
    library("cublasLt", "nvidia-cublas", driver, folders).ok();
    let products = library("cublas", "nvidia-cublas", driver, folders)?;
    Vendor::new(card, &compiler, |stream| Products::cuda(&products, stream))
}

/// NVRTC for a driver's version.
pub(crate) fn compiler(driver: i32, folders: &[PathBuf]) -> Result<Library> {
    library("nvrtc", "nvidia-cuda-nvrtc", driver, folders)
}

/// All cards, each opened when it is asked for: a context takes some hundred MB of a card.
pub(crate) fn cards(folders: &[PathBuf]) -> Result<impl Iterator<Item = Result<Card>>> {
    let names = ["libcuda.so.1".to_owned(), "libcuda.so".to_owned()];
    let hint = "install NVIDIA's driver (Debian: nvidia-driver), or use --device cpu";
    let library = Library::open(&Wanted { names: &names, device: FLAG, hint }, folders)?;
    // Before anything is asked of it, so that an unfit library is known without a card.
    let functions = Functions::load(&library, true)?;
    let start: unsafe extern "C" fn(u32) -> i32 = library.function("cuInit")?;
    // SAFETY: it takes no flags.
    let started = unsafe { start(0) };
    let mut count = 0;
    if started != NO_DEVICE {
        if started != 0 {
            return Err(failed(format!(
                "--device cuda: NVIDIA's driver does not start (error {started}); hint: see what \
                 nvidia-smi says"
            )));
        }
        // SAFETY: it writes one int.
        unsafe { (functions.count)(&mut count) };
    }
    Ok((0..count).map(move |ordinal| card(&library, ordinal)))
}

/// A card with a context, which it gives back when it is dropped.
fn card(library: &Library, ordinal: i32) -> Result<Card> {
    let attribute: unsafe extern "C" fn(*mut i32, i32, i32) -> i32 =
        library.function("cuDeviceGetAttribute")?;
    let retain: unsafe extern "C" fn(*mut *mut c_void, i32) -> i32 =
        library.function("cuDevicePrimaryCtxRetain")?;
    let functions = Functions::load(library, true)?;
    let (mut major, mut minor, mut version) = (0, 0, 0);
    // SAFETY: each writes one int.
    unsafe {
        attribute(&mut major, COMPUTE_CAPABILITY_MAJOR, ordinal);
        attribute(&mut minor, COMPUTE_CAPABILITY_MINOR, ordinal);
        (functions.driver_version)(&mut version);
    }
    let mut card = Card {
        functions,
        words: Words::Written(library.function("cuGetErrorString")?),
        current: Current::Context {
            set: library.function("cuCtxSetCurrent")?,
            release: library.function("cuDevicePrimaryCtxRelease_v2")?,
            context: null_mut(),
        },
        flag: FLAG,
        ordinal,
        architecture: format!("sm_{major}{minor}"),
        driver_version: format!("CUDA {}.{}", version / 1000, version / 10 % 100),
    };
    let mut made = null_mut();
    // SAFETY: it writes one context.
    let status = unsafe { retain(&mut made, ordinal) };
    card.check("opening the card", status)?;
    if let Current::Context { context, .. } = &mut card.current {
        *context = made;
    }
    Ok(card)
}

/// As 12040; an old driver is refused.
fn driver_version(card: &Card) -> Result<i32> {
    let mut version = 0;
    // SAFETY: it writes one int.
    unsafe { (card.functions.driver_version)(&mut version) };
    if version < LEAST_VERSION {
        return Err(failed(format!(
            "--device cuda: the driver is for {}, and CUDA 11.8 or later is needed; hint: update \
             NVIDIA's driver",
            card.driver_version
        )));
    }
    Ok(version)
}

/// A library of the driver's own major version: a later one makes what it can't load.
fn library(name: &str, package: &str, driver: i32, folders: &[PathBuf]) -> Result<Library> {
    let newest = (driver / 1000).min(NEWEST_MAJOR);
    let names: Vec<String> =
        (11..=newest).rev().map(|major| format!("lib{name}.so.{major}")).collect();
    // From CUDA 13 on packages' names have no ending.
    let ending = if newest >= 13 { String::new() } else { format!("-cu{newest}") };
    let hint = format!("pip install {package}{ending}");
    Library::open(&Wanted { names: &names, device: FLAG, hint: &hint }, folders)
}
