//! Numbers that the CPU converts wherever they are computed with, because kernels do not read them:
//! F64, plain floats of eight bits, and tensors that do not lie together.

use candle_core::DType;
use half::{bf16, f16};
use safetensors::Dtype;

use super::{Loader, PIECE};
use crate::error::Result;
use crate::formats;
use crate::tensor::Tensor;
use crate::weights::entry::Entry;

impl Loader<'_> {
    /// Whether a tensor has to be converted here.
    pub(super) fn is_converted(entry: &Entry) -> bool {
        !entry.lies_together() || !matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
    }

    /// Loads numbers from byte `offset` of a tensor on, as bf16 or f32, once for each device. Few
    /// of them at a time are in f32 on the way.
    pub(super) fn converted(&self, entry: &Entry, offset: u64, shape: Vec<usize>, to: DType) -> Result<Vec<Tensor>> {
        let count = shape.iter().product();
        let width = entry.dtype.bitsize() / 8;
        let bytes = self.stored::<u8>(entry, offset, count * width)?;
        let widen = widening(entry.dtype);
        let pieces = |take: &mut dyn FnMut(&[f32])| {
            for (piece, bytes) in bytes.chunks(PIECE * width).enumerate() {
                let values = widen(bytes);
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    return Err(self.not_finite(entry, piece * PIECE + index, values[index]));
                }
                take(&values);
            }
            Ok(())
        };
        if to == DType::BF16 {
            // All values of the type are exact in bf16.
            let mut narrow: Vec<bf16> = Vec::with_capacity(count);
            pieces(&mut |values| narrow.extend(values.iter().map(|value| bf16::from_f32(*value))))?;
            return self.everywhere(narrow, shape);
        }
        let mut wide: Vec<f32> = Vec::with_capacity(count);
        pieces(&mut |values| wide.extend_from_slice(values))?;
        self.everywhere(wide, shape)
    }

    /// The first `count` numbers of a tensor in f32.
    pub(super) fn numbers(&self, entry: &Entry, count: usize) -> Result<Vec<f32>> {
        let bytes = self.stored::<u8>(entry, 0, count * entry.dtype.bitsize() / 8)?;
        Ok(widening(entry.dtype)(&bytes))
    }
}

/// Makes f32 of the bytes of a type. F64 is rounded, as where PyTorch converts it.
fn widening(dtype: Dtype) -> impl Fn(&[u8]) -> Vec<f32> {
    let table = formats::eight_bits(dtype);
    move |bytes| {
        let two = bytes.as_chunks::<2>().0.iter().copied();
        match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Dtype::BF16 => two.map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
            Dtype::F16 => two.map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            _ => bytes.iter().map(|code| table[usize::from(*code)]).collect(),
        }
    }
}
