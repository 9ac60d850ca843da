//! Tensors on the device that computes: in CPU memory, held by candle, or in GPU memory.
//!
//! Clones and row views share memory. In-place operations of `ops` change all tensors that share
//! it.

mod codes;
mod cpu;
mod errors;
mod gpu;
mod widened;

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Shape, WithDType};

use crate::cuda::{Array, Context, Element};
use crate::error::{Result, fault};

use errors::convert_error;

pub use codes::InCodes;
pub use cpu::{View, modify_in_place};

/// The device of tensors and of the operations on them.
#[derive(Clone)]
pub enum Device {
    Cpu,
    Cuda(Arc<Context>),
}

impl Device {
    fn context(&self) -> Option<&Arc<Context>> {
        match self {
            Self::Cpu => None,
            Self::Cuda(context) => Some(context),
        }
    }

    /// Ends a step of this thread: waits until the GPU is at most one step behind.
    pub fn throttle(&self) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.throttle())
    }

    /// Keeps `bytes` of GPU memory for weights, even while other allocations are refused.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.reserve(bytes))
    }

    /// The peak of GPU memory in use, in bytes; 0 on a CPU.
    pub fn peak(&self) -> u64 {
        self.context().map_or(0, |context| context.peak() as u64)
    }

    /// True if a GPU has refused memory since the last call.
    pub fn take_oom_flag(&self) -> bool {
        self.context().is_some_and(|context| context.take_oom_flag())
    }

    /// Marks the beginning of a layer in the timeline.
    pub fn mark_layer(&self, layer: usize) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.mark_layer(layer))
    }
}

/// The GPUs of `devices`, or None if one of them is the CPU.
pub fn gpus(devices: &[Device]) -> Option<Vec<&Arc<Context>>> {
    devices.iter().map(Device::context).collect()
}

/// Writes the timeline of the GPUs' work if one was requested.
pub fn write_timeline(devices: &[Device]) -> Result<()> {
    gpus(devices).map_or(Ok(()), |gpus| crate::cuda::write_timeline(&gpus))
}

#[derive(Clone, Debug)]
pub enum Tensor {
    Cpu(candle_core::Tensor),
    Cuda(Array),
    /// The weight of a projection that stays in codes in the memory of the CPU.
    Codes(InCodes),
}

