//! A driver over a vendor's libraries, the same for NVIDIA and AMD: one stream, what may be
//! asked of it, and a watchdog wherever these libraries would wait without end.

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use modgrad_graph::{Error, Result};

use crate::card::Card;
use crate::compiler::Compiler;
use crate::driver::{
    Address, Argument, Description, Driver, Function, Module, Packed, Product, Shape,
};
use crate::library::{Library, failed};
use crate::products::Products;
use crate::source::{self, Source};
use crate::{cuda, hip};

/// `CUDA_ERROR_OUT_OF_MEMORY` and `hipErrorOutOfMemory`.
const OUT_OF_MEMORY: i32 = 2;
/// `CUDA_ERROR_NOT_READY` and `hipErrorNotReady`.
const NOT_READY: i32 = 600;
/// So many launches are not waited for: vendors' queues take some thousand, and block without
/// end where a kernel before them does not.
const MOST_PENDING: u32 = 512;
/// `CU_STREAM_NON_BLOCKING` and `hipStreamNonBlocking`.
const NON_BLOCKING: u32 = 1;

/// Bytes that copies between host and card go through: the card reads and writes this memory
/// by itself, while for any other memory the library would wait for all kernels, for ever.
const STAGING: usize = 4 << 20;

/// [`STAGING`] bytes; those before `used` may still be read by copies that are under way.
struct Staging {
    bytes: *mut u8,
    used: usize,
}

/// An NVIDIA or AMD card, ready to run kernels.
pub struct Vendor {
    stream: *mut c_void,
    compiler: Compiler,
    products: Mutex<Products>,
    staging: Mutex<Staging>,
    card: Card,
    patience: Duration,
    /// Whether each launch is waited for, so that a fault names its kernel.
    careful: bool,
    /// Launches and products since the stream was last empty.
    pending: AtomicU32,
    /// Once a kernel has hung nothing is asked of the card any more.
    hung: AtomicBool,
}

// SAFETY: the libraries' functions may be called by any thread that has made the card its
// own, which each call here does first; the handle of products and the staging have locks.
unsafe impl Send for Vendor {}
// SAFETY: as above.
unsafe impl Sync for Vendor {}

impl Vendor {
    pub(crate) fn new(
        card: Card,
        compiler: &Library,
        products: impl FnOnce(*mut c_void) -> Result<Products>,
    ) -> Result<Vendor> {
        card.enter()?;
        let compiler = Compiler::new(compiler, card.flag == "cuda", &card.architecture)?;
        let mut stream = null_mut();
        // SAFETY: it writes one stream.
        let status = unsafe { (card.functions.new_stream)(&mut stream, NON_BLOCKING) };
        card.check("making a stream", status)?;
        let products = Mutex::new(products(stream)?);
        let mut bytes = null_mut();
        // SAFETY: it writes one pointer.
        let status = unsafe { (card.functions.host_allocate)(&mut bytes, STAGING, 0) };
        card.check("allocating memory for copies", status)?;
        let staging = Mutex::new(Staging { bytes: bytes.cast(), used: 0 });
        let patience = match env::var("MODGRAD_WATCHDOG") {
            Ok(text) => text.parse().map_err(|_| {
                failed(format!("MODGRAD_WATCHDOG={text} is not a number of seconds"))
            })?,
            Err(_) => 60.0,
        };
        Ok(Vendor {
            card,
            stream,
            compiler,
            products,
            staging,
            patience: Duration::from_secs_f64(f64::clamp(patience, 0.1, 1e6)),
            careful: env::var_os("MODGRAD_CHECK_LAUNCHES").is_some(),
            pending: AtomicU32::new(0),
            hung: AtomicBool::new(false),
        })
    }

    fn enter(&self) -> Result<()> {
        if self.hung.load(Ordering::Relaxed) {
            return Err(failed(format!(
                "--device {}: the card no longer answers; hint: start again",
                self.card.flag
            )));
        }
        self.card.enter()
    }

