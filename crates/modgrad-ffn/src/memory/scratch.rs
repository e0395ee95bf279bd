//! Fills the rows of one window, position after position.

use modgrad_compute::{math, multiversion};

use super::back_off::BUCKETS;
use super::config::{CERTAINTIES, LANES};
use super::context::Context;
use super::kind::Reader;
use super::mixer::Mixer;
use super::rows::{LEADING, Rows, STATISTICS, Surroundings};
use super::tally::{Followers, Tally};
use super::{ContextKind, Memory, MixerSets, Weights};

/// The least probability whose logarithm is formed.
const LEAST: f32 = 1e-30;

/// Positions between asking for a table's memory and reading it.
const AHEAD: usize = 4;

/// Memory for one window at a time.
pub struct Scratch {
    window: Vec<Tally>,
    surroundings: Vec<Tally>,
    /// How often a byte stands in what is taken out.
    out: [u32; 256],
    /// The entry of a byte, or `NONE`.
    entry: [u8; 256],
    contexts: Vec<Context>,
    seen: Vec<(u8, u32)>,
    probabilities: Vec<f32>,
    /// p of the byte that came, for every context.
    likelihoods: Vec<f32>,
    row: [f32; 256],
    /// By what each expert's row is multiplied outside the entries.
    scales: Vec<f32>,
    mixers: Vec<Mixer>,
    /// What each expert backs off to.
    back_off: Vec<usize>,
    orders: usize,
}

const NONE: u8 = 255;

/// The hashes of all kinds at every position of a window.
fn hashes_of(kinds: &[ContextKind], window: &[u8]) -> Vec<u64> {
    let mut reader = Reader::new(kinds);
    let mut hashes = Vec::with_capacity(window.len() * kinds.len());
    for &byte in window {
        reader.advance(byte);
        hashes.extend((0..kinds.len()).map(|kind| reader.hash(kind)));
    }
    hashes
}

impl Scratch {
    /// For windows under the memory's configuration.
    pub fn new(memory: &Memory<'_>) -> Scratch {
        let config = memory.config();
        let tallies = |count: usize| (0..count).map(|_| Tally::default()).collect();
        Scratch {
            window: tallies(config.in_window.len()),
            surroundings: tallies(config.kinds.len()),
            out: [0; 256],
            entry: [NONE; 256],
            contexts: Vec::new(),
            seen: Vec::new(),
            probabilities: vec![0.0; config.counted_experts() * config.entries],
            likelihoods: vec![0.0; config.kinds.len() + config.in_window.len()],
            row: [0.0; 256],
            scales: vec![1.0; config.counted_experts()],
            mixers: config.sets().map(|sets| Mixer::new(config, sets)).collect(),
            back_off: (0..config.counted_experts()).map(|e| config.back_off(e)).collect(),
            orders: config.orders(),
        }
    }