impl Tensor {
    /// # Errors
    /// If the number of elements in `shape` is not that of `values`, or memory is full.
    pub fn from_vec<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let shape = shape.into();
        match device {
            Device::Cpu => {
                Ok(Self::Cpu(convert_error(candle_core::Tensor::from_vec(values, shape, &candle_core::Device::Cpu))?))
            }
            Device::Cuda(context) => {
                let (bytes, element) = bytes_of(T::to_cpu_storage_owned(values))?;
                if bytes.len() != shape.elem_count() * element.bytes() {
                    fault!("{} bytes do not fill {shape:?}", bytes.len());
                }
                Array::uploaded(context, &bytes, shape.dims(), element).map(Self::Cuda)
            }
        }
    }

    /// A tensor of f32 zeros.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => {
                Ok(Self::Cpu(convert_error(candle_core::Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu))?))
            }
            Device::Cuda(context) => Array::zeros(context, shape.into().dims(), Element::F32).map(Self::Cuda),
        }
    }

    /// The candle tensor in CPU memory.
    ///
    /// # Errors
    /// If the tensor is on another device.
    pub fn cpu(&self) -> Result<&candle_core::Tensor> {
        match self {
            Self::Cpu(x) => Ok(x),
            Self::Cuda(_) => fault!("expected a tensor in CPU memory, found one on a GPU"),
            Self::Codes(_) => fault!("expected numbers, found codes"),
        }
    }

    /// The array in GPU memory.
    ///
    /// # Errors
    /// If the tensor is on the CPU.
    pub fn cuda(&self) -> Result<&Array> {
        match self {
            Self::Cuda(x) => Ok(x),
            Self::Cpu(_) | Self::Codes(_) => fault!("expected a tensor on a GPU, found one in CPU memory"),
        }
    }

    /// All f32 values in row-major order, copied to CPU memory.
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(x) => convert_error(x.flatten_all().and_then(|x| x.to_vec1())),
            Self::Cuda(x) => {
                let mut values = vec![0f32; x.len()];
                if x.element() != Element::F32 {
                    fault!("expected f32, found {x:?}");
                }
                x.download(bytemuck::cast_slice_mut(&mut values))?;
                Ok(values)
            }
            Self::Codes(x) => Ok(x.values()),
        }
    }

    /// A view of the values of a tensor in CPU memory.
    ///
    /// # Errors
    /// If the tensor is not there.
    pub fn view(&self) -> Result<View<'_>> {
        View::of(self.cpu()?)
    }

    /// Calls `f` with all f32 values in row-major order. They are copied only from a GPU.
    pub fn with_values<R>(&self, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        match self {
            Self::Cpu(x) => Ok(f(View::of(x)?.values()?)),
            _ => Ok(f(&self.values()?)),
        }
    }

    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Cpu(x) => x.dims(),
            Self::Cuda(x) => x.dims(),
            Self::Codes(x) => x.dims(),
        }
    }

    /// # Errors
    /// If the tensor does not have two dimensions.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self.dims() {
            [rows, columns] => Ok((*rows, *columns)),
            dims => fault!("expected rows and columns, found {dims:?}"),
        }
    }

    /// The same elements in another shape. Contiguous memory is not copied.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(convert_error(x.reshape(shape.into()))?)),
            _ => self.cuda()?.reshaped(shape.into().dims()).map(Self::Cuda),
        }
    }

    /// A view of `count` rows from row `first` on.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(convert_error(x.narrow(0, first, count))?)),
            _ => self.cuda()?.rows(first, count).map(Self::Cuda),
        }
    }

    /// A copy of the last dimension's elements from `first` to `first + count`.
    pub fn columns(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(convert_error(
                x.narrow(candle_core::D::Minus1, first, count).and_then(|x| x.contiguous()),
            )?)),
            _ => gpu::columns(self.cuda()?, first, count).map(Self::Cuda),
        }
    }

    /// Concatenates [.., m] and [.., n] to [.., m + n].
    pub fn concat_columns(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Self::Cpu(x), Self::Cpu(y)) => {
                Ok(Self::Cpu(convert_error(candle_core::Tensor::cat(&[x, y], candle_core::D::Minus1))?))
            }
            _ => gpu::join_columns(self.cuda()?, other.cuda()?).map(Self::Cuda),
        }
    }

    /// Repeats each row for every head: [rows, n] to [rows, heads, n].
    pub fn repeat_for_heads(&self, heads: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => {
                let (rows, size) = self.dims2()?;
                let all = x.reshape((rows, 1, size)).and_then(|x| x.expand((rows, heads, size)));
                Ok(Self::Cpu(convert_error(all.and_then(|x| x.contiguous()))?))
            }
            _ => gpu::repeat_rows(self.cuda()?, heads).map(Self::Cuda),
        }
    }

    /// The device of this tensor.
    pub fn device(&self) -> Device {
        match self {
            Self::Cpu(_) | Self::Codes(_) => Device::Cpu,
            Self::Cuda(x) => Device::Cuda(x.context().clone()),
        }
    }

    /// Copies `rows` over the rows from `first` on.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        match self {
            Self::Cpu(x) => convert_error(x.slice_set(rows.cpu()?, 0, first)),
            _ => self.cuda()?.set_rows(rows.cuda()?, first),
        }
    }

    /// A copy with all values clamped to -limit..limit.
    pub fn clamp(&self, limit: f64) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(convert_error(x.clamp(-limit, limit))?)),
            _ => gpu::clamp(self.cuda()?, limit as f32).map(Self::Cuda),
        }
    }
}

impl From<candle_core::Tensor> for Tensor {
    fn from(x: candle_core::Tensor) -> Self {
        Self::Cpu(x)
    }
}

/// The bytes and the type of values for an upload to a GPU.
fn bytes_of(values: CpuStorage) -> Result<(Vec<u8>, Element)> {
    Ok(match values {
        CpuStorage::F32(values) => (bytemuck::cast_slice(&values).to_vec(), Element::F32),
        CpuStorage::BF16(values) => (bytemuck::cast_slice(&values).to_vec(), Element::Bf16),
        CpuStorage::U8(values) => (values, Element::U8),
        _ => fault!("only f32, bf16 and u8 go to a GPU"),
    })
}
