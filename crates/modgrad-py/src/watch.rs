//! What a long call tells Python while it runs, and how ^C stops it.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Watches a call that runs without the interpreter lock.
pub(crate) struct Watch {
    progress: Option<Py<PyAny>>,
    interrupted: AtomicBool,
}

impl Watch {
    /// `progress` is called with (done, in all).
    pub(crate) fn new(progress: Option<Py<PyAny>>) -> Self {
        Watch { progress, interrupted: AtomicBool::new(false) }
    }

    pub(crate) fn report(&self, done: usize, total: usize) {
        if let Some(progress) = &self.progress {
            Python::attach(|py| {
                // A failing progress display is no reason to lose a score.
                progress.call1(py, (done, total)).ok();
            });
        }
    }

    /// Whether ^C was pressed, now or before.
    pub(crate) fn cancelled(&self) -> bool {
        if Python::attach(|py| py.check_signals().is_err()) {
            self.interrupted.store(true, Ordering::Relaxed);
        }
        self.interrupted.load(Ordering::Relaxed)
    }

    /// `KeyboardInterrupt` where ^C was pressed.
    pub(crate) fn finish(&self) -> PyResult<()> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(PyKeyboardInterrupt::new_err(())),
            false => Ok(()),
        }
    }
}
