//! GFLOP/s of our matrix products on the shapes of a feed-forward net, beside
//! the `gemm` crate: `cargo run --release --example gemm_bench [threads [filter]]`.
//!
//! forward y = x·Wᵀ, backward dx = dy·W, gradient dW += dyᵀ·x, with W of
//! `outputs` x `inputs`. The columns f32, bf16 and mixed (bf16 products of an
//! f32 W) are ours. Each figure is the best of many runs, taken in turn. With
//! one thread the clock is the thread's own processor time, so that other work
//! on the machine disturbs less.

use modgrad_compute::gemm::{Matrix, Output, Precision, gemm, measured_peak};
use modgrad_compute::{Isa, Pool, bf16};
use std::time::{Duration, Instant};

const WEIGHTS: [(&str, usize, usize); 6] = [
    ("small up", 1024, 128),
    ("small down", 128, 512),
    ("medium up", 3072, 384),
    ("medium down", 384, 1536),
    ("large up", 10240, 1024),
    ("large down", 1024, 5120),
];

#[derive(Clone, Copy)]
enum Case {
    Forward,
    Backward,
    Gradient,
}

struct Buffers {
    wide: Vec<f32>,
    narrow: Vec<bf16>,
}

impl Buffers {
    fn new(count: usize) -> Buffers {
        let value = |place: usize| (place * 7919 % 1013) as f32 / 1013.0 - 0.5;
        let wide: Vec<f32> = (0..count + 64).map(value).collect();
        let narrow = wide.iter().map(|value| bf16::from_f32(*value)).collect();
        Buffers { wide, narrow }
    }

    /// From a cache line on, as a planner of tensors would place them.
    fn matrix(&self, narrow: bool, rows: usize, columns: usize) -> Matrix<'_> {
        let count = rows * columns;
        if narrow {
            let start = self.narrow.as_ptr().align_offset(64);
            Matrix::bf16(&self.narrow[start..start + count], rows, columns)
        } else {
            let start = self.wide.as_ptr().align_offset(64);
            Matrix::f32(&self.wide[start..start + count], rows, columns)
        }
    }
}

/// The processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Best seconds of each job over rounds that take the jobs in turn.
fn best(jobs: &mut [&mut dyn FnMut()], threads: usize) -> Vec<f64> {
    let mut times = vec![f64::INFINITY; jobs.len()];
    let started = Instant::now();
    for round in 0.. {
        for (job, time) in jobs.iter_mut().zip(&mut times) {
            // The first of each turn warms the caches and the threads.
            for _ in 0..3 {
                let (start, own) = (Instant::now(), thread_time());
                job();
                let spent = if threads == 1 { thread_time() - own } else { start.elapsed() };
                *time = time.min(spent.as_secs_f64());
            }
        }
        if round >= 1 && started.elapsed().as_secs_f64() > 0.25 {
            break;
        }
    }
    times
}

fn theirs(
    case: Case,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    c: &mut [f32],
    size: [usize; 3],
    threads: usize,
) {
    let [batch, outputs, inputs] = size;
    // (rows, columns, inner, left, its strides, right, its strides), strides as (column, row).
    let (m, n, k, left, left_strides, right, right_strides) = match case {
        Case::Forward => (batch, outputs, inputs, x, (1, inputs), w, (inputs, 1)),
        Case::Backward => (batch, inputs, outputs, dy, (1, outputs), w, (1, inputs)),
        Case::Gradient => (outputs, inputs, batch, dy, (outputs, 1), x, (1, inputs)),
    };
    let parallelism =
        if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let accumulate = matches!(case, Case::Gradient);
    // SAFETY: the slices hold the matrices of these sizes and strides.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            left.as_ptr(),
            left_strides.0 as isize,
            left_strides.1 as isize,
            right.as_ptr(),
            right_strides.0 as isize,
            right_strides.1 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(2, |count| count.parse().expect("a number of threads"));
    let filter = arguments.next().unwrap_or_default();
    let pool = Pool::new(threads);
    println!("{threads} threads, {}", Isa::active().name());
    let peak = |precision| measured_peak(&pool, precision) / 1e9;
    println!("peak: f32 {:.0}, bf16 {:.0} GFLOP/s", peak(Precision::F32), peak(Precision::Bf16));
    println!(
        "{:<12} {:>5} {:<8} | {:>6} {:>6} {:>5} | {:>6} {:>6}",
        "weights", "batch", "case", "f32", "crate", "ratio", "bf16", "mixed"
    );
    for (name, outputs, inputs) in WEIGHTS {
        for batch in [64, 2048] {
            let cases = [
                ("forward", Case::Forward),
                ("backward", Case::Backward),
                ("gradient", Case::Gradient),
            ];
            for (label, case) in cases {
                if !format!("{name} {batch} {label}").contains(&filter) {
                    continue;
                }
                let x = Buffers::new(batch * inputs);
                let w = Buffers::new(outputs * inputs);
                let dy = Buffers::new(batch * outputs);
                let count = match case {
                    Case::Forward => batch * outputs,
                    Case::Backward => batch * inputs,
                    Case::Gradient => outputs * inputs,
                };
                let (mut c, mut theirs_c) = (Buffers::new(count), Buffers::new(count));
                let mut ours = |precision, narrow, narrow_weights| {
                    let x = x.matrix(narrow, batch, inputs);
                    let w = w.matrix(narrow_weights, outputs, inputs);
                    let dy = dy.matrix(narrow, batch, outputs);
                    let out = if narrow && !matches!(case, Case::Gradient) {
                        {
                            let start = c.narrow.as_ptr().align_offset(64);
                            Output::Bf16(&mut c.narrow[start..start + count])
                        }
                    } else {
                        {
                            let start = c.wide.as_ptr().align_offset(64);
                            Output::F32(&mut c.wide[start..start + count])
                        }
                    };
                    match case {
                        Case::Forward => {
                            gemm(&pool, precision, x, w.transposed(), out, false, None)
                        }
                        Case::Backward => gemm(&pool, precision, dy, w, out, false, None),
                        Case::Gradient => {
                            gemm(&pool, precision, dy.transposed(), x, out, true, None)
                        }
                    }
                };
                let ours = std::cell::RefCell::new(&mut ours);
                let size = [batch, outputs, inputs];
                let times = best(
                    &mut [
                        &mut || ours.borrow_mut()(Precision::F32, false, false),
                        &mut || {
                            theirs(
                                case,
                                &x.wide,
                                &w.wide,
                                &dy.wide,
                                &mut theirs_c.wide,
                                size,
                                threads,
                            )
                        },
                        &mut || ours.borrow_mut()(Precision::Bf16, true, true),
                        &mut || ours.borrow_mut()(Precision::Bf16, true, false),
                    ],
                    threads,
                );
                let work = 2.0 * (batch * outputs * inputs) as f64 / 1e9;
                let rate: Vec<f64> = times.iter().map(|time| work / time).collect();
                println!(
                    "{name:<12} {batch:>5} {label:<8} | {:>6.0} {:>6.0} {:>5.2} | {:>6.0} {:>6.0}",
                    rate[0],
                    rate[1],
                    rate[0] / rate[1],
                    rate[2],
                    rate[3]
                );
            }
        }
    }
}
