//! Products of neurons with weights of their own, a block of [`LANES`] at a time.
//!
//! An operand is a pile of slots, each [ROWS][LANES]: neighbours in time, or outputs
//! of a layer. Weights stand in the order in which a product reads them, see [`place`];
//! their gradients are [inputs][outputs][LANES].

use super::{LANES, Only, ROWS, on_active_vector};
use crate::multiversion;
use crate::vector::PortableVector;
use crate::vector::Vector;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2Vector, Avx512Vector};

/// From a slot to the next.
pub const SLOT: usize = ROWS * LANES;

/// How many outputs from `o` on are formed together.
#[inline(always)]
fn together(outputs: usize, o: usize) -> usize {
    match outputs - o {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// Which block of weights that of input `m` and output `o` is: outputs that are formed
/// together lie together, input after input.
pub fn place(inputs: usize, outputs: usize, m: usize, o: usize) -> usize {
    // Fours come first, then a pair, then a single one.
    let start = match outputs % 4 {
        rest if o < outputs - rest => o - o % 4,
        rest if rest >= 2 && o < outputs - rest + 2 => outputs - rest,
        _ => outputs - 1,
    };
    start * inputs + m * together(outputs, start) + o - start
}

/// y[o] = bias[o] + Σ_m x[m]·w[m, o], for each row and lane; bias is [outputs][LANES].
///
/// Panics when an operand is too short.
pub fn product(inputs: usize, outputs: usize, x: &[f32], w: &[f32], bias: &[f32], y: &mut [f32]) {
    assert_eq!(w.len(), inputs * outputs * LANES, "`lanewise::product`: size of w");
    assert!(x.len() >= inputs * SLOT, "`lanewise::product`: size of x");
    on_active_vector!(product_of(inputs, outputs, x, w, bias, y));
}

/// dx[m] += Σ_o dy[o]·w[m, o]: the adjoint to x.
///
/// Panics when an operand is too short.
pub fn adjoint(inputs: usize, outputs: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    assert_eq!(w.len(), inputs * outputs * LANES, "`lanewise::adjoint`: size of w");
    assert!(dy.len() >= outputs * SLOT, "`lanewise::adjoint`: size of dy");
    on_active_vector!(adjoint_of(inputs, outputs, dy, w, dx));
}

/// dw[m, o] += Σ x[m]·dy[o] over rows and over `steps`; from a step to the next x
/// goes on by one slot and dy by `outputs` slots.
///
/// Panics when an operand is too short.
pub fn outer(steps: usize, inputs: usize, outputs: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    assert_eq!(dw.len(), inputs * outputs * LANES, "`lanewise::outer`: size of dw");
    assert!(dy.len() >= steps * outputs * SLOT, "`lanewise::outer`: size of dy");
    on_active_vector!(outer_of(steps, inputs, outputs, x, dy, dw));
}

multiversion! {
    fn product_of[V: Vector](
        _vector: Only<V>, inputs: usize, outputs: usize, x: &[f32], w: &[f32], bias: &[f32],
        y: &mut [f32],
    ) {
        for lane in (0..LANES).step_by(V::LANES) {
            let mut o = 0;
            while o + 4 <= outputs {
                product_tile::<V, 4>(inputs, o, lane, x, w, bias, y);
                o += 4;
            }
            while o + 2 <= outputs {
                product_tile::<V, 2>(inputs, o, lane, x, w, bias, y);
                o += 2;
            }
            if o < outputs {
                product_tile::<V, 1>(inputs, o, lane, x, w, bias, y);
            }
        }
    }
}

#[inline(always)]
fn product_tile<V: Vector, const N: usize>(
    inputs: usize,
    o: usize,
    lane: usize,
    x: &[f32],
    w: &[f32],
    bias: &[f32],
    y: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); N]; ROWS];
    for n in 0..N {
        let bias = V::load(&bias[(o + n) * LANES + lane..]);
        for sums in &mut sums {
            sums[n] = bias;
        }
    }
    for m in 0..inputs {
        let w = &w[(o * inputs + m * N) * LANES + lane..][..(N - 1) * LANES + V::LANES];
        let x = &x[m * SLOT + lane..][..(ROWS - 1) * LANES + V::LANES];
        let mut weights = [V::splat(0.0); N];
        for (n, weight) in weights.iter_mut().enumerate() {
            *weight = V::load(&w[n * LANES..]);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = V::load(&x[r * LANES..]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = sum.multiply_add(x, weight);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut y[(o + n) * SLOT + r * LANES + lane..]);
        }
    }
}

