//! Weights to a GPU: the stored bytes cross the bus as they are, and are checked, widened and dequantised there.

use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;

use super::Loader;
use crate::cuda::{Arg, Array, Buffer, Context, Element, Stream};
use crate::error::Result;
use crate::model::checkpoint::Entry;
use crate::model::{mxfp4, spec};

/// The exponent bits of bf16 and f16.
const BF16_EXPONENT: u32 = 0x7f80;
const F16_EXPONENT: u32 = 0x7c00;

impl Loader<'_> {
    /// `count` numbers from byte `offset` of a tensor on, as bf16 or f32, or the index of one that is not finite.
    pub(super) fn to_gpu(
        &self,
        context: &Arc<Context>,
        entry: &Entry,
        offset: u64,
        shape: &[usize],
        to: DType,
    ) -> Result<std::result::Result<Array, usize>> {
        let count: usize = shape.iter().product();
        let to = if to == DType::BF16 { Element::Bf16 } else { Element::F32 };
        let width = if entry.dtype == Dtype::F32 { 4 } else { 2 };
        let stored = self.bytes_to_gpu(context, entry, offset, count * width)?;
        let first = context.allocate(8, Stream::Copy)?;
        context.clear(Stream::Copy, first.address(), 0xff, 8)?;
        let (from, size, first_arg) =
            (Arg::Address(stored.address()), Arg::count(count), Arg::Address(first.address()));
        let args = |exponent| [from, size, Arg::U32(exponent), first_arg];
        match entry.dtype {
            Dtype::F32 => context.each(Stream::Copy, "finite_32", count, &[from, size, first_arg])?,
            Dtype::BF16 => context.each(Stream::Copy, "finite_16", count, &args(BF16_EXPONENT))?,
            _ => context.each(Stream::Copy, "finite_16", count, &args(F16_EXPONENT))?,
        }
        let mut kept = match (entry.dtype, to) {
            (Dtype::F32, _) | (Dtype::BF16, Element::Bf16) => stored,
            (dtype, _) => {
                let wide = context.allocate(count * 4, Stream::Copy)?;
                let kernel = if dtype == Dtype::BF16 { "widen_bf16" } else { "widen_f16" };
                context.each(Stream::Copy, kernel, count, &[Arg::Address(wide.address()), from, size])?;
                wide
            }
        };
        let mut index = [0u8; 8];
        context.download(Stream::Copy, first.address(), &mut index)?;
        Ok(match u64::from_ne_bytes(index) {
            u64::MAX => {
                kept.hand_over();
                Ok(Array::of(kept, shape, to))
            }
            index => Err(index as usize),
        })
    }

    /// Blocks and scales of four-bit floats of one expert, dequantised to bf16 [out, input].
    pub(super) fn mxfp4_to_gpu(
        &self,
        context: &Arc<Context>,
        blocks: &spec::Tensor,
        scales: &spec::Tensor,
        index: usize,
    ) -> Result<Array> {
        let (codes, bytes) = self.raw_to_gpu(context, blocks, index)?;
        let (exponents, _) = self.raw_to_gpu(context, scales, index)?;
        let mut out = context.allocate(4 * bytes, Stream::Copy)?;
        let args = [&out, &codes, &exponents].map(|buffer| Arg::Address(buffer.address()));
        context.each(Stream::Copy, "mxfp4", bytes, &[&args[..], &[Arg::count(bytes)]].concat())?;
        context.settle()?;
        out.hand_over();
        Ok(Array::of(out, &[blocks.shape[1], blocks.shape[2] * mxfp4::BLOCK], Element::Bf16))
    }

    fn raw_to_gpu(&self, context: &Arc<Context>, tensor: &spec::Tensor, index: usize) -> Result<(Buffer, usize)> {
        let entry = self.raw(tensor)?;
        let bytes = tensor.shape[1..].iter().product();
        Ok((self.bytes_to_gpu(context, entry, (index * bytes) as u64, bytes)?, bytes))
    }

    fn bytes_to_gpu(&self, context: &Arc<Context>, entry: &Entry, offset: u64, bytes: usize) -> Result<Buffer> {
        context.receive(bytes, |start, piece| self.checkpoint.read_into(entry, offset + start as u64, piece))
    }
}
