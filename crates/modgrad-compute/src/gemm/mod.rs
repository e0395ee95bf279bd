//! Matrix products: `c = a·b`, `c = a·b + bias`, `c += a·b`.
//!
//! A row of C depends on its own row of A and on B alone, and the order in
//! which an element is summed depends on the length of the inner dimension
//! alone: results do not change with the number of threads, with the other
//! rows, or with a row's place in the matrix.
//!
//! Operands and outputs that start at a multiple of 64 bytes, with rows of a
//! multiple of 64 bytes, are fastest: bf16 tiles then load without a copy.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod driver;
mod kernel;
mod pack;
mod plan;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{Element, Isa, Pool, bf16};
#[cfg(target_arch = "x86_64")]
use amx::Amx;
use driver::{Target, Task};
use pack::Operand;
use plan::{Plan, Problem};
use portable::PortableF32;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2F32, Avx512Bf16, Avx512F32};

/// The values of a matrix, in the type they are stored in.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Brain floating point, 16 bits.
    Bf16(&'a [bf16]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::Bf16(values) => values.len(),
        }
    }
}

/// A matrix over a slice: element (r, c) is
/// `data[r * row_stride + c * column_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The values.
    pub data: Data<'a>,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub columns: usize,
    /// From one row to the next, in elements.
    pub row_stride: usize,
    /// From one column to the next, in elements.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix of f32.
    pub fn f32(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { data: Data::F32(data), rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// A row-major matrix of bf16.
    pub fn bf16(data: &'a [bf16], rows: usize, columns: usize) -> Self {
        Matrix { data: Data::Bf16(data), rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged; nothing is moved.
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `count` rows from `first` on.
    pub fn rows_from(self, first: usize, count: usize) -> Self {
        let start = first * self.row_stride;
        let data = match self.data {
            Data::F32(values) => Data::F32(&values[start..]),
            Data::Bf16(values) => Data::Bf16(&values[start..]),
        };
        Matrix { data, rows: count, ..self }
    }

    /// Panics unless every element lies inside the slice.
    fn check(&self, name: &str) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let last = (self.rows - 1)
            .checked_mul(self.row_stride)
            .zip((self.columns - 1).checked_mul(self.column_stride))
            .and_then(|(row, column)| row.checked_add(column));
        assert!(
            last.is_some_and(|last| last < self.data.len()),
            "gemm: `{name}` is {} x {} with strides {} and {}, but its slice holds {} elements",
            self.rows,
            self.columns,
            self.row_stride,
            self.column_stride,
            self.data.len(),
        );
    }
}

/// Where the product goes: row-major and contiguous.
pub enum Output<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Sums are formed in f32 and rounded once.
    Bf16(&'a mut [bf16]),
}

impl Output<'_> {
    fn len(&self) -> usize {
        match self {
            Output::F32(values) => values.len(),
            Output::Bf16(values) => values.len(),
        }
    }
}

/// How products are formed; sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 operands.
    F32,
    /// Operands rounded to bf16.
    Bf16,
}

/// `c = a·b`, plus `bias` on every row, or `c += a·b` (plus bias) with `accumulate`.
///
/// # Panics
/// Where the shapes do not fit each other or the slices.
pub fn gemm(
    pool: &Pool,
    precision: Precision,
    a: Matrix,
    b: Matrix,
    c: Output,
    accumulate: bool,
    bias: Option<&[f32]>,
) {
    gemm_with(Isa::active(), pool, precision, a, b, c, accumulate, bias);
}