    /// Fills `rows` for the bytes of `window`; position t knows bytes 0 to t.
    ///
    /// With `surroundings`, the counts of the window and of what stands around it are
    /// taken out, so that a training text looks like any other.
    pub fn fill(
        &mut self,
        memory: &Memory<'_>,
        weights: Weights<'_>,
        window: &[u8],
        surroundings: Option<Surroundings<'_>>,
        rows: &mut Rows<'_>,
    ) {
        let config = memory.config();
        let (kinds, experts, entries) = (&config.kinds, config.experts(), config.entries);
        let slopes = if rows.lessons.is_empty() { 0 } else { 2 * weights.back_off.len() };
        let (slopes, mut moves) = rows.lessons.split_at_mut(slopes);
        slopes.fill(0.0);
        self.window.iter_mut().for_each(|tally| tally.reset(window.len()));
        let mut begun = weights.mixer;
        self.mixers.iter_mut().for_each(|mixer| mixer.begin(&mut begun));
        let all_hashes = hashes_of(kinds, window);
        if let Some(surroundings) = surroundings {
            self.take_out(kinds, window, surroundings, &all_hashes);
        }
        let hashes_at = |t: usize| all_hashes.get(t * kinds.len()..(t + 1) * kinds.len());
        for t in 0..window.len() {
            for (kind, &hash) in hashes_at(t + 2 * AHEAD).unwrap_or_default().iter().enumerate() {
                memory.table(kind).prefetch_entry(hash);
            }
            for (kind, &hash) in hashes_at(t + AHEAD).unwrap_or_default().iter().enumerate() {
                memory.table(kind).prefetch_records(hash);
                if surroundings.is_some() {
                    self.surroundings[kind].prefetch(hash);
                }
            }
            let hashes = hashes_at(t).unwrap_or_default();
            self.look_up(memory, weights, hashes, surroundings.is_some());
            let base = &mut rows.base[t * 256..(t + 1) * 256];
            self.base_row(memory, base);
            let bytes = &mut rows.entries[t * entries..(t + 1) * entries];
            let count = self.choose_entries(memory, bytes);
            // Whole vectors of them: the rest differ in nothing.
            let used = count.next_multiple_of(LANES);
            self.expert_rows(memory, bytes);
            let at = t * experts * entries;
            let difference = &mut rows.difference[at..at + experts * entries];
            let counted = config.counted_experts() * entries;
            self.scales(memory);
            differences(
                count,
                &self.probabilities,
                &self.scales,
                &bytes[..used],
                base,
                &mut difference[..counted],
            );
            let (counts, mixed) = difference.split_at_mut(counted);
            let multiples = &mut rows.multiple[t * experts..(t + 1) * experts];
            multiples.fill(1.0);
            let mixed = mixed.chunks_exact_mut(entries).zip(&mut multiples[counted / entries..]);
            for (index, (mixed, multiple)) in mixed.enumerate() {
                let set = self.set(memory, config.mixers[index], window[t]);
                *multiple = self.mixers[index].mix(set, base, &bytes[..used], counts, mixed);
            }
            let leading = leading(self.mixers[0].row());
            rows.leading[t * LEADING..(t + 1) * LEADING].copy_from_slice(&leading);
            let at = t * experts * STATISTICS;
            let statistics = &mut rows.statistics[at..at + experts * STATISTICS];
            self.statistics(memory, entries, leading, statistics);
            if let Some(&next) = window.get(t + 1) {
                if !slopes.is_empty() {
                    self.observe(memory, next, slopes);
                }
                for mixer in &mut self.mixers {
                    mixer.learn(next, base, &bytes[..used], counts);
                }
                for (tally, &kind) in self.window.iter_mut().zip(&config.in_window) {
                    if hashes[kind] != 0 {
                        tally.add(hashes[kind], next);
                    }
                }
            }
            bytes[..count].iter().for_each(|&byte| self.entry[byte as usize] = NONE);
        }
        if !moves.is_empty() {
            let mut begun = weights.mixer;
            self.mixers.iter().for_each(|mixer| mixer.moved(&mut begun, &mut moves));
        }
    }

    /// Tallies what follows the window's contexts, of `hashes`, in the window and in what
    /// stands around it, as the counts saw them.
    fn take_out(
        &mut self,
        kinds: &[ContextKind],
        window: &[u8],
        around: Surroundings<'_>,
        hashes: &[u64],
    ) {
        self.surroundings.iter_mut().for_each(|tally| tally.reset(window.len()));
        for hashes in hashes.chunks_exact(kinds.len()) {
            for (tally, &hash) in self.surroundings.iter_mut().zip(hashes) {
                if hash != 0 {
                    tally.expect(hash);
                }
            }
        }
        let mut reader = Reader::new(kinds);
        around.earlier.iter().for_each(|&byte| reader.advance(byte));
        let text = [around.before, window, around.after];
        let (orders, others) = self.surroundings.split_at_mut(self.orders);
        for &next in text.into_iter().flatten() {
            for (kind, tally) in orders.iter_mut().enumerate() {
                if !tally.add_expected(reader.hash(kind), next) {
                    break; // nor does a longer context stand in the window
                }
            }
            for (kind, tally) in others.iter_mut().enumerate() {
                tally.add_expected(reader.hash(self.orders + kind), next);
            }
            reader.advance(next);
        }
    }

    /// What every expert's context has seen, kinds below the base included.
    fn look_up(
        &mut self,
        memory: &Memory<'_>,
        weights: Weights<'_>,
        hashes: &[u64],
        taken_out: bool,
    ) {
        self.seen.clear();
        self.contexts.clear();
        for (kind, &hash) in hashes.iter().enumerate() {
            let first = self.seen.len();
            let found = if hash == 0 { None } else { memory.table(kind).get(hash) };
            if let Some(counts) = found {
                let out = match taken_out {
                    true => self.surroundings[kind].get(hash),
                    false => Followers::Few(&[], &[]),
                };
                match out {
                    Followers::Many(_, out) => counts.append_less(out, &mut self.seen),
                    Followers::Few(bytes, out) => {
                        for (&byte, &count) in bytes.iter().zip(out) {
                            self.out[usize::from(byte)] = count;
                        }
                        counts.append_less(&self.out, &mut self.seen);
                        bytes.iter().for_each(|&byte| self.out[usize::from(byte)] = 0);
                    }
                }
            }
            self.contexts.push(Context::of(&self.seen, first, weights, self.contexts.len()));
        }
        for (tally, &kind) in self.window.iter().zip(&memory.config().in_window) {
            let first = self.seen.len();
            self.seen.extend(tally.get(hashes[kind]).iter());
            self.contexts.push(Context::of(&self.seen, first, weights, self.contexts.len()));
        }
    }

