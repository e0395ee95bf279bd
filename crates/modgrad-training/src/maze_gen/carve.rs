//! Walls: three ways to a spanning tree, and loops on top of one.

use super::lcg::Lcg;
use super::{Algorithm, Grid, moved};

/// A maze without loops.
pub(super) fn carve(size: usize, algorithm: Algorithm, lcg: &mut Lcg) -> Grid {
    let mut grid = Grid { size, walls: vec![1; size * size] };
    match algorithm {
        Algorithm::Dfs => depth_first(&mut grid, lcg),
        Algorithm::Kruskal => kruskal(&mut grid, lcg),
        Algorithm::Wilson => wilson(&mut grid, lcg),
    }
    grid
}

/// From the first cell: a random unvisited neighbour, or back where there is
/// none. Neighbours are listed up, down, left, right, and one is drawn even from
/// a list of one.
fn depth_first(grid: &mut Grid, lcg: &mut Lcg) {
    let size = grid.size;
    let first = grid.pixel(0);
    grid.walls[first] = 0;
    let mut stack = vec![first];
    while let Some(&pixel) = stack.last() {
        let mut ways = Ways::default();
        for (code, there) in neighbours(pixel, size) {
            if grid.walls[there] == 1 {
                ways.push(code);
            }
        }
        if ways.as_slice().is_empty() {
            stack.pop();
            continue;
        }
        let between = moved(pixel, lcg.pick(ways.as_slice()), size);
        let there = 2 * between - pixel;
        grid.walls[between] = 0;
        grid.walls[there] = 0;
        stack.push(there);
    }
}

/// All walls between cells are shuffled, from their order in [`between_cells`],
/// and opened one by one where their two sides are not connected yet.
fn kruskal(grid: &mut Grid, lcg: &mut Lcg) {
    let mut walls: Vec<usize> = between_cells(grid).collect();
    lcg.shuffle_front(&mut walls, usize::MAX);
    let mut parents: Vec<usize> = (0..grid.walls.len()).collect();
    for wall in walls {
        let sides = sides(wall, grid.size);
        let roots = sides.map(|side| root(&mut parents, side));
        if roots[0] != roots[1] {
            parents[roots[0]] = roots[1];
            grid.walls[wall] = 0;
            sides.iter().for_each(|&side| grid.walls[side] = 0);
        }
    }
}

/// The root of a tree of a union-find, halving the path to it.
fn root(parents: &mut [usize], mut item: usize) -> usize {
    while parents[item] != item {
        parents[item] = parents[parents[item]];
        item = parents[item];
    }
    item
}

/// The tree begins as one random cell. From each cell outside it, in row order, a
/// random walk goes until it meets the tree; the way that each cell was last left
/// by, followed from the walk's beginning, is the walk without its loops and
/// joins the tree.
fn wilson(grid: &mut Grid, lcg: &mut Lcg) {
    let size = grid.size;
    let cells = grid.cells_a_side().pow(2);
    let root = grid.pixel(lcg.below(cells));
    grid.walls[root] = 0;
    let mut left_by = vec![0; size * size];
    for cell in 0..cells {
        let first = grid.pixel(cell);
        let mut pixel = first;
        while grid.walls[pixel] == 1 {
            let mut ways = Ways::default();
            neighbours(pixel, size).for_each(|(code, _)| ways.push(code));
            left_by[pixel] = lcg.pick(ways.as_slice());
            pixel = 2 * moved(pixel, left_by[pixel], size) - pixel;
        }
        pixel = first;
        while grid.walls[pixel] == 1 {
            let between = moved(pixel, left_by[pixel], size);
            grid.walls[pixel] = 0;
            grid.walls[between] = 0;
            pixel = 2 * between - pixel;
        }
    }
}

/// Opens a share of the walls that still stand between neighbouring cells,
/// rounded to the nearest number; draws nothing for none.
pub(super) fn open_loops(grid: &mut Grid, share: f64, lcg: &mut Lcg) {
    if share == 0.0 {
        return;
    }
    let mut closed: Vec<usize> =
        between_cells(grid).filter(|&wall| grid.walls[wall] == 1).collect();
    let count = (share * closed.len() as f64).round() as usize;
    lcg.shuffle_front(&mut closed, count);
    closed[..count].iter().for_each(|&wall| grid.walls[wall] = 0);
}

/// The pixels between neighbouring cells, open or not: cell by cell in row order,
/// the one to the right, then the one below.
fn between_cells(grid: &Grid) -> impl Iterator<Item = usize> + use<> {
    let (size, side) = (grid.size, grid.cells_a_side());
    (0..side * side).flat_map(move |cell| {
        let (row, column) = (cell / side, cell % side);
        let pixel = (2 * row + 1) * size + 2 * column + 1;
        let right = (column + 1 < side).then_some(pixel + 1);
        right.into_iter().chain((row + 1 < side).then_some(pixel + size))
    })
}

/// The cells that such a pixel parts.
fn sides(wall: usize, size: usize) -> [usize; 2] {
    // Cells stand in odd rows; a pixel below one is in an even row.
    if (wall / size).is_multiple_of(2) { [wall - size, wall + size] } else { [wall - 1, wall + 1] }
}

/// The neighbours of a cell by the move towards them, in the order of codes.
fn neighbours(pixel: usize, size: usize) -> impl Iterator<Item = (u8, usize)> {
    let (row, column) = (pixel / size, pixel % size);
    let inside = [row > 2, row + 3 < size, column > 2, column + 3 < size];
    (0..4u8)
        .filter(move |&code| inside[usize::from(code)])
        .map(move |code| (code, 2 * moved(pixel, code, size) - pixel))
}

/// At most four codes, without an allocation.
#[derive(Default)]
struct Ways {
    codes: [u8; 4],
    count: usize,
}

impl Ways {
    fn push(&mut self, code: u8) {
        self.codes[self.count] = code;
        self.count += 1;
    }

    fn as_slice(&self) -> &[u8] {
        &self.codes[..self.count]
    }
}