/// [`gemm`] with the kernels of `isa`, which the machine must have.
#[allow(clippy::too_many_arguments)]
fn gemm_with(
    isa: Isa,
    pool: &Pool,
    precision: Precision,
    a: Matrix,
    b: Matrix,
    c: Output,
    accumulate: bool,
    bias: Option<&[f32]>,
) {
    assert!(
        a.columns == b.rows,
        "gemm: `a` is {} x {} and `b` is {} x {}: the inner sizes differ",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
    );
    a.check("a");
    b.check("b");
    assert!(
        a.rows.checked_mul(b.columns) == Some(c.len()),
        "gemm: `c` holds {} elements, expected {} x {}",
        c.len(),
        a.rows,
        b.columns,
    );
    if let Some(bias) = bias {
        assert!(
            bias.len() == b.columns,
            "gemm: `bias` holds {} elements, expected {}",
            bias.len(),
            b.columns,
        );
    }
    let (rows, columns, inner) = (a.rows, b.columns, a.columns);
    let target = match c {
        _ if rows == 0 || columns == 0 => return,
        Output::F32(c) if inner == 0 => return without_products(c, columns, accumulate, bias),
        Output::Bf16(c) if inner == 0 => return without_products(c, columns, accumulate, bias),
        Output::F32(c) => Target::F32(c.as_mut_ptr()),
        Output::Bf16(c) => Target::Bf16(c.as_mut_ptr()),
    };
    let (plan, work) = select(isa, precision);
    let problem = Problem {
        left: Operand::rows(&a),
        right: Operand::rows(&b.transposed()),
        rows,
        columns,
        inner,
        round: precision == Precision::Bf16,
    };
    let plan = plan(problem, pool.threads());
    let problem = if plan.exchanged { problem.exchanged() } else { problem };
    let task = Task { problem, target, target_stride: columns, accumulate, bias, plan };
    if plan.grid == (1, 1) {
        // SAFETY: the machine has `isa`; the operands and C were checked above.
        unsafe { work(&task, 0) };
    } else {
        // SAFETY: as above.
        pool.run(&|thread| unsafe { work(&task, thread) });
    }
}

type Choose = fn(Problem, usize) -> Plan;
type Work = unsafe fn(&Task, usize);

/// The kernel of an instruction set: how it plans, and what a thread does.
fn select(isa: Isa, precision: Precision) -> (Choose, Work) {
    #[cfg(target_arch = "x86_64")]
    match (isa, precision) {
        (Isa::Amx, Precision::Bf16) => return (Plan::choose::<Amx>, Amx::work),
        (Isa::Avx512Bf16, Precision::Bf16) => {
            return (Plan::choose::<Avx512Bf16>, Avx512Bf16::work);
        }
        (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512, _) => {
            return (Plan::choose::<Avx512F32>, Avx512F32::work);
        }
        (Isa::Avx2, _) => return (Plan::choose::<Avx2F32>, Avx2F32::work),
        (Isa::Portable, _) => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (isa, precision);
    (Plan::choose::<PortableF32>, PortableF32::work)
}

/// An empty inner dimension: zeros and the bias, or what is there and the bias.
fn without_products<T: Element>(
    c: &mut [T],
    columns: usize,
    accumulate: bool,
    bias: Option<&[f32]>,
) {
    for (place, value) in c.iter_mut().enumerate() {
        let old = if accumulate { value.to_f32() } else { 0.0 };
        *value = T::from_f32(old + bias.map_or(0.0, |bias| bias[place % columns]));
    }
}

/// The best FLOP/s of this machine's kernel, over a few runs of one
/// favourable shape with every thread of `pool`: what a model's use of the
/// machine is measured against. Takes about 0.2 s.
pub fn measured_peak(pool: &Pool, precision: Precision) -> f64 {
    const ROWS: usize = 1024;
    const INNER: usize = 512;
    const COLUMNS: usize = 960;
    let a = Aligned::new(bf16::ONE, ROWS * INNER);
    let b = Aligned::new(bf16::ONE, INNER * COLUMNS);
    let wide_a = Aligned::new(1f32, ROWS * INNER);
    let wide_b = Aligned::new(1f32, INNER * COLUMNS);
    let mut c = Aligned::new(0f32, ROWS * COLUMNS);
    let started = std::time::Instant::now();
    let mut best = f64::INFINITY;
    for round in 0..1000 {
        let (a, b) = match precision {
            Precision::F32 => {
                (Matrix::f32(wide_a.get(), ROWS, INNER), Matrix::f32(wide_b.get(), INNER, COLUMNS))
            }
            Precision::Bf16 => {
                (Matrix::bf16(a.get(), ROWS, INNER), Matrix::bf16(b.get(), INNER, COLUMNS))
            }
        };
        let start = std::time::Instant::now();
        gemm(pool, precision, a, b, Output::F32(c.get_mut()), false, None);
        best = best.min(start.elapsed().as_secs_f64());
        if round >= 2 && started.elapsed().as_secs_f64() > 0.15 {
            break;
        }
    }
    2.0 * (ROWS * INNER * COLUMNS) as f64 / best
}

/// Values from a cache line on, as a planner of tensors would place them.
struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    count: usize,
}

impl<T: Element> Aligned<T> {
    fn new(value: T, count: usize) -> Self {
        let values = vec![value; count + 64];
        let start = values.as_ptr().align_offset(64);
        Aligned { values, start, count }
    }

    fn get(&self) -> &[T] {
        &self.values[self.start..self.start + self.count]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.count]
    }
}

#[cfg(test)]
mod tests;
