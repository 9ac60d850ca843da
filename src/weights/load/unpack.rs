//! Weights in codes to GPUs: the pieces cross the bus, and kernels make numbers of them there.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;

use super::Loader;
use super::gpu::{complete, first_not_finite, widened};
use crate::cuda::table::{self, Scales};
use crate::cuda::{Array, Context, Element};
use crate::error::{Result, fault};
use crate::formats::Kernel;
use crate::weights::entry::Entry;

/// The rows that are wanted of those that are unpacked, and their shape in the model.
pub(super) struct Wanted<'a> {
    /// Number of rows in the pieces.
    pub rows: usize,
    pub own: Range<usize>,
    pub shape: &'a [usize],
    pub to: DType,
}

impl Loader<'_> {
    /// Pieces as they are stored, on the copying stream of each GPU.
    pub(super) fn pieces_on_gpus(
        &self,
        contexts: &[&Arc<Context>],
        pieces: &[(&Entry, Range<u64>)],
    ) -> Result<Vec<Vec<Array>>> {
        let piece = |(entry, range): &(&Entry, Range<u64>)| {
            let bytes = (range.end - range.start) as usize;
            self.stored_on_gpus(contexts, entry, range.start, &[bytes], Element::U8)
        };
        pieces.iter().map(piece).collect()
    }
}

/// Pieces in the memory of the CPU, on the copying stream of each GPU.
pub(super) fn copied_to_gpus(
    contexts: &[&Arc<Context>],
    kernel: Kernel,
    pieces: &[Vec<u8>],
) -> Result<Vec<Vec<Array>>> {
    let piece = |(at, bytes): (usize, &Vec<u8>)| {
        let element = element(kernel, at);
        let copy = |start: usize, to: &mut [u8]| {
            to.copy_from_slice(&bytes[start..][..to.len()]);
            Ok(())
        };
        Array::broadcast(contexts, &[bytes.len() / element.bytes()], element, 0, copy)
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// The elements of piece `at`.
fn element(kernel: Kernel, at: usize) -> Element {
    match (kernel, at) {
        (Kernel::Integers { .. }, 3) => Element::U32,
        (Kernel::FourBits { .. }, 1 | 2) => Element::F32,
        _ => Element::U8,
    }
}

/// The numbers that a kernel makes of `pieces`, once for each GPU, or none where one of them is not
/// finite.
pub(super) fn unpacked(kernel: Kernel, pieces: &[Vec<Array>], wanted: &Wanted) -> Result<Option<Vec<Array>>> {
    let input = wanted.shape.last().copied().unwrap_or(1);
    let to = if wanted.to == DType::BF16 { Element::Bf16 } else { Element::F32 };
    let gpus = pieces.first().map_or(0, Vec::len);
    let made = (0..gpus).map(|gpu| {
        let of_gpu: Vec<&Array> = pieces.iter().map(|piece| &piece[gpu]).collect();
        let all = numbers(kernel, &of_gpu, wanted.rows, input)?;
        let own = match wanted.own == (0..wanted.rows) {
            true => all,
            false => {
                let own = all.uninit_on_same_stream(&[wanted.own.len(), input], all.element())?;
                own.set_rows(&all.rows(wanted.own.start, wanted.own.len())?, 0)?;
                own
            }
        };
        widened(own.reshaped(wanted.shape)?, to)
    });
    let made = made.collect::<Result<Vec<_>>>()?;
    match made.first().map(first_not_finite).transpose()?.flatten() {
        Some(_) => Ok(None),
        None => complete(Ok(made)).map(Some),
    }
}

/// The numbers of `rows` rows of `input` columns, in bf16 or f32 as the kernel makes them.
fn numbers(kernel: Kernel, pieces: &[&Array], rows: usize, input: usize) -> Result<Array> {
    let [codes, scales, ..] = *pieces else { fault!("codes without scales") };
    let some = |at: usize| pieces.get(at).copied().filter(|piece| !piece.is_empty());
    let count = rows * input;
    let element = if kernel == Kernel::Mxfp4 { Element::Bf16 } else { Element::F32 };
    let made = codes.uninit_on_same_stream(&[rows, input], element)?;
    let out = &made;
    match kernel {
        Kernel::Mxfp4 => table::Mxfp4 { out, codes, scales, bytes: count / 2 }.launch()?,
        Kernel::Fp8 { scales: dtype, block: [high, wide] } => {
            // Blocks that are larger than the matrix are all of it.
            let (high, wide) = (high.min(rows.max(1)), wide.min(input.max(1)));
            table::Fp8 { out, codes, scales, count, input, high, wide, kind: kind(dtype) }.launch()?;
        }
        Kernel::Nvfp4 { number, divides } => {
            let (bytes, divides) = (count / 2, usize::from(divides));
            table::Nvfp4 { out, codes, scales, bytes, number, divides }.launch()?;
        }
        Kernel::Integers { bits, row_bytes, groups, columns, scales: dtype, factor } => {
            let (zeros, named, columns) = (some(2), some(3), columns.min(input.max(1)));
            table::Integers {
                out,
                codes,
                scales,
                zeros,
                named,
                count,
                input,
                bits,
                row_bytes,
                groups,
                columns,
                kind: kind(dtype),
                factor,
            }
            .launch()?;
        }
        Kernel::FourBits { block } => {
            let Some(table) = some(2) else { fault!("codes without their table") };
            table::FourBits { out, codes, table, scales, count, block }.launch()?;
        }
    }
    Ok(made)
}

/// The number of a type of scales in the kernels.
fn kind(dtype: Dtype) -> usize {
    let scales = match dtype {
        Dtype::F32 => Scales::F32,
        Dtype::BF16 => Scales::Bf16,
        Dtype::F16 => Scales::F16,
        _ => Scales::E8m0,
    };
    scales as usize
}
