//! Counting a text.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modgrad_compute::Pool;

use super::kind::Reader;
use super::table::CountTable;
use super::{ContextKind, MemoryConfig};

/// The counts of a training text, for every kind of context.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory<'a> {
    config: MemoryConfig,
    tables: Vec<CountTable<'a>>,
    /// Bytes of the text that were counted.
    counted: usize,
}

/// How much counting may cost.
#[derive(Clone, Copy, Debug)]
pub struct CountLimits {
    /// Bytes that all tables together may take; while they are made, six times as much.
    pub memory: usize,
    /// After which no more of the text is counted.
    pub time: Duration,
}

impl CountLimits {
    /// For what is sorted, in multiples of `memory`.
    const SORTED: usize = 2;
    /// That this may take in any case.
    const LEAST_SORTED: usize = 1 << 28;
    /// Whose records of one kind, of five bytes at most, stay below 4 GiB.
    const LONGEST_TEXT: usize = 1 << 29;

    fn sorted(self) -> usize {
        self.memory.saturating_mul(Self::SORTED).max(Self::LEAST_SORTED)
    }

    /// Bytes of text that can be sorted.
    fn longest_text(self) -> usize {
        (self.sorted() / size_of::<u64>()).min(Self::LONGEST_TEXT)
    }

    /// Kinds of a text of so many bytes that can be sorted side by side.
    fn kinds_at_once(self, text: usize) -> usize {
        (self.sorted() / (size_of::<u64>() * text.max(1))).max(1)
    }
}

impl<'a> Memory<'a> {
    /// Counts what follows each context of `text`, from its end backwards where not
    /// all of it can be counted in time or within the memory.
    ///
    /// Each thread counts whole kinds, so the tables do not depend on their number.
    /// Where the tables exceed the memory, contexts that were seen least give way.
    pub fn count(
        pool: &Pool,
        config: &MemoryConfig,
        text: &[u8],
        limits: CountLimits,
    ) -> Result<Memory<'static>, String> {
        config.validate()?;
        let kinds = &config.kinds;
        let text = &text[text.len() - countable(pool, kinds, text, limits)..];
        let tables = Mutex::new(vec![CountTable::default(); kinds.len()]);
        let (next, at_once) = (AtomicUsize::new(0), limits.kinds_at_once(text.len()));
        pool.run(&|thread| {
            if thread >= at_once {
                return;
            }
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&kind) = kinds.get(index) else { break };
                let table = count_kind(kind, text);
                let mut tables = tables.lock().expect("no thread panics while it holds them");
                tables[index] = table;
                // On the way to what all of them come to, whichever are there already: the
                // largest gives way first.
                shrink(&mut tables, limits.memory.saturating_mul(2));
            }
        });
        let mut tables = tables.into_inner().expect("all are done");
        shrink(&mut tables, limits.memory);
        Ok(Memory { config: config.clone(), tables, counted: text.len() })
    }

    /// What it was counted by.
    pub fn config(&self) -> &MemoryConfig {
        &self.config
    }

    /// Bytes of text that were counted.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Bytes that the tables take.
    pub fn size(&self) -> usize {
        self.tables.iter().map(CountTable::size).sum()
    }

    pub(super) fn table(&self, kind: usize) -> &CountTable<'a> {
        &self.tables[kind]
    }

    /// The tables as bytes, for a checkpoint.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size() + 16 * self.tables.len());
        self.tables.iter().for_each(|table| table.write(&mut bytes));
        bytes
    }

    /// The memory that [`Memory::to_bytes`] made of tables for `config`; it stays where
    /// it is.
    pub fn from_bytes(config: &MemoryConfig, mut bytes: &'a [u8]) -> Result<Memory<'a>, String> {
        config.validate()?;
        let read = |_: &ContextKind| CountTable::read(&mut bytes);
        let tables: Option<Vec<CountTable<'a>>> = config.kinds.iter().map(read).collect();
        match tables {
            Some(tables) if bytes.is_empty() => {
                Ok(Memory { config: config.clone(), tables, counted: 0 })
            }
            _ => Err(format!("not the tables of {} kinds of contexts", config.kinds.len())),
        }
    }
}

fn count_kind(kind: ContextKind, text: &[u8]) -> CountTable<'static> {
    let kinds = [kind];
    let mut reader = Reader::new(&kinds);
    let mut pairs = Vec::with_capacity(text.len());
    for pair in text.windows(2) {
        reader.advance(pair[0]);
        let hash = reader.hash(0);
        if hash != 0 {
            pairs.push((hash & !255) | u64::from(pair[1]));
        }
    }
    CountTable::build(&mut pairs)
}

/// How many bytes of the text's end can be counted in time and within the memory, judged
/// by a sample.
fn countable(pool: &Pool, kinds: &[ContextKind], text: &[u8], limits: CountLimits) -> usize {
    const SAMPLE: usize = 1 << 18;
    if text.len() <= 2 * SAMPLE || kinds.is_empty() {
        return text.len();
    }
    let start = Instant::now();
    count_kind(kinds[kinds.len() - 1], &text[text.len() - SAMPLE..]);
    let all = start.elapsed().mul_f64(kinds.len() as f64);
    // Sorting a longer text costs more for each of its bytes, and misses caches.
    let of_one_thread = SAMPLE as f64 * limits.time.as_secs_f64() / (1.5 * all.as_secs_f64());
    // The more kinds are counted at once, the sooner, but the more memory each byte takes.
    let at_once = 1..=pool.threads().min(kinds.len());
    let longest =
        at_once.map(|n| ((of_one_thread * n as f64) as usize).min(limits.longest_text() / n)).max();
    text.len().min(longest.unwrap_or(0).max(SAMPLE))
}

/// Prunes the largest table, again and again, until all fit.
fn shrink(tables: &mut [CountTable<'_>], memory: usize) {
    let mut least = vec![1; tables.len()];
    while tables.iter().map(CountTable::size).sum::<usize>() > memory {
        let Some(largest) = (0..tables.len())
            .filter(|&index| least[index] < u32::MAX / 2)
            .max_by_key(|&index| tables[index].size())
        else {
            return;
        };
        least[largest] *= 2;
        tables[largest] = tables[largest].pruned(least[largest]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sorted_is_bounded_by_the_memory() {
        let limits = |memory| CountLimits { memory, time: Duration::MAX };
        assert_eq!(limits(1_000_000_000).longest_text(), 250_000_000);
        assert_eq!(limits(0).longest_text(), 1 << 25);
        assert_eq!(limits(usize::MAX).longest_text(), 1 << 29);
        for (memory, text, kinds) in
            [(1_000_000_000, 250_000_000, 1), (1_000_000_000, 50_000_000, 5), (0, 1 << 25, 1)]
        {
            assert_eq!(limits(memory).kinds_at_once(text), kinds);
            assert!(kinds * text * size_of::<u64>() <= (2 * memory).max(1 << 28));
        }
        assert!(limits(0).kinds_at_once(0) > 1);
    }
}
