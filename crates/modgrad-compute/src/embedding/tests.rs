use super::*;
use crate::bf16;
use crate::reduce::sum_of_squares;
use crate::testing::*;
use proptest::prelude::*;
use std::panic::catch_unwind;

/// (bags, bag, rows of the table, row length).
const SHAPES: &[(usize, usize, usize, usize)] = &[
    (0, 1, 5, 4),
    (1, 1, 1, 1),
    (3, 1, 2, 7),
    (50, 1, 256, 33),
    (50, 3, 9, 32),
    (200, 6, 5000, 96),
    (600, 2, 40, 257),
    (3000, 2, 300, 8),
    (900, 1, 256, 384),
    (40, 4, 3, 1000),
];

/// The sum over each bag, in f64.
fn forward(table: &[f64], d: usize, indices: &[usize], bag: usize) -> Vec<f64> {
    let bags = indices.chunks_exact(bag);
    bags.flat_map(|bag| {
        (0..d).map(move |column| bag.iter().map(|row| table[row * d + column]).sum())
    })
    .collect()
}

/// The transpose of [`forward`], added to `table`.
fn backward(indices: &[usize], bag: usize, dy: &[f64], d: usize, table: &mut [f64]) {
    for (dy, bag) in dy.chunks_exact(d).zip(indices.chunks_exact(bag)) {
        for row in bag {
            let sums = &mut table[row * d..(row + 1) * d];
            sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
        }
    }
}

fn check<X: Storage>((bags, bag, rows, d): (usize, usize, usize, usize)) {
    let name = format!("{bags} bags of {bag} from {rows} x {d}");
    let table: Vec<f32> = values(1, rows * d, -2.0, 2.0);
    let chosen = indices(2, bags * bag, rows);
    let stored: Vec<i32> = chosen.iter().map(|index| *index as i32).collect();
    let ours = for_threads(|pool| {
        let mut out = vec![X::from_f32(f32::NAN); bags * d];
        embedding_bag(pool, &table, d, &stored, bag, &mut out);
        out
    });
    let want = forward(&exact(&table), d, &chosen, bag);
    assert_close(&name, &ours, &want, X::ROUNDING, 1e-6);

    let dy: Vec<X> = values(3, bags * d, -2.0, 2.0);
    let ours = for_threads(|pool| {
        let mut dtable = table.clone();
        embedding_gradient(pool, &stored, bag, &dy, d, &mut dtable);
        dtable
    });
    let mut want = exact(&table);
    backward(&chosen, bag, &exact(&dy), d, &mut want);
    assert_close(&name, &ours, &want, 1e-5, 1e-4);

    // The sparse gradient in two parts, after an earlier use.
    let half = bags / 2;
    let sparse = |pool: &Pool| {
        let mut sparse = SparseGradient::new(rows, d);
        sparse.accumulate(pool, &stored, bag, &dy);
        sparse.clear();
        assert_eq!(sparse.touched(), 0);
        assert_eq!(sparse.iter().count(), 0);
        sparse.accumulate(pool, &stored[..half * bag], bag, &dy[..half * d]);
        sparse.accumulate(pool, &stored[half * bag..], bag, &dy[half * d..]);
        sparse
    };
    let ours = for_threads(|pool| {
        let mut dense = vec![0.0f32; rows * d];
        for (row, gradient) in sparse(pool).iter() {
            dense[row * d..(row + 1) * d].copy_from_slice(gradient);
        }
        dense
    });
    let mut want = vec![0.0; rows * d];
    backward(&chosen, bag, &exact(&dy), d, &mut want);
    assert_close(&name, &ours, &want, 1e-5, 1e-4);
    let mut distinct = chosen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let one = sparse(&Pool::new(1));
    assert_eq!(one.touched(), distinct.len());
    let squares = sum_of_squares(&Pool::new(1), &ours);
    assert!((one.sum_of_squares() - squares).abs() <= 1e-12 * squares);
    assert_eq!(one.sum_of_squares(), sparse(&Pool::new(3)).sum_of_squares());
}

#[test]
fn look_ups_and_gradients() {
    for &shape in SHAPES {
        check::<f32>(shape);
        check::<bf16>(shape);
    }
}

#[test]
fn tables_beyond_the_cache() {
    check::<f32>((700, 3, CACHED_BYTES / 4 / 64 + 100, 64));
    check::<bf16>((5000, 1, CACHED_BYTES / 4 / 16 + 100, 16));
}

#[test]
fn bytes_are_looked_up() {
    let table: Vec<f32> = values(4, 256 * 5, -2.0, 2.0);
    let bytes: Vec<u8> = (0..=255).rev().collect();
    let mut out = vec![0.0f32; 256 * 5];
    embedding(&Pool::new(2), &table, 5, &bytes, &mut out);
    for (byte, row) in bytes.iter().zip(out.chunks_exact(5)) {
        assert_eq!(row, &table[*byte as usize * 5..][..5]);
    }
}

proptest! {
    #[test]
    fn any_shape_is_right(
        bags in 0usize..60, bag in 1usize..5, rows in 1usize..70, d in 1usize..70,
    ) {
        check::<f32>((bags, bag, rows, d));
    }
}

#[test]
fn an_index_outside_the_table_is_named() {
    let message = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<String>().unwrap();
    for (bad, shown) in [(4i32, "4"), (-1, "-1")] {
        let expected =
            |name| format!("`{name}`: index {shown} at position 2 is outside the table of 4 rows");
        let chosen = [0, 3, bad, 1];
        let result = catch_unwind(|| {
            embedding(&Pool::new(2), &[0.0; 8], 2, &chosen, &mut [0.0f32; 8]);
        });
        assert_eq!(message(result.unwrap_err()), expected("embedding_bag"));
        let result = catch_unwind(|| {
            embedding_gradient(&Pool::new(2), &chosen, 1, &[0.0f32; 8], 2, &mut [0.0; 8]);
        });
        assert_eq!(message(result.unwrap_err()), expected("embedding_gradient"));
        let result = catch_unwind(|| {
            SparseGradient::new(4, 2).accumulate(&Pool::new(2), &chosen, 1, &[0.0f32; 8]);
        });
        assert_eq!(message(result.unwrap_err()), expected("SparseGradient::accumulate"));
    }
}

#[test]
fn empty_rows_are_accepted() {
    let pool = Pool::new(2);
    embedding::<u8, f32>(&pool, &[], 0, &[], &mut []);
    embedding_gradient::<u8, f32>(&pool, &[], 1, &[], 0, &mut []);
    SparseGradient::new(0, 0).accumulate::<u8, f32>(&pool, &[], 1, &[]);
}
