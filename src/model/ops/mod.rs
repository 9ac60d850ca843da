//! Fused operations that the forward pass needs and the tensor library lacks: one pass over memory each, f32 inside.
//!
//! Each runs on contiguous rows of f32 or bf16 and on all cores; a device other than the CPU adds its own kernel here.

mod activation;
mod delta_rule;
mod norm;
mod rope;
mod rows;
mod short_conv;
mod softmax;

pub use activation::{activate, gated, interleaved_swiglu, sigmoid_gate};
pub use delta_rule::{pairwise_decay, solve_unit_lower};
pub use norm::norm;
pub use rope::rotate;
pub use rows::{add, add_rows};
pub use short_conv::{ShortConv, Source, short_conv};
pub use softmax::{Window, masked_softmax};

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};
use half::bf16;

/// Values per parallel piece: small enough to balance, large enough not to notice.
pub(crate) const PIECE: usize = 1 << 15;

/// The two compute dtypes.
pub trait Element: WithDType {
    fn load(self) -> f32;
    fn store(value: f32) -> Self;
}

impl Element for f32 {
    fn load(self) -> f32 {
        self
    }
    fn store(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    fn load(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    fn store(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

/// The values behind a contiguous tensor.
pub(crate) fn values<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&storage.as_slice::<T>()?[begin..end]),
        None => bail!("operand of a fused operation is not contiguous"),
    }
}

/// The values behind a contiguous tensor, to be changed in place.
pub(crate) fn values_mut<'a, T: Element>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]>
where
    CpuStorage: SliceMut<T>,
{
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&mut storage.slice_mut()?[begin..end]),
        None => bail!("operand of an in-place operation is not contiguous"),
    }
}

pub(crate) trait SliceMut<T> {
    fn slice_mut(&mut self) -> Result<&mut [T]>;
}

impl SliceMut<f32> for CpuStorage {
    fn slice_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            CpuStorage::F32(values) => Ok(values),
            _ => bail!("expected f32"),
        }
    }
}

impl SliceMut<bf16> for CpuStorage {
    fn slice_mut(&mut self) -> Result<&mut [bf16]> {
        match self {
            CpuStorage::BF16(values) => Ok(values),
            _ => bail!("expected bf16"),
        }
    }
}