multiversion! {
    fn adjoint_of[V: Vector](
        _vector: Only<V>, inputs: usize, outputs: usize, dy: &[f32], w: &[f32], dx: &mut [f32],
    ) {
        for lane in (0..LANES).step_by(V::LANES) {
            let mut m = 0;
            while m + 4 <= inputs {
                adjoint_tile::<V, 4>(inputs, outputs, m, lane, dy, w, dx);
                m += 4;
            }
            while m < inputs {
                adjoint_tile::<V, 1>(inputs, outputs, m, lane, dy, w, dx);
                m += 1;
            }
        }
    }
}

#[inline(always)]
fn adjoint_tile<V: Vector, const N: usize>(
    inputs: usize,
    outputs: usize,
    m: usize,
    lane: usize,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) {
    let mut sums = [[V::splat(0.0); N]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&dx[(m + n) * SLOT + r * LANES + lane..]);
        }
    }
    let mut start = 0;
    while start < outputs {
        let wide = together(outputs, start);
        let w = &w[(start * inputs + m * wide) * LANES..][..N * wide * LANES];
        for o in 0..wide {
            let dy = &dy[(start + o) * SLOT + lane..][..(ROWS - 1) * LANES + V::LANES];
            let mut weights = [V::splat(0.0); N];
            for (n, weight) in weights.iter_mut().enumerate() {
                *weight = V::load(&w[(n * wide + o) * LANES + lane..]);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let dy = V::load(&dy[r * LANES..]);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.multiply_add(dy, weight);
                }
            }
        }
        start += wide;
    }
    for (r, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            sum.store(&mut dx[(m + n) * SLOT + r * LANES + lane..]);
        }
    }
}

multiversion! {
    fn outer_of[V: Vector](
        _vector: Only<V>, steps: usize, inputs: usize, outputs: usize, x: &[f32], dy: &[f32],
        dw: &mut [f32],
    ) {
        for lane in (0..LANES).step_by(V::LANES) {
            let mut m = 0;
            while m < inputs {
                let whole = m + 4 <= inputs;
                let mut o = 0;
                while o < outputs {
                    if whole && o + 4 <= outputs {
                        outer_tile::<V, 4, 4>(steps, m, o, outputs, lane, x, dy, dw);
                        o += 4;
                    } else if whole && o + 2 <= outputs {
                        outer_tile::<V, 4, 2>(steps, m, o, outputs, lane, x, dy, dw);
                        o += 2;
                    } else if whole {
                        outer_tile::<V, 4, 1>(steps, m, o, outputs, lane, x, dy, dw);
                        o += 1;
                    } else {
                        outer_tile::<V, 1, 1>(steps, m, o, outputs, lane, x, dy, dw);
                        o += 1;
                    }
                }
                m += if whole { 4 } else { 1 };
            }
        }
    }
}

#[inline(always)]
fn outer_tile<V: Vector, const M: usize, const N: usize>(
    steps: usize,
    m: usize,
    o: usize,
    outputs: usize,
    lane: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let at = |i: usize, j: usize| ((m + i) * outputs + o + j) * LANES + lane;
    let mut sums = [[V::splat(0.0); N]; M];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&dw[at(i, j)..]);
        }
    }
    for step in 0..steps {
        let x = &x[(step + m) * SLOT + lane..][..M * SLOT - LANES + V::LANES];
        let dy = &dy[(step * outputs + o) * SLOT + lane..][..N * SLOT - LANES + V::LANES];
        for r in 0..ROWS {
            let mut right = [V::splat(0.0); N];
            for (j, right) in right.iter_mut().enumerate() {
                *right = V::load(&dy[j * SLOT + r * LANES..]);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = V::load(&x[i * SLOT + r * LANES..]);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = sum.multiply_add(left, right);
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            sum.store(&mut dw[at(i, j)..]);
        }
    }
}
