//! The values behind tensors in the memory of the CPU.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, StorageRef, WithDType};

use super::errors::ours;
use crate::error::{Result, fault};

/// A contiguous tensor, readable for as long as this lives.
pub struct View<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> View<'a> {
    /// # Errors
    /// `internal` when the tensor is not contiguous.
    pub fn of(x: &'a candle_core::Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        match layout.contiguous_offsets() {
            Some((begin, end)) => Ok(Self { storage, range: begin..end }),
            None => fault!("an operand is not contiguous"),
        }
    }

    /// All values, in order.
    ///
    /// # Errors
    /// `internal` when they are of another type.
    pub fn values<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&ours(storage.as_slice::<T>())?[self.range.clone()]),
            _ => fault!("an operand is not in the memory of the CPU"),
        }
    }
}

/// Calls `f` on the values of a contiguous tensor, which it may change in place: all tensors that share this memory see it.
///
/// # Errors
/// `internal` when the tensor is not contiguous or not in f32, and those of `f`.
pub fn change(x: &candle_core::Tensor, f: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    /// The function to call, and what came of it.
    struct Change<F>(RefCell<F>, RefCell<Result<()>>);

    impl<F: FnMut(&mut [f32]) -> Result<()>> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let CpuStorage::F32(values) = storage else { candle_core::bail!("expected f32") };
            let Some((begin, end)) = layout.contiguous_offsets() else {
                candle_core::bail!("expected rows in one piece")
            };
            let outcome = (self.0.borrow_mut())(&mut values[begin..end]);
            *self.1.borrow_mut() = outcome;
            Ok(())
        }
    }

    let change = Change(RefCell::new(f), RefCell::new(Ok(())));
    ours(x.inplace_op1(&change))?;
    change.1.into_inner()
}
