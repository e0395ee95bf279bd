use super::*;
use crate::bf16;
use crate::testing::*;

/// The shared shapes, a row beyond what is held on the stack, and bytes.
fn shapes() -> impl Iterator<Item = (usize, usize)> {
    ROWS.iter().copied().chain([(2, HELD), (2, HELD + 1), (2, 3 * HELD + 5), (70, 256)])
}

fn softmax_reference(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
    x.iter().map(|x| (x - largest).exp() / sum).collect()
}

fn check_softmax<X: Storage, Y: Storage>((rows, c): (usize, usize)) {
    let name = format!("softmax of {rows} x {c}");
    let x: Vec<X> = values(1, rows * c, -9.0, 9.0);
    let ours = for_threads(|pool| {
        let mut y = vec![Y::from_f32(f32::NAN); rows * c];
        softmax(pool, &x, c, &mut y);
        y
    });
    let want: Vec<f64> = exact(&x).chunks_exact(c).flat_map(softmax_reference).collect();
    assert_close(&name, &ours, &want, Y::ROUNDING + 3e-6, 1e-12);
    // The gradient takes y as it was stored.
    let y: Vec<Y> = want.iter().map(|y| Y::from_f32(*y as f32)).collect();
    let dy: Vec<X> = values(2, rows * c, -2.0, 2.0);
    let ours = for_threads(|pool| {
        let mut dx = vec![Y::from_f32(f32::NAN); rows * c];
        softmax_gradient(pool, &y, &dy, c, &mut dx);
        dx
    });
    let (y, dy) = (exact(&y), exact(&dy));
    let rows = y.chunks_exact(c).zip(dy.chunks_exact(c));
    let want: Vec<f64> = rows
        .flat_map(|(y, dy)| {
            let along: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
            y.iter().zip(dy).map(move |(y, dy)| y * (dy - along)).collect::<Vec<f64>>()
        })
        .collect();
    assert_close(&name, &ours, &want, Y::ROUNDING + 1e-6, 1e-6);
}

#[test]
fn softmaxes_and_gradients() {
    for shape in shapes() {
        check_softmax::<f32, f32>(shape);
        check_softmax::<bf16, bf16>(shape);
        check_softmax::<bf16, f32>(shape);
    }
}

#[test]
fn the_gradient_agrees_with_finite_differences() {
    let x = exact(&values::<f32>(3, 11, -2.0, 2.0));
    let dy: Vec<f32> = values(4, 11, -2.0, 2.0);
    let y: Vec<f32> = softmax_reference(&x).iter().map(|y| *y as f32).collect();
    let mut dx = vec![0.0f32; 11];
    softmax_gradient(&Pool::new(1), &y, &dy, 11, &mut dx);
    let want = finite_differences(&x, |x| {
        softmax_reference(x).iter().zip(&dy).map(|(y, dy)| y * *dy as f64).sum()
    });
    assert_close("dx", &dx, &want, 1e-6, 1e-6);
}

fn check_cross_entropy<X: Storage, I: Index>(
    (rows, classes): (usize, usize),
    index: impl Fn(usize) -> I,
) {
    let name = format!("cross_entropy of {rows} x {classes}");
    let logits: Vec<X> = values(5, rows * classes, -9.0, 9.0);
    let targets: Vec<I> = indices(6, rows, classes).into_iter().map(index).collect();
    let dloss: Vec<f32> = values(7, rows, 0.1, 2.0);
    let ours = for_threads(|pool| {
        let (mut loss, mut logsumexp) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
        cross_entropy(pool, &logits, &targets, classes, &mut loss, &mut logsumexp);
        [loss, logsumexp].concat()
    });
    let logsumexp = &ours[rows..];
    let dlogits = for_threads(|pool| {
        let mut dlogits = vec![X::from_f32(f32::NAN); rows * classes];
        cross_entropy_gradient(pool, &logits, &targets, logsumexp, &dloss, classes, &mut dlogits);
        dlogits
    });
    let (mut losses, mut sums, mut gradients) = (vec![], vec![], vec![]);
    let logits = exact(&logits);
    for ((logits, target), dloss) in logits.chunks_exact(classes).zip(&targets).zip(&dloss) {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = largest + logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        let target = target.to_usize();
        losses.push(sum - logits[target]);
        sums.push(sum);
        let hot = |class| if class == target { 1.0 } else { 0.0 };
        let row = softmax_reference(logits).into_iter().enumerate();
        gradients.extend(row.map(|(class, y)| (y - hot(class)) * *dloss as f64));
    }
    assert_close(&name, &ours[..rows], &losses, 1e-6, 2e-6);
    assert_close(&name, logsumexp, &sums, 1e-6, 2e-6);
    assert_close(&name, &dlogits, &gradients, X::ROUNDING + 3e-6, 2e-6);
}

#[test]
fn cross_entropies_and_gradients() {
    for (rows, classes) in shapes() {
        check_cross_entropy::<f32, i32>((rows, classes), |index| index as i32);
        check_cross_entropy::<bf16, i32>((rows, classes), |index| index as i32);
        if classes <= 256 {
            check_cross_entropy::<f32, u8>((rows, classes), |index| index as u8);
        }
    }
}

#[test]
fn large_logits_and_bad_targets() {
    let pool = Pool::new(1);
    let logits = [1e30f32, -1e30, f32::NEG_INFINITY, 80_000.0, 80_001.0, 79_000.0];
    let (mut loss, mut logsumexp) = ([0.0; 2], [0.0; 2]);
    cross_entropy(&pool, &logits, &[0i32, 0], 3, &mut loss, &mut logsumexp);
    assert_eq!(loss[0], 0.0);
    assert!((loss[1] - (1.0 + (-1f32).exp().ln_1p())).abs() < 1e-6, "{}", loss[1]);
    let mut dlogits = [0.0f32; 6];
    for bad in [3i32, -1] {
        cross_entropy(&pool, &logits, &[0, bad], 3, &mut loss, &mut logsumexp);
        assert!(loss[0] == 0.0 && loss[1].is_nan() && !logsumexp[1].is_nan());
        cross_entropy_gradient(&pool, &logits, &[0, bad], &logsumexp, &[1.0; 2], 3, &mut dlogits);
        assert!(dlogits[..3].iter().all(|d| *d == 0.0) && dlogits[3..].iter().all(|d| d.is_nan()));
    }
    let mut y = [0.0f32; 3];
    softmax(&pool, &[0.0, f32::NAN, 1.0], 3, &mut y);
    assert!(y.iter().all(|y| y.is_nan()));
    softmax(&pool, &[0.0, f32::NEG_INFINITY, 0.0], 3, &mut y);
    assert_eq!(y, [0.5, 0.0, 0.5]);
}
