//! Kernels on the processor, compiled by its C++ compiler: a checking tool, not for use.
//!
//! Buffers stand between guard zones of NaN that are verified after every launch, outputs
//! are poisoned before each op, and `kernels/emulator.h` checks the arguments, the shared
//! arrays and the barriers. So everything but the vendors' bindings is tested anywhere.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::process::{self, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs};

use half::bf16;
use libloading::Library;
use modgrad_compute::Pool;
use modgrad_compute::gemm::{self, Matrix, Output, Precision};
use modgrad_graph::{Error, Result};

use crate::cache::Entry;
use crate::driver::{
    Address, Argument, Description, Driver, Float, Function, Module, Packed, Product, Shape,
};
use crate::source::{EMULATOR, Source};

/// On each side of a buffer.
const GUARD: usize = 256;
const PATTERN: u8 = 0xff;
const MESSAGE_BYTES: usize = 256;
const OPTIONS: &[&str] =
    &["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-gnu-unique", "-ffp-contract=off"];

/// The processor, in a GPU's place.
pub struct Emulated {
    compiler: String,
    version: String,
    pool: Pool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Buffers with their guards, by the address between these.
    buffers: HashMap<Address, Buffer>,
    modules: Vec<Library>,
    names: HashMap<u64, String>,
    launches: u64,
}

/// Bytes in between guards.
struct Buffer {
    bytes: Vec<u8>,
    /// What is between them: the first, and how many.
    start: usize,
    count: usize,
}

/// As `emulator::Launch` in `kernels/emulator.h`.
#[repr(C)]
struct Launch {
    grid: [u32; 3],
    block: [u32; 3],
    reversed: u32,
    arguments: u32,
    shared_bytes: u32,
    message_bytes: u32,
    shared: *mut u8,
    values: *const *const u8,
    sizes: *const u32,
    kinds: *const u8,
    message: *mut c_char,
}

impl Emulated {
    /// Finds the compiler: `CXX`, or `c++`.
    pub fn new() -> Result<Emulated> {
        let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let version = Command::new(&compiler).arg("--version").output().map_err(|error| {
            failed(format!(
                "the emulated device needs a C++ compiler: `{compiler}` does not start ({error}); \
                 install g++ or set CXX"
            ))
        })?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.lines().next().unwrap_or_default().to_owned();
        Ok(Emulated { compiler, version, pool: Pool::new(1), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, source: &Source) -> Result<Vec<u8>> {
        let text = format!("{EMULATOR}\n{}", source.whole());
        let entry = Entry::of(&[&text, &OPTIONS.join(" "), "host", &self.version]);
        if let Some(code) = entry.read() {
            return Ok(code);
        }
        let folder = temporary();
        let (from, to) = (folder.with_extension("cpp"), folder.with_extension("so"));
        let compiled = fs::write(&from, text)
            .and_then(|()| {
                Command::new(&self.compiler).args(OPTIONS).arg(&from).arg("-o").arg(&to).output()
            })
            .map_err(|error| failed(format!("`{}` could not be run: {error}", self.compiler)));
        let code = compiled.and_then(|output| {
            let log = String::from_utf8_lossy(&output.stderr);
            let line = log.lines().find(|line| line.contains("error")).unwrap_or_default();
            fs::read(&to).map_err(|_| {
                failed(format!("kernels/{}.hip does not compile: {line}", source.name))
            })
        });
        fs::remove_file(&from).ok();
        fs::remove_file(&to).ok();
        let code = code?;
        entry.write(&code);
        Ok(code)
    }
}

impl State {
    /// Where a guard zone was written to, in words.
    fn damage(&self) -> Option<String> {
        self.buffers.values().find_map(|Buffer { bytes, start, count }| {
            let damaged = |guard: &[u8]| guard.iter().any(|byte| *byte != PATTERN);
            let side = if damaged(&bytes[..*start]) {
                "before"
            } else if damaged(&bytes[start + count..]) {
                "behind"
            } else {
                return None;
            };
            Some(format!("it wrote {side} a buffer of {count} bytes"))
        })
    }
}

fn failed(message: String) -> Error {
    Error::Device { message }
}

fn temporary() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("modgrad-emulated-{}-{count}", process::id()))
}

fn kind(argument: &Argument) -> u8 {
    match argument {
        Argument::Pointer(_) => b'p',
        Argument::Int(_) | Argument::Index(_) | Argument::Word(_) => b'i',
        Argument::Float(_) => b'f',
        Argument::Struct(_) => b's',
    }
}

impl Driver for Emulated {
    fn describe(&self) -> Result<Description> {
        Ok(Description {
            name: "the processor, emulating a GPU".to_owned(),
            architecture: "host".to_owned(),
            versions: vec![("C++ compiler".to_owned(), self.version.clone())],
            memory: (0, 0),
        })
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        let mut buffer = vec![PATTERN; bytes + 2 * GUARD + 64];
        // Room for the address to be a multiple of 64; the rest is guard.
        let base = buffer.as_mut_ptr() as usize;
        let start = (base + GUARD).next_multiple_of(64) - base;
        let address = (base + start) as Address;
        self.state().buffers.insert(address, Buffer { bytes: buffer, start, count: bytes });
        Ok(address)
    }

    fn free(&self, address: Address) {
        self.state().buffers.remove(&address);
    }

