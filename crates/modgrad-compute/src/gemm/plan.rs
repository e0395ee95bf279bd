//! Who does what: whether C is computed as its transpose, and how its rows and
//! columns are split over threads. A plan changes the time, never a bit of C.

use super::kernel::Kernel;
use super::pack::Operand;

/// Cycles that starting a region on every thread costs.
const REGION_CYCLES: f64 = 6000.0;

/// How a product is carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Whether left and right are exchanged, and C written transposed.
    pub exchanged: bool,
    /// Parts of the plan's rows and columns; one thread each.
    pub grid: (usize, usize),
    cycles: f64,
}

/// The sizes and operands of a product.
#[derive(Clone, Copy)]
pub(super) struct Problem {
    pub left: Operand,
    pub right: Operand,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    /// Whether f32 operands are rounded to bf16.
    pub round: bool,
}

impl Problem {
    /// The problem whose product is the transpose.
    pub fn exchanged(self) -> Problem {
        Problem {
            left: self.right,
            right: self.left,
            rows: self.columns,
            columns: self.rows,
            ..self
        }
    }
}

impl Plan {
    /// The plan of least estimated time.
    pub fn choose<K: Kernel>(problem: Problem, threads: usize) -> Plan {
        let mut best = Plan { exchanged: false, grid: (1, 1), cycles: f64::INFINITY };
        for exchanged in [false, true] {
            let mut consider = |down: usize, across: usize| {
                let cycles = cycles::<K>(problem, exchanged, down, across);
                if cycles < best.cycles {
                    best = Plan { exchanged, grid: (down, across), cycles };
                }
            };
            consider(1, 1);
            for down in (2..=threads).rev().filter(|down| threads.is_multiple_of(*down)) {
                consider(down, threads / down);
            }
            if threads > 1 {
                consider(1, threads);
            }
        }
        best
    }
}

/// Estimated cycles of the busiest thread.
fn cycles<K: Kernel>(problem: Problem, exchanged: bool, down: usize, across: usize) -> f64 {
    let problem = if exchanged { problem.exchanged() } else { problem };
    let Problem { left, right, rows, columns, inner, round } = problem;
    let per_unit = if K::PAIRS { 2 } else { 1 };
    let units = inner.div_ceil(per_unit).next_multiple_of(K::UNIT_MULTIPLE) as f64;
    let part = |size: usize, panel: usize, parts: usize, multiple: usize| {
        let whole = size.div_ceil(panel).div_ceil(parts) * panel;
        whole.min(size.next_multiple_of(multiple)) as f64
    };
    let rows = part(rows, K::ROWS, down, K::ROW_MULTIPLE);
    let columns = part(columns, K::COLUMNS, across, K::COLUMN_MULTIPLE);
    let multiplying = rows * columns * units * per_unit as f64 / K::PRODUCTS_PER_CYCLE;
    // Cycles a unit: squares are cheap to copy, dearer to transpose.
    let left_cost = if K::direct(&left, K::ROWS, inner, round) {
        0.03
    } else {
        match (left.inner_stride, left.index_stride) {
            (1, _) => 0.12,
            (_, 1) => 0.25,
            _ => 2.0,
        }
    };
    let right_cost = match (right.inner_stride, right.index_stride) {
        (1, _) => 0.25,
        (_, 1) => 0.12,
        _ => 2.0,
    };
    let packing = units * (rows * left_cost + columns * right_cost);
    let writing = rows * columns * if exchanged { 0.25 } else { 0.06 };
    let starting = if down * across > 1 { REGION_CYCLES } else { 0.0 };
    multiplying + packing + writing + starting
}
