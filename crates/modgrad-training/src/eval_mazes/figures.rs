//! What is said about many judged routes, with 95 % intervals.

use super::MazeEvalError;
use super::puzzle::Outcome;
use crate::metrics::{NORMAL_95, wilson_95, wilson_95_at};

/// A figure and the interval around it that holds the truth in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// As measured.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How good predicted routes are.
///
/// Rates of mazes have the interval of Wilson. The steps of one maze stand and
/// fall together, so the rate of steps has it for as many trials as give the
/// spread between mazes. The mean has the normal interval; where nothing spreads
/// it has no width.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Mazes whose first move is right.
    pub first_step: Estimate,
    /// Scored steps that are right.
    pub per_step: Estimate,
    /// The mean number of right steps before the first wrong one.
    pub correct_prefix: Estimate,
    /// Mazes whose scored steps are all right.
    pub scored_route: Estimate,
    /// Mazes whose route is right up to the goal, out of all: one that is longer
    /// than the scored steps counts as wrong.
    pub whole_route: Estimate,
}

impl Figures {
    /// Of at least one outcome with at least one scored step each.
    pub(super) fn of(outcomes: &[Outcome], route_length: usize) -> Self {
        let rate = |holds: fn(&Outcome) -> bool| {
            let successes = outcomes.iter().filter(|outcome| holds(outcome)).count() as u64;
            let trials = outcomes.len() as u64;
            let (low, high) = wilson_95(successes, trials);
            Estimate { value: successes as f64 / trials as f64, low, high }
        };
        Figures {
            first_step: rate(first_is_right),
            per_step: per_step(outcomes),
            correct_prefix: mean_prefix(outcomes, route_length),
            scored_route: rate(|outcome| outcome.right == outcome.scored),
            whole_route: rate(|outcome| outcome.right == outcome.length),
        }
    }
}

fn first_is_right(outcome: &Outcome) -> bool {
    outcome.prefix > 0
}

/// A ratio of sums over mazes, its variance by linearisation (Cochran, Sampling
/// Techniques, 1977, section 6.3).
fn per_step(outcomes: &[Outcome]) -> Estimate {
    let mazes = outcomes.len() as f64;
    let right: usize = outcomes.iter().map(|outcome| outcome.right).sum();
    let scored: usize = outcomes.iter().map(|outcome| outcome.scored).sum();
    let (scored, value) = (scored as f64, right as f64 / scored as f64);
    let residual = |outcome: &Outcome| outcome.right as f64 - value * outcome.scored as f64;
    let squares: f64 = outcomes.iter().map(|outcome| residual(outcome).powi(2)).sum();
    let variance = mazes / (mazes - 1.0) * squares / (scored * scored);
    // Trials of one coin that would spread as much; one maze a trial where
    // nothing spreads, or where there is but one.
    let trials = value * (1.0 - value) / variance;
    let trials = if trials.is_finite() && trials > 0.0 { trials.min(scored) } else { mazes };
    let (low, high) = wilson_95_at(value, trials.max(1.0));
    Estimate { value, low, high }
}

fn mean_prefix(outcomes: &[Outcome], route_length: usize) -> Estimate {
    let mazes = outcomes.len() as f64;
    let prefixes = || outcomes.iter().map(|outcome| outcome.prefix as f64);
    let value = prefixes().sum::<f64>() / mazes;
    let longest = route_length as f64;
    if outcomes.len() < 2 {
        return Estimate { value, low: 0.0, high: longest };
    }
    let squares: f64 = prefixes().map(|prefix| (prefix - value).powi(2)).sum();
    let half = NORMAL_95 * (squares / (mazes - 1.0) / mazes).sqrt();
    Estimate { value, low: (value - half).max(0.0), high: (value + half).min(longest) }
}

/// Refuses a first step that is better on the pinned mazes than on secret ones by
/// more than five standard errors: chance does that once in three million times.
pub(super) fn refuse_memory(pinned: &[Outcome], fresh: &[Outcome]) -> Result<(), MazeEvalError> {
    const STANDARD_ERRORS: f64 = 5.0;
    let right = |outcomes: &[Outcome]| outcomes.iter().filter(|o| first_is_right(o)).count() as f64;
    let (pinned_mazes, fresh_mazes) = (pinned.len() as f64, fresh.len() as f64);
    let all = (right(pinned) + right(fresh)) / (pinned_mazes + fresh_mazes);
    let (pinned, fresh) = (right(pinned) / pinned_mazes, right(fresh) / fresh_mazes);
    let error = (all * (1.0 - all) * (1.0 / pinned_mazes + 1.0 / fresh_mazes)).sqrt();
    if pinned - fresh > STANDARD_ERRORS * error {
        return Err(MazeEvalError::Memorised { pinned, fresh });
    }
    Ok(())
}
