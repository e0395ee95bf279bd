//! What a maze is, whatever the seed: a spanning tree, with shortest paths that
//! are shortest.

use modgrad_compute::Pool;
use modgrad_graph::tensor::Data;
use modgrad_training::maze_gen::{
    Algorithm, BatchBuffers, Layout, Maze, MazeBatch, MazeError, MazeOptions, Stream, WAIT, moved,
};
use proptest::prelude::*;

fn any_options() -> impl Strategy<Value = MazeOptions> {
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let layout = prop::sample::select(Layout::ALL.to_vec());
    let loops = prop::sample::select(vec![0.0, 0.0, 0.05, 0.5, 1.0]);
    (2usize..13, algorithm, layout, loops).prop_map(|(side, algorithm, layout, loops)| {
        MazeOptions { size: 2 * side + 1, algorithm, layout, loops }
    })
}

fn open_pixels(maze: &Maze) -> Vec<usize> {
    (0..maze.walls().len()).filter(|&pixel| maze.walls()[pixel] == 0).collect()
}

/// Distances to the goal by relaxing every pixel until nothing changes: slow, and
/// nothing like a breadth-first search.
fn naive_distances(maze: &Maze) -> Vec<usize> {
    let size = maze.size();
    let mut distances = vec![usize::MAX; size * size];
    distances[maze.goal()] = 0;
    loop {
        let mut changed = false;
        for pixel in open_pixels(maze) {
            for code in 0..WAIT {
                let there = distances[moved(pixel, code, size)].saturating_add(1);
                if there < distances[pixel] {
                    distances[pixel] = there;
                    changed = true;
                }
            }
        }
        if !changed {
            return distances;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_maze_is_a_spanning_tree_and_its_loops(options in any_options(), seed: u64, index: u64) {
        let maze = options.maze_at(seed, index).unwrap();
        let (size, side) = (maze.size(), (maze.size() - 1) / 2);
        let (cells, inner) = (side * side, 2 * side * (side - 1));
        let mut between = 0;
        for (pixel, &wall) in maze.walls().iter().enumerate() {
            let (row, column) = (pixel / size, pixel % size);
            prop_assert!(wall <= 1);
            match (row % 2, column % 2) {
                (1, 1) => prop_assert_eq!(wall, 0, "a cell is open"),
                (0, 0) => prop_assert_eq!(wall, 1, "a corner of cells is wall"),
                _ => between += usize::from(wall == 0),
            }
            let border = row == 0 || column == 0 || row + 1 == size || column + 1 == size;
            prop_assert!(!border || wall == 1, "the border is wall");
        }
        // Connected with one edge less than cells: a tree.
        prop_assert!(naive_distances(&maze).iter().zip(maze.walls())
            .all(|(&distance, &wall)| (distance == usize::MAX) == (wall == 1)));
        let loops = (options.loops * (inner + 1 - cells) as f64).round() as usize;
        prop_assert_eq!(between, cells - 1 + loops);
    }

    #[test]
    fn right_moves_are_those_that_come_nearer(options in any_options(), seed: u64, index: u64) {
        let maze = options.maze_at(seed, index).unwrap();
        let (size, solution, distances) = (maze.size(), maze.solve(), naive_distances(&maze));
        prop_assert_eq!(solution.length(), distances[maze.start()]);
        for pixel in 0..size * size {
            let expected = if pixel == maze.goal() {
                1 << WAIT
            } else if maze.walls()[pixel] == 1 {
                0
            } else {
                let nearer = maze.ways(pixel)
                    .filter(|&code| distances[moved(pixel, code, size)] + 1 == distances[pixel]);
                nearer.map(|code| 1 << code).sum::<u8>()
            };
            prop_assert_eq!(solution.directions()[pixel], expected);
        }
        let mut pixel = maze.start();
        for (at, code) in solution.route() {
            prop_assert_eq!(at, pixel);
            prop_assert!(solution.is_right(pixel, code));
            pixel = moved(pixel, code, size);
            prop_assert_eq!(maze.walls()[pixel], 0);
        }
        prop_assert_eq!(pixel, maze.goal());
        prop_assert_eq!(solution.route().count(), solution.length());
    }

    #[test]
    fn ends_are_where_the_layout_says(options in any_options(), seed: u64, index: u64) {
        let maze = options.maze_at(seed, index).unwrap();
        let (size, start, goal) = (maze.size(), maze.start(), maze.goal());
        match options.layout {
            Layout::Corner => prop_assert_eq!((start, goal), (size + 1, size * size - size - 2)),
            Layout::Open => {
                prop_assert!(start != goal && maze.ways(start).count() >= 2);
                for end in [start, goal] {
                    prop_assert!(end / size % 2 == 1 && end % size % 2 == 1, "an end is a cell");
                }
            }
        }
    }

    #[test]
    fn a_batch_is_its_mazes_whatever_the_threads(
        options in any_options(), seed: u64, first in 0u64..1000, route_length in 1usize..90,
    ) {
        let stream = Stream::Indexed { seed, first };
        let batch = MazeBatch::new(&Pool::new(1), &options, stream, 5, route_length).unwrap();
        let again = MazeBatch::new(&Pool::new(3), &options, stream, 5, route_length).unwrap();
        prop_assert_eq!(&batch, &again);
        let plane = options.size * options.size;
        let bytes = |data: &Data| match data {
            Data::U8(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        for index in 0..5 {
            let maze = options.maze_at(seed, first + index as u64).unwrap();
            let solution = maze.solve();
            let mut pixels = vec![9.0; 3 * plane];
            maze.render(&mut pixels);
            let found = &batch.pixels.as_f32().unwrap()[index * 3 * plane..(index + 1) * 3 * plane];
            prop_assert_eq!(found, &pixels);
            for (pixel, &wall) in maze.walls().iter().enumerate() {
                let colour = [0, 1, 2].map(|channel| pixels[channel * plane + pixel]);
                let expected = match pixel {
                    _ if pixel == maze.start() => [1.0, 0.0, 0.0],
                    _ if pixel == maze.goal() => [0.0, 1.0, 0.0],
                    _ if wall == 1 => [0.0; 3],
                    _ => [1.0; 3],
                };
                prop_assert_eq!(colour, expected);
            }
            let mut route: Vec<(u8, u8)> = solution.route()
                .map(|(pixel, code)| (code, solution.directions()[pixel]))
                .collect();
            route.resize(route_length, (WAIT, 1 << WAIT));
            let steps = index * route_length..(index + 1) * route_length;
            let targets = bytes(batch.targets.data())[steps.clone()].to_vec();
            let optimal = bytes(batch.optimal.data())[steps].to_vec();
            prop_assert!(targets.into_iter().zip(optimal).eq(route));
            let directions = &bytes(batch.directions.data())[index * plane..(index + 1) * plane];
            prop_assert_eq!(directions, solution.directions());
        }
    }
}

#[test]
fn a_sequential_batch_follows_the_one_stream() {
    let options = MazeOptions { algorithm: Algorithm::Wilson, loops: 0.1, ..Default::default() };
    let pool = Pool::new(2);
    let mazes = Stream::Sequential { seed: 7 }.mazes(&pool, &options, 9).unwrap();
    let expected: Vec<Maze> = options.sequence(7).unwrap().take(9).collect();
    assert_eq!(mazes, expected);
    let batch = MazeBatch::new(&pool, &options, Stream::Sequential { seed: 7 }, 9, 3).unwrap();
    let lengths = expected.iter().map(|maze| maze.solve().length() as i32).collect();
    assert_eq!(batch.lengths.data(), &Data::I32(lengths));
}

/// Of 2×2 cells there are 4 spanning trees, of 3×3 there are 192 (Kirchhoff).
#[test]
fn loop_erased_walks_make_every_spanning_tree_equally_often() {
    for (size, trees, highest) in [(5, 4, 16.27), (7, 192, 256.0)] {
        // `highest` is the 99.9 % point of chi-square with trees − 1 degrees.
        let options = MazeOptions {
            size,
            algorithm: Algorithm::Wilson,
            layout: Layout::Corner,
            ..MazeOptions::default()
        };
        let draws = trees * 200;
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..draws as u64 {
            let maze = options.maze_at(11, index).unwrap();
            *counts.entry(maze.walls().to_vec()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), trees);
        let expected = draws as f64 / trees as f64;
        let chi_square: f64 =
            counts.values().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert!(chi_square < highest, "{size}: {chi_square}");
    }
}

#[test]
fn the_others_reach_the_trees_that_they_can() {
    for algorithm in [Algorithm::Dfs, Algorithm::Kruskal] {
        let options = MazeOptions { size: 7, algorithm, ..MazeOptions::default() };
        let trees: std::collections::BTreeSet<Vec<u8>> =
            (0..20_000).map(|index| options.maze_at(5, index).unwrap().walls().to_vec()).collect();
        // A depth-first search leaves no two branches side by side.
        let expected = if algorithm == Algorithm::Dfs { 14 } else { 192 };
        assert_eq!(trees.len(), expected, "{algorithm}");
    }
}

#[test]
fn the_impossible_is_refused_in_one_line() {
    let refused = |options: MazeOptions| {
        let error = options.maze_at(1, 1).unwrap_err();
        assert!(options.sequence(1).is_err() && !error.to_string().contains('\n'));
        error
    };
    for size in [0, 1, 2, 3, 4, 20, 998, 1001, usize::MAX] {
        let error = refused(MazeOptions { size, ..MazeOptions::default() });
        assert_eq!(error, MazeError::Size { size });
    }
    let error = refused(MazeOptions { size: 22, ..MazeOptions::default() });
    let expected = "a maze of 22x22 pixels is impossible: \
                    the size must be odd, from 5 to 999, such as 21";
    assert_eq!(error.to_string(), expected);
    for loops in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = refused(MazeOptions { loops, ..MazeOptions::default() });
        assert!(matches!(error, MazeError::Loops { .. }));
    }
    let pool = Pool::new(1);
    let stream = Stream::Indexed { seed: 1, first: 0 };
    let batch = |count, route| {
        MazeBatch::new(&pool, &MazeOptions::default(), stream, count, route).unwrap_err()
    };
    assert_eq!(batch(1, 0), MazeError::RouteLength);
    assert!(matches!(batch(usize::MAX, 20), MazeError::TooMany { .. }));
    assert!(matches!(batch(2, usize::MAX), MazeError::TooMany { .. }));
    for (name, layout) in [("corner", Layout::Corner), ("open", Layout::Open)] {
        assert_eq!(name.parse(), Ok(layout));
    }
    let error = "center".parse::<Layout>().unwrap_err();
    assert_eq!(error.to_string(), "`center` is no maze layout: there are corner, open");
    let error = "prim".parse::<Algorithm>().unwrap_err();
    assert_eq!(error.to_string(), "`prim` is no maze algorithm: there are dfs, kruskal, wilson");
    assert!(matches!(Stream::named("sequential", 1, 3), Err(MazeError::First { first: 3 })));
    assert!(matches!(Stream::named("random", 1, 0), Err(MazeError::Unknown { .. })));
}

#[test]
fn buffers_of_another_size_are_refused() {
    let options = MazeOptions { size: 5, ..MazeOptions::default() };
    let wrong = |pixels: usize, targets: usize, optimal: usize, directions: usize| {
        let buffers = BatchBuffers {
            pixels: &mut vec![0.0; pixels],
            targets: &mut vec![0; targets],
            lengths: &mut [0; 2],
            optimal: &mut vec![0; optimal],
            directions: &mut vec![0; directions],
        };
        let stream = Stream::Indexed { seed: 1, first: 0 };
        match buffers.fill(&Pool::new(1), &options, stream, 4) {
            Ok(()) => "none",
            Err(MazeError::Buffer { buffer, .. }) => buffer,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(wrong(150, 8, 8, 50), "none");
    assert_eq!(wrong(149, 8, 8, 50), "pixels");
    assert_eq!(wrong(150, 9, 8, 50), "targets");
    assert_eq!(wrong(150, 8, 0, 50), "optimal");
    assert_eq!(wrong(150, 8, 8, 75), "directions");
}
