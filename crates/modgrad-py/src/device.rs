//! GPUs: which there are, and the one that `--device` names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use modgrad_device::driver::Description;
use modgrad_device::{Device, peak, peak_bytes, vendor};
use modgrad_graph::cpu::Cpu;
use modgrad_testing::compare::table_failures;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::graph;
use crate::session::read_precision;

/// Devices that were opened, with how: they stay open, for a process has one of each.
static OPENED: Mutex<Option<HashMap<String, Device>>> = Mutex::new(None);

/// Where Python's packages have libraries, given once.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The device of that name, or none for "cpu".
pub(crate) fn open(name: &str) -> modgrad_graph::Result<Option<Device>> {
    if name == "cpu" {
        return Ok(None);
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    if let Some(device) = opened.get(name) {
        return Ok(Some(device.clone()));
    }
    let device = Device::open(name, &folders())?;
    opened.insert(name.to_owned(), device.clone());
    Ok(Some(device))
}

fn folders() -> Vec<PathBuf> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Tells where else to look for the libraries of GPUs.
#[pyfunction]
fn set_library_folders(folders: Vec<PathBuf>) {
    *FOLDERS.lock().unwrap_or_else(PoisonError::into_inner) = folders;
}

/// The cards that "cuda" or "hip" finds; MachineError where their library is absent.
#[pyfunction]
fn cards<'py>(py: Python<'py>, device: &str) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let cards = py.detach(|| vendor::cards(device, &folders())).map_err(graph)?;
    cards.iter().map(|card| describe(py, card)).collect()
}

/// Opens a device, with all libraries that it needs, and describes it.
#[pyfunction]
fn open_device<'py>(py: Python<'py>, device: &str) -> PyResult<Bound<'py, PyDict>> {
    let described = py.detach(|| match open(device)? {
        Some(device) => device.driver().describe(),
        None => Ok(Description::default()),
    });
    describe(py, &described.map_err(graph)?)
}

/// The rate of the fastest matrix product on an opened device, in FLOP/s.
#[pyfunction]
fn device_peak(py: Python<'_>, device: &str, precision: &str) -> PyResult<f64> {
    let precision = read_precision(precision)?;
    let measured = py.detach(|| match open(device)? {
        Some(device) => peak::measured(&device, precision),
        None => Ok(0.0),
    });
    measured.map_err(graph)
}

/// Every op on the device against the f64 reference, in f32 and bf16: (rows, failures, seconds).
#[pyfunction]
fn self_test(py: Python<'_>, device: &str) -> PyResult<(usize, Vec<String>, f64)> {
    let start = Instant::now();
    let found = py.detach(|| {
        Ok(match open(device)? {
            Some(device) => table_failures(&device, |_| true),
            None => table_failures(&Cpu::new(1), |_| true),
        })
    });
    let (rows, failures) = found.map_err(graph)?;
    Ok((rows, failures, start.elapsed().as_secs_f64()))
}

/// The most that buffers on devices took at once in this process, in MB.
#[pyfunction]
fn peak_vram_mb() -> f64 {
    peak_bytes() as f64 / 1e6
}

fn describe<'py>(py: Python<'py>, card: &Description) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("name", &card.name)?;
    described.set_item("architecture", &card.architecture)?;
    described.set_item("versions", &card.versions)?;
    described.set_item("total_bytes", card.memory.0)?;
    described.set_item("free_bytes", card.memory.1)?;
    Ok(described)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_library_folders, module)?)?;
    module.add_function(wrap_pyfunction!(cards, module)?)?;
    module.add_function(wrap_pyfunction!(open_device, module)?)?;
    module.add_function(wrap_pyfunction!(device_peak, module)?)?;
    module.add_function(wrap_pyfunction!(self_test, module)?)?;
    module.add_function(wrap_pyfunction!(peak_vram_mb, module)?)
}