    /// ln p of the base, by the orders up to it.
    fn base_row(&mut self, memory: &Memory<'_>, out: &mut [f32]) {
        self.row.fill(1.0 / 256.0);
        for kind in 0..=memory.config().base {
            let context = self.contexts[kind];
            if context.total == 0 {
                continue;
            }
            let lambda = context.lambda;
            let share = (1.0 - lambda) / context.total as f32;
            self.row.iter_mut().for_each(|p| *p *= lambda);
            for &(byte, count) in &self.seen[context.first..context.end] {
                self.row[usize::from(byte)] += share * count as f32;
            }
        }
        logarithms(&self.row, out);
    }

    /// The bytes that experts above the base have seen, at most E of them, the
    /// deepest contexts first; returns how many.
    fn choose_entries(&mut self, memory: &Memory<'_>, bytes: &mut [i32]) -> usize {
        let config = memory.config();
        let above = config.base + 1;
        let mut count = 0;
        // Other kinds and the window's own first, then orders from the highest down.
        let order = (self.orders..self.contexts.len()).chain((above..self.orders).rev());
        for context in order {
            let Context { first, end, .. } = self.contexts[context];
            for &(byte, _) in &self.seen[first..end] {
                if self.entry[usize::from(byte)] == NONE && count < bytes.len() {
                    self.entry[usize::from(byte)] = count as u8;
                    bytes[count] = i32::from(byte);
                    count += 1;
                }
            }
        }
        bytes[count..].fill(0);
        count
    }

    /// p of every expert at the entries.
    fn expert_rows(&mut self, memory: &Memory<'_>, bytes: &[i32]) {
        let config = memory.config();
        let (entries, base) = (bytes.len(), config.base);
        for (p, &byte) in self.probabilities[..entries].iter_mut().zip(bytes) {
            *p = self.row[byte as usize];
        }
        for expert in 1..config.counted_experts() {
            let context = self.contexts[base + expert];
            let from = self.back_off[expert] * entries;
            let (before, rest) = self.probabilities.split_at_mut(expert * entries);
            let (back, row) = (&before[from..from + entries], &mut rest[..entries]);
            if context.total == 0 {
                row.copy_from_slice(back);
                continue;
            }
            let lambda = context.lambda;
            for (p, back) in row.iter_mut().zip(back) {
                *p = lambda * back;
            }
            let share = (1.0 - lambda) / context.total as f32;
            for &(byte, count) in &self.seen[context.first..context.end] {
                let entry = self.entry[usize::from(byte)];
                if entry != NONE {
                    row[usize::from(entry)] += share * count as f32;
                }
            }
        }
    }

    /// By what each expert's row is multiplied outside the entries.
    fn scales(&mut self, memory: &Memory<'_>) {
        self.scales[0] = 1.0;
        for expert in 1..self.scales.len() {
            // λ is 1 where nothing was seen.
            let lambda = self.contexts[memory.config().base + expert].lambda;
            self.scales[expert] = self.scales[self.back_off[expert]] * lambda;
        }
    }

    /// The set of weights that a mixer uses.
    fn set(&self, memory: &Memory<'_>, sets: MixerSets, last: u8) -> usize {
        let config = memory.config();
        let (text, window) = (&self.contexts[..self.orders], &self.contexts[config.kinds.len()..]);
        let known = |contexts: &[Context]| {
            contexts.iter().rposition(|context| context.total > 0).map_or(0, |at| at + 1)
        };
        let certainty = |contexts: &[Context]| {
            known(contexts).checked_sub(1).map_or(0, |at| contexts[at].certainty())
        };
        match sets {
            MixerSets::Depth => known(text) * (config.in_window.len() + 1) + known(window),
            MixerSets::LastByte => usize::from(last),
            MixerSets::Certainty => certainty(text) * CERTAINTIES + certainty(window),
        }
    }