    /// Waits where the queue gets long, or at once where each launch is to be waited for.
    fn keep_short(&self) -> Result<()> {
        let pending = self.pending.fetch_add(1, Ordering::Relaxed) + 1;
        if self.careful || pending >= MOST_PENDING { self.wait() } else { Ok(()) }
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the stream, but not for ever.
    fn wait(&self) -> Result<()> {
        self.wait_for(&mut self.staging())
    }

    /// As `wait`; then no copy is under way any more.
    fn wait_for(&self, staging: &mut Staging) -> Result<()> {
        let start = Instant::now();
        self.pending.store(0, Ordering::Relaxed);
        loop {
            // SAFETY: the stream lives as long as this.
            match unsafe { (self.card.functions.query)(self.stream) } {
                NOT_READY => {}
                status => {
                    staging.used = 0;
                    return self.card.check("a kernel", status);
                }
            }
            let waited = start.elapsed();
            if waited > self.patience {
                self.hung.store(true, Ordering::Relaxed);
                return Err(failed(format!(
                    "--device {}: a kernel has not ended after {:.0} s, given up; hint: if the \
                     card is only slow, set MODGRAD_WATCHDOG to more seconds",
                    self.card.flag,
                    self.patience.as_secs_f64()
                )));
            }
            // Most waits are short: sleeping costs more than they do.
            if waited > Duration::from_millis(20) {
                thread::sleep(Duration::from_micros(100));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // A hung card is left alone: even giving things back would wait for it.
        if self.enter().is_err() || self.wait().is_err() {
            self.card.abandon();
        } else {
            self.products.get_mut().unwrap_or_else(PoisonError::into_inner).close();
            let bytes = self.staging().bytes;
            // SAFETY: no copy is under way.
            unsafe { (self.card.functions.host_free)(bytes.cast()) };
            // SAFETY: nothing else has the stream, and the library of products is done with it.
            unsafe { (self.card.functions.end_stream)(self.stream) };
        }
    }
}

impl Driver for Vendor {
    fn describe(&self) -> Result<Description> {
        let mut description = self.card.describe()?;
        let version = format!("{}.{}", self.compiler.version.0, self.compiler.version.1);
        description.versions.push((self.compiler.name.to_owned(), version));
        let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if self.card.flag == "cuda" { "cuBLAS" } else { "hipBLAS" };
        description.versions.push((name.to_owned(), products.version.clone()));
        Ok(description)
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: it writes one address.
        let status = unsafe { (self.card.functions.allocate)(&mut address, bytes) };
        if status == OUT_OF_MEMORY {
            let (free, total) = self.card.memory();
            let mib = |bytes: u64| bytes >> 20;
            return Err(failed(format!(
                "--device {}: out of memory: {} MiB were asked for, {} of {} MiB are free; \
                 hint: a smaller preset, or --precision bf16",
                self.card.flag,
                mib(bytes as u64),
                mib(free),
                mib(total)
            )));
        }
        self.card.check("allocating memory", status)?;
        Ok(address)
    }

    fn free(&self, address: Address) {
        // The library waits for all kernels itself, but for ever.
        if self.enter().is_ok() && self.wait().is_ok() {
            // SAFETY: `Memory` gives back what it has, once.
            unsafe { (self.card.functions.free)(address) };
        }
    }

    fn copy_in(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let mut staging = self.staging();
        let mut to = to;
        for part in bytes.chunks(STAGING) {
            if staging.used + part.len() > STAGING {
                self.wait_for(&mut staging)?;
            }
            // SAFETY: there is room, and no copy under way reads it.
            let from = unsafe { staging.bytes.add(staging.used) };
            // SAFETY: as above; `part` is the caller's.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), from, part.len()) };
            // SAFETY: `Device` checks the range against the buffer.
            let status =
                unsafe { (self.card.functions.copy_in)(to, from.cast(), part.len(), self.stream) };
            self.card.check("copying to the card", status)?;
            // Copies begin at addresses that the card likes.
            staging.used = (staging.used + part.len()).next_multiple_of(64).min(STAGING);
            to += part.len() as u64;
        }
        Ok(())
    }

    fn copy_out(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        let mut staging = self.staging();
        let mut from = from;
        for part in bytes.chunks_mut(STAGING) {
            if staging.used + part.len() > STAGING {
                self.wait_for(&mut staging)?;
            }
            // SAFETY: there is room, and no copy under way reads it.
            let to = unsafe { staging.bytes.add(staging.used) };
            // SAFETY: `Device` checks the range against the buffer.
            let status =
                unsafe { (self.card.functions.copy_out)(to.cast(), from, part.len(), self.stream) };
            self.card.check("copying from the card", status)?;
            self.wait_for(&mut staging)?;
            // SAFETY: the copy is done; the lock keeps others off.
            unsafe { std::ptr::copy_nonoverlapping(to, part.as_mut_ptr(), part.len()) };
            from += part.len() as u64;
        }
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's ranges lie within buffers and don't overlap.
        let status = unsafe { (self.card.functions.copy)(to, from, bytes, self.stream) };
        self.card.check("copying on the card", status)
    }

    fn set(&self, address: Address, byte: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's range lies within a buffer.
        let status = unsafe { (self.card.functions.set)(address, byte, bytes, self.stream) };
        self.card.check("setting memory", status)
    }

    fn load(&self, source: &Source) -> Result<Module> {
        self.enter()?;
        let code = self.compiler.code(source)?;
        // Loading may wait for kernels, for ever.
        self.wait()?;
        let mut module = null_mut();
        // SAFETY: the code is a whole object, as the compiler gave it.
        let status = unsafe { (self.card.functions.load)(&mut module, code.as_ptr().cast()) };
        self.card.check(&format!("loading kernels/{}.hip", source.name), status)?;
        Ok(Module(module as u64))
    }

    fn function(&self, module: Module, name: &str) -> Result<Function> {
        self.enter()?;
        let mut function = null_mut();
        let plain = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded, the name ends with 0.
        let status = unsafe {
            (self.card.functions.function)(&mut function, module.0 as *mut c_void, plain.as_ptr())
        };
        self.card.check(&format!("finding the kernel `{name}`"), status)?;
        Ok(Function(function as u64))
    }

    fn launch(&self, function: Function, shape: Shape, arguments: &[Argument]) -> Result<()> {
        self.enter()?;
        let packed = Packed::new(arguments);
        let values = packed.pointers();
        let ([x, y, z], [width, height, depth]) = (shape.grid, shape.block);
        // SAFETY: the arguments are of the parameters' types, which the emulated device
        // checks in the tests, and are copied before the call returns.
        let status = unsafe {
            (self.card.functions.launch)(
                function.0 as *mut c_void,
                x,
                y,
                z,
                width,
                height,
                depth,
                shape.shared,
                self.stream,
                values.as_ptr().cast(),
                std::ptr::null(),
            )
        };
        self.card.check("launching a kernel", status)?;
        self.keep_short()
    }

    fn product(&self, product: &Product) -> Result<()> {
        self.enter()?;
        self.products.lock().unwrap_or_else(PoisonError::into_inner).run(product)?;
        self.keep_short()
    }

    fn synchronise(&self) -> Result<()> {
        self.enter()?;
        self.wait()
    }
}

/// Compiles every source for an architecture with a vendor's run-time compiler, which needs
/// no card. Tells the compiler's version.
pub fn compile_all(flag: &str, architecture: &str, folders: &[PathBuf]) -> Result<String> {
    let library = match flag {
        "cuda" => cuda::compiler(i32::MAX, folders)?,
        _ => hip::compiler(folders)?,
    };
    let compiler = Compiler::new(&library, flag == "cuda", architecture)?;
    for source in source::ALL {
        compiler.code(source)?;
    }
    Ok(format!("{} {}.{}", compiler.name, compiler.version.0, compiler.version.1))
}

/// The cards of a vendor.
pub fn cards(flag: &str, folders: &[PathBuf]) -> Result<Vec<Description>> {
    match flag {
        "cuda" => cuda::cards(folders)?.map(|card| card?.describe()).collect(),
        "hip" => hip::cards(folders)?.iter().map(Card::describe).collect(),
        _ => Err(Error::Device { message: format!("--device {flag} has no cards") }),
    }
}
