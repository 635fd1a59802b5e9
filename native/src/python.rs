//! The Python face of the core: sberf/_native.pyi describes it.

use std::path::{Path, PathBuf};

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::capture;
use crate::error::{Error, Kind};
use crate::finalize;

create_exception!(_native, NativeError, PyException, "An error with arguments (kind, message, hint).");

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        NativeError::new_err((error.kind.name(), error.message, error.hint))
    }
}

/// One capture: opened (attached, not yet counting) when made.
#[pyclass]
pub struct Capture(capture::Capture);

#[pymethods]
impl Capture {
    #[new]
    fn new(py: Python<'_>, options: &str) -> PyResult<Self> {
        let options = serde_json::from_str(options)
            .map_err(|e| Error::new(Kind::Usage, format!("the capture options are malformed: {e}")))?;
        Ok(Self(py.detach(|| capture::Capture::open(options))?))
    }

    fn command_pid(&self) -> Option<i32> {
        self.0.command_pid()
    }

    fn release_command(&mut self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.release_command())?)
    }

    fn start(&mut self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.start())?)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = self.0.snapshot();
        let stats = PyDict::new(py);
        stats.set_item("samples", snapshot.samples)?;
        stats.set_item("processes", snapshot.processes)?;
        stats.set_item("lost", snapshot.lost)?;
        stats.set_item("written_bytes", snapshot.written_bytes)?;
        stats.set_item("fill_percent", snapshot.fill_percent)?;
        stats.set_item("first_sample_ns", snapshot.first_sample_ns)?;
        Ok(stats)
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    #[pyo3(signature = (exit_code, max_sample_rate, warnings))]
    fn stop(
        &mut self,
        py: Python<'_>,
        exit_code: Option<i32>,
        max_sample_rate: Option<u64>,
        warnings: Vec<String>,
    ) -> PyResult<()> {
        Ok(py.detach(|| self.0.stop(exit_code, max_sample_rate, warnings))?)
    }

    fn finalize(&self, py: Python<'_>, output: &str) -> PyResult<String> {
        let (spool, files) =
            self.0.result().ok_or_else(|| Error::new(Kind::Usage, "the capture has not been stopped"))?;
        let meta = py.detach(|| finalize::finalize(spool, Path::new(output), files))?;
        Ok(meta.to_string())
    }
}

/// Finishes the spool of a capture whose process died.
#[pyfunction]
fn recover(py: Python<'_>, spool: &str, output: &str) -> PyResult<String> {
    let meta = py.detach(|| finalize::recover(Path::new(spool), Path::new(output)))?;
    Ok(meta.to_string())
}

/// Names the frames of a recording once more.
#[pyfunction]
fn symbolize(py: Python<'_>, recording: &str, debug_dirs: Vec<PathBuf>) -> PyResult<String> {
    let counts = py.detach(|| finalize::symbolize(Path::new(recording), debug_dirs))?;
    Ok(counts.to_string())
}

/// Does perf_event_open() take this event for the calling thread?
#[pyfunction]
fn event_opens(kind: u32, config: u64) -> bool {
    capture::event_opens(kind, config)
}

/// The containers that have a process: (ID, name if known, directory of the outermost cgroup).
#[pyfunction]
fn running_containers(py: Python<'_>) -> PyResult<Vec<(String, Option<String>, PathBuf)>> {
    let containers = py
        .detach(capture::running_containers)
        .map_err(|e| Error::io("cannot list the processes of this machine", &e))?;
    let plain = |found: capture::Running| (found.id, found.name, found.directory);
    Ok(containers.into_iter().map(plain).collect())
}

/// What bpf() and perf_event_open() can do here: (name, errno or None).
#[pyfunction]
fn kernel_features(py: Python<'_>) -> Vec<(String, Option<i32>)> {
    py.detach(|| crate::features::probe().into_iter().map(|(name, result)| (name, result.err())).collect())
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("NativeError", module.py().get_type::<NativeError>())?;
    module.add_class::<Capture>()?;
    module.add_function(wrap_pyfunction!(recover, module)?)?;
    module.add_function(wrap_pyfunction!(symbolize, module)?)?;
    module.add_function(wrap_pyfunction!(event_opens, module)?)?;
    module.add_function(wrap_pyfunction!(running_containers, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_features, module)?)
}
