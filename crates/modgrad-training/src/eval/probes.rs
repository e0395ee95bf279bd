//! Probes: windows that are run once more, with their future taken away or
//! changed, in other company and at another place in the batch. What stands
//! before the change must come out the same to the last bit.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::EvalError;
use super::model::Model;
use super::windows::Windows;
use crate::metrics::BYTES;
use crate::random::{Random, Turns};
use modgrad_graph::Tensor;

/// One window in this many is scored twice, and at least [`LEAST_REPEATED`].
const REPEATED_ONE_IN: usize = 20;
const LEAST_REPEATED: usize = 8;
/// A row of logits in memory.
const ROW_BYTES: usize = BYTES * size_of::<f32>();

/// What is done to a window before it is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    /// Nothing.
    Repeat,
    /// Every later byte becomes another one, at random.
    Scramble,
    /// Every later byte becomes another one, most of them text from elsewhere:
    /// to a model that looks for one kind of letter, noise is all alike.
    Splice,
    /// Zeros take the place of all later bytes.
    Truncate,
}

impl Edit {
    fn words(self) -> &'static str {
        match self {
            Edit::Repeat => "left alone",
            Edit::Scramble | Edit::Splice => "changed",
            Edit::Truncate => "cut off",
        }
    }
}

/// A window to run again; rows up to `position` must come out the same.
#[derive(Clone, Copy, Debug)]
struct Probe {
    window: usize,
    position: usize,
    edit: Edit,
}

/// The digests of a window's rows when it was scored, and its place in the batch.
struct Reference {
    place: usize,
    rows: Vec<u64>,
}

/// The probes of one evaluation, and what is known of the windows they are for.
pub(super) struct Probes {
    probes: Vec<Probe>,
    references: BTreeMap<usize, Reference>,
    /// Secret (window, position) pairs among them.
    pub(super) pairs: usize,
}

impl Probes {
    /// Draws them: positions take turns, so that each is probed where there are
    /// no more positions than probes; so do windows.
    pub(super) fn draw(
        random: &mut Random,
        windows: &Windows<'_>,
        context: usize,
        pairs: usize,
    ) -> Self {
        let mut probes = Vec::new();
        // After the last position of a window there is nothing to change.
        let positions = context - 1;
        let pairs = if positions == 0 { 0 } else { pairs };
        let mut window_turns = Turns::new(windows.count());
        let mut position_turns = Turns::new(positions.max(1));
        for pair in 0..pairs {
            let window = window_turns.next(random);
            let position = position_turns.next(random) % windows.rows(window);
            let change = if pair % 2 == 0 { Edit::Splice } else { Edit::Scramble };
            for edit in [change, Edit::Truncate] {
                probes.push(Probe { window, position, edit });
            }
        }
        let repeated = windows.count().div_ceil(REPEATED_ONE_IN).max(LEAST_REPEATED);
        let mut turns = Turns::new(windows.count());
        for _ in 0..repeated.min(windows.count()) {
            let window = turns.next(random);
            let position = windows.rows(window) - 1;
            probes.push(Probe { window, position, edit: Edit::Repeat });
        }
        random.shuffle(&mut probes);
        let unseen = |probe: &Probe| (probe.window, Reference { place: 0, rows: Vec::new() });
        let references = probes.iter().map(unseen).collect();
        Probes { probes, references, pairs }
    }

    /// The batches that [`Probes::check`] will run.
    pub(super) fn batches(&self, batch: usize) -> usize {
        self.probes.len().div_ceil(batch)
    }

    /// Keeps what the scored logits were, for the windows that are probed.
    pub(super) fn remember(&mut self, model: &Model, order: &[usize], logits: &Tensor) {
        for (place, window) in order.iter().enumerate() {
            if let Some(reference) = self.references.get_mut(window) {
                *reference =
                    Reference { place, rows: digests(model, logits, place, model.context) };
            }
        }
    }

    /// Runs every probe; `tick` is called after each batch.
    pub(super) fn check(
        &self,
        model: &mut Model,
        windows: &Windows<'_>,
        order: &[usize],
        random: &mut Random,
        tick: &mut dyn FnMut() -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let (batch, context) = (model.batch, model.context);
        let mut tokens = vec![0; batch * context];
        for probes in self.probes.chunks(batch) {
            // Rows without a probe hold noise: bad company for a leak.
            tokens.fill_with(|| random.byte());
            let places = self.arrange(probes, batch, random);
            for (probe, &place) in probes.iter().zip(&places) {
                let row = &mut tokens[place * context..(place + 1) * context];
                windows.write(probe.window, row);
                edit(row, probe, windows.text, random);
            }
            let logits = model.run(&tokens)?;
            for (probe, &place) in probes.iter().zip(&places) {
                let found = digests(model, &logits, place, probe.position + 1);
                if let Some(row) = self.first_difference(probe, &found) {
                    let case = Case { probe, place, row, found: &found };
                    return Err(self.explain(model, windows, order, &mut tokens, &case)?);
                }
            }
            tick()?;
        }
        Ok(())
    }

    fn first_difference(&self, probe: &Probe, found: &[u64]) -> Option<usize> {
        let expected = &self.references[&probe.window].rows;
        (0..=probe.position).find(|&row| expected.get(row) != found.get(row))
    }

