//! numpy arrays in and out.

use modgrad_graph::executor::InputView;
use modgrad_graph::tensor::{Data, Tensor};
use numpy::{
    Element, IntoPyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{ProgramError, graph};

/// Copies a numpy array of f32, i32 or u8, of any layout.
pub(crate) fn tensor(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
        return copied(array, Data::F32);
    }
    if let Ok(array) = array.cast::<PyArrayDyn<i32>>() {
        return copied(array, Data::I32);
    }
    if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
        return copied(array, Data::U8);
    }
    let found = match array.getattr("dtype") {
        Ok(dtype) => format!("an array of {dtype}"),
        Err(_) => format!("a {}", array.get_type().name()?),
    };
    Err(ProgramError::new_err(format!(
        "`{name}`: expected a numpy array of float32, int32 or uint8, found {found}"
    )))
}

fn copied<T: Element + Copy>(
    array: &Bound<'_, PyArrayDyn<T>>,
    wrap: impl Fn(Vec<T>) -> Data,
) -> PyResult<Tensor> {
    let shape = array.shape().to_vec();
    let array: PyReadonlyArrayDyn<'_, T> = array.readonly();
    let values = match array.as_slice() {
        Ok(values) => values.to_vec(),
        Err(_) => array.as_array().iter().copied().collect(),
    };
    Tensor::new(shape, wrap(values)).map_err(graph)
}

/// The arrays of a dict as named tensors.
pub(crate) fn tensors(arrays: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Tensor)>> {
    arrays
        .iter()
        .map(|(name, array)| {
            let name: String = name.extract()?;
            let tensor = tensor(&name, &array)?;
            Ok((name, tensor))
        })
        .collect()
}

/// Named tensors as an executor takes them.
pub(crate) fn views(tensors: &[(String, Tensor)]) -> Vec<(&str, InputView<'_>)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.into())).collect()
}

/// A tensor as a numpy array that owns its data.
pub(crate) fn array<'py>(py: Python<'py>, tensor: Tensor) -> PyResult<Bound<'py, PyAny>> {
    let shape = tensor.shape().to_vec();
    Ok(match tensor.into_data() {
        Data::F32(values) => values.into_pyarray(py).reshape(shape)?.into_any(),
        Data::I32(values) => values.into_pyarray(py).reshape(shape)?.into_any(),
        Data::U8(values) => values.into_pyarray(py).reshape(shape)?.into_any(),
    })
}
