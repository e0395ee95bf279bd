//! Mazes, and the evaluator for them.

use modgrad_compute::Pool;
use modgrad_training::maze_gen::{Maze, MazeBatch, Stream};
use modgrad_training::{
    Checkpoint, Limits, MazeError, MazeEvalOptions, MazeOptions, eval_mazes as evaluate,
};
use numpy::{PyReadonlyArray2, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

use crate::arrays;
use crate::errors::{self, CheckpointError, EvaluationError, ModgradError};
use crate::watch::Watch;

/// Makes mazes: `pixels` f32[N, 3, S, S], `targets` u8[N, R], `lengths` i32[N],
/// `optimal` u8[N, R], `directions` u8[N, S, S].
///
/// The numbers of the mazes begin at `first` in the stream `indexed`; the stream
/// `sequential` is the published one, from its beginning.
#[pyfunction]
#[pyo3(signature = (count, *, size, layout, algorithm, loops, seed, first, route_len, stream,
                    threads))]
fn generate_mazes<'py>(
    py: Python<'py>,
    count: usize,
    size: usize,
    layout: &str,
    algorithm: &str,
    loops: f64,
    seed: u64,
    first: u64,
    route_len: usize,
    stream: &str,
    threads: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let make = || {
        let (layout, algorithm) = (layout.parse()?, algorithm.parse()?);
        let options = MazeOptions { size, algorithm, layout, loops };
        let stream = Stream::named(stream, seed, first)?;
        MazeBatch::new(&Pool::new(threads), &options, stream, count, route_len)
    };
    arrays_of(py, py.detach(make).map_err(refused)?)
}

/// The same arrays for mazes that were stored: `walls` u8[N, S, S], where 0 is open;
/// `ends` i32[N, 2], the pixels row·S + column of start and goal.
#[pyfunction]
#[pyo3(signature = (walls, ends, *, route_len, threads))]
fn solve_mazes<'py>(
    py: Python<'py>,
    walls: PyReadonlyArray3<'py, u8>,
    ends: PyReadonlyArray2<'py, i32>,
    route_len: usize,
    threads: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let (walls, ends) = (walls.as_array(), ends.as_array());
    let (count, size) = (walls.shape()[0], walls.shape()[1]);
    if walls.shape()[2] != size || ends.shape() != [count, 2] {
        return Err(errors::MazeError::new_err(format!(
            "walls {:?} and ends {:?} are not [N, S, S] and [N, 2]",
            walls.shape(),
            ends.shape()
        )));
    }
    let walls: Vec<u8> = walls.iter().copied().collect();
    // What is below zero becomes a pixel that no maze has.
    let ends: Vec<usize> =
        ends.iter().map(|&end| usize::try_from(end).unwrap_or(usize::MAX)).collect();
    let make = || {
        let mazes = (0..count)
            .map(|index| {
                let plane = size * size;
                let (start, goal) = (ends[2 * index], ends[2 * index + 1]);
                Maze::new(size, &walls[index * plane..][..plane], start, goal)
                    .map_err(|error| MazeError::At { index, error: Box::new(error) })
            })
            .collect::<Result<Vec<_>, _>>()?;
        MazeBatch::of(&Pool::new(threads), size, mazes, route_len)
    };
    arrays_of(py, py.detach(make).map_err(refused)?)
}

fn arrays_of(py: Python<'_>, batch: MazeBatch) -> PyResult<Bound<'_, PyDict>> {
    let mazes = PyDict::new(py);
    for (name, tensor) in [
        ("pixels", batch.pixels),
        ("targets", batch.targets),
        ("lengths", batch.lengths),
        ("optimal", batch.optimal),
        ("directions", batch.directions),
    ] {
        mazes.set_item(name, arrays::array(py, tensor)?)?;
    }
    Ok(mazes)
}

/// Scores the checkpoint at `checkpoint` on mazes and returns the score as JSON.
///
/// What is left out is as `val_bpb` is pinned. `progress` is called with (batches
/// done, batches in all).
#[pyfunction]
#[pyo3(signature = (checkpoint, *, threads, size=None, layout=None, algorithm=None, loops=None,
                    mazes=None, seed=None, route_len=None, progress=None))]
fn evaluate_mazes(
    py: Python<'_>,
    checkpoint: PathBuf,
    threads: usize,
    size: Option<usize>,
    layout: Option<&str>,
    algorithm: Option<&str>,
    loops: Option<f64>,
    mazes: Option<usize>,
    seed: Option<u64>,
    route_len: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let watch = Watch::new(progress);
    let pinned = MazeEvalOptions::default();
    let layout = layout.map_or(Ok(pinned.layout), str::parse).map_err(refused)?;
    let algorithm = algorithm.map_or(Ok(pinned.algorithm), str::parse).map_err(refused)?;
    let score = py.detach(|| {
        let checkpoint = Checkpoint::load(&checkpoint, &Limits::default())
            .map_err(|error| CheckpointError::new_err(error.to_string()))?;
        let options = MazeEvalOptions {
            size,
            algorithm,
            layout,
            loops: loops.unwrap_or(pinned.loops),
            mazes: mazes.unwrap_or(pinned.mazes),
            seed: seed.unwrap_or(pinned.seed),
            route_length: route_len,
            threads,
            progress: Some(&|done, total| watch.report(done, total)),
            cancelled: Some(&|| watch.cancelled()),
            ..MazeEvalOptions::default()
        };
        evaluate(&checkpoint, &options).map_err(|error| EvaluationError::new_err(error.to_string()))
    });
    watch.finish()?;
    serde_json::to_string(&score?).map_err(|error| ModgradError::new_err(error.to_string()))
}

fn refused(error: MazeError) -> PyErr {
    errors::MazeError::new_err(error.to_string())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(generate_mazes, module)?)?;
    module.add_function(wrap_pyfunction!(solve_mazes, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate_mazes, module)?)
}
