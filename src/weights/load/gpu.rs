//! Weights to GPUs: the stored bytes cross the bus as they are, and are checked, widened and dequantised there.

use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;

use super::Loader;
use crate::cuda::{self, Arg, Array, Buffer, Context, Element, Stream};
use crate::error::Result;
use crate::spec;
use crate::weights::checkpoint::Entry;
use crate::weights::mxfp4;

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

    /// Blocks and scales of four-bit floats of one expert, dequantised to bf16 [out, input], once for each GPU.
    pub(super) fn mxfp4_to_gpus(
        &self,
        contexts: &[&Arc<Context>],
        blocks: &spec::Tensor,
        scales: &spec::Tensor,
        index: usize,
    ) -> Result<Vec<Array>> {
        let (codes, bytes) = self.raw_to_gpus(contexts, blocks, index)?;
        let (exponents, _) = self.raw_to_gpus(contexts, scales, index)?;
        let dequantised = contexts.iter().zip(codes).zip(exponents).map(|((context, codes), exponents)| {
            let out = Buffer::new(context, 4 * bytes, Stream::Copy)?;
            let args = [&out, &codes, &exponents].map(|buffer| Arg::Address(buffer.address()));
            context.each(Stream::Copy, "mxfp4", bytes, &[&args[..], &[Arg::count(bytes)]].concat())?;
            Ok(out)
        });
        let shape = [blocks.shape[1], blocks.shape[2] * mxfp4::BLOCK];
        complete(dequantised.collect::<Result<_>>()?, &shape, Element::Bf16)
    }

    fn raw_to_gpus(
        &self,
        contexts: &[&Arc<Context>],
        tensor: &spec::Tensor,
        index: usize,
    ) -> Result<(Vec<Buffer>, usize)> {
        let entry = self.raw(tensor)?;
        let bytes = tensor.shape[1..].iter().product();
        Ok((self.bytes_to_gpus(contexts, entry, (index * bytes) as u64, bytes)?, bytes))
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
