//! A device: loaded kernels, scratch, threads of the host, and the note that a kernel leaves
//! where an index is outside its table.

use std::collections::HashMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use modgrad_compute::Pool;
use modgrad_graph::{Error, Result};

use crate::driver::{Address, Argument, Driver, Float, Function, Module, Product, Shape};
use crate::emulated::Emulated;
use crate::launch::{grid, index, over};
use crate::memory::Memory;
use crate::source::{self, Source};
use crate::{cuda, hip};

/// A device that runs programs; clones share it.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Arc<dyn Driver>,
    modules: Mutex<HashMap<&'static str, Module>>,
    /// By source and name.
    functions: Mutex<HashMap<&'static str, HashMap<String, Function>>>,
    scratch: Mutex<Vec<Option<Memory>>>,
    flag: Memory,
    checks: Mutex<Checks>,
    /// For what the host does itself; made when first asked for.
    pool: Mutex<Option<Pool>>,
}

/// What kernels that call `checked_index` were launched for.
#[derive(Default)]
struct Checks {
    /// (op, bound); the note tells which.
    known: Vec<(&'static str, usize)>,
    /// Whether any was launched since the note was last read.
    open: bool,
}

/// Which of an op's temporary buffers: those of one op must differ, those of another may
/// be the same, since all runs in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scratch {
    /// For [`Device`]'s own helpers, which ops call.
    Products,
    ProductsToo,
    Sums,
    /// For ops.
    First,
    Second,
    Third,
    Fourth,
    Fifth,
    Sixth,
}

impl Device {
    /// The device that `--device` names: "cuda", "hip" or "emulated". `folders` are where
    /// else to look for libraries.
    pub fn open(name: &str, folders: &[PathBuf]) -> Result<Device> {
        let driver: Arc<dyn Driver> = match name {
            "cuda" => Arc::new(cuda::open(folders)?),
            "hip" => Arc::new(hip::open(folders)?),
            "emulated" => Arc::new(Emulated::new()?),
            _ => {
                let message = format!("--device {name}: there is no such device");
                return Err(Error::Device { message });
            }
        };
        Device::new(driver)
    }

    /// A device over a driver.
    pub fn new(driver: Arc<dyn Driver>) -> Result<Device> {
        let flag = Memory::new(&driver, 8)?;
        driver.set(flag.address(), 0, 8)?;
        Ok(Device {
            inner: Arc::new(Inner {
                driver,
                modules: Mutex::default(),
                functions: Mutex::default(),
                scratch: Mutex::default(),
                flag,
                checks: Mutex::default(),
                pool: Mutex::default(),
            }),
        })
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.inner.driver
    }

    /// How many threads of the host do what the host does itself.
    pub fn set_threads(&self, threads: usize) {
        let mut pool = lock(&self.inner.pool);
        if pool.as_ref().is_none_or(|pool| pool.threads() != threads.max(1)) {
            *pool = Some(Pool::new(threads));
        }
    }

    /// Work on the host's threads: as many as were set, or all.
    pub(crate) fn on_host<T>(&self, work: impl FnOnce(&Pool) -> T) -> T {
        let mut pool = lock(&self.inner.pool);
        let all = || Pool::new(thread::available_parallelism().map_or(1, NonZero::get));
        work(pool.get_or_insert_with(all))
    }

    /// A buffer of zeros.
    pub fn zeros(&self, bytes: usize) -> Result<Memory> {
        let memory = Memory::new(&self.inner.driver, bytes)?;
        if bytes > 0 {
            self.driver().set(memory.address(), 0, bytes)?;
        }
        Ok(memory)
    }

