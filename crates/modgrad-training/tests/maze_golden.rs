//! The mazes themselves, pinned: nobody's score may change because a generator
//! did.

use modgrad_training::maze_gen::{Algorithm, Layout, Maze, MazeOptions};

fn options(algorithm: Algorithm, layout: Layout, loops: f64) -> MazeOptions {
    MazeOptions { algorithm, layout, loops, ..MazeOptions::default() }
}

/// CRC-32 as zip files have it (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// (steps, the first 20 of them, CRC-32 of the walls).
fn described(maze: &Maze) -> (usize, String, u32) {
    let solution = maze.solve();
    let letters = solution.route().take(20).map(|(_, code)| b"UDLR"[usize::from(code)] as char);
    (solution.length(), letters.collect(), crc32(maze.walls()))
}

fn assert_described(mazes: impl Iterator<Item = Maze>, expected: &[(usize, &str, u32)]) {
    for (index, (maze, &(steps, letters, crc))) in mazes.zip(expected).enumerate() {
        assert_eq!(described(&maze), (steps, letters.to_owned(), crc), "maze {index}");
    }
}

#[test]
fn the_checksum_is_the_known_one() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn depth_first_mazes_are_the_published_ones() {
    let corner = options(Algorithm::Dfs, Layout::Corner, 0.0);
    assert_described(
        corner.sequence(42).unwrap(),
        &[
            (56, "DDDDDDRRRRDDRRUUUURR", 0xb7fd_0624),
            (80, "RRRRRRDDLLDDDDDDRRUU", 0x2527_9c6f),
            (68, "RRRRDDDDRRDDRRDDLLLL", 0x7b62_12dd),
        ],
    );
    assert_described(
        corner.sequence(1041).unwrap(),
        &[
            (88, "RRDDLLDDRRDDRRUUUURR", 0x3529_c897),
            (104, "DDRRDDDDLLDDRRDDLLDD", 0x8bdc_f127),
            (108, "RRDDLLDDRRDDLLDDDDDD", 0x3742_8462),
        ],
    );
}

#[test]
fn the_published_evaluation_set_adds_up() {
    let corner = options(Algorithm::Dfs, Layout::Corner, 0.0);
    let mazes: Vec<Maze> = corner.sequence(1041).unwrap().take(200).collect();
    let lengths: Vec<usize> = mazes.iter().map(|maze| maze.solve().length()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 18_832);
    assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&36), Some(&160)));
    for maze in &mazes {
        assert_eq!(maze.walls().iter().filter(|&&wall| wall == 0).count(), 199);
        assert_eq!(maze.ways(maze.start()).count(), 1, "the first step is forced");
        assert_eq!((maze.start(), maze.goal()), (21 + 1, 19 * 21 + 19));
    }
}

#[test]
fn the_other_generators_and_layouts_stay_as_they_are() {
    type Row = (Algorithm, Layout, f64, [(usize, &'static str, u32); 3]);
    // Mazes 0 and 1 of seed 42 by index, then maze 9 of the stream of seed 42.
    let rows: [Row; 5] = [
        (
            Algorithm::Kruskal,
            Layout::Corner,
            0.0,
            [
                (44, "DDDDRRRRRRRRRRRRDDLL", 0x0fd8_a93b),
                (48, "RRDDDDDDRRRRRRRRRRUU", 0x23b0_9ad1),
                (48, "RRDDLLDDDDRRRRDDDDRR", 0x3d40_5d94),
            ],
        ),
        (
            Algorithm::Wilson,
            Layout::Corner,
            0.0,
            [
                (56, "DDDDRRDDRRRRUUUUUURR", 0x116e_45bc),
                (40, "DDRRRRRRRRRRDDLLDDRR", 0xb9de_c8ca),
                (36, "DDDDDDDDDDRRDDDDRRRR", 0xd457_3188),
            ],
        ),
        (
            Algorithm::Dfs,
            Layout::Open,
            0.0,
            [
                (90, "UURRRRRRDDRRUUUULLLL", 0x4d76_5e40),
                (62, "LLLLLLLLLLDDDDDDRRDD", 0x0dc0_36cf),
                (70, "RRDDLLDDRRDDRRUURRDD", 0x74d0_c57e),
            ],
        ),
        (
            Algorithm::Kruskal,
            Layout::Open,
            0.05,
            [
                (40, "UULLUUUULLUULLLLUURR", 0x1521_3989),
                (34, "DDDDRRUURRRRDDDDDDLL", 0xb3b3_c6ba),
                (26, "LLUURRUUUULLUULLUULL", 0x0180_8ac7),
            ],
        ),
        (
            Algorithm::Wilson,
            Layout::Open,
            1.0,
            [
                (18, "DDDDLLLLLLLLLLLLLL", 0xe25f_bb87),
                (6, "UURRRR", 0xe25f_bb87),
                (12, "UUUUUUUUUURR", 0xe25f_bb87),
            ],
        ),
    ];
    for (algorithm, layout, loops, expected) in rows {
        let options = options(algorithm, layout, loops);
        let by_index = (0..2).map(|index| options.maze_at(42, index).unwrap());
        assert_described(by_index.chain(options.sequence(42).unwrap().nth(9)), &expected);
    }
}
