//! Tensors where the model computes: in the memory of the CPU, held by candle, or in that of a GPU.
//!
//! Clones and rows share memory; operations of `ops` that work in place change what all of them see.

mod codes;
mod cpu;
mod errors;
mod gpu;

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Shape, WithDType};

use crate::cuda::{Array, Context, Element};
use crate::error::{Result, fault};

use errors::ours;

pub use codes::InCodes;
pub use cpu::{View, change};

/// Where tensors are and operations run.
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

    /// A step is complete as far as this thread is concerned: a device that lags behind may do so by one step.
    pub fn pace(&self) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.pace())
    }

    /// Keeps `bytes` of a GPU's memory for weights, however much of it the rest wants.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.reserve(bytes))
    }

    /// The most bytes of a GPU's memory that were in use at once; 0 on a CPU.
    pub fn peak(&self) -> u64 {
        self.context().map_or(0, |context| context.peak() as u64)
    }

    /// Whether a GPU has refused memory since the last call.
    pub fn was_full(&self) -> bool {
        self.context().is_some_and(|context| context.was_full())
    }

    /// Marks where a layer begins, for a timeline.
    pub fn begins(&self, layer: usize) -> Result<()> {
        self.context().map_or(Ok(()), |context| context.begins(layer))
    }
}

/// The GPUs that `devices` are; none where they are the CPU.
pub fn gpus(devices: &[Device]) -> Option<Vec<&Arc<Context>>> {
    devices.iter().map(Device::context).collect()
}

/// Writes down when GPUs did what, where somebody wants to know.
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
    /// When `shape` holds another number of elements than `values`, or memory is short.
    pub fn from_vec<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let shape = shape.into();
        match device {
            Device::Cpu => {
                Ok(Self::Cpu(ours(candle_core::Tensor::from_vec(values, shape, &candle_core::Device::Cpu))?))
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

    /// Zeros in f32.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => {
                Ok(Self::Cpu(ours(candle_core::Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu))?))
            }
            Device::Cuda(context) => Array::zeros(context, shape.into().dims(), Element::F32).map(Self::Cuda),
        }
    }

    /// What candle holds in the memory of the CPU.
    ///
    /// # Errors
    /// When the tensor is on another device.
    pub fn cpu(&self) -> Result<&candle_core::Tensor> {
        match self {
            Self::Cpu(x) => Ok(x),
            Self::Cuda(_) => fault!("expected a tensor in CPU memory, found one on a GPU"),
            Self::Codes(_) => fault!("expected numbers, found codes"),
        }
    }

    /// What is in the memory of a GPU.
    ///
    /// # Errors
    /// When the tensor is not there.
    pub fn cuda(&self) -> Result<&Array> {
        match self {
            Self::Cuda(x) => Ok(x),
            Self::Cpu(_) | Self::Codes(_) => fault!("expected a tensor on a GPU, found one in CPU memory"),
        }
    }

    /// All f32 values, in order.
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(x) => ours(x.flatten_all().and_then(|x| x.to_vec1())),
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

    /// All values of a tensor in the memory of the CPU, widened to f32.
    pub fn wide(&self) -> Result<Vec<f32>> {
        match self {
            Self::Codes(x) => Ok(x.values()),
            _ => Self::Cpu(ours(self.cpu()?.to_dtype(DType::F32))?).values(),
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
    /// When there are not two dimensions.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self.dims() {
            [rows, columns] => Ok((*rows, *columns)),
            dims => fault!("expected rows and columns, found {dims:?}"),
        }
    }

    /// The same elements in another shape; rows in one piece are not copied.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(ours(x.reshape(shape.into()))?)),
            _ => self.cuda()?.reshaped(shape.into().dims()).map(Self::Cuda),
        }
    }

    /// `count` rows from row `first` on, in the same memory.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(ours(x.narrow(0, first, count))?)),
            _ => self.cuda()?.rows(first, count).map(Self::Cuda),
        }
    }

    /// A copy of `count` elements from element `first` on of the last dimension.
    pub fn columns(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Cpu(x) => {
                Ok(Self::Cpu(ours(x.narrow(candle_core::D::Minus1, first, count).and_then(|x| x.contiguous()))?))
            }
            _ => gpu::columns(self.cuda()?, first, count).map(Self::Cuda),
        }
    }

    /// [.., m] and [.., n] to [.., m + n], the elements of `other` behind those of `self` in each row.
    pub fn beside(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Self::Cpu(x), Self::Cpu(y)) => {
                Ok(Self::Cpu(ours(candle_core::Tensor::cat(&[x, y], candle_core::D::Minus1))?))
            }
            _ => self.by_the_cpu(|x| x.beside(&other.on_cpu()?)),
        }
    }

    /// [rows, n] to [rows, heads, n], the same for each head.
    pub fn for_each_head(&self, heads: usize) -> Result<Self> {
        let (rows, size) = self.dims2()?;
        match self {
            Self::Cpu(x) => {
                let all = x.reshape((rows, 1, size)).and_then(|x| x.expand((rows, heads, size)));
                Ok(Self::Cpu(ours(all.and_then(|x| x.contiguous()))?))
            }
            _ => self.by_the_cpu(|x| x.for_each_head(heads)),
        }
    }

    /// A copy in the memory of the CPU.
    fn on_cpu(&self) -> Result<Self> {
        Self::from_vec(self.values()?, self.dims(), &Device::Cpu)
    }

    /// What `f` makes of a copy in the memory of the CPU, on the device of this tensor: for what is rare and has no kernel.
    fn by_the_cpu(&self, f: impl FnOnce(Self) -> Result<Self>) -> Result<Self> {
        let made = f(self.on_cpu()?)?;
        Self::from_vec(made.values()?, made.dims(), &self.device())
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::Cpu(_) | Self::Codes(_) => Device::Cpu,
            Self::Cuda(x) => Device::Cuda(x.context().clone()),
        }
    }

    /// Copies `rows` to where row `first` begins.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        match self {
            Self::Cpu(x) => ours(x.slice_set(rows.cpu()?, 0, first)),
            _ => self.cuda()?.set_rows(rows.cuda()?, first),
        }
    }

    /// A copy with no value outside -limit..limit.
    pub fn clamp(&self, limit: f64) -> Result<Self> {
        match self {
            Self::Cpu(x) => Ok(Self::Cpu(ours(x.clamp(-limit, limit))?)),
            _ => gpu::clamp(self.cuda()?, limit as f32).map(Self::Cuda),
        }
    }
}

impl From<candle_core::Tensor> for Tensor {
    fn from(x: candle_core::Tensor) -> Self {
        Self::Cpu(x)
    }
}

/// The bytes of values on their way to a GPU.
fn bytes_of(values: CpuStorage) -> Result<(Vec<u8>, Element)> {
    Ok(match values {
        CpuStorage::F32(values) => (bytemuck::cast_slice(&values).to_vec(), Element::F32),
        CpuStorage::BF16(values) => (bytemuck::cast_slice(&values).to_vec(), Element::Bf16),
        CpuStorage::U8(values) => (values, Element::U8),
        _ => fault!("only f32, bf16 and u8 go to a GPU"),
    })
}
