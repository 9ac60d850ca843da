//! Numbers that the CPU converts wherever they are computed with, because kernels do not read them:
//! F64, plain floats of eight bits, and tensors that do not lie together.

use candle_core::DType;
use half::{bf16, f16};
use safetensors::Dtype;

use super::{Loader, Stored};
use crate::error::Result;
use crate::formats;
use crate::tensor::Tensor;
use crate::vector::vectorised;
use crate::weights::entry::Entry;

impl Loader<'_> {
    /// Whether a tensor has to be converted here.
    pub(super) fn is_converted(entry: &Entry) -> bool {
        !entry.lies_together() || !matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
    }

    /// Loads numbers from byte `offset` of a tensor on, as bf16 or f32, once for each device.
    pub(super) fn converted(&self, entry: &Entry, offset: u64, shape: Vec<usize>, to: DType) -> Result<Vec<Tensor>> {
        let values = self.numbers(entry, offset, shape.iter().product())?;
        if !vectorised(|| values.iter().fold(true, |all, value| all & value.is_finite())) {
            let index = values.iter().position(|value| !value.is_finite()).expect("found above");
            return Err(self.not_finite(entry, index, values[index]));
        }
        match to {
            // All values of the type are exact in bf16.
            DType::BF16 => self.everywhere(f32::into_bf16(values), shape),
            _ => self.everywhere(values, shape),
        }
    }

    /// `count` numbers from byte `offset` of a tensor on, in f32. F64 is rounded, as where PyTorch
    /// converts it.
    pub(super) fn numbers(&self, entry: &Entry, offset: u64, count: usize) -> Result<Vec<f32>> {
        let bytes = self.stored::<u8>(entry, offset, count * entry.dtype.bitsize() / 8)?;
        let two = bytes.as_chunks::<2>().0.iter().copied();
        Ok(match entry.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Dtype::BF16 => two.map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
            Dtype::F16 => two.map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            dtype => {
                let table = formats::eight_bits(dtype);
                bytes.iter().map(|code| table[usize::from(*code)]).collect()
            }
        })
    }
}
