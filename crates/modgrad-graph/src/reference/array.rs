//! Arrays of f64, their indices, and the way from and to tensors.

use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, TensorSpec};

/// A row-major array; integers are held exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array of `shape` over `data`. Panics where the counts disagree.
    pub fn new(shape: &[usize], data: Vec<f64>) -> Array {
        assert_eq!(count(shape), data.len(), "an array of shape {shape:?}");
        Array { shape: shape.to_vec(), data }
    }

    /// Every element is `value`.
    pub fn filled(shape: &[usize], value: f64) -> Array {
        Array { shape: shape.to_vec(), data: vec![value; count(shape)] }
    }

    /// Every element is 0.
    pub fn zeros(shape: &[usize]) -> Array {
        Array::filled(shape, 0.0)
    }

    /// The element at each index is what `value` says.
    pub fn from_fn(shape: &[usize], mut value: impl FnMut(&[usize]) -> f64) -> Array {
        let mut data = Vec::with_capacity(count(shape));
        let mut index = vec![0; shape.len()];
        for _ in 0..count(shape) {
            data.push(value(&index));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Array { shape: shape.to_vec(), data }
    }

    /// The element at `index`.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.offset(index)]
    }

    /// The element at `index`, to be changed.
    pub fn at_mut(&mut self, index: &[usize]) -> &mut f64 {
        let offset = self.offset(index);
        &mut self.data[offset]
    }

    /// f of each element.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// The size of the last axis.
    pub fn width(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// The shape without the last axis.
    pub fn leading(&self) -> &[usize] {
        &self.shape[..self.shape.len() - 1]
    }

    /// The number of rows along the last axis.
    pub fn rows(&self) -> usize {
        count(self.leading())
    }

    /// Row `index` along the last axis, all leading axes taken as one.
    pub fn row(&self, index: usize) -> &[f64] {
        let width = self.width();
        &self.data[index * width..(index + 1) * width]
    }

    /// As [`Array::row`], to be changed.
    pub fn row_mut(&mut self, index: usize) -> &mut [f64] {
        let width = self.width();
        &mut self.data[index * width..(index + 1) * width]
    }

    /// The element at `position` as an index into an axis of `size`, or an error
    /// in the name of `op`.
    pub(super) fn index_at(&self, position: usize, size: usize, op: &'static str) -> Result<usize> {
        let value = self.data[position];
        if value.fract() == 0.0 && value >= 0.0 && value < size as f64 {
            return Ok(value as usize);
        }
        Err(Error::shape(
            op,
            format!("indices from 0 to below {size}"),
            format!("{value} at element {position} of the indices {:?}", self.shape),
        ))
    }

    /// Refuses data that does not fill the shape, in the name of `op`.
    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        let elements = self.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if elements == Some(self.data.len()) {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!("as many elements as shape {:?} has", self.shape),
            format!("{}", self.data.len()),
        ))
    }

    /// The elements rounded to `dtype`; an element that an integer type cannot
    /// hold is an error.
    pub fn to_tensor(&self, dtype: DType) -> Result<Tensor> {
        self.check("tensor")?;
        let data = match dtype {
            DType::F32 => Data::F32(self.data.iter().map(|&x| x as f32).collect()),
            DType::I32 => Data::I32(self.integers(i32::MIN.into(), i32::MAX.into(), dtype)?),
            DType::U8 => {
                let values: Vec<i32> = self.integers(0.0, 255.0, dtype)?;
                Data::U8(values.into_iter().map(|value| value as u8).collect())
            }
        };
        Tensor::new(self.shape.clone(), data)
    }

    /// The elements as integers from `least` to `most`.
    pub(super) fn integers(&self, least: f64, most: f64, dtype: DType) -> Result<Vec<i32>> {
        let fits = |x: f64| x.fract() == 0.0 && (least..=most).contains(&x);
        match self.data.iter().find(|&&x| !fits(x)) {
            Some(x) => Err(Error::shape(
                "tensor",
                format!("whole numbers from {least} to {most} for {}", dtype.name()),
                x.to_string(),
            )),
            None => Ok(self.data.iter().map(|&x| x as i32).collect()),
        }
    }

    /// Refuses what is no value of `spec`; the reason is in words.
    pub(super) fn check_against(&self, spec: &TensorSpec) -> std::result::Result<(), String> {
        if self.shape != spec.shape || self.check("tensor").is_err() {
            return Err(format!(
                "expected {spec}, found shape {:?} with {} elements",
                self.shape,
                self.data.len()
            ));
        }
        match spec.dtype {
            DType::F32 => Ok(()),
            dtype => self.to_tensor(dtype).map(drop).map_err(|error| error.to_string()),
        }
    }

    fn offset(&self, index: &[usize]) -> usize {
        debug_assert_eq!(index.len(), self.shape.len());
        debug_assert!(index.iter().zip(&self.shape).all(|(i, size)| i < size));
        index.iter().zip(&self.shape).fold(0, |offset, (i, size)| offset * size + i)
    }
}

impl From<&Tensor> for Array {
    fn from(tensor: &Tensor) -> Array {
        let data = match tensor.data() {
            Data::F32(values) => values.iter().map(|&x| f64::from(x)).collect(),
            Data::I32(values) => values.iter().map(|&x| f64::from(x)).collect(),
            Data::U8(values) => values.iter().map(|&x| f64::from(x)).collect(),
        };
        Array { shape: tensor.shape().to_vec(), data }
    }
}

/// The number of elements of `shape`.
pub(super) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}
