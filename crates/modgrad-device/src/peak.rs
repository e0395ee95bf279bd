//! What a device's matrix products reach, which shares of its peak are counted against.

use std::time::Instant;

use modgrad_graph::Result;
use modgrad_graph::storage::Precision;

use crate::Device;
use crate::driver::{Float, Product};

/// A measurement is over once products took this long.
const SECONDS: f64 = 0.1;

/// FLOP/s of the fastest square product that it finds, up to 8192 a side.
pub fn measured(device: &Device, precision: Precision) -> Result<f64> {
    let factors = match precision {
        Precision::F32 => Float::F32,
        Precision::Bf16 => Float::Bf16,
    };
    let mut best = 0.0f64;
    let mut side = 256;
    while side <= 8192 {
        let bytes = side * side * if factors == Float::F32 { 4 } else { 2 };
        let buffers: Result<Vec<_>> = (0..3).map(|_| device.zeros(bytes)).collect();
        // A model may have left no room for more than the sizes before.
        let buffers = match buffers {
            Ok(buffers) => buffers,
            Err(_) if best > 0.0 => break,
            Err(error) => return Err(error),
        };
        let product = Product {
            m: side,
            n: side,
            k: side,
            batch: 1,
            a: buffers[0].address(),
            b: buffers[1].address(),
            c: buffers[2].address(),
            stride_a: side * side,
            stride_b: side * side,
            stride_c: side * side,
            transpose_a: false,
            transpose_b: true,
            factors,
            result: factors,
            add: false,
        };
        // The first call of a size may choose or load code.
        device.product(&product)?;
        device.driver().synchronise()?;
        let start = Instant::now();
        let mut calls = 0;
        // Enough at once that starting them does not count.
        while start.elapsed().as_secs_f64() < SECONDS / 4.0 {
            for _ in 0..4 {
                device.product(&product)?;
                calls += 1;
            }
            device.driver().synchronise()?;
        }
        let seconds = start.elapsed().as_secs_f64();
        best = best.max(2.0 * (side * side * side) as f64 * f64::from(calls) / seconds);
        if seconds > SECONDS {
            break;
        }
        side *= 2;
    }
    Ok(best)
}
