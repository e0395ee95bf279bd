//! Every instruction set of the machine against a naive product in f64.

use super::*;
use proptest::prelude::*;

/// Sizes around lanes, tiles and blocks of every kernel.
const SIZES: [usize; 13] = [0, 1, 3, 8, 15, 16, 17, 31, 33, 47, 64, 97, 130];

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| *isa <= Isa::detect())
}

/// Reproducible values in -1..1, exactly representable in bf16.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0;
            bf16::from_f32(value).to_f32()
        })
        .collect()
}

/// One operand in its own storage: `layout` 0 row-major, 1 transposed, 2 with gaps.
struct Operand {
    rows: usize,
    columns: usize,
    layout: u8,
    wide: Vec<f32>,
    narrow: Option<Vec<bf16>>,
}

impl Operand {
    fn new(rows: usize, columns: usize, layout: u8, narrow: bool, seed: u64) -> Operand {
        let count = if layout == 2 { rows * (2 * columns + 3) } else { rows * columns };
        let wide = values(count, seed);
        let narrow = narrow.then(|| wide.iter().map(|value| bf16::from_f32(*value)).collect());
        Operand { rows, columns, layout, wide, narrow }
    }

    fn matrix(&self) -> Matrix<'_> {
        let data = match &self.narrow {
            Some(narrow) => Data::Bf16(narrow),
            None => Data::F32(&self.wide),
        };
        let (rows, columns) = (self.rows, self.columns);
        let (row_stride, column_stride) = match self.layout {
            0 => (columns, 1),
            1 => (1, rows),
            _ => (2 * columns + 3, 2),
        };
        Matrix { data, rows, columns, row_stride, column_stride }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        let matrix = self.matrix();
        self.wide[row * matrix.row_stride + column * matrix.column_stride] as f64
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    inner: usize,
    columns: usize,
    a: (u8, bool),
    b: (u8, bool),
    narrow_output: bool,
    accumulate: bool,
    bias: bool,
    precision: Precision,
}

