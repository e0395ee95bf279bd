//! How much of a row comes from the row that it backs off to, learned.
//!
//! A context that was seen n times with d different bytes behind it gives
//! p(s) = (1 − λ)·count(s)/n + λ·p_back(s). λ depends on the expert and on the
//! buckets of n and d, and follows the likelihood of the bytes that came, as PPM's
//! secondary escape estimation does for escapes (Bloom 1998): the slope of ln p by
//! ln(λ / (1 − λ)) is r − λ, with the responsibility r = λ·p_back / p, and a step is the
//! sum of slopes over their summed squares (Fisher scoring). Averaging r instead
//! (expectation-maximisation) converges several times slower.

/// Where the buckets of n begin.
const SEEN: [u32; 15] = [1, 2, 3, 4, 5, 7, 10, 15, 25, 50, 100, 250, 1000, 5000, 50_000];
/// Where the buckets of d begin.
const DISTINCT: [u32; 10] = [1, 2, 3, 4, 5, 7, 10, 16, 32, 64];
/// Buckets of one expert.
pub(super) const BUCKETS: usize = SEEN.len() * DISTINCT.len();
/// Information behind what is assumed at first.
const PRIOR: f32 = 0.5;
/// Information that is remembered at most.
const MOST: f32 = 3000.0;
/// The longest step of ln(λ / (1 − λ)), while little is known.
const LONGEST: f32 = 1.0;

/// The bucket of a context seen `seen` times, at least once, with `distinct` bytes.
#[inline(always)]
pub(super) fn bucket(seen: u32, distinct: u32) -> usize {
    place(&SEEN, seen) * DISTINCT.len() + place(&DISTINCT, distinct)
}

#[inline(always)]
fn place(begins: &[u32], value: u32) -> usize {
    begins.iter().take_while(|&&begin| begin <= value).count().saturating_sub(1)
}

/// λ of every expert and bucket, with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BackOff {
    /// ln(λ / (1 − λ)) [experts][`BUCKETS`].
    pub(super) logits: Vec<f32>,
    /// The sum of squared slopes: Fisher's information of the logit.
    pub(super) information: Vec<f32>,
}

impl BackOff {
    /// At first λ = d / (n + d), as in PPM's method C (Moffat 1990).
    pub(super) fn new(experts: usize) -> BackOff {
        let first = SEEN.iter().flat_map(|&n| {
            DISTINCT.map(|d| {
                let (n, d) = (n.max(d) as f32, d as f32);
                (d / n).ln()
            })
        });
        let first: Vec<f32> = first.collect();
        let logits = (0..experts).flat_map(|_| first.iter().copied()).collect();
        BackOff { logits, information: vec![PRIOR; experts * BUCKETS] }
    }

    /// λ [experts][`BUCKETS`].
    pub(super) fn weights(&self) -> Vec<f32> {
        let lambda = |logit: &f32| 1.0 / (1.0 + (-logit).exp());
        self.logits.iter().map(|logit| lambda(logit).clamp(1e-4, 1.0 - 1e-4)).collect()
    }

    /// Adds observations made with the present weights: [experts][`BUCKETS`][2], the sum of
    /// slopes and of their squares.
    pub(super) fn learn(&mut self, observed: &[f32]) {
        let kept = self.logits.iter_mut().zip(&mut self.information);
        for ((logit, information), sums) in kept.zip(observed.chunks_exact(2)) {
            let (slope, squared) = (sums[0], sums[1]);
            if squared > 0.0 {
                *information = (*information + squared).min(MOST);
                let step = slope / *information;
                *logit = (*logit + step.clamp(-LONGEST, LONGEST)).clamp(-9.0, 9.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_counts_in_order() {
        assert_eq!(bucket(1, 1), 0);
        assert_eq!(bucket(u32::MAX, 256), BUCKETS - 1);
        assert_eq!(bucket(6, 1), bucket(5, 1));
        assert!(bucket(7, 1) > bucket(6, 1) && bucket(7, 2) > bucket(7, 1));
    }

    /// Bytes that come from the back-off seven times of ten.
    #[test]
    fn a_weight_approaches_the_most_likely_one() {
        let mut back_off = BackOff::new(2);
        let first = back_off.weights();
        let at = BUCKETS + bucket(3, 2);
        assert!((first[at] - 0.4).abs() < 1e-6);
        for _ in 0..200 {
            let lambda = back_off.weights()[at];
            let mut observed = vec![0.0; 2 * 2 * BUCKETS];
            for (times, r) in [(7.0, 1.0), (3.0, 0.0)] {
                observed[2 * at] += times * (r - lambda);
                observed[2 * at + 1] += times * (r - lambda) * (r - lambda);
            }
            back_off.learn(&observed);
        }
        let weights = back_off.weights();
        assert!((weights[at] - 0.7).abs() < 0.01, "{}", weights[at]);
        let others = |w: &[f32]| [&w[..at], &w[at + 1..]].concat();
        assert_eq!(others(&weights), others(&first));
    }
}
