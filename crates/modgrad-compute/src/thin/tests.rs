//! Thin products against plain loops in f64.

use super::*;
use crate::testing::values;

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-4 * (1.0 + expected.abs()), "{what}: {found} for {expected} at {at}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[test]
fn products_and_their_adjoint() {
    for inner in [0, 1, 2, 3, 7, 33, 64] {
        for width in [0, 16, 32, 48, 80] {
            let x: Vec<f32> = values(1, ROWS * inner, -1.0, 1.0);
            let w: Vec<f32> = values(2, inner * width, -1.0, 1.0);
            let y: Vec<f32> = values(3, ROWS * width, -1.0, 1.0);
            let mut expected = wide(&y);
            for r in 0..ROWS {
                for n in 0..width {
                    for k in 0..inner {
                        expected[r * width + n] +=
                            f64::from(x[r * inner + k]) * f64::from(w[k * width + n]);
                    }
                }
            }
            let mut found = y.clone();
            product(&x, &w, &mut found);
            close(&found, &expected, &format!("product {inner} {width}"));

            let mut expected = wide(&x);
            for r in 0..ROWS {
                for k in 0..inner {
                    for n in 0..width {
                        expected[r * inner + k] +=
                            f64::from(y[r * width + n]) * f64::from(w[k * width + n]);
                    }
                }
            }
            let mut found = x.clone();
            product_adjoint(&y, &w, &mut found);
            close(&found, &expected, &format!("adjoint {inner} {width}"));
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (inner, width) = (37, 48);
    let x: Vec<f32> = values(4, ROWS * inner, -1.0, 1.0);
    let w: Vec<f32> = values(5, inner * width, -1.0, 1.0);
    let mut together = vec![0.0; ROWS * width];
    product(&x, &w, &mut together);
    for r in 0..ROWS {
        let mut alone = vec![0.0; ROWS * inner];
        alone[..inner].copy_from_slice(&x[r * inner..][..inner]);
        let mut y = vec![0.0; ROWS * width];
        product(&alone, &w, &mut y);
        assert_eq!(y[..width], together[r * width..][..width]);
    }
}

#[test]
fn lanewise_products_their_adjoint_and_their_outer_sum() {
    for (inputs, outputs) in [(1, 1), (3, 2), (4, 4), (5, 9), (8, 16)] {
        let x_at = Strides { row: inputs * LANES + 16, slot: LANES };
        let y_at = Strides { row: outputs * LANES, slot: LANES };
        let x: Vec<f32> = values(6, ROWS * x_at.row, -1.0, 1.0);
        let y: Vec<f32> = values(7, ROWS * y_at.row, -1.0, 1.0);
        let w: Vec<f32> = values(8, inputs * outputs * LANES, -1.0, 1.0);
        let (mut forward, mut back, mut outer) = (wide(&y), wide(&x), wide(&w));
        for r in 0..ROWS {
            for m in 0..inputs {
                for o in 0..outputs {
                    for lane in 0..LANES {
                        let x_index = r * x_at.row + m * x_at.slot + lane;
                        let y_index = r * y_at.row + o * y_at.slot + lane;
                        let w_index = (m * outputs + o) * LANES + lane;
                        let (x, y, w) = (x[x_index], y[y_index], w[w_index]);
                        forward[y_index] += f64::from(x) * f64::from(w);
                        back[x_index] += f64::from(y) * f64::from(w);
                        outer[w_index] += f64::from(x) * f64::from(y);
                    }
                }
            }
        }
        let mut found = y.clone();
        lanewise_product(inputs, outputs, &x, x_at, &w, &mut found, y_at);
        close(&found, &forward, "lanewise product");
        let mut found = x.clone();
        lanewise_adjoint(inputs, outputs, &y, y_at, &w, &mut found, x_at);
        close(&found, &back, "lanewise adjoint");
        let mut found = w.clone();
        lanewise_outer(ROWS, inputs, outputs, &x, x_at, &y, y_at, &mut found);
        close(&found, &outer, "lanewise outer");
    }
}