    /// Runs a kernel of `source`; a launch of no blocks does nothing.
    pub fn launch(
        &self,
        source: &Source,
        kernel: &str,
        shape: Shape,
        arguments: &[Argument],
    ) -> Result<()> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        check_shape(kernel, shape)?;
        let function = self.function(source, kernel)?;
        self.driver().launch(function, shape, arguments)
    }

    fn function(&self, source: &Source, kernel: &str) -> Result<Function> {
        let mut functions = lock(&self.inner.functions);
        let functions = functions.entry(source.name).or_default();
        if let Some(function) = functions.get(kernel) {
            return Ok(*function);
        }
        let mut modules = lock(&self.inner.modules);
        let module = match modules.get(source.name) {
            Some(module) => *module,
            None => *modules.entry(source.name).or_insert(self.driver().load(source)?),
        };
        let function = self.driver().function(module, kernel)?;
        functions.insert(kernel.to_owned(), function);
        Ok(function)
    }

    /// A temporary buffer of at least `bytes`, with any contents.
    pub fn scratch(&self, which: Scratch, bytes: usize) -> Result<Address> {
        let mut scratch = lock(&self.inner.scratch);
        let slot = which as usize;
        if scratch.len() <= slot {
            scratch.resize_with(slot + 1, || None);
        }
        let enough = scratch[slot].as_ref().is_some_and(|memory| memory.bytes() >= bytes);
        if !enough {
            scratch[slot] = None;
            scratch[slot] = Some(Memory::new(&self.inner.driver, bytes)?);
        }
        let address = scratch[slot].as_ref().map_or(0, Memory::address);
        if self.driver().poisons() && bytes > 0 {
            self.driver().set(address, 0xff, bytes)?;
        }
        Ok(address)
    }

    /// The two last arguments of a kernel that calls `checked_index`: where to leave the
    /// note, and which op and bound it is about.
    pub fn index_check(&self, op: &'static str, bound: usize) -> [Argument; 2] {
        let mut checks = lock(&self.inner.checks);
        checks.open = true;
        let found = checks.known.iter().position(|check| *check == (op, bound));
        let place = found.unwrap_or_else(|| {
            checks.known.push((op, bound));
            checks.known.len() - 1
        });
        [Argument::Pointer(self.inner.flag.address()), Argument::Int(place as i32 + 1)]
    }

    /// Whether a kernel found an index outside its table since this was last asked.
    pub fn check_indices(&self) -> Result<()> {
        let mut checks = lock(&self.inner.checks);
        if !checks.open {
            return Ok(());
        }
        let mut note = [0; 8];
        self.driver().copy_out(self.inner.flag.address(), &mut note)?;
        checks.open = false;
        let note = u64::from_ne_bytes(note);
        if note == 0 {
            return Ok(());
        }
        self.driver().set(self.inner.flag.address(), 0, 8)?;
        let (op, bound) = checks.known[!((note >> 32) as u32) as usize - 1];
        Err(Error::Shape {
            op,
            expected: format!("indices from 0 to {}", bound as i64 - 1),
            found: format!("{}", note as u32 as i32),
        })
    }

    /// Matrix products of any sizes; see [`Product`].
    pub fn product(&self, product: &Product) -> Result<()> {
        let elements = product.m * product.n * product.batch;
        if elements == 0 {
            return Ok(());
        }
        if product.k > 0 {
            return self.driver().product(product);
        }
        if product.add {
            return Ok(());
        }
        let size = if product.result == Float::F32 { 4 } else { 2 };
        self.driver().set(product.c, 0, elements * size)
    }

    /// An f32 stretch rounded to bf16 in scratch.
    pub fn narrowed(&self, which: Scratch, from: Address, count: usize) -> Result<Address> {
        let to = self.scratch(which, count * 2)?;
        self.narrow_into(from, to, count)?;
        Ok(to)
    }

    /// An f32 stretch rounded to bf16.
    pub fn narrow_into(&self, from: Address, to: Address, count: usize) -> Result<()> {
        let arguments = [Argument::Pointer(from), Argument::Pointer(to), index(count)];
        self.launch(&source::BASICS, "narrow", over(count), &arguments)
    }

    /// As [`Device::sum_rows`], for as many rows as there may be.
    pub fn column_sums(
        &self,
        from: Address,
        to: Address,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        /// Rows that a thread sums, unless that made too many chunks for a grid.
        const CHUNK: usize = 64;
        let chunk = CHUNK.max(rows.div_ceil(4096));
        if rows <= 2 * chunk {
            return self.sum_rows(from, to, rows, columns);
        }
        let chunks = rows.div_ceil(chunk);
        let parts = self.scratch(Scratch::Sums, chunks * columns * 4)?;
        let arguments = [
            Argument::Pointer(from),
            Argument::Pointer(parts),
            index(1),
            index(rows),
            index(columns),
            index(chunk),
            Argument::Float(1.0),
        ];
        let shape = grid(over(columns).grid[0] as usize, chunks);
        self.launch(&source::REDUCTIONS, "sum_columns_f32", shape, &arguments)?;
        self.sum_rows(parts, to, chunks, columns)
    }

    /// Sums `rows` rows of `columns` f32 into one row.
    pub fn sum_rows(&self, from: Address, to: Address, rows: usize, columns: usize) -> Result<()> {
        let shape = grid(over(columns).grid[0] as usize, 1);
        let arguments = [
            Argument::Pointer(from),
            Argument::Pointer(to),
            index(1),
            index(rows),
            index(columns),
            index(rows),
            Argument::Float(1.0),
        ];
        self.launch(&source::REDUCTIONS, "sum_columns_f32", shape, &arguments)
    }
}

/// What no card takes is refused here, where the kernel's name is known.
fn check_shape(kernel: &str, shape: Shape) -> Result<()> {
    const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
    const MOST_THREADS: u32 = 1024;
    const MOST_SHARED: u32 = 48 << 10;
    let threads = shape.block.iter().product::<u32>();
    let blocks = shape.grid.iter().zip(MOST_BLOCKS).all(|(blocks, most)| *blocks <= most);
    if !blocks || threads == 0 || threads > MOST_THREADS || shape.shared > MOST_SHARED {
        let message = format!(
            "kernel `{kernel}`: {:?} blocks of {:?} threads with {} bytes of shared memory are \
             more than a card takes ({MOST_BLOCKS:?} of {MOST_THREADS} with {MOST_SHARED})",
            shape.grid, shape.block, shape.shared
        );
        return Err(Error::Device { message });
    }
    Ok(())
}

/// A panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