    fn statistics(
        &self,
        memory: &Memory<'_>,
        entries: usize,
        leading: [i32; LEADING],
        out: &mut [f32],
    ) {
        let base = memory.config().base;
        let ln = |count: u32| math::log(1.0 + count as f32);
        let mixed = self.mixers[0].row();
        let likeliest = leading[0] as usize;
        let entry = self.entry[likeliest];
        let mut rows = out.chunks_exact_mut(STATISTICS);
        for (expert, (context, out)) in self.contexts[base..].iter().zip(&mut rows).enumerate() {
            let total = context.total.max(1) as f32;
            let of_own = match context.total {
                0 => 0.0,
                _ => mixed[usize::from(context.most_frequent)],
            };
            let of_mixed = match entry {
                NONE => self.row[likeliest] * self.scales[expert],
                _ => self.probabilities[expert * entries + usize::from(entry)],
            };
            let share = context.largest as f32 / total;
            out.copy_from_slice(&[
                ln(context.total),
                ln(context.distinct()),
                share,
                of_own,
                of_mixed,
            ]);
        }
        for (mixer, out) in self.mixers.iter().zip(rows) {
            let [first, second, third] = leading.map(|byte| mixer.row()[byte as usize]);
            out.copy_from_slice(&[first, second, third, 0.0, 0.0]);
        }
    }

    /// How the likelihood of the byte that came depends on each context's λ.
    fn observe(&mut self, memory: &Memory<'_>, next: u8, slopes: &mut [f32]) {
        let config = memory.config();
        let probability = &mut self.likelihoods;
        for (index, context) in self.contexts.iter().enumerate() {
            let back = match index {
                0 => 1.0 / 256.0,
                _ if index <= config.base => probability[index - 1],
                _ => probability[config.base + self.back_off[index - config.base]],
            };
            if context.total == 0 {
                probability[index] = back;
                continue;
            }
            let lambda = context.lambda;
            let seen = self.seen[context.first..context.end].iter();
            let count =
                seen.filter(|&&(byte, _)| byte == next).map(|&(_, count)| count).sum::<u32>();
            let own = (1.0 - lambda) * count as f32 / context.total as f32;
            probability[index] = own + lambda * back;
            let sums = &mut slopes[2 * (index * BUCKETS + context.bucket)..][..2];
            let slope = lambda * back / probability[index].max(LEAST) - lambda;
            sums[0] += slope;
            sums[1] += slope * slope;
        }
    }
}

/// The bytes of the largest p, the largest first.
fn leading(p: &[f32; 256]) -> [i32; LEADING] {
    let mut found = [(-1.0, 0); LEADING];
    for (chunk, first) in p.chunks_exact(16).zip((0..).step_by(16)) {
        // Most stretches hold none of them, which is soon seen.
        let highest = chunk.iter().fold(-1.0f32, |a, b| a.max(*b));
        if highest <= found[LEADING - 1].0 {
            continue;
        }
        for (&p, byte) in chunk.iter().zip(first..) {
            if p > found[LEADING - 1].0 {
                let at = found.iter().take_while(|(other, _)| *other >= p).count();
                found[at..].rotate_right(1);
                found[at] = (p, byte);
            }
        }
    }
    found.map(|(_, byte)| byte)
}

multiversion! {
    fn logarithms(p: &[f32], out: &mut [f32]) {
        for (out, p) in out.iter_mut().zip(p) {
            *out = math::log(p.max(LEAST));
        }
    }
}

multiversion! {
    /// ln p − ln scale − ln p(base) of every expert at the first `count` entries.
    fn differences(
        count: usize,
        probabilities: &[f32],
        scales: &[f32],
        bytes: &[i32],
        base: &[f32],
        out: &mut [f32],
    ) {
        let mut at_entries = [0.0f32; 256];
        for (at, byte) in at_entries.iter_mut().zip(bytes) {
            *at = base[*byte as usize];
        }
        let entries = out.len() / scales.len();
        let experts = probabilities.chunks_exact(entries).zip(out.chunks_exact_mut(entries));
        for ((p, out), scale) in experts.zip(scales) {
            let constant = math::log(scale.max(LEAST));
            for ((out, p), base) in out[..bytes.len()].iter_mut().zip(p).zip(&at_entries) {
                *out = math::log(p.max(LEAST)) - constant - base;
            }
            out[count..].fill(0.0);
        }
    }
}