    fn copy_in(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _state = self.state();
        // SAFETY: `Device` checks the range against the buffer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn copy_out(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let _state = self.state();
        // SAFETY: `Device` checks the range against the buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        let _state = self.state();
        // SAFETY: the caller's ranges lie within buffers and don't overlap.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn set(&self, address: Address, byte: u8, bytes: usize) -> Result<()> {
        let _state = self.state();
        // SAFETY: the caller's range lies within a buffer.
        unsafe { std::ptr::write_bytes(address as *mut u8, byte, bytes) };
        Ok(())
    }

    fn poisons(&self) -> bool {
        true
    }

    fn load(&self, source: &Source) -> Result<Module> {
        let code = self.compile(source)?;
        let path = temporary().with_extension("so");
        let loaded =
            fs::write(&path, code).map_err(|error| failed(error.to_string())).and_then(|()| {
                // SAFETY: the library is our own kernels, which do nothing when loaded.
                unsafe { Library::new(&path) }.map_err(|error| failed(error.to_string()))
            });
        fs::remove_file(&path).ok();
        let mut state = self.state();
        state.modules.push(loaded?);
        Ok(Module(state.modules.len() as u64 - 1))
    }

    fn function(&self, module: Module, name: &str) -> Result<Function> {
        let mut state = self.state();
        let library = &state.modules[module.0 as usize];
        // SAFETY: only its address is taken here.
        let symbol = unsafe { library.get::<*const c_void>(name.as_bytes()) };
        let address = symbol.map_err(|_| failed(format!("there is no kernel `{name}`")))?;
        let address = *address as u64;
        state.names.insert(address, name.to_owned());
        Ok(Function(address))
    }

    fn launch(&self, function: Function, shape: Shape, arguments: &[Argument]) -> Result<()> {
        let mut state = self.state();
        // A fixed pseudo-random half of the launches runs backwards.
        state.launches += 1;
        let reversed = state.launches.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63;
        let packed = Packed::new(arguments);
        let (values, sizes) = (packed.pointers(), packed.sizes());
        let kinds: Vec<u8> = arguments.iter().map(kind).collect();
        let mut shared = vec![0u64; (shape.shared as usize).div_ceil(8)];
        let mut message = [0 as c_char; MESSAGE_BYTES];
        let launch = Launch {
            grid: shape.grid,
            block: shape.block,
            reversed: reversed as u32,
            arguments: arguments.len() as u32,
            shared_bytes: shape.shared,
            message_bytes: MESSAGE_BYTES as u32,
            shared: shared.as_mut_ptr().cast(),
            values: values.as_ptr(),
            sizes: sizes.as_ptr(),
            kinds: kinds.as_ptr(),
            message: message.as_mut_ptr(),
        };
        // SAFETY: `function` is what EXPORT made of a kernel: it takes a `Launch`.
        let run: extern "C" fn(*const Launch) = unsafe { std::mem::transmute(function.0) };
        run(&launch);
        // SAFETY: the emulator ends its message with 0 within the array.
        let said = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned();
        let wrong = if said.is_empty() { state.damage() } else { Some(said) };
        match wrong {
            Some(wrong) => {
                let name = state.names.get(&function.0).map_or("?", String::as_str);
                Err(failed(format!("kernel `{name}`: {wrong}")))
            }
            None => Ok(()),
        }
    }

    fn product(&self, product: &Product) -> Result<()> {
        let state = self.state();
        let Product { m, n, k, .. } = *product;
        for index in 0..product.batch {
            let a = matrix(
                product.factors,
                product.a,
                index * product.stride_a,
                m,
                k,
                product.transpose_a,
            );
            let b = matrix(
                product.factors,
                product.b,
                index * product.stride_b,
                k,
                n,
                product.transpose_b,
            );
            let start = index * product.stride_c;
            let c = match product.result {
                // SAFETY: `c` is a buffer of its own with room for all products.
                Float::F32 => Output::F32(unsafe {
                    std::slice::from_raw_parts_mut((product.c as *mut f32).add(start), m * n)
                }),
                // SAFETY: as above.
                Float::Bf16 => Output::Bf16(unsafe {
                    std::slice::from_raw_parts_mut((product.c as *mut bf16).add(start), m * n)
                }),
            };
            let precision = match product.factors {
                Float::F32 => Precision::F32,
                Float::Bf16 => Precision::Bf16,
            };
            gemm::gemm(&self.pool, precision, a, b, c, product.add, None);
        }
        match state.damage() {
            Some(damage) => Err(failed(format!("a matrix product: {damage}"))),
            None => Ok(()),
        }
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

/// `rows` × `columns`, stored the other way round where `transposed`.
fn matrix<'a>(
    float: Float,
    address: Address,
    start: usize,
    rows: usize,
    columns: usize,
    transposed: bool,
) -> Matrix<'a> {
    let (high, wide) = if transposed { (columns, rows) } else { (rows, columns) };
    let count = rows * columns;
    let matrix = match float {
        // SAFETY: the operands of a product lie within buffers, which live on while it runs.
        Float::F32 => Matrix::f32(
            unsafe { std::slice::from_raw_parts((address as *const f32).add(start), count) },
            high,
            wide,
        ),
        // SAFETY: as above.
        Float::Bf16 => Matrix::bf16(
            unsafe { std::slice::from_raw_parts((address as *const bf16).add(start), count) },
            high,
            wide,
        ),
    };
    if transposed { matrix.transposed() } else { matrix }
}
