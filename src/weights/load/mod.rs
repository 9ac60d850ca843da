//! From bytes of a checkpoint to tensors as they stay in memory: narrowing, dequantising, and refusing NaN. Runs on the
//! threads that read.

mod gpu;

use bytemuck::Pod;
use candle_core::{DType, Shape, WithDType};
use half::{bf16, f16};
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, Entry};
use super::mxfp4;
use crate::error::{Error, Kind, Result};
use crate::memory;
use crate::ops::vectorised;
use crate::spec;
use crate::spec::inventory::{Part, Role};
use crate::tensor::gpus;
use crate::tensor::{Device, Tensor};

/// Values that are checked at once.
const PIECE: usize = 1 << 14;

/// The dtype in which a weight stays in memory: bf16 stays bf16 (products widen it, exactly), four-bit floats become bf16
/// (exactly), all else is f32. No weight is ever narrowed: a model with rounded weights is another model, whose router may
/// choose other experts.
pub fn resident_dtype(role: Role, stored: Dtype) -> DType {
    match stored {
        Dtype::BF16 | Dtype::U8 if !role.in_f32() => DType::BF16,
        _ => DType::F32,
    }
}

/// Source and devices of everything that is loaded: it is read once, and comes as one tensor for each device, in their order.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub devices: &'a [Device],
}

impl Loader<'_> {
    pub fn part(&self, part: &Part) -> Result<Vec<Tensor>> {
        match part {
            Part::Whole { tensor, role } => {
                let entry = self.checkpoint.readable(tensor, false)?;
                let dtype = resident_dtype(*role, entry.dtype);
                if role.may_be_minus_infinity() {
                    return self.with_minus_infinity(entry, tensor);
                }
                self.values(entry, 0, tensor.shape.clone(), dtype)
            }
            Part::Slice { tensor, index, role } => {
                let entry = self.checkpoint.readable(tensor, false)?;
                let dtype = resident_dtype(*role, entry.dtype);
                let shape = tensor.shape[1..].to_vec();
                let length = shape.iter().product::<usize>() as u64 * element_bytes(entry)?;
                self.values(entry, *index as u64 * length, shape, dtype)
            }
            Part::Mxfp4 { blocks, scales, index, .. } => {
                if let Some(gpus) = gpus(self.devices) {
                    return Ok(on_gpus(self.mxfp4_to_gpus(&gpus, blocks, scales, *index)?));
                }
                let codes = self.raw_slice(blocks, *index)?;
                let exponents = self.raw_slice(scales, *index)?;
                let (out, groups) = (blocks.shape[1], blocks.shape[2]);
                let shape = (out, groups * mxfp4::BLOCK);
                self.in_memory(mxfp4::dequantise(&codes, &exponents), shape)
            }
        }
    }

    /// Bytes of a part once loaded.
    pub fn resident_bytes(&self, part: &Part) -> Result<usize> {
        let entry = self.checkpoint.expect(part.tensors()[0])?;
        Ok(part.elements() * resident_dtype(part.role(), entry.dtype).size_in_bytes())
    }

    /// Rows `first..first + count` of a [rows, width] tensor, as a projection's weight or, with `F32`, widened.
    pub fn rows(&self, tensor: &spec::Tensor, first: usize, count: usize, dtype: Option<DType>) -> Result<Vec<Tensor>> {
        let entry = self.checkpoint.readable(tensor, false)?;
        let row = tensor.shape[1] as u64 * element_bytes(entry)?;
        let dtype = dtype.unwrap_or(resident_dtype(Role::ToResidual, entry.dtype));
        self.values(entry, first as u64 * row, vec![count, tensor.shape[1]], dtype)
    }

    /// Where the bytes of a tensor are that is neither f32 nor of its halves.
    fn raw(&self, tensor: &spec::Tensor) -> Result<&Entry> {
        self.checkpoint.readable(tensor, true)
    }

    fn raw_slice(&self, tensor: &spec::Tensor, index: usize) -> Result<Vec<u8>> {
        let entry = self.raw(tensor)?;
        let count = tensor.shape[1..].iter().product();
        self.stored(entry, (index * count) as u64, count)
    }

    /// `count` numbers from byte `offset` of a tensor on.
    fn stored<T: Pod>(&self, entry: &Entry, offset: u64, count: usize) -> Result<Vec<T>> {
        let mut stored = memory::unset_at(count, entry.phase(offset));
        self.checkpoint.read_into(entry, offset, bytemuck::cast_slice_mut(&mut stored))?;
        Ok(stored)
    }

    fn values(&self, entry: &Entry, offset: u64, shape: Vec<usize>, to: DType) -> Result<Vec<Tensor>> {
        if let Some(gpus) = gpus(self.devices) {
            return match self.to_gpus(&gpus, entry, offset, &shape, to)? {
                Ok(arrays) => Ok(on_gpus(arrays)),
                // Said in words by the same check on this side.
                Err(_) => Loader { devices: &[Device::Cpu], ..*self }.values(entry, offset, shape, to),
            };
        }
        let count = shape.iter().product();
        let converted = match entry.dtype {
            Dtype::F32 => self.convert::<f32>(entry, offset, count, to, shape),
            Dtype::BF16 => self.convert::<bf16>(entry, offset, count, to, shape),
            _ => self.convert::<f16>(entry, offset, count, to, shape),
        };
        match converted? {
            Converted::Finite(tensors) => Ok(tensors),
            Converted::NotFinite { index, value } => Err(self.not_finite(entry, index, value)),
        }
    }

    fn not_finite(&self, entry: &Entry, index: usize, value: f32) -> Error {
        let place = self.checkpoint.place(entry);
        Error::new(Kind::NonFinite, format!("{place}: tensor `{}`: element {index} is {value}", entry.name))
            .hint("the weights are damaged: every result computed from them would be meaningless")
    }

    /// A small tensor of which −∞ is a value like others, widened, for each device.
    fn with_minus_infinity(&self, entry: &Entry, tensor: &spec::Tensor) -> Result<Vec<Tensor>> {
        let count = tensor.shape.iter().product();
        let values = match entry.dtype {
            Dtype::F32 => self.stored::<f32>(entry, 0, count)?,
            Dtype::BF16 => bf16::into_f32(self.stored(entry, 0, count)?),
            _ => f16::into_f32(self.stored(entry, 0, count)?),
        };
        let strange = |value: &f32| !value.is_finite() && *value != f32::NEG_INFINITY;
        if let Some(index) = values.iter().position(strange) {
            return Err(self.not_finite(entry, index, values[index]));
        }
        let on = |device| Tensor::from_vec(values.clone(), tensor.shape.clone(), device);
        self.devices.iter().map(on).collect()
    }

    fn convert<T: Stored>(
        &self,
        entry: &Entry,
        offset: u64,
        count: usize,
        to: DType,
        shape: Vec<usize>,
    ) -> Result<Converted> {
        let stored: Vec<T> = self.stored(entry, offset, count)?;
        if let Some(index) = stored.chunks(PIECE).position(|piece| !vectorised(|| all_finite(piece))) {
            let index = (index * PIECE..).zip(&stored[index * PIECE..]).find(|(_, v)| !v.finite()).expect("found").0;
            return Ok(Converted::NotFinite { index, value: stored[index].to_f32() });
        }
        let tensors = match to {
            DType::BF16 => self.in_memory(T::into_bf16(stored), shape),
            _ => self.in_memory(T::into_f32(stored), shape),
        };
        tensors.map(Converted::Finite)
    }

    /// Values for a device that is alone, as the CPU is.
    fn in_memory<U: WithDType>(&self, values: Vec<U>, shape: impl Into<Shape>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::from_vec(values, shape, &self.devices[0])?])
    }
}

