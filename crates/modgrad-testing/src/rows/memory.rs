//! Rows of counted memory.

use std::time::Duration;

use modgrad_compute::Pool;
use modgrad_ffn::WordKind;
use modgrad_ffn::memory::{ContextKind, CountLimits, Learned, Memory, MemoryConfig, MixerSets};
use modgrad_graph::reference::Array;
use modgrad_graph::{DType, Op};

use super::super::random::Operand;
use super::Table;

pub(super) fn add_to(table: &mut Table) {
    counted(table);
    for (leading, experts, entries) in [
        (&[2, 3][..], 4, 16),
        (&[5], 1, 3),
        (&[1], 3, 33),
        (&[0], 2, 16),
        (&[2], 0, 4),
        (&[130], 2, 1),
    ] {
        mixed(table, leading, experts, entries);
    }
}

fn counted(table: &mut Table) {
    let memory = MemoryConfig {
        kinds: vec![
            ContextKind::Order(1),
            ContextKind::Order(3),
            ContextKind::Word(WordKind::Prefix),
        ],
        base: 0,
        in_window: vec![1],
        entries: 16,
        mixers: vec![MixerSets::Depth, MixerSets::LastByte],
        mixer_rate: 0.02,
    };
    let limits = CountLimits { memory: usize::MAX, time: Duration::from_secs(60) };
    for text in [&b"one two three, one two four; "[..], b""] {
        let text = text.repeat(5);
        let counts = Memory::count(&Pool::new(1), &memory, &text, limits).unwrap();
        let learned = Learned::new(&memory);
        let bytes: Vec<f64> = counts.to_bytes().into_iter().map(f64::from).collect();
        let tables = Array::new(&[bytes.len()], bytes);
        let floats = |data: &[f32]| {
            let data: Vec<f64> = data.iter().copied().map(f64::from).collect();
            Operand::f32(Array::new(&[data.len()], data))
        };
        for (shape, earlier, margin) in
            [([2, 9], 0, 0), ([2, 40], 3, 8), ([1, 16], 0, 8), ([3, 0], 0, 0), ([0, 5], 1, 0)]
        {
            let operands = vec![
                table.random.indices(&shape, 128, DType::U8),
                Operand { array: tables.clone(), dtype: DType::U8 },
                floats(learned.weights().back_off),
                floats(learned.weights().mixer),
            ];
            table.add_fixed(Op::CountedRows { memory: memory.clone(), earlier, margin }, operands);
        }
    }
}

fn mixed(table: &mut Table, leading: &[usize], experts: usize, entries: usize) {
    let at = |sizes: &[usize]| [leading, sizes].concat();
    let logits = table.random.floats(&at(&[256]));
    let gates = table.random.floats(&at(&[experts]));
    let rows = vec![
        table.random.floats(&at(&[256])),
        table.random.indices(&at(&[entries]), 256, DType::I32),
        table.random.floats(&at(&[experts, entries])),
        table.random.floats(&at(&[experts])),
    ];
    let dout = table.random.floats(&at(&[256]));
    table.add_fixed(Op::MixRows, [vec![logits, gates], rows.clone()].concat());
    table.add_fixed(Op::MixRowsGradient, [rows, vec![dout]].concat());
}
