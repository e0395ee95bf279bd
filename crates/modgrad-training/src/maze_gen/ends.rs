//! Where the route starts and ends.

use super::lcg::Lcg;
use super::{Grid, Layout};

/// (start, goal). `Open` draws two cells, each of all cells alike, the start
/// first, and draws both again until they differ and two ways lead from the
/// start: start and goal are uniform among the pairs that hold. There always are
/// some: a connected maze of more than two cells has a cell with two ways out.
pub(super) fn place(grid: &Grid, layout: Layout, lcg: &mut Lcg) -> (usize, usize) {
    let cells = grid.cells_a_side().pow(2);
    match layout {
        Layout::Corner => (grid.pixel(0), grid.pixel(cells - 1)),
        Layout::Open => loop {
            let start = grid.pixel(lcg.below(cells));
            let goal = grid.pixel(lcg.below(cells));
            if start != goal && grid.ways(start).nth(1).is_some() {
                return (start, goal);
            }
        },
    }
}
