//! Which contexts are counted, and which experts are made of them.

use serde::{Deserialize, Serialize};

use super::ContextKind;

/// Bytes of a vector register, in f32: entries come in multiples of it.
pub(super) const LANES: usize = 16;

/// The experts of a counted memory.
///
/// In order: the kinds from `base` on, by the text's counts; the kinds `in_window`,
/// by the window's own; the online mixers of all of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Contexts. Orders come first, the lowest first: each backs off to the one
    /// before it, all other kinds back off to `base`.
    pub kinds: Vec<ContextKind>,
    /// The kind whose row is given in full; the rows of all others differ from it, up
    /// to a factor, in few bytes. An order.
    pub base: usize,
    /// Kinds that are counted within the window as well.
    pub in_window: Vec<usize>,
    /// In how many bytes rows may differ from the base's, all experts together.
    pub entries: usize,
    /// Online mixers, by what chooses their sets of weights.
    pub mixers: Vec<MixerSets>,
    /// Learning rate of the online mixers.
    pub mixer_rate: f32,
}

/// What chooses the set of weights that an online mixer uses at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixerSets {
    /// How deep an order is known from the text, and which kind in the window.
    Depth,
    /// The last byte.
    LastByte,
    /// How often, and with how many bytes, the deepest known context was seen, the
    /// text's and the window's.
    Certainty,
}

/// Sets by the last context's counts, in the text or in the window.
pub(super) const CERTAINTIES: usize = 10;

impl MixerSets {
    /// How many sets there are.
    fn count(self, config: &MemoryConfig) -> usize {
        match self {
            MixerSets::Depth => (config.orders() + 1) * (config.in_window.len() + 1),
            MixerSets::LastByte => 256,
            MixerSets::Certainty => CERTAINTIES * CERTAINTIES,
        }
    }
}

impl MemoryConfig {
    /// Says in words what is wrong, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=64).contains(&self.kinds.len()) {
            return Err(format!("{} kinds of contexts are not 1 to 64", self.kinds.len()));
        }
        self.kinds.iter().try_for_each(ContextKind::validate)?;
        let orders = self.orders();
        let order = |kind: &ContextKind| matches!(kind, ContextKind::Order(_));
        if self.kinds[orders..].iter().any(order)
            || !self.kinds[..orders].is_sorted_by_key(|kind| match kind {
                ContextKind::Order(order) => *order,
                _ => 0,
            })
        {
            return Err("orders come before other kinds, the lowest first".to_string());
        }
        if self.base >= orders {
            return Err(format!("`base` is {}, but there are {orders} orders", self.base));
        }
        if let Some(kind) = self.in_window.iter().find(|&&kind| kind >= self.kinds.len()) {
            return Err(format!("`in_window` names kind {kind} of {}", self.kinds.len()));
        }
        if self.in_window.len() > 64 {
            return Err(format!("{} kinds in the window are more than 64", self.in_window.len()));
        }
        // Places of entries are counted in a byte, whose highest value stands for none.
        if !(LANES..256).contains(&self.entries) || !self.entries.is_multiple_of(LANES) {
            return Err(format!("`entries` is {}, not a multiple of 16 to 240", self.entries));
        }
        if !(1..=8).contains(&self.mixers.len()) {
            return Err(format!("{} online mixers are not 1 to 8", self.mixers.len()));
        }
        if !(0.0..1.0).contains(&self.mixer_rate) {
            return Err(format!("`mixer_rate` is {}, not from 0 to below 1", self.mixer_rate));
        }
        Ok(())
    }

    /// How many kinds are orders.
    pub(super) fn orders(&self) -> usize {
        self.kinds.iter().take_while(|kind| matches!(kind, ContextKind::Order(_))).count()
    }

    /// Experts by counts: those from the base on and those in the window.
    pub(super) fn counted_experts(&self) -> usize {
        self.kinds.len() - self.base + self.in_window.len()
    }

    /// Experts in all, the mixers among them.
    pub fn experts(&self) -> usize {
        self.counted_experts() + self.mixers.len()
    }

    /// The expert that expert `expert` backs off to; the base, expert 0, to none.
    #[inline(always)]
    pub(super) fn back_off(&self, expert: usize) -> usize {
        let orders = self.orders() - self.base;
        if expert < orders {
            expert.saturating_sub(1)
        } else if expert < self.kinds.len() - self.base {
            0
        } else {
            orders - 1
        }
    }

    /// Sets of weights of each mixer.
    pub(super) fn sets(&self) -> impl Iterator<Item = usize> + '_ {
        self.mixers.iter().map(|mixer| mixer.count(self))
    }
}
