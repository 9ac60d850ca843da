//! Weights to GPUs: the stored bytes cross the bus as they are, and are checked, widened and dequantised there.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;

use super::Loader;
use crate::cuda::{self, Arg, Array, Buffer, Context, Element, Stream};
use crate::error::Result;
use crate::formats::Format;
use crate::weights::checkpoint::Entry;

/// The exponent bits of bf16 and f16.
const BF16_EXPONENT: u32 = 0x7f80;
const F16_EXPONENT: u32 = 0x7c00;

impl Loader<'_> {
    /// Numbers from byte `offset` of a tensor on, as bf16 or f32 and once for each GPU, or the index of one that is not finite.
    pub(super) fn to_gpus(
        &self,
        contexts: &[&Arc<Context>],
        entry: &Entry,
        offset: u64,
        shape: &[usize],
        to: DType,
    ) -> Result<std::result::Result<Vec<Array>, usize>> {
        let count: usize = shape.iter().product();
        let to = if to == DType::BF16 { Element::Bf16 } else { Element::F32 };
        let width = if entry.dtype == Dtype::F32 { 4 } else { 2 };
        let stored = self.bytes_to_gpus(contexts, entry, offset, count * width)?;
        if let Some(index) = first_not_finite(&stored[0], entry.dtype, count)? {
            return Ok(Err(index));
        }
        let kept = stored.into_iter().map(|stored| widened(stored, entry.dtype, to, count));
        Ok(Ok(complete(kept.collect::<Result<_>>()?, shape, to)?))
    }

    /// The pieces of a packed weight, unpacked to bf16 of this shape, once for each GPU.
    pub(super) fn unpacked_on_gpus(
        &self,
        contexts: &[&Arc<Context>],
        format: &Format,
        pieces: &[(&Entry, Range<u64>)],
        shape: &[usize],
    ) -> Result<Vec<Array>> {
        let length = |range: &Range<u64>| (range.end - range.start) as usize;
        let bytes =
            |(entry, range): &(&Entry, Range<u64>)| self.bytes_to_gpus(contexts, entry, range.start, length(range));
        let pieces_there = pieces.iter().map(bytes).collect::<Result<Vec<_>>>()?;
        let first = pieces.first().map_or(0, |(_, range)| length(range));
        let unpacked = contexts.iter().enumerate().map(|(gpu, context)| {
            let out = Buffer::new(context, 2 * shape.iter().product::<usize>(), Stream::Copy)?;
            let inputs = pieces_there.iter().map(|piece| &piece[gpu]);
            let mut args: Vec<Arg> =
                [&out].into_iter().chain(inputs).map(|buffer| Arg::Address(buffer.address())).collect();
            args.push(Arg::count(first));
            context.each(Stream::Copy, format.kernel, first, &args)?;
            Ok(out)
        });
        complete(unpacked.collect::<Result<_>>()?, shape, Element::Bf16)
    }

    fn bytes_to_gpus(
        &self,
        contexts: &[&Arc<Context>],
        entry: &Entry,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<Buffer>> {
        let read = |start, piece: &mut [u8]| self.checkpoint.read_into(entry, offset + start as u64, piece);
        cuda::receive(contexts, bytes, entry.phase(offset), read)
    }
}

/// The index of the first of `count` stored numbers that is NaN or infinite.
fn first_not_finite(stored: &Buffer, dtype: Dtype, count: usize) -> Result<Option<usize>> {
    let context = stored.context();
    let first = Buffer::new(context, 8, Stream::Copy)?;
    context.clear(Stream::Copy, first.address(), 0xff, 8)?;
    let (from, size, first_arg) = (Arg::Address(stored.address()), Arg::count(count), Arg::Address(first.address()));
    let args = |exponent| [from, size, Arg::U32(exponent), first_arg];
    match dtype {
        Dtype::F32 => context.each(Stream::Copy, "finite_32", count, &[from, size, first_arg])?,
        Dtype::BF16 => context.each(Stream::Copy, "finite_16", count, &args(BF16_EXPONENT))?,
        _ => context.each(Stream::Copy, "finite_16", count, &args(F16_EXPONENT))?,
    }
    let mut index = [0u8; 8];
    context.download(Stream::Copy, first.address(), &mut index)?;
    let index = u64::from_ne_bytes(index);
    Ok((index != u64::MAX).then_some(index as usize))
}

/// The same numbers as `to`.
fn widened(stored: Buffer, dtype: Dtype, to: Element, count: usize) -> Result<Buffer> {
    let kernel = match (dtype, to) {
        (Dtype::F32, _) | (Dtype::BF16, Element::Bf16) => return Ok(stored),
        (Dtype::BF16, _) => "widen_bf16",
        _ => "widen_f16",
    };
    let context = stored.context();
    let wide = Buffer::new(context, count * 4, Stream::Copy)?;
    let (out, from) = (Arg::Address(wide.address()), Arg::Address(stored.address()));
    context.each(Stream::Copy, kernel, count, &[out, from, Arg::count(count)])?;
    Ok(wide)
}

/// What the computing streams may use, each on its GPU.
fn complete(buffers: Vec<Buffer>, shape: &[usize], element: Element) -> Result<Vec<Array>> {
    let complete = |mut buffer: Buffer| {
        buffer.context().settle()?;
        buffer.hand_over();
        Ok(Array::of(buffer, shape, element))
    };
    buffers.into_iter().map(complete).collect()
}
