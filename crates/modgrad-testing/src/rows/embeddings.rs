//! Rows of tables and of contexts of bytes.

use modgrad_ffn::{NgramHash, WordHash, WordKind};
use modgrad_graph::{DType, Op};

use super::Table;

pub(super) fn add_to(table: &mut Table) {
    embeddings(table);
    contexts(table);
}

fn embeddings(table: &mut Table) {
    const CASES: &[(usize, usize, &[usize])] = &[
        (1, 1, &[1]),
        (7, 3, &[2, 5]),
        (5, 17, &[4, 3, 2]),
        (40, 64, &[33]),
        (3, 2, &[0, 4]),
        (0, 2, &[0, 3]),
        (3, 2, &[2, 0]),
    ];
    for &(rows, width, indices_shape) in CASES {
        for dtype in [DType::I32, DType::U8] {
            let weights = table.random.floats(&[rows, width]);
            let indices = table.random.indices(indices_shape, rows.max(1) as u64, dtype);
            table.add(Op::Embedding, vec![weights.clone(), indices.clone()]);

            let dy = table.random.floats(&[indices_shape, &[width]].concat());
            let op = Op::EmbeddingGradient { rows, bag: 1 };
            table.add_fixed(op, vec![indices.clone(), dy]);
            let (&bag, leading) = indices_shape.split_last().unwrap();
            if bag > 0 {
                let dy = table.random.floats(&[leading, &[width]].concat());
                table.add(Op::EmbeddingBag, vec![weights, indices.clone()]);
                table.add_fixed(Op::EmbeddingGradient { rows, bag }, vec![indices, dy]);
            }
        }
    }
    let (weights, index) = (table.random.floats(&[4, 3]), table.random.indices(&[], 4, DType::I32));
    table.add(Op::Embedding, vec![weights, index]);
}

fn contexts(table: &mut Table) {
    let kinds = vec![
        WordKind::Prefix,
        WordKind::FoldedPrefix,
        WordKind::PreviousWordAndPrefix,
        WordKind::TwoPreviousWordsAndPrefix,
        WordKind::SkippedWordAndPrefix,
        WordKind::SeparatorAndPrefix,
        WordKind::LineStart,
    ];
    for shape in [[1, 1], [2, 9], [3, 70], [0, 4], [2, 0]] {
        for length in [1, 3, 80] {
            let tokens = table.random.text(&shape);
            table.add_fixed(Op::ByteContext { length }, vec![tokens]);
        }
        for orders in [vec![], vec![1], vec![2, 3, 8, 9, 32]] {
            let tokens = table.random.text(&shape);
            let hash = NgramHash { orders, rows: 1000, seed: 5 };
            table.add_fixed(Op::NgramHash { hash }, vec![tokens]);
        }
        for kinds in [vec![], kinds.clone()] {
            let tokens = table.random.text(&shape);
            let hash = WordHash { kinds, rows: 77, seed: 6 };
            table.add_fixed(Op::WordHash { hash }, vec![tokens]);
        }
    }
}