fn check(pool: &Pool, case: Case) {
    let Case { rows, inner, columns, .. } = case;
    let a = Operand::new(rows, inner, case.a.0, case.a.1, 1);
    let b = Operand::new(inner, columns, case.b.0, case.b.1, 2);
    let old = values(rows * columns, 3);
    let bias = values(columns, 4);
    for isa in available() {
        let mut wide = old.clone();
        let mut narrow: Vec<bf16> = old.iter().map(|value| bf16::from_f32(*value)).collect();
        let c = match case.narrow_output {
            true => Output::Bf16(&mut narrow),
            false => Output::F32(&mut wide),
        };
        let given_bias = case.bias.then_some(&bias[..]);
        gemm_with(
            isa,
            pool,
            case.precision,
            a.matrix(),
            b.matrix(),
            c,
            case.accumulate,
            given_bias,
        );
        for row in 0..rows {
            for column in 0..columns {
                let at = row * columns + column;
                let start = if case.accumulate { old[at] as f64 } else { 0.0 };
                let mut expected = start + given_bias.map_or(0.0, |bias| bias[column] as f64);
                let mut size = start.abs() + 1.0;
                for k in 0..inner {
                    let product = a.at(row, k) * b.at(k, column);
                    expected += product;
                    size += product.abs();
                }
                let found = if case.narrow_output { narrow[at].to_f32() } else { wide[at] } as f64;
                let rounding = if case.narrow_output { expected.abs() / 250.0 } else { 0.0 };
                let tolerance = 1e-6 * (1.0 + (inner as f64).sqrt() / 4.0) * size + rounding;
                assert!(
                    (found - expected).abs() <= tolerance + 1e-30,
                    "{isa:?} {case:?}: ({row}, {column}) is {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn table_of_shapes() {
    let pool = Pool::new(2);
    let mut turn = 0usize;
    for rows in SIZES {
        for inner in SIZES {
            for columns in SIZES {
                turn += 1;
                let bit = |shift: usize| (turn.wrapping_mul(0x9e37_79b1) >> shift) & 1 == 1;
                check(
                    &pool,
                    Case {
                        rows,
                        inner,
                        columns,
                        a: (bit(8) as u8, bit(9)),
                        b: (bit(10) as u8, bit(11)),
                        narrow_output: bit(12),
                        accumulate: bit(13),
                        bias: bit(14),
                        precision: if bit(15) { Precision::F32 } else { Precision::Bf16 },
                    },
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_case(
        rows in 0usize..90, inner in 0usize..300, columns in 0usize..130,
        a in (0u8..3, any::<bool>()), b in (0u8..3, any::<bool>()),
        narrow_output: bool, accumulate: bool, bias: bool, half: bool,
    ) {
        let precision = if half { Precision::Bf16 } else { Precision::F32 };
        let case =
            Case { rows, inner, columns, a, b, narrow_output, accumulate, bias, precision };
        check(&Pool::new(2), case);
    }
}

/// Shapes that cross the block sizes of the inner dimension and the columns.
#[test]
fn large_shapes() {
    let pool = Pool::new(2);
    for (rows, inner, columns) in
        [(70, 1100, 600), (64, 4200, 33), (33, 9000, 50), (300, 65, 1100), (600, 520, 16)]
    {
        for layouts in [(0, 1), (0, 0), (1, 0), (1, 1)] {
            for (narrow_output, accumulate) in [(false, true), (true, false), (false, false)] {
                for precision in [Precision::F32, Precision::Bf16] {
                    let narrow = precision == Precision::Bf16;
                    check(
                        &pool,
                        Case {
                            rows,
                            inner,
                            columns,
                            a: (layouts.0, narrow),
                            b: (layouts.1, narrow && accumulate),
                            narrow_output,
                            accumulate,
                            bias: narrow_output,
                            precision,
                        },
                    );
                }
            }
        }
    }
}

fn product(isa: Isa, pool: &Pool, precision: Precision, a: Matrix, b: Matrix) -> Vec<f32> {
    let bias = values(b.columns, 9);
    let mut c = vec![0f32; a.rows * b.columns];
    gemm_with(isa, pool, precision, a, b, Output::F32(&mut c), false, Some(&bias));
    c
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A row alone, first, last, among NaN: always the same bits.
#[test]
fn rows_are_independent() {
    let pool = Pool::new(2);
    for (inner, columns) in [(33, 50), (384, 130), (1100, 70), (4200, 48)] {
        for layout in [0, 1] {
            let b = Operand::new(inner, columns, layout, false, 6);
            let row = values(inner, 5);
            for isa in available() {
                for precision in [Precision::F32, Precision::Bf16] {
                    let one = Matrix::f32(&row, 1, inner);
                    let alone = product(isa, &pool, precision, one, b.matrix());
                    for rows in [2, 7, 64, 129] {
                        for place in [0, rows / 2, rows - 1] {
                            let mut a = vec![f32::NAN; rows * inner];
                            a[place * inner..][..inner].copy_from_slice(&row);
                            let a = Matrix::f32(&a, rows, inner);
                            let c = product(isa, &pool, precision, a, b.matrix());
                            assert_eq!(
                                bits(&c[place * columns..][..columns]),
                                bits(&alone),
                                "{isa:?} {precision:?}: row {place} of {rows}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let pools: Vec<Pool> = [1, 2, 3, 4].into_iter().map(Pool::new).collect();
    for (rows, inner, columns) in [(64, 512, 384), (200, 700, 100), (17, 4200, 300)] {
        for layouts in [(0, 1), (0, 0), (1, 0)] {
            let a = Operand::new(rows, inner, layouts.0, true, 7);
            let b = Operand::new(inner, columns, layouts.1, false, 8);
            for isa in available() {
                for precision in [Precision::F32, Precision::Bf16] {
                    let first = product(isa, &pools[0], precision, a.matrix(), b.matrix());
                    for pool in &pools[1..] {
                        let c = product(isa, pool, precision, a.matrix(), b.matrix());
                        assert_eq!(bits(&c), bits(&first), "{isa:?} {precision:?}");
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "the inner sizes differ")]
fn inner_sizes_must_agree() {
    let data = [0f32; 6];
    let (a, b) = (Matrix::f32(&data, 2, 3), Matrix::f32(&data, 2, 3));
    gemm(&Pool::new(1), Precision::F32, a, b, Output::F32(&mut [0.0; 6]), false, None);
}

#[test]
fn the_peak_is_positive() {
    assert!(measured_peak(&Pool::new(1), Precision::F32) > 1e8);
}
