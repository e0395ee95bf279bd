//! What a model reads and what it is taught.

use super::{Maze, Solution, WAIT};

/// Red, green, blue.
pub const CHANNELS: usize = 3;

impl Maze {
    /// Draws the maze into `pixels` f32[3, S, S]: floor white, wall black, start
    /// red, goal green, each 0 or 1.
    ///
    /// # Panics
    /// Where `pixels` has another length.
    pub fn render(&self, pixels: &mut [f32]) {
        let plane = self.walls().len();
        assert_eq!(pixels.len(), CHANNELS * plane, "one value a channel and pixel");
        for channel in pixels.chunks_exact_mut(plane) {
            for (value, &wall) in channel.iter_mut().zip(self.walls()) {
                *value = f32::from(1 - wall);
            }
        }
        for (pixel, channel) in [(self.start(), 0), (self.goal(), 1)] {
            for other in (0..CHANNELS).filter(|&other| other != channel) {
                pixels[other * plane + pixel] = 0.0;
            }
        }
    }
}

impl Solution {
    /// Writes the route's first moves, then waits, and the set of right moves at
    /// each step as bits: a shortest path may go on by any of them.
    pub(super) fn write_targets(&self, targets: &mut [u8], optimal: &mut [u8]) {
        targets.fill(WAIT);
        optimal.fill(1 << WAIT);
        for ((target, optimal), (pixel, code)) in targets.iter_mut().zip(optimal).zip(self.route())
        {
            *target = code;
            *optimal = self.directions()[pixel];
        }
    }
}
