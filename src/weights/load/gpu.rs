//! Loads weights to GPUs. The stored bytes cross the bus as they are, and kernels check, widen and
//! dequantise them.

use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;

use super::Loader;
use crate::cuda::{Array, Context, Element, table};
use crate::error::Result;
use crate::weights::entry::Entry;

/// The exponent bits of bf16 and f16.
const BF16_EXPONENT: usize = 0x7f80;
const F16_EXPONENT: usize = 0x7c00;

impl Loader<'_> {
    /// Loads numbers from byte `offset` of a tensor on, as bf16 or f32, once for each GPU. The
    /// result is the index of a number that is not finite, if there is one.
    pub(super) fn to_gpus(
        &self,
        contexts: &[&Arc<Context>],
        entry: &Entry,
        offset: u64,
        shape: &[usize],
        to: DType,
    ) -> Result<std::result::Result<Vec<Array>, usize>> {
        let to = if to == DType::BF16 { Element::Bf16 } else { Element::F32 };
        let from = match entry.dtype {
            Dtype::F32 => Element::F32,
            Dtype::BF16 => Element::Bf16,
            _ => Element::F16,
        };
        let stored = self.stored_on_gpus(contexts, entry, offset, shape, from)?;
        if let Some(index) = first_not_finite(&stored[0])? {
            return Ok(Err(index));
        }
        let kept = stored.into_iter().map(|stored| widened(stored, to)).collect();
        complete(kept).map(Ok)
    }

    /// Copies the stored bytes from byte `offset` of a tensor on, by the copying stream of each
    /// GPU.
    pub(super) fn stored_on_gpus(
        &self,
        contexts: &[&Arc<Context>],
        entry: &Entry,
        offset: u64,
        shape: &[usize],
        element: Element,
    ) -> Result<Vec<Array>> {
        let read = |start, piece: &mut [u8]| self.checkpoint.read_into(entry, offset + start as u64, piece);
        Array::broadcast(contexts, shape, element, entry.phase(offset), read)
    }
}

/// The index of the first stored number that is NaN or infinite.
pub(super) fn first_not_finite(stored: &Array) -> Result<Option<usize>> {
    let first = stored.filled_on_same_stream(0xff, &[1], Element::U64)?;
    let (words, count, first_there) = (stored, stored.len(), &first);
    match stored.element() {
        Element::F32 => table::Finite32 { words, count, first: first_there }.launch()?,
        Element::Bf16 => {
            table::Finite16 { words, count, exponent: BF16_EXPONENT, first: first_there }.launch()?;
        }
        _ => table::Finite16 { words, count, exponent: F16_EXPONENT, first: first_there }.launch()?,
    }
    let mut index = [0u8; 8];
    first.download(&mut index)?;
    let index = u64::from_ne_bytes(index);
    Ok((index != u64::MAX).then_some(index as usize))
}

/// Arrays that the computing streams may use, after all GPUs have begun.
pub(super) fn complete(arrays: Result<Vec<Array>>) -> Result<Vec<Array>> {
    arrays?.into_iter().map(Array::hand_to_compute_stream).collect()
}

/// Converts the numbers to type `to`.
pub(super) fn widened(stored: Array, to: Element) -> Result<Array> {
    let wide = |stored: &Array| stored.uninit_on_same_stream(stored.dims(), Element::F32);
    Ok(match (stored.element(), to) {
        (Element::F32, Element::Bf16) => {
            let out = stored.uninit_on_same_stream(stored.dims(), Element::Bf16)?;
            table::NarrowToBf16 { out: &out, x: &stored, count: stored.len() }.launch()?;
            out
        }
        (Element::F32, _) | (Element::Bf16, Element::Bf16) => stored,
        (Element::Bf16, _) => {
            let out = wide(&stored)?;
            table::WidenBf16 { out: &out, x: &stored, count: stored.len() }.launch()?;
            out
        }
        _ => {
            let out = wide(&stored)?;
            table::WidenF16 { out: &out, x: &stored, count: stored.len() }.launch()?;
            out
        }
    })
}
