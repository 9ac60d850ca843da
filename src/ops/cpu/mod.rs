//! The operations of `ops`, which says what they do, in the memory of the CPU: on contiguous rows and on all cores.

mod activation;
mod attend;
mod delta_rule;
mod expert;
mod gates;
mod norm;
mod project;
mod rope;
mod rows;
mod shared;
mod short_conv;
mod vector;

pub use activation::{activate, gate, interleaved_swiglu, sigmoid_gate};
pub use attend::{Attend, attend, chunk_queries};
pub use delta_rule::{CHUNK as DELTA_CHUNK, DeltaRule, delta_rule};
pub use expert::{FeedForward, Room, add_expert};
pub use norm::norm;
pub use project::{Projection, project};
pub use rope::rotate;
pub use rows::add;
pub use short_conv::{ShortConv, Source, short_conv};
pub(crate) use vector::vectorised;

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};

/// Values per parallel piece: small enough to balance, large enough not to notice.
pub(crate) const PIECE: usize = 1 << 15;

/// The values behind a contiguous tensor.
pub(crate) fn values<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&storage.as_slice::<T>()?[begin..end]),
        None => bail!("operand of a fused operation is not contiguous"),
    }
}

/// The f32 values behind a contiguous tensor, to be changed in place.
pub(crate) fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("expected f32") };
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&mut values[begin..end]),
        None => bail!("operand of an in-place operation is not contiguous"),
    }
}
