//! Shapes, data types, and tensors in host memory as they enter and leave.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::error::{Error, Result};

/// The type of a tensor's elements as a program sees it.
///
/// A backend may store `F32` as bf16 inside a run; that is its own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// Floating point; the only type that has gradients.
    F32,
    /// Indices.
    I32,
    /// Bytes.
    U8,
}

impl DType {
    /// Its name in programs and messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U8 => "u8",
        }
    }

    /// Bytes an element takes in host memory.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::U8 => 1,
        }
    }
}

/// A tensor's shape and type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements' type.
    pub dtype: DType,
}

impl TensorSpec {
    /// A spec of the given shape and type.
    pub fn new(shape: impl Into<Vec<usize>>, dtype: DType) -> Self {
        TensorSpec { shape: shape.into(), dtype }
    }

    /// An f32 spec.
    pub fn f32(shape: impl Into<Vec<usize>>) -> Self {
        TensorSpec::new(shape, DType::F32)
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{:?}", self.dtype.name(), self.shape)
    }
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floating point.
    F32(Vec<f32>),
    /// Indices.
    I32(Vec<i32>),
    /// Bytes.
    U8(Vec<u8>),
}

/// A contiguous, row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape` over `data`; the counts must agree.
    pub fn new(shape: impl Into<Vec<usize>>, data: Data) -> Result<Self> {
        let shape = shape.into();
        let elements: usize = shape.iter().product();
        let found = match &data {
            Data::F32(values) => values.len(),
            Data::I32(values) => values.len(),
            Data::U8(values) => values.len(),
        };
        if elements != found {
            return Err(Error::shape(
                "tensor",
                format!("{elements} elements for shape {shape:?}"),
                format!("{found}"),
            ));
        }
        Ok(Tensor { shape, data })
    }

    /// An f32 tensor.
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Self> {
        Tensor::new(shape, Data::F32(values))
    }

    /// Its shape and type.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec::new(self.shape.clone(), self.dtype())
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
        }
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, taken out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The elements as f32, if that is their type.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The elements' bytes in host order.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(values) => bytemuck::cast_slice(values),
            Data::I32(values) => bytemuck::cast_slice(values),
            Data::U8(values) => values,
        }
    }
}
