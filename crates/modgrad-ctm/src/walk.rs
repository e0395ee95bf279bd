//! Walks over a grid, by the moves that each cell's policy scores highest.

use crate::check;

/// Up, down, left, right, stay.
pub const MOVES: usize = 5;

/// The logits that each of `steps` steps finds, [B, steps, 5]: the walk begins at the
/// cell with the largest of `start` [B, Y, X], and goes as the largest of `policy`
/// [B, Y, X, 5] says, the last of equals; it stays where it would leave the grid.
///
/// Panics when the lengths disagree.
pub fn walk(
    [batch, height, width]: [usize; 3],
    steps: usize,
    policy: &[f32],
    start: &[f32],
    out: &mut [f32],
) {
    let cells = height * width;
    check(
        "walk",
        &[
            ("policy", policy.len(), batch * cells * MOVES),
            ("start", start.len(), batch * cells),
            ("out", out.len(), batch * steps * MOVES),
        ],
    );
    for sample in 0..batch {
        let policy = &policy[sample * cells * MOVES..][..cells * MOVES];
        let mut cell = largest(&start[sample * cells..][..cells]);
        for step in 0..steps {
            let logits = &policy[cell * MOVES..][..MOVES];
            out[(sample * steps + step) * MOVES..][..MOVES].copy_from_slice(logits);
            let (y, x) = (cell / width, cell % width);
            cell = match largest(logits) {
                0 if y > 0 => cell - width,
                1 if y + 1 < height => cell + width,
                2 if x > 0 => cell - 1,
                3 if x + 1 < width => cell + 1,
                _ => cell,
            };
        }
    }
}

/// The last largest, as the evaluator of mazes takes it.
fn largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] >= values[best] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_where_the_policy_says_and_stays_at_the_border() {
        // Two rows of two: right, down, left, then down against the border.
        let moves = [3, 1, 1, 2];
        let mut policy = [0.0; 20];
        for (cell, &step) in moves.iter().enumerate() {
            policy[cell * MOVES + step] = 1.0 + cell as f32;
        }
        let mut out = [0.0; 30];
        walk([1, 2, 2], 6, &policy, &[1.0, 0.0, 0.0, 0.5], &mut out);
        let visited: Vec<usize> = out.chunks(MOVES).map(largest).collect();
        assert_eq!(visited, [3, 1, 2, 1, 1, 1]);
        let scores: Vec<f32> = out.iter().copied().filter(|&score| score > 0.0).collect();
        assert_eq!(scores, [1.0, 2.0, 4.0, 3.0, 3.0, 3.0]);
    }

    #[test]
    fn of_equals_the_last_is_taken() {
        assert_eq!(largest(&[1.0, 2.0, 2.0, 0.0]), 2);
        let mut out = [1.0; 5];
        walk([1, 1, 1], 1, &[0.0; 5], &[0.0], &mut out);
        assert_eq!(out, [0.0; 5]);
    }
}
