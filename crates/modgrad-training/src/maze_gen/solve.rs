//! Shortest paths to the goal, from everywhere.

use super::{Maze, WAIT};

/// The pixel that a move leads to; of an open pixel always one of the square.
pub fn moved(pixel: usize, code: u8, size: usize) -> usize {
    match code {
        0 => pixel - size,
        1 => pixel + size,
        2 => pixel - 1,
        3 => pixel + 1,
        _ => pixel,
    }
}

/// For every pixel of a maze, which moves are right.
///
/// A move is right if it lies on some shortest path to the goal; with loops there
/// may be several. *The* route takes the one with the lowest code at each step.
/// Without loops there is one path, and it is that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    size: usize,
    start: usize,
    length: usize,
    directions: Vec<u8>,
}

impl Maze {
    /// Breadth-first search from the goal.
    pub fn solve(&self) -> Solution {
        const FAR: u32 = u32::MAX;
        let (size, walls) = (self.size(), self.walls());
        let mut distances = vec![FAR; walls.len()];
        distances[self.goal] = 0;
        let mut queue = Vec::with_capacity(walls.len() / 2);
        queue.push(self.goal);
        let mut directions = vec![0; walls.len()];
        directions[self.goal] = 1 << WAIT;
        let mut next = 0;
        while let Some(&pixel) = queue.get(next) {
            next += 1;
            let distance = distances[pixel] + 1;
            for code in 0..WAIT {
                let there = moved(pixel, code, size);
                if walls[there] == 0 && distances[there] == FAR {
                    distances[there] = distance;
                    queue.push(there);
                }
                if distances[there] == distance {
                    // From there the way here is the opposite move: 0 ↔ 1, 2 ↔ 3.
                    directions[there] |= 1 << (code ^ 1);
                }
            }
        }
        let length = distances[self.start] as usize;
        Solution { size, start: self.start, length, directions }
    }
}

impl Solution {
    /// Steps of a shortest path.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bit m of a pixel's byte is set where move m is right there: 0 on walls, only
    /// the bit of [`WAIT`] at the goal.
    pub fn directions(&self) -> &[u8] {
        &self.directions
    }

    /// The pixel and the move of each step of the route.
    pub fn route(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        let mut pixel = self.start;
        (0..self.length).map(move |_| {
            let step = (pixel, self.first_right(pixel));
            pixel = moved(pixel, step.1, self.size);
            step
        })
    }

    /// Whether a move is right at a pixel.
    pub fn is_right(&self, pixel: usize, code: u8) -> bool {
        code < WAIT && self.directions[pixel] >> code & 1 == 1
    }

    /// The right move with the lowest code; [`WAIT`] at the goal.
    pub fn first_right(&self, pixel: usize) -> u8 {
        self.directions[pixel].trailing_zeros().min(u32::from(WAIT)) as u8
    }
}
