//! The values of tensors of any floating-point type, as f32.

use candle_core::{DType, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{InCodes, Tensor, View, convert_error, gpu};
use crate::error::Result;
use crate::vector::vectorised;

/// Number of values in one parallel task of a conversion.
const PIECE: usize = 1 << 16;

/// A floating-point type of two bytes.
trait Half: WithDType {
    /// Converts as many values as there are.
    fn widen(from: &[Self], to: &mut [f32]);
}

impl Half for bf16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        let of = |x: &Self| f32::from_bits(u32::from(x.to_bits()) << 16);
        vectorised!(|| to.iter_mut().zip(from).for_each(|(to, x)| *to = of(x)));
    }
}

impl Half for f16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

fn all<T: Half>(from: &[T]) -> Vec<f32> {
    let mut to = vec![0f32; from.len()];
    to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| T::widen(from, to));
    to
}

fn map<T: Half, R: Send>(from: &[T], size: usize, f: impl Fn(&[f32]) -> R + Send + Sync) -> Vec<R> {
    let piece = |room: &mut Vec<f32>, from: &[T]| {
        room.resize(from.len(), 0.0);
        T::widen(from, room);
        f(room)
    };
    from.par_chunks(size).map_init(Vec::new, piece).collect()
}

fn map_codes<R: Send>(x: &InCodes, rows: usize, f: impl Fn(&[f32]) -> R + Send + Sync) -> Vec<R> {
    let [count, width] = [x.dims()[0], x.dims()[1]];
    let piece = |room: &mut Vec<f32>, piece: usize| {
        let first = piece * rows;
        room.resize(rows.min(count - first) * width, 0.0);
        x.decode_rows(first, room);
        f(room)
    };
    (0..count.div_ceil(rows)).into_par_iter().map_init(Vec::new, piece).collect()
}

impl Tensor {
    /// All values converted to f32, copied to CPU memory.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(x) => match (x.dtype(), x.is_contiguous()) {
                (DType::BF16, true) => Ok(all::<bf16>(View::of(x)?.values()?)),
                (DType::F16, true) => Ok(all::<f16>(View::of(x)?.values()?)),
                _ => Self::Cpu(convert_error(x.to_dtype(DType::F32))?).values(),
            },
            Self::Codes(x) => Ok(x.values()),
            Self::Cuda(x) => gpu::to_f32_vec(x),
        }
    }

    /// Calls `f` in parallel on pieces of `rows` rows of a matrix, converted to f32; the last piece
    /// may have fewer. Returns what it returned, in the order of the rows.
    pub fn map_rows<R: Send>(&self, rows: usize, f: impl Fn(&[f32]) -> R + Send + Sync) -> Result<Vec<R>> {
        let (_, width) = self.dims2()?;
        let size = (rows * width).max(1);
        match self {
            Self::Cpu(x) if x.is_contiguous() => match x.dtype() {
                DType::BF16 => return Ok(map::<bf16, _>(View::of(x)?.values()?, size, f)),
                DType::F16 => return Ok(map::<f16, _>(View::of(x)?.values()?, size, f)),
                DType::F32 => return Ok(View::of(x)?.values()?.par_chunks(size).map(f).collect()),
                _ => {}
            },
            Self::Codes(x) => return Ok(map_codes(x, rows, f)),
            _ => {}
        }
        Ok(self.to_f32_vec()?.par_chunks(size).map(f).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn pieces_of_rows_are_the_rows_in_order() {
        let x: Vec<f32> = (0..7 * 5).map(|i| i as f32 - 11.0).collect();
        let in_bf16: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
        let in_f16: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
        let tensors = [
            Tensor::from_vec(x.clone(), (7, 5), &Device::Cpu).unwrap(),
            Tensor::from_vec(in_bf16, (7, 5), &Device::Cpu).unwrap(),
            Tensor::from_vec(in_f16, (7, 5), &Device::Cpu).unwrap(),
        ];
        for tensor in tensors {
            let pieces = tensor.map_rows(3, <[f32]>::to_vec).unwrap();
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [15, 15, 5]);
            assert_eq!(pieces.concat(), x);
            assert_eq!(tensor.to_f32_vec().unwrap(), x);
        }
    }
}