    /// A place in the batch for each probe, at random, for repeated windows
    /// another one than before.
    fn arrange(&self, probes: &[Probe], batch: usize, random: &mut Random) -> Vec<usize> {
        let mut places: Vec<usize> = (0..batch).collect();
        random.shuffle(&mut places);
        let taken = |index: usize, place: usize| {
            probes.get(index).is_some_and(|probe| {
                probe.edit == Edit::Repeat && self.references[&probe.window].place == place
            })
        };
        for index in 0..probes.len() {
            if taken(index, places[index]) {
                let fits =
                    |&other: &usize| !taken(index, places[other]) && !taken(other, places[index]);
                // With one row a batch there is no other place.
                if let Some(other) = (0..batch).find(fits) {
                    places.swap(index, other);
                }
            }
        }
        places.truncate(probes.len());
        places
    }

    /// Finds out what a difference comes from, by running the batch again as it
    /// was, then with the window whole, then as it was first scored.
    fn explain(
        &self,
        model: &mut Model,
        windows: &Windows<'_>,
        order: &[usize],
        tokens: &mut [u8],
        case: &Case<'_>,
    ) -> Result<EvalError, EvalError> {
        let Case { probe, place, row, found } = *case;
        let Probe { window, position, edit } = *probe;
        let state = EvalError::State { window, row };
        let logits = model.run(tokens)?;
        let rows = position + 1;
        if digests(model, &logits, place, rows) != found {
            return Ok(state);
        }
        let context = model.context;
        if edit != Edit::Repeat {
            windows.write(window, &mut tokens[place * context..(place + 1) * context]);
            let logits = model.run(tokens)?;
            if self.first_difference(probe, &digests(model, &logits, place, rows)).is_none() {
                return Ok(EvalError::Causality { window, position, row, edit: edit.words() });
            }
        }
        let scored = order.iter().position(|&other| other == window).unwrap_or_default();
        let batch = &order[scored - scored % model.batch..];
        tokens.fill(0);
        for (row, &window) in tokens.chunks_exact_mut(context).zip(batch) {
            windows.write(window, row);
        }
        let logits = model.run(tokens)?;
        let again = digests(model, &logits, scored % model.batch, rows);
        match self.first_difference(probe, &again) {
            None => Ok(EvalError::CrossRow { window, row }),
            Some(_) => Ok(state),
        }
    }
}

/// A probe that came out otherwise.
struct Case<'a> {
    probe: &'a Probe,
    place: usize,
    row: usize,
    found: &'a [u64],
}

/// Changes what follows the probe's position.
fn edit(tokens: &mut [u8], probe: &Probe, text: &[u8], random: &mut Random) {
    let later = &mut tokens[probe.position + 1..];
    let source = random.below(text.len());
    for (distance, byte) in later.iter_mut().enumerate() {
        let other = byte.wrapping_add(1 + random.below(BYTES - 1) as u8);
        let spliced = text[(source + distance) % text.len()];
        *byte = match probe.edit {
            Edit::Repeat => *byte,
            Edit::Truncate => 0,
            Edit::Splice if spliced != *byte => spliced,
            Edit::Splice | Edit::Scramble => other,
        };
    }
}

/// The first eight bytes of each row's SHA-256, for the first `count` rows of one window.
fn digests(model: &Model, logits: &Tensor, place: usize, count: usize) -> Vec<u64> {
    let rows = &logits.bytes()[place * model.context * ROW_BYTES..][..count * ROW_BYTES];
    let mut digests = vec![0; count];
    model.pool().for_rows(&mut digests, 1, 8, |first, digests| {
        for (digest, row) in digests.iter_mut().zip(rows.chunks_exact(ROW_BYTES).skip(first)) {
            let full: [u8; 32] = Sha256::digest(row).into();
            *digest = u64::from_le_bytes(full[..8].try_into().expect("eight of 32 bytes"));
        }
    });
    digests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_all_that_is_later_and_nothing_else() {
        let mut random = Random::new(2);
        let text: Vec<u8> = (0..500).map(|_| b'a' + random.below(26) as u8).collect();
        let (mut letters, mut later) = ([0; 2], 0);
        for round in 0..200 {
            let (window, position) = (round, round % 63);
            let before = &text[window..window + 64];
            let edited = |edit_kind, random: &mut Random| {
                let mut tokens = before.to_vec();
                let probe = Probe { window, position, edit: edit_kind };
                edit(&mut tokens, &probe, &text, random);
                assert_eq!(tokens[..=position], before[..=position]);
                tokens[position + 1..].to_vec()
            };
            let after = &before[position + 1..];
            assert_eq!(edited(Edit::Repeat, &mut random), after);
            assert!(edited(Edit::Truncate, &mut random).iter().all(|&byte| byte == 0));
            for (kind, letters) in [Edit::Splice, Edit::Scramble].into_iter().zip(&mut letters) {
                let changed = edited(kind, &mut random);
                assert!(changed.iter().zip(after).all(|(new, old)| new != old), "{kind:?}");
                *letters += changed.iter().filter(|byte| byte.is_ascii_lowercase()).count();
            }
            later += after.len();
        }
        assert!(letters[0] > later * 9 / 10, "splices read like text: {} of {later}", letters[0]);
        assert!(letters[1] < later / 5, "noise does not: {} of {later}", letters[1]);
    }
}
