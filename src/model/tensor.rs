//! Tensors where the model computes: in the memory of the CPU, held by candle.
//!
//! Clones and rows share memory; operations of `ops` that work in place change what all of them see.

use candle_core::{DType, Result, Shape, WithDType};

/// Where tensors are and operations run.
#[derive(Clone, Debug)]
pub enum Device {
    Cpu,
}

#[derive(Clone, Debug)]
pub enum Tensor {
    Cpu(candle_core::Tensor),
}

impl Tensor {
    /// # Errors
    /// When `shape` holds another number of elements than `values`, or memory is short.
    pub fn from_vec<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let shape = shape.into();
        match device {
            Device::Cpu => candle_core::Tensor::from_vec(values, shape, &candle_core::Device::Cpu).map(Self::Cpu),
        }
    }

    /// Zeros in f32.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => candle_core::Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu).map(Self::Cpu),
        }
    }

    /// What candle holds in the memory of the CPU.
    ///
    /// # Errors
    /// When the tensor is on another device.
    pub fn cpu(&self) -> Result<&candle_core::Tensor> {
        match self {
            Self::Cpu(x) => Ok(x),
        }
    }

    /// All f32 values, in order.
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(x) => x.flatten_all()?.to_vec1(),
        }
    }

    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Cpu(x) => x.dims(),
        }
    }

    /// # Errors
    /// When there are not two dimensions.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self.dims() {
            [rows, columns] => Ok((*rows, *columns)),
            dims => candle_core::bail!("expected rows and columns, found {dims:?}"),
        }
    }

    /// The same elements in another shape; rows in one piece are not copied.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        match self {
            Self::Cpu(x) => x.reshape(shape.into()).map(Self::Cpu),
        }
    }

    /// `count` rows from row `first` on, in the same memory.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => x.narrow(0, first, count).map(Self::Cpu),
        }
    }

    /// A copy of `count` elements from element `first` on of the last dimension.
    pub fn columns(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => x.narrow(candle_core::D::Minus1, first, count)?.contiguous().map(Self::Cpu),
        }
    }

    /// Copies `rows` to where row `first` begins.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        match self {
            Self::Cpu(x) => x.slice_set(rows.cpu()?, 0, first),
        }
    }

    /// A copy with no value outside -limit..limit.
    pub fn clamp(&self, limit: f64) -> Result<Self> {
        match self {
            Self::Cpu(x) => x.clamp(-limit, limit).map(Self::Cpu),
        }
    }
}

impl From<candle_core::Tensor> for Tensor {
    fn from(x: candle_core::Tensor) -> Self {
        Self::Cpu(x)
    }
}
