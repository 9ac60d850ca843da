//! Turns bytes of a checkpoint into tensors as they stay in memory: converts, dequantises, and
//! refuses NaN. It runs on the reading threads.

mod coded;
mod converted;
mod gpu;
mod unpack;

use bytemuck::Pod;
use candle_core::{DType, Shape, WithDType};
use half::{bf16, f16};
use safetensors::Dtype;

use super::checkpoint::Checkpoint;
use super::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::formats;
use crate::memory;
use crate::spec::inventory::Part;
use crate::spec::{Role, StoredTensor, TensorSpec};
use crate::tensor::gpus;
use crate::tensor::{Device, Tensor};
use crate::vector::vectorised;

/// Number of values that are checked at once.
const PIECE: usize = 1 << 14;

/// Number of bytes of a loaded part, on the CPU or on a GPU. `stored` is the type of plain floats.
pub fn resident_bytes(part: &Part, stored: Dtype, gpu: bool) -> usize {
    if !gpu && stays_in_codes(part) {
        let bytes = |tensor: StoredTensor| {
            let whole = tensor.shape.iter().product::<usize>() * tensor.dtype.map_or(0, |dtype| dtype.bitsize()) / 8;
            let own = part.weight.own_bytes(&tensor, whole as u64);
            (own.end - own.start) as usize
        };
        let read: usize = part.stored().into_iter().map(bytes).sum();
        let own = part.weight.coding.as_ref().is_some_and(|coding| coding.keeps_own_rows());
        return if own { read * part.weight.own_rows().len() / part.weight.window().len().max(1) } else { read };
    }
    part.elements() * resident_dtype(part, stored).size_in_bytes()
}

/// Whether a part stays in codes in the memory of the CPU, so that products decode it when they use
/// it.
fn stays_in_codes(part: &Part) -> bool {
    !part.role.in_f32() && part.weight.coding.is_some()
}

/// The dtype in which a part stays in memory. bf16 stays bf16, which products widen exactly. Codes
/// and floats of eight bits become bf16 if that holds all their values, and everything else is f32.
/// No weight is ever narrowed, because a model with rounded weights is another model, whose router
/// may choose other experts. `stored` is the type of plain floats.
fn resident_dtype(part: &Part, stored: Dtype) -> DType {
    let plain = stored == Dtype::BF16 || formats::is_of_eight_bits(stored);
    let narrow = part.weight.coding.as_ref().map_or(plain, |coding| coding.exact_in_bf16());
    if narrow && !part.role.in_f32() { DType::BF16 } else { DType::F32 }
}

/// The source and the devices of all loaded weights. Each weight is read once and gives one tensor
/// for each device, in their order.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub devices: &'a [Device],
}

impl Loader<'_> {
    pub fn part(&self, part: &Part) -> Result<Vec<Tensor>> {
        let Part { weight, role } = part;
        let shape = weight.loaded_shape();
        if let Some(coding) = &weight.coding {
            return self.coded(coding, part, None);
        }
        let tensor = &weight.stored()[0];
        let entry = self.checkpoint.readable(tensor)?;
        if role.may_be_minus_infinity() {
            return self.with_minus_infinity(entry, shape);
        }
        let offset = weight.own_bytes(tensor, entry.bytes).start;
        self.values(entry, offset, shape, resident_dtype(part, entry.dtype))
    }

    /// Number of bytes of a loaded part.
    pub fn resident_bytes(&self, part: &Part) -> Result<usize> {
        let first = &part.stored()[0];
        let entry = self.checkpoint.expect(&first.name, &first.shape)?;
        Ok(resident_bytes(part, entry.dtype, gpus(self.devices).is_some()))
    }

    /// Loads rows `first..first + count` of a [rows, width] tensor, as a projection's weight or,
    /// with `F32`, converted to f32.
    pub fn rows(&self, tensor: &TensorSpec, first: usize, count: usize, dtype: Option<DType>) -> Result<Vec<Tensor>> {
        let part = Part { weight: tensor.rows(first, count), role: Role::ToResidual };
        if let Some(coding) = &tensor.coding {
            return self.coded(coding, &part, dtype);
        }
        let stored = &tensor.stored()[0];
        let entry = self.checkpoint.readable(stored)?;
        let offset = part.weight.own_bytes(stored, entry.bytes).start;
        let dtype = dtype.unwrap_or(resident_dtype(&part, entry.dtype));
        self.values(entry, offset, part.weight.loaded_shape(), dtype)
    }

    /// Reads `count` numbers from byte `offset` of a tensor on.
    fn stored<T: Pod>(&self, entry: &Entry, offset: u64, count: usize) -> Result<Vec<T>> {
        let mut stored = memory::uninit_vec_at(count, entry.phase(offset));
        self.checkpoint.read_into(entry, offset, bytemuck::cast_slice_mut(&mut stored))?;
        Ok(stored)
    }

    fn values(&self, entry: &Entry, offset: u64, shape: Vec<usize>, to: DType) -> Result<Vec<Tensor>> {
        if Self::is_converted(entry) {
            return self.converted(entry, offset, shape, to);
        }
        if let Some(gpus) = gpus(self.devices) {
            return match self.to_gpus(&gpus, entry, offset, &shape, to)? {
                Ok(arrays) => Ok(on_gpus(arrays)),
                // The same check on the CPU gives the message.
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

    /// Loads a small tensor in which −∞ is a valid value, converted to f32, for each device.
    fn with_minus_infinity(&self, entry: &Entry, shape: Vec<usize>) -> Result<Vec<Tensor>> {
        let count = shape.iter().product();
        let values = self.numbers(entry, count)?;
        let strange = |value: &f32| !value.is_finite() && *value != f32::NEG_INFINITY;
        if let Some(index) = values.iter().position(strange) {
            return Err(self.not_finite(entry, index, values[index]));
        }
        let on = |device| Tensor::from_vec(values.clone(), shape.clone(), device);
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
        if let Some(index) = stored.chunks(PIECE).position(|piece| !vectorised!(|| all_finite(piece))) {
            let index = (index * PIECE..).zip(&stored[index * PIECE..]).find(|(_, v)| !v.finite()).expect("found").0;
            return Ok(Converted::NotFinite { index, value: stored[index].to_f32() });
        }
        let tensors = match to {
            DType::BF16 => self.in_memory(T::into_bf16(stored), shape),
            _ => self.in_memory(T::into_f32(stored), shape),
        };
        tensors.map(Converted::Finite)
    }

    /// A tensor for the only device, the CPU.
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

/// A floating-point type in which weights are stored.
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
    vectorised!(|| values.iter().map(|v| convert(*v)).collect())
}

/// Examines every value, so that the loop has no exits.
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
