use super::*;
use crate::bf16;
use crate::testing::*;
use proptest::prelude::*;

fn check<X: Storage, Y: Storage>(activation: GateActivation, (rows, h): (usize, usize)) {
    let name = format!("{activation:?} of {rows} x {h}");
    let x: Vec<X> = values(1, rows * 2 * h, -6.0, 6.0);
    let dy: Vec<Y> = values(2, rows * h, -2.0, 2.0);
    let y = for_threads(|pool| {
        let mut y = vec![Y::from_f32(f32::NAN); rows * h];
        gated_linear_unit(pool, activation, &x, h, &mut y);
        y
    });
    let dx = for_threads(|pool| {
        let mut dx = vec![Y::from_f32(f32::NAN); rows * 2 * h];
        gated_linear_unit_gradient(pool, activation, &x, &dy, h, &mut dx);
        dx
    });
    let (mut ys, mut dxs) = (vec![], vec![]);
    for (x, dy) in exact(&x).chunks_exact(2 * h).zip(exact(&dy).chunks_exact(h)) {
        let pairs = || x[..h].iter().zip(&x[h..]);
        ys.extend(pairs().map(|(value, gate)| value * activation.value_f64(*gate)));
        dxs.extend(dy.iter().zip(&x[h..]).map(|(dy, gate)| dy * activation.value_f64(*gate)));
        let slopes = pairs().map(|(value, gate)| value * activation.derivative_f64(*gate));
        dxs.extend(dy.iter().zip(slopes).map(|(dy, slope)| dy * slope));
    }
    assert_close(&name, &y, &ys, Y::ROUNDING + 4e-6, 1e-7);
    assert_close(&name, &dx, &dxs, Y::ROUNDING + 4e-6, 1e-5);
}

#[test]
fn gates_and_gradients() {
    for &activation in GateActivation::ALL {
        for &shape in ROWS {
            check::<f32, f32>(activation, shape);
            check::<bf16, bf16>(activation, shape);
        }
        check::<f32, bf16>(activation, (7, 33));
        check::<bf16, f32>(activation, (7, 33));
    }
}

proptest! {
    #[test]
    fn any_shape_is_right(rows in 0usize..20, h in 1usize..200) {
        check::<bf16, bf16>(GateActivation::Silu, (rows, h));
        check::<f32, f32>(GateActivation::Gelu, (rows, h));
    }
}

#[test]
fn no_columns_and_bad_shapes() {
    let pool = Pool::new(1);
    gated_linear_unit::<f32, f32>(&pool, GateActivation::Silu, &[], 0, &mut []);
    let bad = std::panic::catch_unwind(|| {
        gated_linear_unit(&Pool::new(1), GateActivation::Silu, &[0.0f32; 6], 2, &mut [0.0f32; 3]);
    });
    let message = *bad.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, "`gated_linear_unit`: `y` has 3 elements, expected a multiple of 2");
}
