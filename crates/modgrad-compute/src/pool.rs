//! A small pool of threads for regions that last microseconds.
//!
//! A training step of a small model is hundreds of such regions, so workers
//! spin for a while before they sleep, and the calling thread works too. Work
//! is split statically: task `i` of `n` always goes to the same thread, which
//! keeps results reproducible and each core's data in its own cache.

use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};

/// How often a worker looks for new work before it sleeps: about 50 µs.
const SPINS_BEFORE_SLEEP: u32 = 20_000;

/// Threads that share the work of one region at a time.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(Thread, JoinHandle<()>)>,
    region: Mutex<()>,
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// Points at the caller's `Job` while a region runs.
    job: AtomicPtr<Job<'static>>,
    /// Rises by one with each region; workers wait for it to change.
    epoch: AtomicUsize,
    running: AtomicUsize,
    panicked: AtomicBool,
    stopping: AtomicBool,
    asleep: Vec<AtomicBool>,
}

impl Pool {
    /// A pool of `threads` threads, the calling thread counted; at least one.
    pub fn new(threads: usize) -> Pool {
        let extra = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            job: AtomicPtr::new(std::ptr::null_mut()),
            epoch: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            asleep: (0..extra).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (0..extra)
            .map(|index| {
                let shared = Arc::clone(&shared);
                let handle = thread::Builder::new()
                    .name(format!("modgrad-{}", index + 1))
                    .spawn(move || shared.work(index))
                    .expect("the system refused to start a thread");
                (handle.thread().clone(), handle)
            })
            .collect();
        Pool { shared, workers, region: Mutex::new(()) }
    }

    /// The number of threads, the calling one counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(thread)` once on each thread and returns when all are done.
    ///
    /// A panic in a job is passed on to the caller. A job must not call back
    /// into the same pool.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let _region = self.region.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: only the lifetime changes. Workers use the reference only
        // while `running` is above zero, and this call waits for zero.
        let mut job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        let shared = &*self.shared;
        shared.job.store(&raw mut job, Ordering::Relaxed);
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (flag, (worker, _)) in shared.asleep.iter().zip(&self.workers) {
            if flag.load(Ordering::SeqCst) {
                worker.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_SLEEP {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        let worker_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!worker_panicked, "a worker thread panicked");
    }

    /// Splits `0..length` into one contiguous range a thread, each boundary a
    /// multiple of `granule`, and calls `job(range)` for the non-empty ones.
    pub fn for_ranges(&self, length: usize, granule: usize, job: impl Fn(Range<usize>) + Sync) {
        let threads = self.threads();
        let granule = granule.max(1);
        if threads == 1 || length <= granule {
            if length > 0 {
                job(0..length);
            }
            return;
        }
        self.run(&|thread| {
            let range = share(length, granule, thread, threads);
            if !range.is_empty() {
                job(range);
            }
        });
    }

    /// Splits `out` into rows of `row_length` and gives each thread its own
    /// stretch of at least `minimum_rows`: `job(first_row, rows)`.
    pub fn for_rows<T: Send>(
        &self,
        out: &mut [T],
        row_length: usize,
        minimum_rows: usize,
        job: impl Fn(usize, &mut [T]) + Sync,
    ) {
        if row_length == 0 || out.is_empty() {
            return;
        }
        let rows = out.len() / row_length;
        let out = SharedMut::new(out);
        self.for_ranges(rows, minimum_rows, |range| {
            // SAFETY: the ranges of one region are disjoint.
            let stretch = unsafe { out.slice(range.start * row_length..range.end * row_length) };
            job(range.start, stretch);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, handle) in self.workers.drain(..) {
            worker.unpark();
            // A worker catches its jobs' panics, so there is nothing to report.
            handle.join().ok();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0u32;
            loop {
                let epoch = self.epoch.load(Ordering::SeqCst);
                if epoch != seen {
                    seen = epoch;
                    break;
                }
                spins += 1;
                if spins < SPINS_BEFORE_SLEEP {
                    std::hint::spin_loop();
                    continue;
                }
                self.asleep[index].store(true, Ordering::SeqCst);
                if self.epoch.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.asleep[index].store(false, Ordering::SeqCst);
            }
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: the epoch changed, so `run` has stored a job that lives
            // until `running` reaches zero, which waits for this worker.
            let job = unsafe { *self.job.load(Ordering::Relaxed) };
            if catch_unwind(AssertUnwindSafe(|| job(index + 1))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Thread `thread`'s part of `0..length`, boundaries at multiples of `granule`.
pub fn share(length: usize, granule: usize, thread: usize, threads: usize) -> Range<usize> {
    let blocks = length.div_ceil(granule);
    let start = (blocks * thread / threads * granule).min(length);
    let end = (blocks * (thread + 1) / threads * granule).min(length);
    start..end
}

/// A mutable slice that the threads of one region may take disjoint parts of.
pub struct SharedMut<'a, T> {
    pointer: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a part is only handed out under the promise that parts are disjoint.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as a `&mut [T]` would be.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Takes the slice for the length of a region.
    pub fn new(slice: &'a mut [T]) -> Self {
        SharedMut { pointer: slice.as_mut_ptr(), length: slice.len(), lifetime: PhantomData }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// No two parts that live at the same time may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "part outside the slice");
        // SAFETY: inside the slice as asserted; disjoint as the caller promises.
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.end - range.start)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once() {
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads);
            for rows in [0, 1, 2, 5, 64, 1001] {
                let mut out = vec![0u32; rows * 3];
                pool.for_rows(&mut out, 3, 1, |first, stretch| {
                    for (offset, row) in stretch.chunks_mut(3).enumerate() {
                        row.iter_mut().for_each(|value| *value += (first + offset) as u32 + 1);
                    }
                });
                for (index, value) in out.iter().enumerate() {
                    assert_eq!(*value, (index / 3) as u32 + 1);
                }
            }
        }
    }

    #[test]
    fn many_short_regions_and_sleeping_workers() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..2000 {
            if round % 500 == 0 {
                thread::sleep(std::time::Duration::from_millis(5));
            }
            pool.run(&|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 6000);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        for culprit in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|thread| assert_ne!(thread, culprit, "planned"));
            }));
            assert!(result.is_err());
        }
        pool.run(&|_| {});
    }
}