fn on_gpus(arrays: Vec<crate::cuda::Array>) -> Vec<Tensor> {
    arrays.into_iter().map(Tensor::Cuda).collect()
}

enum Converted {
    Finite(Vec<Tensor>),
    NotFinite { index: usize, value: f32 },
}

fn element_bytes(entry: &Entry) -> Result<u64> {
    let elements = entry.shape.iter().product::<usize>().max(1) as u64;
    Ok(entry.bytes / elements)
}

/// A floating-point type weights are stored in.
trait Stored: Pod + Send + Sync {
    fn to_f32(self) -> f32;
    fn finite(self) -> bool;
    fn into_f32(values: Vec<Self>) -> Vec<f32> {
        collect(&values, Self::to_f32)
    }
    fn into_bf16(values: Vec<Self>) -> Vec<bf16> {
        collect(&values, |v| bf16::from_f32(v.to_f32()))
    }
}

fn collect<T: Stored, U: Pod>(values: &[T], convert: impl Fn(T) -> U) -> Vec<U> {
    vectorised(|| values.iter().map(|v| convert(*v)).collect())
}

/// Looks at every value, so that the loop has no exits.
#[inline(always)]
fn all_finite<T: Stored>(values: &[T]) -> bool {
    values.iter().fold(true, |all, v| all & v.finite())
}

impl Stored for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
    fn into_f32(values: Vec<Self>) -> Vec<f32> {
        values
    }
}

impl Stored for bf16 {
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    fn finite(self) -> bool {
        self.to_bits() & 0x7f80 != 0x7f80
    }
    fn into_bf16(values: Vec<Self>) -> Vec<bf16> {
        values
    }
}

impl Stored for f16 {
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn finite(self) -> bool {
        self.to_bits() & 0x7c00 != 0x7c00
    }
}
